//! Whether a pod gets a proxy. Which pods come here at all is the apiserver's choice, by the selectors of the webhook
//! configuration (namespace and pod labels, revision); this is the second, finer sieve.

use std::collections::BTreeMap;
use std::fmt;

use mesh_api::mesh::LabelSelector;
use serde_json::Value;

use super::Config;
use super::pod::Pod;

/// Label and annotation by which a pod asks for a proxy, or for none.
const INJECT: &str = "sidecar.istio.io/inject";

/// Namespaces of Kubernetes itself, where a proxy would cut the cluster from what it needs to start one.
const IGNORED: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// The label `app` of the control plane's pods.
const CONTROL_PLANE: &str = "istiod";

/// What happens to pods that say nothing, and of which no selector speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// They get a proxy.
    #[default]
    Enabled,
    /// They get none.
    Disabled,
    /// The policy could not be understood: no pod gets a proxy, not even one that asks.
    Unknown,
}

impl Policy {
    /// Reads `enabled` or `disabled`, as `global.proxy.autoInject` has it.
    pub fn parse(text: &str) -> Self {
        match text {
            "enabled" => Self::Enabled,
            "disabled" => Self::Disabled,
            _ => Self::Unknown,
        }
    }
}

/// Whether a pod gets a proxy, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// It gets one.
    Inject,
    /// It shares the node's network, which must not be redirected.
    HostNetwork,
    /// Its namespace is one of Kubernetes' own.
    SystemNamespace,
    /// It is of the control plane, which must start where nobody injects yet.
    ControlPlane,
    /// Its label or annotation `sidecar.istio.io/inject` says no.
    OptedOut,
    /// A `neverInjectSelector` matches it.
    NeverSelected,
    /// Nothing asks for it, and the policy is `disabled`.
    NotAsked,
    /// The policy is neither `enabled` nor `disabled`.
    UnknownPolicy,
}

impl fmt::Display for Decision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Inject => "a proxy is injected",
            Self::HostNetwork => "it has host networking enabled",
            Self::SystemNamespace => "its namespace belongs to Kubernetes",
            Self::ControlPlane => "it is the control plane's own",
            Self::OptedOut => "it has sidecar injection disabled",
            Self::NeverSelected => "a neverInjectSelector matches it",
            Self::NotAsked => "nothing asks for injection and the policy is disabled",
            Self::UnknownPolicy => "the injection policy is neither enabled nor disabled",
        })
    }
}

pub(super) fn decide(config: &Config, pod: &Pod, namespace: &str) -> Decision {
    if pod.spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Decision::HostNetwork;
    }
    if IGNORED.contains(&namespace) {
        return Decision::SystemNamespace;
    }
    if namespace == config.value("/global/istioNamespace") && pod.label("app") == Some(CONTROL_PLANE) {
        return Decision::ControlPlane;
    }
    let asked = by_itself(pod).or_else(|| by_selector(config, pod));
    match (config.policy, asked) {
        (Policy::Unknown, _) => Decision::UnknownPolicy,
        (_, Some(decision)) => decision,
        (Policy::Enabled, None) => Decision::Inject,
        (Policy::Disabled, None) => Decision::NotAsked,
    }
}

/// What the pod says of itself. The label is the newer way and wins; other values than true and false say nothing.
fn by_itself(pod: &Pod) -> Option<Decision> {
    match pod.label(INJECT).or_else(|| pod.annotation(INJECT))? {
        "true" => Some(Decision::Inject),
        "false" => Some(Decision::OptedOut),
        _ => None,
    }
}

fn by_selector(config: &Config, pod: &Pod) -> Option<Decision> {
    let labels: BTreeMap<String, String> =
        pod.labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    let any = |selectors: &[LabelSelector]| {
        // An empty selector would match every pod, which nobody means here.
        selectors.iter().any(|selector| *selector != LabelSelector::default() && selector.matches(&labels))
    };
    if any(&config.never_inject) {
        Some(Decision::NeverSelected)
    } else if any(&config.always_inject) {
        Some(Decision::Inject)
    } else {
        None
    }
}
