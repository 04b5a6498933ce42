//! A pod taken apart: the fields that injection works on, each of its right form, and all the rest as it was.
//!
//! Pods are kept as JSON, not as a type: whatever a newer apiserver adds passes through untouched.

use serde_json::{Map, Value};

use super::InjectError;

/// Name of the proxy's container, in `containers` or (as a native sidecar) in `initContainers`.
pub(super) const PROXY: &str = "istio-proxy";

/// A container as written.
pub(super) type Container = Map<String, Value>;

/// Metadata and spec of a pod or of a pod template.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pod {
    pub(super) labels: Map<String, Value>,
    pub(super) annotations: Map<String, Value>,
    pub(super) containers: Vec<Container>,
    pub(super) init_containers: Vec<Container>,
    /// `metadata` without labels and annotations.
    pub(super) metadata: Map<String, Value>,
    /// `spec` without its containers.
    pub(super) spec: Map<String, Value>,
    /// Beside `metadata` and `spec`.
    pub(super) rest: Map<String, Value>,
}

impl Pod {
    /// Takes a pod apart.
    pub(super) fn read(pod: Value) -> Result<Self, InjectError> {
        let mut rest = object(pod, "the pod")?;
        let mut metadata = take_object(&mut rest, "metadata")?;
        let mut spec = take_object(&mut rest, "spec")?;
        Ok(Self {
            labels: take_object(&mut metadata, "labels")?,
            annotations: take_object(&mut metadata, "annotations")?,
            containers: take_containers(&mut spec, "containers")?,
            init_containers: take_containers(&mut spec, "initContainers")?,
            metadata,
            spec,
            rest,
        })
    }

    /// Puts it together again; empty lists and maps are left out.
    pub(super) fn into_value(self) -> Value {
        let Self { labels, annotations, containers, init_containers, mut metadata, mut spec, mut rest } = self;
        put(&mut metadata, "labels", Value::Object(labels));
        put(&mut metadata, "annotations", Value::Object(annotations));
        put(&mut spec, "containers", list(containers));
        put(&mut spec, "initContainers", list(init_containers));
        put(&mut rest, "metadata", Value::Object(metadata));
        put(&mut rest, "spec", Value::Object(spec));
        Value::Object(rest)
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).and_then(Value::as_str)
    }

    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).and_then(Value::as_str)
    }

    pub(super) fn annotate(&mut self, name: &str, value: impl Into<String>) {
        self.annotations.insert(name.to_owned(), Value::String(value.into()));
    }

    /// Init containers first, as they run.
    pub(super) fn all_containers_mut(&mut self) -> impl Iterator<Item = &mut Container> {
        self.init_containers.iter_mut().chain(&mut self.containers)
    }

    /// The container of that name; containers before init containers.
    pub(super) fn container(&self, wanted: &str) -> Option<&Container> {
        find(&self.containers, wanted).or_else(|| find(&self.init_containers, wanted))
    }

    pub(super) fn container_mut(&mut self, wanted: &str) -> Option<&mut Container> {
        self.containers.iter_mut().chain(&mut self.init_containers).find(|container| name(container) == wanted)
    }

    /// The value of a variable of the proxy.
    pub(super) fn proxy_env(&self, variable: &str) -> Option<&str> {
        let env = self.container(PROXY)?.get("env")?.as_array()?;
        env.iter().find(|entry| entry_name(entry) == variable)?.get("value")?.as_str()
    }
}

/// The container's name.
pub(super) fn name(container: &Container) -> &str {
    container.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// The name of an entry of a list such as `env`.
pub(super) fn entry_name(entry: &Value) -> &str {
    entry.get("name").and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn find<'a>(containers: &'a [Container], wanted: &str) -> Option<&'a Container> {
    containers.iter().find(|container| name(container) == wanted)
}

/// Sets a variable of a container, in the place of the one that has its name or at the end.
pub(super) fn set_env(container: &mut Container, variable: &str, value: String) {
    let entry = serde_json::json!({"name": variable, "value": value});
    let Value::Array(env) = container.entry("env").or_insert_with(|| Value::Array(Vec::new())) else { return };
    match env.iter_mut().find(|entry| entry_name(entry) == variable) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

fn list(containers: Vec<Container>) -> Value {
    Value::Array(containers.into_iter().map(Value::Object).collect())
}

fn put(into: &mut Map<String, Value>, key: &str, value: Value) {
    let empty = match &value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if !empty {
        into.insert(key.to_owned(), value);
    }
}

fn object(value: Value, what: &str) -> Result<Map<String, Value>, InjectError> {
    match value {
        Value::Object(fields) => Ok(fields),
        Value::Null => Ok(Map::new()),
        _ => Err(InjectError::Malformed(format!("{what} must be a mapping"))),
    }
}

fn take_object(from: &mut Map<String, Value>, key: &str) -> Result<Map<String, Value>, InjectError> {
    object(from.remove(key).unwrap_or_default(), key)
}

fn take_containers(spec: &mut Map<String, Value>, key: &str) -> Result<Vec<Container>, InjectError> {
    match spec.remove(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.into_iter().map(|item| object(item, "a container")).collect(),
        Some(_) => Err(InjectError::Malformed(format!("spec.{key} must be a list"))),
    }
}
