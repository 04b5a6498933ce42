//! Go templates that make a part of a pod: rendered to YAML, which is then laid over the pod.
//!
//! The language is Go's `text/template` with the functions that Istio gives it, because users have their own templates in
//! the injector's ConfigMap. A template is parsed once and rendered for each pod.

mod fields;
mod functions;

use std::sync::Arc;

use gotmpl::Value as Go;
use mesh_api::mesh::{InboundTrafficPolicyMode, MeshConfig, ProxyConfig};
use serde_json::{Map, Value};

use super::Config;
use super::config::parse_yaml;
use super::pod::{Container, Pod};
use super::rewrite::Known;

/// The name of the template's main part.
const MAIN: &str = "inject";
/// All rounds of all loops together. A pod that etcd takes has fewer things in it; but where a list should be there may be a
/// number, and a loop over that counts up to it.
const MAX_ROUNDS: u64 = 50_000;

/// The functions that templates may call, by name: for other templates in the same language.
pub fn template_functions() -> gotmpl::FuncMap {
    functions::all()
}

/// Data as templates see it.
pub fn template_value(data: &Value) -> Go {
    from_json(data)
}

/// A parsed template.
#[derive(Clone)]
pub(super) struct Template(Arc<gotmpl::Template>);

impl std::fmt::Debug for Template {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Template({})", self.0.defined_templates())
    }
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let template = gotmpl::Template::new(MAIN).funcs(functions::all()).max_range_iters(MAX_ROUNDS);
        let template = template.parse(text).map_err(|e| e.to_string())?;
        Ok(Self(Arc::new(fields::as_in_json(template))))
    }

    /// The part of a pod that the template makes for this data.
    pub(super) fn render(&self, data: &Go) -> Result<Value, String> {
        let mut text = String::with_capacity(8 * 1024);
        self.0.execute_template_fmt(&mut text, MAIN, data).map_err(|e| e.to_string())?;
        match parse_yaml("template", &text) {
            Ok(Value::Null) => Ok(Value::Object(serde_json::Map::new())),
            Ok(value @ Value::Object(_)) => Ok(value),
            Ok(_) => Err("it makes no mapping".to_owned()),
            Err(problem) => Err(format!("what it makes is no YAML: {problem}")),
        }
    }
}

/// The settings that are the same for all pods, as templates see them.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    values: Go,
    mesh: Go,
    inbound_mode: Go,
}

impl Settings {
    pub(super) fn new(values: &Value, mesh: &MeshConfig) -> Self {
        let inbound_mode = match mesh.inbound_traffic_policy.mode {
            InboundTrafficPolicyMode::Localhost => "localhost",
            _ => "passthrough",
        };
        Self { values: from_json(values), mesh: from_json(&as_json(mesh)), inbound_mode: text(inbound_mode) }
    }
}

/// What a template sees: `SidecarTemplateData` of Istio, with the names that the JSON has.
pub(super) fn data(config: &Config, pod: &Pod, known: &Known<'_>) -> Go {
    let Known { owner, settled, ids, native } = known;
    let settings = &config.seen;
    let images = [("/global/proxy/image", Some(&settled.config)), ("/global/proxy_init/image", None)];
    let [proxy_image, init_image] = images.map(|(name, proxy)| image(config, pod, name, proxy));
    map([
        ("typeMeta", map([("apiVersion", text(&owner.api_version)), ("kind", text(&owner.kind))])),
        ("deploymentMeta", map([("name", text(&owner.name)), ("namespace", text(&owner.namespace))])),
        (
            "objectMeta",
            object(&pod.metadata, [("labels", fields(&pod.labels)), ("annotations", fields(&pod.annotations))]),
        ),
        (
            "spec",
            object(&pod.spec, [("containers", list(&pod.containers)), ("initContainers", list(&pod.init_containers))]),
        ),
        ("proxyConfig", settled.seen.clone()),
        ("meshConfig", settings.mesh.clone()),
        ("values", settings.values.clone()),
        ("revision", text(&config.revision)),
        ("nativeSidecars", Go::Bool(*native)),
        ("proxyImage", text(&proxy_image)),
        ("proxyInitImage", text(&init_image)),
        ("proxyUID", Go::Int(ids.user.into())),
        ("proxyGID", Go::Int(ids.group.into())),
        ("inboundTrafficPolicyMode", settings.inbound_mode.clone()),
    ])
}

/// The reference of an image: `hub/name:tag-type`. The pod may choose the type by annotation, ProxyConfig may, and the
/// values may; a type in the tag gives way.
fn image(config: &Config, pod: &Pod, name: &str, proxy: Option<&ProxyConfig>) -> String {
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let tag = match config.values.pointer("/global/tag") {
        Some(Value::String(tag)) => tag.clone(),
        Some(number @ Value::Number(_)) => number.to_string(),
        _ => String::new(),
    };
    let kind = pod
        .annotation("sidecar.istio.io/proxyImageType")
        .map(str::to_owned)
        .or_else(|| said(&proxy?.image.as_ref()?.image_type))
        .unwrap_or_else(|| config.value("/global/variant").to_owned());
    let bare = ["-distroless", "-debug"].into_iter().find_map(|known| tag.strip_suffix(known)).unwrap_or(&tag);
    let tag = match kind.as_str() {
        "" => tag,
        "default" => bare.to_owned(),
        kind => format!("{bare}-{kind}"),
    };
    format!("{}/{}:{tag}", config.value("/global/hub"), config.value(name))
}

/// A ProxyConfig as templates see it.
pub(super) fn proxy_config_value(proxy: &ProxyConfig) -> Go {
    from_json(&proxy_config_json(proxy))
}

/// The same as JSON. They ask for the interception mode always, so it is told even if it is the default.
fn proxy_config_json(proxy: &ProxyConfig) -> Value {
    let mut value = as_json(proxy);
    if let Value::Object(fields) = &mut value {
        fields.entry("interceptionMode").or_insert_with(|| as_json(&proxy.interception_mode));
    }
    value
}

/// Plain data of ours, which JSON can always hold.
fn as_json(data: &impl serde::Serialize) -> Value {
    serde_json::to_value(data).unwrap_or_default()
}

fn text(text: &str) -> Go {
    Go::String(text.into())
}

fn map<const N: usize>(entries: [(&str, Go); N]) -> Go {
    Go::Map(Arc::new(entries.into_iter().map(|(key, value)| (key.into(), value)).collect()))
}

/// A mapping with parts that are kept apart from it; what is empty is left out, as in Go.
fn object<const N: usize>(rest: &Map<String, Value>, parts: [(&str, Go); N]) -> Go {
    let rest = rest.iter().map(|(key, value)| (key.as_str().into(), from_json(value)));
    let parts = parts.into_iter().filter(|(_, part)| part.is_truthy()).map(|(key, part)| (key.into(), part));
    Go::Map(Arc::new(rest.chain(parts).collect()))
}

fn fields(fields: &Map<String, Value>) -> Go {
    object(fields, [])
}

fn list(containers: &[Container]) -> Go {
    Go::List(containers.iter().map(fields).collect())
}

fn from_json(value: &Value) -> Go {
    match value {
        Value::Null => Go::Nil,
        Value::Bool(b) => Go::Bool(*b),
        Value::Number(n) => n.as_i64().map_or_else(|| Go::Float(n.as_f64().unwrap_or(f64::NAN)), Go::Int),
        Value::String(s) => text(s),
        Value::Array(items) => Go::List(items.iter().map(from_json).collect()),
        Value::Object(object) => fields(object),
    }
}

fn to_json(value: &Go) -> Value {
    match value {
        Go::Nil | Go::Function(_) => Value::Null,
        Go::Bool(b) => Value::Bool(*b),
        Go::Int(n) => Value::from(*n),
        Go::Uint(n) => Value::from(*n),
        Go::Float(n) => Value::from(*n),
        Go::String(s) => Value::from(s.as_ref()),
        Go::List(items) => Value::Array(items.iter().map(to_json).collect()),
        Go::Map(fields) => Value::Object(fields.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect()),
    }
}
