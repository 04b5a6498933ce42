//! One thing that an apiserver has against an object, in its words.

use std::fmt;

use serde_json::Value as Json;

use super::numbers;

/// What sort of thing it is: the `cause` of an apiserver's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Required,
    Duplicate,
    Invalid,
    TypeInvalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Unknown,
}

impl Cause {
    /// The code of the diagnostic.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Unknown => "UnknownField",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Unknown => "unknown field",
        }
    }

    /// True when rules could stumble over it, so that they are not evaluated.
    pub(super) fn blocks_rules(self) -> bool {
        matches!(self, Self::NotSupported | Self::Required | Self::TooLong | Self::TooMany | Self::TypeInvalid)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    pub(super) cause: Cause,
    pub(super) path: String,
    pub(super) message: String,
}

impl Problem {
    /// A problem without a value to show; `detail` may be empty.
    pub(super) fn bare(cause: Cause, path: impl fmt::Display, detail: &str) -> Self {
        let words = cause.words();
        let message = if detail.is_empty() { words.to_owned() } else { format!("{words}: {detail}") };
        Self { cause, path: path.to_string(), message }
    }

    /// A problem with a value; `detail` may be empty.
    pub(super) fn with(cause: Cause, path: impl fmt::Display, value: &Json, detail: &str) -> Self {
        let mut out = Self::bare(cause, path, detail);
        let colon = if detail.is_empty() { "" } else { ": " };
        out.message = format!("{}: {}{colon}{detail}", cause.words(), shown(value));
        out
    }

    pub(super) fn required(path: impl fmt::Display) -> Self {
        Self::bare(Cause::Required, path, "")
    }

    pub(super) fn invalid(path: impl fmt::Display, value: &Json, detail: &str) -> Self {
        Self::with(Cause::Invalid, path, value, detail)
    }

    /// A value of another type than the schema's.
    pub(super) fn type_invalid(path: impl fmt::Display, is: &str, wanted: &str) -> Self {
        let detail = format!("{path} in body must be of type {wanted}: {is:?}");
        Self::with(Cause::TypeInvalid, path, &is.into(), &detail)
    }

    pub(super) fn too_many(path: impl fmt::Display, count: usize, limit: i64) -> Self {
        let items = if limit == 1 { "item" } else { "items" };
        Self::with(Cause::TooMany, path, &count.into(), &format!("must have at most {limit} {items}"))
    }

    pub(super) fn unknown(path: impl fmt::Display) -> Self {
        Self { message: format!("{} \"{path}\"", Cause::Unknown.words()), ..Self::bare(Cause::Unknown, path, "") }
    }

    pub(super) fn rules_not_checked() -> Self {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        Self::invalid("", &Json::Null, detail)
    }
}

fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => format!("{text:?}"),
        Json::Number(number) if number.is_f64() => numbers::shortest(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// Where in an object, built only as far as somebody looks at it.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    outer: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Field(&'p str),
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub(super) const ROOT: Path<'static> = Path { outer: None, step: Step::Root };

    pub(super) fn field(&'p self, name: &'p str) -> Path<'p> {
        Path { outer: Some(self), step: Step::Field(name) }
    }

    /// The value of a map, written `ports[http]`.
    pub(super) fn key(&'p self, key: &'p str) -> Path<'p> {
        Path { outer: Some(self), step: Step::Key(key) }
    }

    pub(super) fn index(&'p self, index: usize) -> Path<'p> {
        Path { outer: Some(self), step: Step::Index(index) }
    }

    fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer {
            outer.fmt(formatter)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if self.outer.is_none_or(Path::is_root) => formatter.write_str(name),
            Step::Field(name) => write!(formatter, ".{name}"),
            Step::Key(key) => write!(formatter, "[{key}]"),
            Step::Index(index) => write!(formatter, "[{index}]"),
        }
    }
}
