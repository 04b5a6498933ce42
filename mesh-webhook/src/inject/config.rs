//! What the injector is told: the chart's values, the mesh's settings, and the ConfigMap `istio-sidecar-injector`.

use std::collections::BTreeMap;

use mesh_api::mesh::{LabelSelector, MeshConfig, ProxyConfig};
use mesh_api::{Diagnostic, Name, Validate, document};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::pod::Pod;
use super::proxy_configs::{self, ProxyConfigs};
use super::template::{self, Template};
use super::{InjectError, NativeSidecars, OpenShift, Policy};

/// The values that hold where nobody says otherwise.
const VALUES: &str = include_str!("../../templates/values.yaml");
/// Parts that the built-in templates share.
const COMMON: &str = include_str!("../../templates/common.yaml");
/// The built-in templates by name.
const BUILT_IN: [(&str, &str); 4] = [
    ("sidecar", include_str!("../../templates/sidecar.yaml")),
    ("gateway", include_str!("../../templates/gateway.yaml")),
    ("grpc-agent", include_str!("../../templates/grpc-agent.yaml")),
    ("grpc-simple", include_str!("../../templates/grpc-simple.yaml")),
];

/// The annotation with settings of the pod's proxy.
pub(super) const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// How pods are injected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// What happens to pods that say nothing.
    pub policy: Policy,
    /// Pods that get a proxy even where the policy is `disabled`: any of these. An empty selector chooses none.
    pub always_inject: Vec<LabelSelector>,
    /// Pods that get none; stronger than `always_inject`.
    pub never_inject: Vec<LabelSelector>,
    /// Templates for pods that don't name theirs by `inject.istio.io/templates`.
    pub default_templates: Vec<String>,
    /// Names that stand for several templates.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Annotations for every injected pod.
    pub injected_annotations: BTreeMap<String, String>,
    /// Revision of the control plane that injects; empty is `default`.
    pub revision: String,
    /// Whether the proxy is an init container that runs on, where the pod doesn't choose.
    pub native_sidecars: NativeSidecars,
    /// The namespaces' users, where the cluster is an OpenShift.
    pub openshift: Option<OpenShift>,
    /// The cluster's ProxyConfigs.
    pub proxy_configs: ProxyConfigs,
    pub(super) templates: BTreeMap<String, Template>,
    pub(super) values: Value,
    pub(super) mesh: MeshConfig,
    /// `values` and `mesh` as templates see them.
    pub(super) seen: template::Settings,
}

/// The part of the ConfigMap that is under `config`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    policy: Option<String>,
    default_templates: Option<Vec<String>>,
    templates: Option<BTreeMap<String, String>>,
    aliases: Option<BTreeMap<String, Vec<String>>>,
    always_inject_selector: Option<Vec<LabelSelector>>,
    never_inject_selector: Option<Vec<LabelSelector>>,
    injected_annotations: Option<BTreeMap<String, String>>,
}

impl Default for Config {
    /// The built-in templates with their default values, in a mesh with default settings.
    fn default() -> Self {
        Self::new(Value::Null, MeshConfig::default()).0
    }
}

impl Config {
    /// The configuration that the chart's values make. What they don't say is as [`default_values`] has it; a mapping
    /// `resources` replaces the default one as a whole. Beside it, what of the values could not be used.
    pub fn new(values: Value, mesh: MeshConfig) -> (Self, Vec<Diagnostic>) {
        let values = lay(default_values(), values);
        let mut told = Vec::new();
        let mut config = Self {
            policy: Policy::parse(text(&values, "/global/proxy/autoInject")),
            always_inject: Vec::new(),
            never_inject: Vec::new(),
            default_templates: vec!["sidecar".to_owned()],
            aliases: BTreeMap::new(),
            injected_annotations: BTreeMap::new(),
            revision: text(&values, "/revision").to_owned(),
            native_sidecars: NativeSidecars::Off,
            openshift: None,
            proxy_configs: ProxyConfigs::default(),
            templates: BTreeMap::new(),
            seen: template::Settings::new(&values, &mesh),
            values,
            mesh,
        };
        config.add_templates(BUILT_IN.map(|(name, text)| (name.to_owned(), format!("{COMMON}{text}"))), &mut told);
        let chart = config.values.pointer("/sidecarInjectorWebhook").cloned().unwrap_or_default();
        match serde_json::from_value(chart) {
            Ok(written) => config.take_over(written, &mut told),
            Err(error) => told.push(unusable("values: sidecarInjectorWebhook", &error)),
        }
        (config, told)
    }

    /// The configuration that the ConfigMap `istio-sidecar-injector` makes: its data `config` over its data `values`.
    pub fn from_config_map(data: &BTreeMap<String, String>, mesh: MeshConfig) -> (Self, Vec<Diagnostic>) {
        let mut told = Vec::new();
        let mut read = |key: &str| {
            let read = data.get(key).map_or(Ok(Value::Null), |text| parse_yaml(key, text));
            read.unwrap_or_else(|why| {
                told.push(unusable(key, &why));
                Value::Null
            })
        };
        let (values, config) = (read("values"), read("config"));
        let (mut new, problems) = Self::new(values, mesh);
        told.extend(problems);
        match serde_json::from_value::<Option<Written>>(config) {
            Ok(written) => new.take_over(written.unwrap_or_default(), &mut told),
            Err(error) => told.push(unusable("config", &error)),
        }
        (new, told)
    }

    fn take_over(&mut self, written: Written, told: &mut Vec<Diagnostic>) {
        self.add_templates(written.templates.unwrap_or_default(), told);
        if let Some(policy) = written.policy {
            self.policy = Policy::parse(&policy);
        }
        if let Some(names) = written.default_templates.filter(|names| !names.is_empty()) {
            self.default_templates = names;
        }
        for (own, new) in [
            (&mut self.always_inject, written.always_inject_selector),
            (&mut self.never_inject, written.never_inject_selector),
        ] {
            *own = new.unwrap_or_else(|| std::mem::take(own));
        }
        self.aliases.extend(written.aliases.unwrap_or_default());
        self.injected_annotations.extend(written.injected_annotations.unwrap_or_default());
    }

    fn add_templates(&mut self, templates: impl IntoIterator<Item = (String, String)>, told: &mut Vec<Diagnostic>) {
        for (name, text) in templates {
            match Template::parse(&text) {
                Ok(template) => {
                    self.templates.insert(name, template);
                }
                Err(error) => told.push(unusable(&format!("template {name}"), &error)),
            }
        }
    }

    /// What a pod's proxy is started with: the mesh's settings, and over them the ProxyConfigs of the mesh and of the
    /// namespace, the annotation `proxy.istio.io/config`, and the ProxyConfig of the workload, in this order.
    pub(super) fn proxy_config(&self, pod: &Pod, namespace: &str) -> Result<ProxyConfig, InjectError> {
        let mut proxy = self.mesh.default_config.clone();
        for config in self.proxy_configs.of_namespace(namespace) {
            proxy_configs::lay(&config.spec, &mut proxy);
        }
        if let Some(text) = pod.annotation(PROXY_CONFIG) {
            let (changed, mut told) = proxy.apply(&Name::from(PROXY_CONFIG), text);
            told.extend(changed.validate());
            if let Some(problem) = told.iter().find(|problem| problem.severity == mesh_api::Severity::Error) {
                let why = problem.to_string();
                return Err(InjectError::Annotation { name: PROXY_CONFIG, value: text.to_owned(), why });
            }
            proxy = changed;
        }
        if let Some(config) = self.proxy_configs.of_workload(namespace, pod) {
            proxy_configs::lay(&config.spec, &mut proxy);
        }
        Ok(proxy)
    }

    pub(super) fn value(&self, pointer: &str) -> &str {
        text(&self.values, pointer)
    }

    pub(super) fn is_set(&self, pointer: &str) -> bool {
        self.values.pointer(pointer) == Some(&Value::Bool(true))
    }
}

/// The values of the chart that hold where nobody says otherwise.
pub fn default_values() -> Value {
    // A file of this crate, held by a test.
    parse_yaml("values", VALUES).unwrap_or_default()
}

/// Reads the one document of a YAML or JSON text; an empty text is null. Fails with what is wrong, and where.
pub(super) fn parse_yaml(what: &str, text: &str) -> Result<Value, String> {
    match document::raw(&what.into(), text).into_iter().next() {
        Some(Ok(document)) => Ok(document.node.to_json()),
        Some(Err(problem)) => Err(problem.to_string()),
        None => Ok(Value::Null),
    }
}

fn unusable(what: &str, error: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::error("InvalidInjectorConfig", format!("{what}: {error}; it is left out"))
}

fn text<'a>(values: &'a Value, pointer: &str) -> &'a str {
    values.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Lays values over others as Helm does, except that `resources` are never mixed of two sources: who sets limits alone
/// must not get requests that don't fit them.
fn lay(base: Value, over: Value) -> Value {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => Value::Object(lay_fields(base, over)),
        (base, Value::Null) => base,
        (_, over) => over,
    }
}

fn lay_fields(mut base: Map<String, Value>, over: Map<String, Value>) -> Map<String, Value> {
    for (key, value) in over {
        let old = base.remove(&key).filter(|_| key != "resources" && value.is_object());
        base.insert(key, old.map_or_else(|| value.clone(), |old| lay(old, value.clone())));
    }
    base
}
