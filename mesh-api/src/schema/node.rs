//! A schema made ready: patterns and rules compiled, and what is looked up often in reach.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use regex::Regex;
use serde_json::Value as Json;

use super::cel::{Fault, Program};

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        let all = [Self::Object, Self::Array, Self::String, Self::Integer, Self::Number, Self::Boolean];
        all.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What a map may hold beside its properties.
#[derive(Debug, Default)]
pub(super) enum Additional {
    #[default]
    None,
    Any,
    Schema(Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKind {
    Set,
    Map,
}

/// Limits that a number must keep.
#[derive(Debug, Default)]
pub(super) struct Range {
    pub(super) minimum: Option<f64>,
    pub(super) exclusive_minimum: bool,
    pub(super) maximum: Option<f64>,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,
}

/// How many there may be: of characters, elements or properties.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Count {
    pub(super) least: Option<i64>,
    pub(super) most: Option<i64>,
}

/// A rule and what to say where it isn't kept.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) source: ValidationRule,
    pub(super) program: Result<Program, Fault>,
    pub(super) message: Option<Program>,
}

/// A schema, for one value.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) kind: Option<Kind>,
    pub(super) int_or_string: bool,
    pub(super) nullable: bool,
    /// Unknown fields are kept.
    pub(super) open: bool,
    /// The value is an object of Kubernetes itself.
    pub(super) embedded: bool,
    pub(super) default: Option<Json>,
    pub(super) properties: BTreeMap<String, Node>,
    pub(super) additional: Additional,
    pub(super) items: Option<Box<Node>>,
    pub(super) required: Vec<String>,
    pub(super) choices: Option<Vec<Json>>,
    pub(super) format: Option<String>,
    pub(super) pattern: Option<(String, Option<Regex>)>,
    pub(super) length: Count,
    pub(super) elements: Count,
    pub(super) fields: Count,
    pub(super) unique: bool,
    pub(super) range: Range,
    pub(super) all_of: Vec<Node>,
    pub(super) any_of: Vec<Node>,
    pub(super) one_of: Vec<Node>,
    pub(super) not: Option<Box<Node>>,
    pub(super) list: Option<ListKind>,
    pub(super) list_keys: Vec<String>,
    pub(super) rules: Vec<Rule>,
    /// Whether there are rules here or below.
    pub(super) has_rules: bool,
    /// Whether there are defaults below.
    pub(super) has_defaults: bool,
}

impl Node {
    pub(super) fn compile(schema: &JSONSchemaProps) -> Self {
        let all = |schemas: &Option<Vec<JSONSchemaProps>>| schemas.iter().flatten().map(Self::compile).collect();
        let mut node = Self {
            kind: schema.type_.as_deref().and_then(Kind::named),
            int_or_string: schema.x_kubernetes_int_or_string == Some(true),
            nullable: schema.nullable == Some(true),
            open: schema.x_kubernetes_preserve_unknown_fields == Some(true),
            embedded: schema.x_kubernetes_embedded_resource == Some(true),
            default: schema.default.as_ref().map(|default| default.0.clone()),
            properties: schema
                .properties
                .iter()
                .flatten()
                .map(|(name, property)| (name.clone(), Self::compile(property)))
                .collect(),
            additional: match &schema.additional_properties {
                Some(JSONSchemaPropsOrBool::Schema(values)) => Additional::Schema(Box::new(Self::compile(values))),
                Some(JSONSchemaPropsOrBool::Bool(true)) => Additional::Any,
                Some(JSONSchemaPropsOrBool::Bool(false)) | None => Additional::None,
            },
            items: match &schema.items {
                Some(JSONSchemaPropsOrArray::Schema(items)) => Some(Box::new(Self::compile(items))),
                _ => None,
            },
            required: schema.required.clone().unwrap_or_default(),
            choices: schema.enum_.as_ref().map(|choices| choices.iter().map(|choice| choice.0.clone()).collect()),
            format: None,
            pattern: schema.pattern.as_ref().map(|pattern| (pattern.clone(), Regex::new(pattern).ok())),
            length: Count { least: schema.min_length, most: schema.max_length },
            elements: Count { least: schema.min_items, most: schema.max_items },
            fields: Count { least: schema.min_properties, most: schema.max_properties },
            unique: schema.unique_items == Some(true),
            range: Range {
                minimum: schema.minimum,
                exclusive_minimum: schema.exclusive_minimum == Some(true),
                maximum: schema.maximum,
                exclusive_maximum: schema.exclusive_maximum == Some(true),
                multiple_of: schema.multiple_of,
            },
            all_of: all(&schema.all_of),
            any_of: all(&schema.any_of),
            one_of: all(&schema.one_of),
            not: schema.not.as_ref().map(|not| Box::new(Self::compile(not))),
            list: match schema.x_kubernetes_list_type.as_deref() {
                Some("set") => Some(ListKind::Set),
                Some("map") => Some(ListKind::Map),
                _ => None,
            },
            list_keys: schema.x_kubernetes_list_map_keys.clone().unwrap_or_default(),
            rules: schema.x_kubernetes_validations.iter().flatten().map(Rule::compile).collect(),
            has_rules: false,
            has_defaults: false,
        };
        node.format = schema.format.clone().filter(|format| node.knows(format));
        let values = || node.properties.values().chain(node.items.as_deref()).chain(node.values());
        let has_defaults = values().any(|inner| inner.default.is_some() || inner.has_defaults);
        let has_rules = !node.rules.is_empty() || values().chain(&node.all_of).any(|inner| inner.has_rules);
        Self { has_rules, has_defaults, ..node }
    }

    /// An apiserver looks only at formats that go with the type.
    fn knows(&self, format: &str) -> bool {
        match self.kind {
            Some(Kind::Integer) => matches!(format, "int32" | "int64"),
            Some(Kind::Number) => matches!(format, "float" | "double"),
            Some(Kind::String) | None => true,
            _ => false,
        }
    }

    /// The schema of a map's values.
    pub(super) fn values(&self) -> Option<&Self> {
        match &self.additional {
            Additional::Schema(values) => Some(values),
            Additional::Any | Additional::None => None,
        }
    }

    /// The schema of a field.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or_else(|| self.values())
    }
}

impl Rule {
    fn compile(source: &ValidationRule) -> Self {
        Self {
            program: Program::compile(&source.rule),
            message: source.message_expression.as_deref().and_then(|text| Program::compile(text).ok()),
            source: source.clone(),
        }
    }

    /// What a rule is called in a message.
    pub(super) fn name(&self) -> &str {
        let message = self.source.message.as_deref().unwrap_or_default();
        if message.is_empty() { self.source.rule.trim() } else { message.trim() }
    }
}
