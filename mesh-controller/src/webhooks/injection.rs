//! The injector of this moment. What it is told is looked at when a pod comes, so nothing has to be followed: the settings
//! of the mesh and the ProxyConfigs are those of the store's newest state, the ConfigMap is the newest of its source.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use imbl::OrdMap;
use mesh_api::mesh::MeshConfig;
use mesh_api::networking::ProxyConfig;
use mesh_api::{Diagnostic, Object, ObjectRef};
use mesh_webhook::inject::{Kubelets, NativeSidecars, OpenShift, ProxyConfigs};
use mesh_webhook::review::{Request, Response};
use mesh_webhook::{Admit, Config, Injector};
use mesh_xds::model::{Features, Settings};
use tokio::sync::watch;

use crate::mesh_config;
use crate::store::{Published, tell};

/// Istio's name of the ConfigMap with templates and values, for the control plane without a revision.
pub(crate) const CONFIG_MAP: &str = "istio-sidecar-injector";

/// The feature by which proxies become init containers that run on: `true`, `false` or, as by default, `auto`.
const NATIVE_SIDECARS: &str = "ENABLE_NATIVE_SIDECARS";
/// The feature that says what the cluster is.
const PLATFORM: &str = "PLATFORM";

/// Where the ConfigMap `istio-sidecar-injector` is, with `config` and `values`.
#[derive(Clone, Debug, Default)]
pub enum InjectorConfig {
    /// Among the objects of the store, in the root namespace.
    #[default]
    InStore,
    /// Its data, from elsewhere: of a cluster's ConfigMaps, the store keeps only what is for TLS.
    Followed(watch::Receiver<Arc<BTreeMap<String, String>>>),
}

/// All that an injector is made of.
#[derive(Clone, PartialEq)]
struct Inputs {
    settings: Arc<Settings>,
    data: Arc<BTreeMap<String, String>>,
    proxy_configs: Vec<Arc<ProxyConfig>>,
    native_sidecars: NativeSidecars,
    openshift: Option<OpenShift>,
}

/// An injector, and what it was made of.
struct Made {
    state: Arc<Published>,
    inputs: Inputs,
    config: Config,
    injector: Arc<Injector>,
    told: Vec<Diagnostic>,
}

impl Made {
    /// True when nothing can have changed since.
    fn is_of(&self, state: &Arc<Published>, data: Option<&Arc<BTreeMap<String, String>>>) -> bool {
        Arc::ptr_eq(&self.state, state) && data.is_none_or(|data| Arc::ptr_eq(data, &self.inputs.data))
    }
}

/// Injects with what is in force when a pod comes.
pub(super) struct Injection {
    states: watch::Receiver<Arc<Published>>,
    source: InjectorConfig,
    revision: String,
    made: Mutex<Option<Made>>,
}

impl Injection {
    pub(super) fn new(states: watch::Receiver<Arc<Published>>, source: InjectorConfig, revision: String) -> Self {
        Self { states, source, revision, made: Mutex::default() }
    }

    fn injector(&self) -> Arc<Injector> {
        let state = self.states.borrow().clone();
        let data = match &self.source {
            InjectorConfig::Followed(data) => Some(data.borrow().clone()),
            InjectorConfig::InStore => None,
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let before = made.take();
        let new = match before {
            Some(made) if made.is_of(&state, data.as_ref()) => made,
            before => self.make(state.clone(), self.inputs(&state, data), before),
        };
        made.insert(new).injector.clone()
    }

    fn inputs(&self, state: &Published, data: Option<Arc<BTreeMap<String, String>>>) -> Inputs {
        let settings = state.snapshot.settings();
        let data = data.unwrap_or_else(|| {
            let name = mesh_config::of_revision(CONFIG_MAP, &self.revision);
            let key = ObjectRef::new("ConfigMap", settings.root_namespace.clone(), name);
            match state.objects.get(&key) {
                Some(Object::ConfigMap(map)) => Arc::new(map.data.clone().unwrap_or_default()),
                _ => Arc::default(),
            }
        });
        Inputs {
            proxy_configs: proxy_configs(&state.objects),
            native_sidecars: native_sidecars(&settings.features, &state.objects),
            openshift: openshift(&settings.features, of_kind(&state.objects, "Namespace")),
            settings,
            data,
        }
    }

    /// The injector for these inputs; templates are parsed again only if they may have changed.
    fn make(&self, state: Arc<Published>, inputs: Inputs, before: Option<Made>) -> Made {
        let before = match before {
            Some(made) if made.inputs == inputs => return Made { state, inputs, ..made },
            before => before,
        };
        let (mut config, told) = match before {
            Some(made) if made.inputs.settings == inputs.settings && made.inputs.data == inputs.data => {
                (made.config, made.told)
            }
            before => {
                let (config, problems) = self.config(&inputs);
                tell(before.iter().flat_map(|made| &made.told), &problems);
                (config, problems)
            }
        };
        let root = inputs.settings.root_namespace.as_str();
        config.proxy_configs = ProxyConfigs::new(root, inputs.proxy_configs.iter().cloned());
        config.native_sidecars.clone_from(&inputs.native_sidecars);
        config.openshift.clone_from(&inputs.openshift);
        Made { state, injector: Arc::new(Injector::new(config.clone())), inputs, config, told }
    }

    fn config(&self, inputs: &Inputs) -> (Config, Vec<Diagnostic>) {
        let (mut config, told) = Config::from_config_map(&inputs.data, MeshConfig::clone(&inputs.settings.mesh));
        if !self.revision.is_empty() {
            config.revision.clone_from(&self.revision);
        }
        (config, told)
    }
}

impl Admit for Injection {
    fn admit(&self, request: &Request, path: &str) -> Response {
        self.injector().admit(request, path)
    }
}

/// The ProxyConfigs among objects.
pub fn proxy_configs(objects: &OrdMap<ObjectRef, Object>) -> Vec<Arc<ProxyConfig>> {
    let configs = of_kind(objects, "ProxyConfig").map(|object| match object {
        Object::ProxyConfig(config) => Some(config.clone()),
        _ => None,
    });
    configs.flatten().collect()
}

fn native_sidecars(features: &Features, objects: &OrdMap<ObjectRef, Object>) -> NativeSidecars {
    match features.get(NATIVE_SIDECARS) {
        Some("true") => NativeSidecars::On,
        None | Some("auto") => NativeSidecars::Auto(Kubelets::new(of_kind(objects, "Node").filter_map(kubelet))),
        Some(_) => NativeSidecars::Off,
    }
}

/// A node's name and the version of its kubelet, empty where it tells none.
fn kubelet(object: &Object) -> Option<(&str, &str)> {
    let Object::Node(node) = object else { return None };
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    Some((node.metadata.name.as_deref()?, info.map(|info| info.kubelet_version.as_str()).unwrap_or_default()))
}

/// The users of the namespaces among objects, where the features say that the cluster is an OpenShift.
pub(crate) fn openshift<'a>(features: &Features, objects: impl IntoIterator<Item = &'a Object>) -> Option<OpenShift> {
    let is_openshift = features.get(PLATFORM) == Some("openshift");
    is_openshift.then(|| OpenShift::new(objects.into_iter().filter_map(annotations)))
}

/// A namespace's name and annotations.
fn annotations(object: &Object) -> Option<(&str, &BTreeMap<String, String>)> {
    let Object::Namespace(namespace) = object else { return None };
    Some((namespace.metadata.name.as_deref()?, namespace.metadata.annotations.as_ref()?))
}

fn of_kind<'a>(objects: &'a OrdMap<ObjectRef, Object>, kind: &'a str) -> impl Iterator<Item = &'a Object> {
    let from_first = objects.range(ObjectRef::new(kind, "", "")..);
    from_first.take_while(move |(key, _)| key.kind.as_str() == kind).map(|(_, object)| object)
}

#[cfg(test)]
mod tests {
    use mesh_api::{Name, document};
    use mesh_xds::Snapshot;
    use serde_json::{Value, json};

    use super::*;

    fn published(texts: &str) -> Arc<Published> {
        let parsed = document::parse(&Name::from("injection.yaml"), texts);
        let mut state = Published::default();
        for object in parsed.objects() {
            state.objects.insert(object.object_ref(), object.clone());
        }
        Arc::new(state)
    }

    fn patch(injection: &Injection) -> String {
        use base64::Engine;
        let object: Value = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}});
        let request = Request { namespace: "shop".to_owned(), object, ..Request::default() };
        let patch = injection.admit(&request, "").patch.unwrap_or_default();
        String::from_utf8(base64::prelude::BASE64_STANDARD.decode(patch).unwrap()).unwrap()
    }

    const PROXY_CONFIG: &str = "
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: p, namespace: shop}
spec: {environmentVariables: {FROM_PROXY_CONFIG: yes-it-is}}
---
";

    fn config_map(hub: &str) -> String {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {CONFIG_MAP}, namespace: istio-system}}\n\
             data: {{values: '{{\"global\": {{\"hub\": \"{hub}\"}}}}'}}\n---\n"
        )
    }

    #[test]
    fn what_is_in_force_counts() {
        let (states, seen) = watch::channel(Arc::default());
        let injection = Injection::new(seen, InjectorConfig::InStore, String::new());
        assert!(patch(&injection).contains("ghcr.io/mesh-rs/"), "the defaults");
        states.send_replace(published(&config_map("one.example")));
        assert!(patch(&injection).contains("one.example/"));
        states.send_replace(published(&(config_map("one.example") + PROXY_CONFIG)));
        let patched = patch(&injection);
        assert!(patched.contains("one.example/") && patched.contains("FROM_PROXY_CONFIG"), "{patched}");
        states.send_replace(published(&config_map("two.example")));
        let patched = patch(&injection);
        assert!(patched.contains("two.example/") && !patched.contains("FROM_PROXY_CONFIG"), "{patched}");
        let before = injection.injector();
        assert!(Arc::ptr_eq(&before, &injection.injector()), "what has not changed is not made again");
        states.send_replace(published(&config_map("two.example")));
        assert!(Arc::ptr_eq(&before, &injection.injector()));
    }

    #[test]
    fn the_cluster_tells_how_proxies_run() {
        let node = |version: &str| {
            format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: a}}\nstatus: {{nodeInfo: {{kubeletVersion: {version}}}}}\n---\n"
            )
        };
        const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: \
                                 {openshift.io/sa.scc.uid-range: 1000620000/10000}}\n";
        let native = |features: &[(&str, &str)], objects: &str| {
            let features = features.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let mut settings = Settings::default();
            settings.features = Features::new(features);
            let mut state = Published::clone(&published(objects));
            state.snapshot = Snapshot::new(settings);
            let (_states, seen) = watch::channel(Arc::new(state));
            let patch = patch(&Injection::new(seen, InjectorConfig::InStore, String::new()));
            (patch.contains("\"restartPolicy\":\"Always\""), patch.contains("1000629999"))
        };
        assert_eq!(native(&[], ""), (false, false), "nothing is known of the cluster");
        assert_eq!(native(&[], &node("v1.36.2")), (true, false));
        assert_eq!(native(&[(NATIVE_SIDECARS, "auto")], &(node("v1.31.0") + NAMESPACE)), (false, false));
        assert_eq!(native(&[(NATIVE_SIDECARS, "true")], &node("v1.31.0")), (true, false));
        assert_eq!(native(&[(NATIVE_SIDECARS, "false")], &node("v1.36.2")), (false, false));
        assert_eq!(native(&[(PLATFORM, "openshift")], NAMESPACE), (false, true));
    }

    #[test]
    fn a_clusters_config_map_is_followed() {
        let (data, followed) = watch::channel(Arc::default());
        let (_states, seen) = watch::channel(published(&config_map("folder.example")));
        let injection = Injection::new(seen, InjectorConfig::Followed(followed), "canary".to_owned());
        let patched = patch(&injection);
        assert!(patched.contains("ghcr.io/mesh-rs/") && patched.contains("canary"), "{patched}");
        data.send_replace(Arc::new([("config".to_owned(), "policy: disabled".to_owned())].into()));
        assert_eq!(patch(&injection), "");
    }
}
