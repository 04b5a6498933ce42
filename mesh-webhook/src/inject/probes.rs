//! Probes and lifecycle hooks of the application. The kubelet is no member of the mesh, so it asks the agent, and the
//! agent asks the application: the originals go into a variable of the proxy, the agent's own paths take their place.

use serde_json::{Map, Value, json};

use super::Config;
use super::annotations::parse_bool;
use super::pod::{Container, PROXY, Pod, entry_name, name, set_env};

/// The variable that tells the agent which probes it stands in for.
const VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";
/// The annotation that turns rewriting on or off for a pod.
const REWRITE: &str = "sidecar.istio.io/rewriteAppHTTPProbers";

/// Where a handler is in its container, and the last part of the agent's path for it.
const HANDLERS: [(&str, &str, &str); 5] = [
    ("/readinessProbe", "app-health", "readyz"),
    ("/livenessProbe", "app-health", "livez"),
    ("/startupProbe", "app-health", "startupz"),
    ("/lifecycle/preStop", "app-lifecycle", "prestopz"),
    ("/lifecycle/postStart", "app-lifecycle", "poststartz"),
];

/// Rewrites the handlers of all containers but the proxy. `previously` tells whether the pod was injected before: then
/// what the agent already knows stays.
pub(super) fn rewrite(pod: &mut Pod, config: &Config, status_port: i32, previously: bool) {
    let asked = pod.annotation(REWRITE).and_then(parse_bool);
    let rewrite = asked.unwrap_or_else(|| config.is_set("/sidecarInjectorWebhook/rewriteAppHTTPProbe"));
    if !rewrite || pod.container(PROXY).is_none() {
        return;
    }
    // A port that cannot be read is 0, as in Istio; the annotation was checked before.
    let target = pod.annotation("status.sidecar.istio.io/port").map(|port| port.trim().parse().unwrap_or(0));
    let target = target.unwrap_or(status_port);
    let mut probers = Map::new();
    for container in pod.all_containers_mut().filter(|container| name(container) != PROXY) {
        for (pointer, area, end) in HANDLERS {
            let path = format!("/{area}/{}/{end}", name(container));
            let ports = named_ports(container);
            let Some(handler) = handler_mut(container, pointer) else { continue };
            let original = prober(handler, &ports, status_port);
            if redirect(handler, &path, target)
                && let Some(original) = original
            {
                probers.insert(path, original);
            }
        }
    }
    if !probers.is_empty()
        && let Some(proxy) = pod.container_mut(PROXY)
    {
        if previously && let Some(known) = known_probers(proxy) {
            probers.extend(known);
        }
        set_env(proxy, VARIABLE, Value::Object(probers).to_string());
    }
}

fn known_probers(proxy: &Container) -> Option<Map<String, Value>> {
    let env = proxy.get("env")?.as_array()?;
    let text = env.iter().find(|entry| entry_name(entry) == VARIABLE)?.get("value")?.as_str()?;
    serde_json::from_str(text).ok()
}

fn handler_mut<'a>(container: &'a mut Container, pointer: &str) -> Option<&'a mut Container> {
    let mut path = pointer.split('/').skip(1);
    let first = container.get_mut(path.next()?)?;
    path.try_fold(first, |value, key| value.get_mut(key))?.as_object_mut()
}

fn named_ports(container: &Container) -> Vec<(String, Value)> {
    let ports = container.get("ports").and_then(Value::as_array);
    ports
        .into_iter()
        .flatten()
        .filter_map(|port| Some((port.get("name")?.as_str()?.to_owned(), port.get("containerPort")?.clone())))
        .collect()
}

/// What the agent has to ask in place of the kubelet: the handler with its port as a number. None where the port's name
/// is unknown, or where the handler already asks the agent.
fn prober(handler: &Container, ports: &[(String, Value)], status_port: i32) -> Option<Value> {
    let mut out = Map::new();
    let (kind, action) =
        ["httpGet", "tcpSocket", "grpc"].into_iter().find_map(|kind| Some((kind, handler.get(kind)?.as_object()?)))?;
    let mut action = action.clone();
    if kind != "grpc" {
        match action.get("port") {
            Some(Value::String(wanted)) => {
                let (_, port) = ports.iter().find(|(name, _)| name == wanted)?;
                action.insert("port".to_owned(), port.clone());
            }
            Some(port) if *port == json!(status_port) => return None,
            _ => {}
        }
    }
    out.insert(kind.to_owned(), Value::Object(action));
    if let Some(timeout) = handler.get("timeoutSeconds").filter(|timeout| **timeout != json!(0)) {
        out.insert("timeoutSeconds".to_owned(), timeout.clone());
    }
    Some(Value::Object(out))
}

/// Turns a handler towards the agent. False, and nothing done, where it asks nobody over the network.
fn redirect(handler: &mut Container, path: &str, port: i32) -> bool {
    let mut action = match handler.remove("httpGet") {
        Some(Value::Object(action)) => action,
        _ if handler.remove("tcpSocket").is_some() || handler.remove("grpc").is_some() => Map::new(),
        _ => return false,
    };
    action.insert("path".to_owned(), json!(path));
    action.insert("port".to_owned(), json!(port));
    // The agent itself speaks HTTP; it asks the application by HTTPS.
    if action.get("scheme") == Some(&json!("HTTPS")) {
        action.insert("scheme".to_owned(), json!("HTTP"));
    }
    handler.insert("httpGet".to_owned(), Value::Object(action));
    true
}
