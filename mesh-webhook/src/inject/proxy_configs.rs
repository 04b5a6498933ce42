//! The cluster's ProxyConfigs: settings of proxies for the mesh, a namespace or some workloads, laid over those of MeshConfig
//! when a pod is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::mesh::{ProxyConfig as Settings, ProxyImage};
use mesh_api::networking::{ProxyConfig, ProxyConfigSpec};
use mesh_api::object::age;

use super::pod::Pod;

/// ProxyConfigs by who they are for. Of several for one, the oldest counts.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfigs {
    root_namespace: String,
    by_namespace: BTreeMap<String, Vec<Arc<ProxyConfig>>>,
}

impl ProxyConfigs {
    /// All of a cluster. Those of the root namespace without a selector are for the whole mesh.
    pub fn new(root_namespace: &str, configs: impl IntoIterator<Item = Arc<ProxyConfig>>) -> Self {
        let mut by_namespace: BTreeMap<String, Vec<Arc<ProxyConfig>>> = BTreeMap::new();
        for config in configs {
            let namespace = config.metadata.namespace.clone().unwrap_or_default();
            by_namespace.entry(namespace).or_default().push(config);
        }
        for configs in by_namespace.values_mut() {
            configs.sort_by(|a, b| age(&a.metadata).cmp(&age(&b.metadata)));
        }
        Self { root_namespace: root_namespace.to_owned(), by_namespace }
    }

    /// All that are for this pod.
    pub(super) fn of<'a>(&'a self, namespace: &'a str, pod: &'a Pod) -> impl Iterator<Item = &'a ProxyConfig> {
        self.of_namespace(namespace).chain(self.of_workload(namespace, pod))
    }

    /// Those for everything in the pod's namespace, the weaker first.
    pub(super) fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a ProxyConfig> {
        let own = Some(namespace).filter(|namespace| *namespace != self.root_namespace);
        [Some(self.root_namespace.as_str()), own]
            .into_iter()
            .flatten()
            .filter_map(|namespace| self.first(namespace, |spec| spec.selector.is_none()))
    }

    /// The one for this workload. An empty selector chooses none.
    pub(super) fn of_workload(&self, namespace: &str, pod: &Pod) -> Option<&ProxyConfig> {
        self.first(namespace, |spec| {
            let labels = spec.selector.as_ref().map(|selector| &selector.match_labels);
            labels.is_some_and(|labels| {
                !labels.is_empty() && labels.iter().all(|(key, value)| pod.label(key) == Some(value.as_str()))
            })
        })
    }

    fn first(&self, namespace: &str, wanted: impl Fn(&ProxyConfigSpec) -> bool) -> Option<&ProxyConfig> {
        self.by_namespace.get(namespace)?.iter().map(Arc::as_ref).find(|config| wanted(&config.spec))
    }
}

/// Lays one over settings; variables are added to those that are there.
pub(super) fn lay(spec: &ProxyConfigSpec, over: &mut Settings) {
    if spec.concurrency.is_some() {
        over.concurrency = spec.concurrency;
    }
    let variables = spec.environment_variables.iter().map(|(name, value)| (name.clone(), value.clone()));
    over.proxy_metadata.extend(variables);
    if let Some(image) = &spec.image {
        let mut chosen = ProxyImage::default();
        chosen.image_type.clone_from(&image.image_type);
        over.image = Some(chosen);
    }
}
