//! What proxies are started with, made once for all pods that ask for the same. Most pods of a mesh ask for nothing of their
//! own, and the replicas of a workload all for one thing; to merge, check and convert it again would be most of the work.
//!
//! What is kept is bounded, in number and in size: who makes pods chooses the annotations.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gotmpl::Value as Go;
use mesh_api::mesh::ProxyConfig;

use super::config::PROXY_CONFIG;
use super::pod::Pod;
use super::{Config, InjectError, template};

/// More are not kept; then all are forgotten, so that those in use come back.
const MAX_KEPT: usize = 256;
/// The longest annotation that is kept, in bytes.
const MAX_ANNOTATION: usize = 4096;

/// What a pod's proxy is started with.
#[derive(Debug)]
pub(super) struct Settled {
    /// As it is.
    pub(super) config: ProxyConfig,
    /// As templates see it.
    pub(super) seen: Go,
}

/// What is laid over the mesh's settings: ProxyConfigs by namespace and name, and the pod's annotation.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    proxy_configs: Vec<(Option<String>, Option<String>)>,
    annotation: Option<String>,
}

/// What was made for one [`Config`].
#[derive(Clone, Default)]
pub(super) struct Memo(Arc<Mutex<HashMap<Key, Arc<Settled>>>>);

impl Memo {
    /// What this pod's proxy is started with.
    pub(super) fn settled(&self, config: &Config, pod: &Pod, namespace: &str) -> Result<Arc<Settled>, InjectError> {
        let annotation = pod.annotation(PROXY_CONFIG);
        let settle = || {
            let merged = config.proxy_config(pod, namespace)?;
            Ok(Arc::new(Settled { seen: template::proxy_config_value(&merged), config: merged }))
        };
        if annotation.is_some_and(|text| text.len() > MAX_ANNOTATION) {
            return settle();
        }
        let proxy_configs = config.proxy_configs.of(namespace, pod).map(|of| &of.metadata);
        let key = Key {
            proxy_configs: proxy_configs.map(|metadata| (metadata.namespace.clone(), metadata.name.clone())).collect(),
            annotation: annotation.map(str::to_owned),
        };
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        // Not under the lock: other pods need not wait for it.
        let settled = settle()?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(key, settled.clone());
        Ok(settled)
    }
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Memo")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settled(memo: &Memo, config: &Config, annotation: &str) -> Arc<Settled> {
        let pod = json!({"metadata": {"annotations": {PROXY_CONFIG: annotation}}});
        memo.settled(config, &Pod::read(pod).unwrap(), "shop").unwrap()
    }

    #[test]
    fn pods_that_ask_for_the_same_share_it() {
        let (memo, config) = (Memo::default(), Config::default());
        let two = settled(&memo, &config, "concurrency: 2");
        assert_eq!(two.config.concurrency, Some(2));
        assert!(Arc::ptr_eq(&two, &settled(&memo, &config, "concurrency: 2")));
        assert_eq!(settled(&memo, &config, "concurrency: 3").config.concurrency, Some(3));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (memo, config) = (Memo::default(), Config::default());
        let long = format!("concurrency: 2 # {}", "x".repeat(MAX_ANNOTATION));
        assert!(!Arc::ptr_eq(&settled(&memo, &config, &long), &settled(&memo, &config, &long)));
        for nth in 0..=MAX_KEPT {
            settled(&memo, &config, &format!("concurrency: {nth}"));
        }
        assert_eq!(memo.0.lock().unwrap().len(), 1);
    }
}
