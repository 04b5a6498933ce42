//! From what the apiserver sends to an [`Object`], without what the mesh has no use for: it would be most of the memory.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{ApiResource, PartialObjectMeta};
use kube::core::DynamicResourceScope;
use kube::runtime::watcher::Event;
use mesh_api::document::Node;
use mesh_api::{Diagnostic, Kind, Object, ObjectRef};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::mirror::News;

/// Longer annotations are notes that tools leave for themselves; none that the mesh reads is as long.
const LONG: usize = 4096;
/// What a Secret or a ConfigMap may hold for TLS; all else in them is not ours to keep.
const CERTIFICATES: [&str; 9] =
    ["cert", "key", "cacert", "crl", "tls.crt", "tls.key", "tls.ocsp-staple", "ca.crt", "ca.crl"];

/// An object as it came. Whether it is one of its kind is found out later, so that one that is not stops nobody.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    /// Its name, namespace and version only.
    metadata: ObjectMeta,
    content: Value,
}

impl From<Value> for Raw {
    fn from(content: Value) -> Self {
        let text = |key: &str| content.get("metadata")?.get(key)?.as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Self { metadata, content }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }
    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }
    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }
    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Raw {
    /// What it is called.
    pub(super) fn key(&self, kind: &Kind) -> ObjectRef {
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        ObjectRef::new(kind.name, namespace, self.metadata.name.as_deref().unwrap_or_default())
    }
}

/// An event of a watch of metadata as one of objects that have nothing else.
pub(super) fn from_metadata(event: Event<PartialObjectMeta<Raw>>) -> Event<Raw> {
    let raw = |partial: PartialObjectMeta<Raw>| {
        let metadata = serde_json::to_value(partial.metadata).unwrap_or_default();
        Raw::from(Value::Object(Map::from_iter([("metadata".to_owned(), metadata)])))
    };
    match event {
        Event::Apply(partial) => Event::Apply(raw(partial)),
        Event::Delete(partial) => Event::Delete(raw(partial)),
        Event::Init => Event::Init,
        Event::InitApply(partial) => Event::InitApply(raw(partial)),
        Event::InitDone => Event::InitDone,
    }
}

/// What the apiserver's object is to the mesh.
pub(super) fn decode(kind: &Kind, resource: &ApiResource, raw: Raw) -> News {
    let key = raw.key(kind);
    let mut content = raw.content;
    if let Some(fields) = content.as_object_mut() {
        reduce(kind.name, fields);
    }
    if !is_of_use(kind.name, &content) {
        return News::Gone(key);
    }
    match Object::from_node(&resource.api_version, &resource.kind, &Node::from_json(&content)) {
        Ok((object, _)) => News::Is(object.object_ref(), object),
        Err(error) => {
            let message = format!("{}; its last good version stays in force", error.message);
            let problem = Diagnostic::error(error.code, message).on(&key).at(error.path);
            News::Broken(key, problem)
        }
    }
}

/// Drops what the mesh does not read. What is left is told again only when it changes.
fn reduce(kind: &str, object: &mut Map<String, Value>) {
    if let Some(metadata) = part(object, "metadata") {
        for unused in ["managedFields", "resourceVersion", "selfLink"] {
            metadata.remove(unused);
        }
        if let Some(annotations) = part(metadata, "annotations") {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            annotations.retain(|_, value| value.as_str().is_none_or(|text| text.len() <= LONG));
        }
    }
    match kind {
        "Pod" => pod(object),
        "Node" => node(object),
        "EndpointSlice" => slice(object),
        // They change with every endpoint and say nothing of them.
        "Endpoints" => {
            part(object, "metadata").and_then(|metadata| metadata.remove("annotations"));
        }
        "Secret" | "ConfigMap" => {
            object.remove("binaryData");
            if let Some(data) = part(object, "data") {
                keep(data, &CERTIFICATES);
            }
        }
        _ => {}
    }
}

/// Who it is, where it is, and what it listens to.
fn pod(object: &mut Map<String, Value>) {
    if let Some(metadata) = part(object, "metadata") {
        keep(metadata, &["creationTimestamp", "labels", "name", "namespace", "ownerReferences"]);
        each(metadata, "ownerReferences", |owner| keep(owner, &["controller", "kind", "name"]));
    }
    if let Some(spec) = part(object, "spec") {
        // A container is the largest part of a pod, and only its ports count: one has them all.
        let ports = ["containers", "initContainers"].iter().flat_map(|containers| ports(spec, containers)).collect();
        keep(spec, &["hostNetwork", "hostname", "nodeName", "serviceAccountName", "subdomain"]);
        spec.insert("containers".to_owned(), json!([{"name": "", "ports": Value::Array(ports)}]));
    }
    if let Some(status) = part(object, "status") {
        keep(status, &["conditions", "hostIP", "phase", "podIP", "podIPs"]);
        if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.retain(|condition| condition.get("type").is_some_and(|name| name == "Ready"));
        }
        each(status, "conditions", |condition| keep(condition, &["status", "type"]));
    }
}

/// Where it is, and which Kubernetes it runs.
fn node(object: &mut Map<String, Value>) {
    keep(object, &["metadata", "status"]);
    if let Some(status) = part(object, "status") {
        keep(status, &["nodeInfo"]);
        if let Some(info) = part(status, "nodeInfo") {
            keep(info, &["kubeletVersion"]);
        }
    }
}

/// The ports of a pod's containers.
fn ports(spec: &mut Map<String, Value>, containers: &str) -> Vec<Value> {
    let containers = spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten();
    let ports = containers.filter_map(|container| container.get_mut("ports")?.as_array_mut());
    ports.flat_map(std::mem::take).collect()
}

/// Which endpoints there are of which service, and where.
fn slice(object: &mut Map<String, Value>) {
    if let Some(metadata) = part(object, "metadata") {
        keep(metadata, &["creationTimestamp", "labels", "name", "namespace"]);
    }
    each(object, "endpoints", |endpoint| {
        keep(endpoint, &["addresses", "conditions", "nodeName", "targetRef", "zone"]);
        if let Some(target) = part(endpoint, "targetRef") {
            keep(target, &["kind", "name", "namespace"]);
        }
    });
}

/// False for what could be left out altogether.
fn is_of_use(kind: &str, object: &Value) -> bool {
    let has_data = || object.get("data").and_then(Value::as_object).is_some_and(|data| !data.is_empty());
    !matches!(kind, "Secret" | "ConfigMap") || has_data()
}

fn part<'a>(object: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    object.get_mut(name)?.as_object_mut()
}

fn keep(object: &mut Map<String, Value>, fields: &[&str]) {
    object.retain(|name, _| fields.contains(&name.as_str()));
}

fn each(object: &mut Map<String, Value>, list: &str, change: impl Fn(&mut Map<String, Value>)) {
    let items = object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
    items.filter_map(Value::as_object_mut).for_each(change);
}

#[cfg(test)]
mod tests {
    use kube::api::GroupVersionKind;

    use super::*;

    fn told(mut object: Value) -> News {
        let text = |key: &str| object[key].as_str().unwrap().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = mesh_api::object::group_and_version(&api_version);
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let kind = Kind::find(group, &kind).unwrap();
        // Items of a list do not say what they are.
        object.as_object_mut().unwrap().retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind"));
        decode(kind, &resource, Raw::from(object))
    }

    fn object(news: News) -> Value {
        match news {
            News::Is(_, object) => object.to_json().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_mesh_does_not_read_is_dropped() {
        let metadata = json!({"name": "a", "namespace": "n", "labels": {"app": "a"}, "resourceVersion": "7", "uid": "u",
                              "managedFields": [{"manager": "kubelet"}], "annotations": {"short": "x"},
                              "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a-1",
                                                   "uid": "u", "controller": true}]});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"nodeName": "one", "serviceAccountName": "s", "hostname": "a-0", "subdomain": "a",
                     "volumes": [{"name": "v", "emptyDir": {}}],
                     "containers": [{"name": "c", "image": "i", "env": [{"name": "E"}],
                                     "ports": [{"containerPort": 80, "name": "http"}]}, {"name": "silent"}],
                     "initContainers": [{"name": "proxy", "restartPolicy": "Always",
                                         "ports": [{"containerPort": 90, "name": "proxy"}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "startTime": "2024-01-01T00:00:00Z",
                       "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": null},
                                      {"type": "Initialized", "status": "True"}]},
        });
        let want = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "n", "labels": {"app": "a"},
                         "ownerReferences": [{"apiVersion": "", "kind": "ReplicaSet", "name": "a-1", "uid": "",
                                              "controller": true}]},
            "spec": {"nodeName": "one", "serviceAccountName": "s", "hostname": "a-0", "subdomain": "a",
                     "containers": [{"name": "", "ports": [{"containerPort": 80, "name": "http"},
                                                           {"containerPort": 90, "name": "proxy"}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        assert_eq!(object(told(pod)), want);

        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
            "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "z"}]}, "zone": "z",
                           "targetRef": {"kind": "Pod", "name": "a", "namespace": "n", "uid": "u"}}],
        });
        let want = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "a", "namespace": "n", "labels": {"app": "a"}}, "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"], "zone": "z",
                           "targetRef": {"kind": "Pod", "name": "a", "namespace": "n"}}],
        });
        assert_eq!(object(told(slice)), want);
    }

    #[test]
    fn notes_that_tools_leave_are_dropped() {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "namespace": "n", "resourceVersion": "7", "managedFields": [{"manager": "x"}],
                         "annotations": {"short": "x", "long": "x".repeat(LONG + 1),
                                         "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        });
        let want = json!({"apiVersion": "v1", "kind": "Service",
                          "metadata": {"name": "a", "namespace": "n", "annotations": {"short": "x"}}});
        assert_eq!(object(told(service)), want);
    }

    #[test]
    fn of_a_node_only_its_place_and_version_are_kept() {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "labels": {"topology.kubernetes.io/zone": "z"}},
            "spec": {"podCIDR": "10.0.0.0/24"},
            "status": {"images": [{"names": ["i"]}], "nodeInfo": {"kubeletVersion": "v1.36.2", "osImage": "Linux"}},
        });
        let kept = object(told(node));
        assert_eq!(kept["metadata"], json!({"name": "a", "labels": {"topology.kubernetes.io/zone": "z"}}));
        assert_eq!(kept["status"]["nodeInfo"]["kubeletVersion"], "v1.36.2");
        assert!(kept["spec"].is_null() && kept["status"]["images"].is_null() && !kept.to_string().contains("Linux"));
    }

    #[test]
    fn only_certificates_are_kept_of_secrets() {
        let secret = |data: Value| {
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"},
                                          "data": data, "type": "Opaque"})
        };
        assert_eq!(told(secret(json!({"password": "eA=="}))), News::Gone(ObjectRef::new("Secret", "n", "s")));
        let kept = object(told(secret(json!({"tls.crt": "eA==", "password": "eA=="}))));
        assert_eq!(kept["data"], json!({"tls.crt": "eA=="}));
    }

    #[test]
    fn an_object_that_cannot_be_read_is_a_problem_that_names_the_field() {
        let service = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                             "metadata": {"name": "v", "namespace": "n"}, "spec": {"hosts": 7}});
        let News::Broken(key, problem) = told(service) else { panic!("it was read") };
        assert_eq!(key, ObjectRef::new("VirtualService", "n", "v"));
        assert_eq!(problem.path.as_str(), "spec.hosts");
        assert_eq!(problem.object, Some(key));
    }
}
