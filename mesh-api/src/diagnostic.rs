//! What we say of a user's mistake: one type for the webhook, status, the command line and the debug pages.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{Name, ObjectRef};

/// How bad it is. `Error`: what the field asks for is not done. `Warning`: done, but probably not as meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Done, but probably not as meant.
    Warning,
    /// Not done.
    Error,
}

/// Where in an object: `spec.http[0].route[1].weight`. Empty for the object as a whole.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldPath(String);

impl FieldPath {
    /// A path from its text.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }
    /// The path one field further down.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }
    /// The path one list element further down.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
    /// `inner` below this path: `items[3]` and `spec.hosts` make `items[3].spec.hosts`.
    #[must_use]
    pub fn join(&self, inner: &Self) -> Self {
        match inner.as_str() {
            "" => self.clone(),
            list if list.starts_with('[') => Self(format!("{}{list}", self.0)),
            field => self.field(field),
        }
    }
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// True for the object as a whole.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A step on a way that becomes a [`FieldPath`] only when there is something to tell.
#[derive(Clone, Copy)]
pub(crate) enum Step<'p> {
    Root,
    Field(&'p str),
    Index(usize),
}

impl Step<'_> {
    /// The path after this step, `up` being the path before it.
    pub(crate) fn after(self, up: FieldPath) -> FieldPath {
        match self {
            Self::Root => up,
            Self::Field(name) => up.field(name),
            Self::Index(index) => up.index(index),
        }
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where in a text: lines and columns count from 1; 0 means unknown.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Location {
    /// The file, or `-` for standard input.
    pub file: Name,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if self.column > 0 { write!(f, ":{}", self.column) } else { Ok(()) }
    }
}

/// One thing to tell a user about one field of one object.
///
/// ```
/// use mesh_api::{Diagnostic, FieldPath, ObjectRef};
/// let told = Diagnostic::warning("UnsupportedField", "mirrors are not supported here; remove the field")
///     .on(&ObjectRef::new("VirtualService", "default", "reviews"))
///     .at(FieldPath::new("spec.http[0].mirrors"));
/// assert_eq!(
///     told.to_string(),
///     "VirtualService default/reviews spec.http[0].mirrors: mirrors are not supported here; remove the field [UnsupportedField]"
/// );
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable and greppable: `IST0101`, `UnsupportedField`.
    pub code: Cow<'static, str>,
    /// What is wrong and what to do about it.
    pub message: String,
    /// The object, where one could be made out.
    pub object: Option<ObjectRef>,
    /// The field.
    pub path: FieldPath,
    /// The place in the text that the object was read from.
    pub location: Option<Location>,
}

impl Diagnostic {
    /// A diagnostic of the given severity that belongs to no object yet.
    pub fn new(severity: Severity, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            severity,
            code: code.into(),
            message: message.into(),
            object: None,
            path: FieldPath::default(),
            location: None,
        }
    }
    /// What the field asks for is not done.
    pub fn error(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }
    /// Done, but probably not as meant.
    pub fn warning(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }
    /// Names the object.
    #[must_use]
    pub fn on(mut self, object: &ObjectRef) -> Self {
        self.object = Some(object.clone());
        self
    }
    /// Names the field.
    #[must_use]
    pub fn at(mut self, path: FieldPath) -> Self {
        self.path = path;
        self
    }
    /// Names the place in the text.
    #[must_use]
    pub fn from_text(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}")?;
            if !self.path.is_empty() {
                write!(f, " {}", self.path)?;
            }
            f.write_str(": ")?;
        } else if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} [{}]", self.message, self.code)
    }
}
