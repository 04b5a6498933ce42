//! What a pod itself says of a container that is injected. A user who writes a container `istio-proxy` means to change the
//! injected one, so the user's goes over the template's; and as a second injection could not tell the two apart, it is kept in
//! an annotation.

use std::borrow::Cow;

use mesh_api::mesh::{InboundInterceptionMode, ProxyConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::merge::merge;
use super::pod::{Container, PROXY, Pod, find, name};
use super::{InjectError, metrics, quantity};

/// The annotation with what was injected before.
pub(super) const STATUS: &str = "sidecar.istio.io/status";
/// The annotation with the containers as the user wrote them.
const OVERRIDES: &str = "proxy.istio.io/overrides";
/// As an image it stands for the injected one, since a container must have an image.
const AUTO: &str = "auto";

/// Names of what was injected before.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(deserialize_with = "or_null")]
    init_containers: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    containers: Vec<String>,
}

fn or_null<'de, D: serde::Deserializer<'de>>(names: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(names).map(Option::unwrap_or_default)
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Overrides {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Container>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Container>,
}

fn status(pod: &Pod) -> Option<Status> {
    pod.annotation(STATUS).and_then(|text| serde_json::from_str(text).ok())
}

fn overrides(pod: &Pod) -> Result<Overrides, InjectError> {
    let Some(text) = pod.annotation(OVERRIDES) else { return Ok(Overrides::default()) };
    serde_json::from_str(text).map_err(|error| InjectError::Annotation {
        name: OVERRIDES,
        value: text.to_owned(),
        why: format!("not what the injector wrote there: {error}"),
    })
}

/// The pod as its user wrote it, for the template to look at: without what was injected before.
pub(super) fn as_written(pod: &Pod, status_port: i32) -> Result<Cow<'_, Pod>, InjectError> {
    if pod.annotation(STATUS).is_none() && pod.annotation(OVERRIDES).is_none() {
        return Ok(Cow::Borrowed(pod));
    }
    let mut pod = pod.clone();
    if let Some(status) = status(&pod) {
        let keep = |names: Vec<String>, containers: &mut Vec<Container>| {
            containers.retain(|container| !names.iter().any(|injected| injected == name(container)));
        };
        keep(status.containers, &mut pod.containers);
        keep(status.init_containers, &mut pod.init_containers);
        if metrics::port(&pod) == Some(status_port.to_string().as_str()) {
            metrics::clear(&mut pod);
        }
        pod.annotations.remove(STATUS);
    }
    let overrides = overrides(&pod)?;
    for (written, containers) in
        [(overrides.containers, &mut pod.containers), (overrides.init_containers, &mut pod.init_containers)]
    {
        for container in written {
            if find(containers, name(&container)).is_none() {
                containers.push(container);
            }
        }
    }
    Ok(Cow::Owned(pod))
}

/// Lays the user's containers over the injected ones of the same name. `injected` is what the templates made.
pub(super) fn reapply(merged: Pod, original: &Pod, injected: &Pod, proxy: &ProxyConfig) -> Result<Pod, InjectError> {
    let before = status(original);
    let is_first = before.is_none();
    let Status { init_containers, containers } = before.unwrap_or_default();
    let known = overrides(original)?;
    let mut found = Overrides::default();
    // What bears the name in the pod is the user's only where it wasn't injected before.
    let is_own = |injected: &[String], wanted: &str| !injected.iter().any(|name| name == wanted);
    for wanted in injected.containers.iter().map(name) {
        let own = is_own(&containers, wanted);
        let written = find(&known.containers, wanted).or_else(|| find(&original.containers, wanted).filter(|_| own));
        found.containers.extend(written.map(with_injected_image));
    }
    for wanted in injected.init_containers.iter().map(name) {
        let own = is_own(&init_containers, wanted);
        let written = find(&known.init_containers, wanted).or_else(|| original.container(wanted).filter(|_| own));
        found.init_containers.extend(written.map(with_injected_image));
    }
    if found.containers.is_empty() && found.init_containers.is_empty() {
        return Ok(merged);
    }
    let found_json = json!(found);
    let mut pod = merged.into_value();
    merge(&mut pod, json!({"spec": found_json}))?;
    let mut pod = Pod::read(pod)?;
    if is_first {
        pod.annotate(OVERRIDES, as_go_writes(&found_json));
    }
    let own = find(&found.containers, PROXY).or_else(|| find(&found.init_containers, PROXY));
    adjust_users(&mut pod, own, proxy);
    Ok(pod)
}

/// The fields of a container in the order of Go's types, which is the order of what istiod writes.
const GO_ORDER: &[&str] = &[
    "containers",
    "initContainers",
    "name",
    "hostPort",
    "containerPort",
    "protocol",
    "hostIP",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "envFrom",
    "env",
    "value",
    "valueFrom",
    "resources",
    "limits",
    "requests",
    "claims",
    "resizePolicy",
    "restartPolicy",
    "volumeMounts",
    "volumeDevices",
    "readOnly",
    "recursiveReadOnly",
    "mountPath",
    "subPath",
    "mountPropagation",
    "subPathExpr",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "postStart",
    "preStop",
    "exec",
    "httpGet",
    "tcpSocket",
    "grpc",
    "path",
    "port",
    "host",
    "scheme",
    "httpHeaders",
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
    "terminationGracePeriodSeconds",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "capabilities",
    "add",
    "drop",
    "privileged",
    "seLinuxOptions",
    "windowsOptions",
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "readOnlyRootFilesystem",
    "allowPrivilegeEscalation",
    "procMount",
    "seccompProfile",
    "appArmorProfile",
    "stdin",
    "stdinOnce",
    "tty",
];

/// JSON as istiod writes it: manifests that it injected and that are injected again don't change by that.
fn as_go_writes(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(",");
    match value {
        Value::Object(fields) => {
            let place = |key: &str| GO_ORDER.iter().position(|known| *known == key);
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| (place(key).unwrap_or(GO_ORDER.len()), *key));
            let fields = fields.into_iter().map(|(key, value)| format!("{}:{}", json!(key), as_go_writes(value)));
            format!("{{{}}}", joined(fields.collect()))
        }
        Value::Array(items) => format!("[{}]", joined(items.iter().map(as_go_writes).collect())),
        scalar => scalar.to_string(),
    }
}

fn with_injected_image(container: &Container) -> Container {
    let mut container = container.clone();
    if container.get("image") == Some(&json!(AUTO)) {
        container.remove("image");
    }
    // As Istio writes it, who may have written the annotation or may read it.
    container.entry("resources").or_insert_with(|| json!({}));
    quantity::normalize(&mut container);
    container
}

/// Follows the user where the proxy runs as another user: the container that sets the interception rules must spare that
/// user's traffic. In mode TPROXY the proxy has to be root.
fn adjust_users(pod: &mut Pod, own: Option<&Container>, proxy: &ProxyConfig) {
    let context = own.and_then(|container| container.get("securityContext")?.as_object());
    let said = |key: &str| context.and_then(|context| context.get(key)).filter(|value| !value.is_null()).cloned();
    let (user, group) = (said("runAsUser"), said("runAsGroup"));
    if user.is_none() && group.is_none() {
        return;
    }
    let tproxy = proxy.interception_mode == InboundInterceptionMode::Tproxy
        || pod.annotation("sidecar.istio.io/interceptionMode") == Some("TPROXY");
    let Some(setup) =
        ["istio-init", "istio-validation"].into_iter().find(|setup| find(&pod.init_containers, setup).is_some())
    else {
        return;
    };
    if tproxy && user.is_some() {
        set_context(pod.container_mut(PROXY), "runAsUser", json!(0));
    }
    if !tproxy && setup == "istio-validation" {
        for (key, value) in [("runAsUser", &user), ("runAsGroup", &group)] {
            if let Some(value) = value {
                set_context(pod.container_mut(setup), key, value.clone());
            }
        }
    }
    let Some(user) = user.filter(|user| *user != json!(0)) else { return };
    let arguments = pod.container_mut(setup).and_then(|setup| setup.get_mut("args")?.as_array_mut());
    let user_argument = arguments.and_then(|arguments| {
        let flag = arguments.iter().position(|argument| argument == "-u")?;
        arguments.get_mut(flag + 1)
    });
    if let Some(argument) = user_argument {
        *argument = json!(user.to_string());
    }
}

fn set_context(container: Option<&mut Container>, key: &str, value: Value) {
    let context =
        container.map(|container| container.entry("securityContext").or_insert_with(|| Value::Object(Map::new())));
    if let Some(Value::Object(context)) = context {
        context.insert(key.to_owned(), value);
    }
}
