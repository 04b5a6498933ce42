//! One pod, from as written to injected: templates laid over it, the user's own containers over those, and then what no
//! template can say.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::openshift::Ids;
use super::pod::{Container, PROXY, Pod, entry_name, find, name, set_env};
use super::settled::Settled;
use super::{Config, InjectError, Owner, merge, metrics, order, overrides, probes, template};

const CLUSTER: &str = "ISTIO_META_CLUSTER_ID";
const NETWORK: &str = "ISTIO_META_NETWORK";
const NETWORK_LABEL: &str = "topology.istio.io/network";

/// What is known of a pod beside what it says itself.
pub(super) struct Known<'a> {
    pub(super) owner: &'a Owner,
    pub(super) settled: &'a Settled,
    pub(super) ids: Ids,
    /// Whether its proxy is a native sidecar, unless it chooses.
    pub(super) native: bool,
}

/// The injected pod. `variables` are for its proxy, from the path that the webhook was called at.
pub(super) fn rewrite(
    config: &Config,
    original: &Pod,
    known: &Known<'_>,
    mut variables: BTreeMap<String, String>,
) -> Result<Pod, InjectError> {
    locate(config, original, &mut variables);
    let (merged, injected) = lay_templates(config, original, known)?;
    let proxy = &known.settled.config;
    let mut pod = overrides::reapply(merged, original, &injected, proxy)?;
    if let Some(proxy) = pod.container_mut(PROXY) {
        set_variables(proxy, &variables);
    }
    metrics::merge(&mut pod, config, proxy.status_port)?;
    metrics::tell_secure_port(&mut pod);
    let previously = pod.annotations.contains_key(overrides::STATUS);
    probes::rewrite(&mut pod, config, proxy.status_port, previously);
    if let Some(network) = variables.get(NETWORK) {
        pod.labels.insert(NETWORK_LABEL.to_owned(), json!(network));
    }
    pod.annotate(overrides::STATUS, status(&injected, &config.revision));
    for (name, value) in &config.injected_annotations {
        pod.annotate(name, value);
    }
    let hold = proxy.hold_application_until_proxy_starts == Some(true)
        || config.is_set("/global/proxy/holdApplicationUntilProxyStarts");
    order::order(&mut pod, hold);
    Ok(pod)
}

/// Where the pod is: in which cluster, in which network. The webhook's path is stronger than the values, the pod's label
/// than both.
fn locate(config: &Config, pod: &Pod, variables: &mut BTreeMap<String, String>) {
    let defaults = [(CLUSTER, "/global/multiCluster/clusterName"), (NETWORK, "/global/network")];
    for (variable, pointer) in defaults {
        let value = config.value(pointer);
        if !value.is_empty() && variables.get(variable).is_none_or(String::is_empty) {
            variables.insert(variable.to_owned(), value.to_owned());
        }
    }
    if let Some(network) = pod.label(NETWORK_LABEL).filter(|network| !network.is_empty()) {
        variables.insert(NETWORK.to_owned(), network.to_owned());
    }
}

/// Sets variables of the proxy, at the end and sorted, in place of those that have their names.
fn set_variables(proxy: &mut Container, variables: &BTreeMap<String, String>) {
    if let Some(Value::Array(env)) = proxy.get_mut("env") {
        env.retain(|entry| !variables.contains_key(entry_name(entry)));
    }
    for (variable, value) in variables {
        set_env(proxy, variable, value.clone());
    }
}

/// The pod with its templates over it, and what the templates alone make.
fn lay_templates(config: &Config, original: &Pod, known: &Known<'_>) -> Result<(Pod, Pod), InjectError> {
    let written = overrides::as_written(original, config.mesh.default_config.status_port)?;
    let native = match original.annotation("sidecar.istio.io/nativeSidecar") {
        Some("true") => true,
        Some("false") => false,
        _ => known.native,
    };
    let data = template::data(config, &written, known);
    let mut injected = json!({});
    let mut pod = original.clone();
    for wanted in chosen(config, original) {
        let template = config.templates.get(wanted).ok_or_else(|| InjectError::UnknownTemplate {
            name: wanted.to_owned(),
            known: config.templates.keys().cloned().collect::<Vec<_>>().join(", "),
        })?;
        let overlay = template.render(&data).map_err(|why| InjectError::Template { name: wanted.to_owned(), why })?;
        merge::merge(&mut injected, overlay.clone())?;
        // The user's changes are in `containers`, even where the proxy itself is to be an init container.
        let is_init = overlay.pointer("/spec/initContainers").and_then(Value::as_array);
        let is_init = is_init.is_some_and(|containers| containers.iter().any(|c| entry_name(c) == PROXY));
        if native
            && is_init
            && let Some(at) = pod.containers.iter().position(|container| name(container) == PROXY)
            && find(&pod.init_containers, PROXY).is_none()
        {
            let container = pod.containers.remove(at);
            pod.init_containers.push(container);
        }
        let mut merged = pod.into_value();
        merge::merge(&mut merged, overlay)?;
        pod = Pod::read(merged)?;
    }
    Ok((pod, Pod::read(injected)?))
}

/// The templates that the pod names, or else the default ones; aliases resolved, once.
fn chosen<'a>(config: &'a Config, pod: &'a Pod) -> Vec<&'a str> {
    let named: Vec<&str> = match pod.annotation("inject.istio.io/templates") {
        Some(names) => names.split(',').map(str::trim).collect(),
        None => config.default_templates.iter().map(String::as_str).collect(),
    };
    named
        .into_iter()
        .flat_map(|name| match config.aliases.get(name) {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => vec![name],
        })
        .collect()
}

/// What was injected, for the next injection and for people.
fn status(injected: &Pod, revision: &str) -> String {
    let names = |containers: &[Container]| match containers {
        [] => Value::Null,
        containers => containers.iter().map(name).collect(),
    };
    let listed = |key: &str| match injected.spec.get(key).and_then(Value::as_array) {
        Some(items) if !items.is_empty() => items.iter().map(entry_name).collect(),
        _ => Value::Null,
    };
    json!({
        "initContainers": names(&injected.init_containers),
        "containers": names(&injected.containers),
        "volumes": listed("volumes"),
        "imagePullSecrets": listed("imagePullSecrets"),
        "revision": if revision.is_empty() { "default" } else { revision },
    })
    .to_string()
}
