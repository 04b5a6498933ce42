//! From manifests to pods: what the injector, a scheduler, a ReplicaSet and an EndpointSlice controller would make of them.
//! Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{self, Container, ContainerPort, PodSpec, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mesh_api::Object;
use mesh_webhook::Injector;
use mesh_webhook::inject::{Outcome, Owner};
use serde_json::{Value, json};

use super::container::Image;
use super::network::{NODE, pod_ip};

/// The name of the one node.
pub const NODE_NAME: &str = "nodelet";

/// What is to run, and who is addressed how.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every pod, in the manifests' order.
    pub pods: Vec<Pod>,
    /// Services with a cluster IP or a selector.
    services: Vec<Service>,
}

/// One pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// As the apiserver would have it: injected, and bound to this node.
    pub manifest: v1::Pod,
    /// Its address.
    pub ip: Ipv4Addr,
}

impl Pod {
    /// Its name: the Deployment's and a number.
    pub fn name(&self) -> &str {
        self.manifest.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace in the mesh.
    pub fn namespace(&self) -> &str {
        self.manifest.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        self.manifest.metadata.labels.as_ref().unwrap_or(NONE)
    }

    /// What it consists of.
    pub fn spec(&self) -> &PodSpec {
        static NONE: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.manifest.spec.as_ref().unwrap_or(&NONE)
    }

    /// All containers that stay: sidecars first, as they start first.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        let sidecars = self.spec().init_containers.iter().flatten().filter(|container| stays(container));
        sidecars.chain(&self.spec().containers)
    }

    fn ports(&self) -> impl Iterator<Item = &ContainerPort> {
        self.containers().flat_map(|container| container.ports.iter().flatten())
    }
}

/// Whether an init container is a sidecar, which stays.
pub fn stays(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Makes the plan.
///
/// # Errors
/// The first Deployment that cannot run here, and why.
pub fn plan<'a>(objects: impl IntoIterator<Item = &'a Object>, injector: &Injector) -> Result<Plan, String> {
    let mut plan = Plan::default();
    for object in objects {
        match object {
            Object::Deployment(deployment) => deploy(deployment, injector, &mut plan.pods)?,
            Object::Service(service) => plan.services.push(service.as_ref().clone()),
            _ => {}
        }
    }
    Ok(plan)
}

fn deploy(deployment: &Deployment, injector: &Injector, pods: &mut Vec<Pod>) -> Result<(), String> {
    let workload = deployment.metadata.name.clone().unwrap_or_default();
    let namespace = deployment.metadata.namespace.clone().unwrap_or_else(|| "default".into());
    let wrong = |why: &dyn std::fmt::Display| format!("Deployment {workload}: {why}");
    let spec = deployment.spec.as_ref().ok_or_else(|| wrong(&"has no spec"))?;
    let template = serde_json::to_value(&spec.template).map_err(|error| wrong(&error))?;
    let owner = Owner {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        namespace: namespace.clone(),
        name: workload.clone(),
    };
    let injected = injector.inject(template.clone(), &namespace, Some(&owner), BTreeMap::new());
    let injected = match injected.map_err(|error| wrong(&error))? {
        Outcome::Injected(pod) => pod,
        Outcome::Skipped(_) => template,
    };
    let injected: v1::Pod = serde_json::from_value(injected).map_err(|error| wrong(&error))?;
    let containers =
        injected.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    for container in containers {
        Image::of(container).map_err(|error| wrong(&error))?;
    }
    for replica in 0..spec.replicas.unwrap_or(1) {
        let mut manifest = injected.clone();
        manifest.metadata.name = Some(format!("{workload}-{replica}"));
        manifest.metadata.namespace = Some(namespace.clone());
        if let Some(spec) = &mut manifest.spec {
            spec.node_name = Some(NODE_NAME.to_owned());
            spec.service_account_name.get_or_insert_with(|| "default".to_owned());
        }
        let ip = pod_ip(pods.len()).ok_or_else(|| wrong(&"no addresses left for its pods"))?;
        pods.push(Pod { manifest, ip });
    }
    Ok(())
}

impl Plan {
    /// The first pod with this label.
    pub fn pod_with(&self, key: &str, value: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.labels().get(key).is_some_and(|v| v == value))
    }

    /// The text of `/etc/hosts`, which stands for the cluster's DNS: the control plane on the node, and every service's
    /// names. The short name belongs to namespace `default`, where all applications are.
    pub fn hosts(&self) -> String {
        let mut text =
            format!("127.0.0.1 localhost\n{NODE} istiod.istio-system.svc istiod.istio-system.svc.cluster.local\n");
        for service in &self.services {
            let (namespace, name) = names(service);
            let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
            let Some(ip) = ip.filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
            let short = if namespace == "default" { format!("{name} ") } else { String::new() };
            text.push_str(&format!(
                "{ip} {short}{name}.{namespace} {name}.{namespace}.svc {name}.{namespace}.svc.cluster.local\n"
            ));
        }
        text
    }
}

fn names(service: &Service) -> (&str, &str) {
    (service.metadata.namespace.as_deref().unwrap_or("default"), service.metadata.name.as_deref().unwrap_or_default())
}

/// Pods and EndpointSlices of the plan as one text of JSON documents, in stable order.
pub fn manifests(plan: &Plan, ready: impl Fn(&Pod) -> bool) -> String {
    let pods = plan.pods.iter().map(|pod| pod_manifest(pod, ready(pod)));
    let slices = plan.services.iter().filter_map(|service| slice_manifest(service, &plan.pods, &ready));
    let node = std::iter::once(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE_NAME } }));
    let documents: Vec<String> = node.chain(pods).chain(slices).map(|document| document.to_string()).collect();
    documents.join("\n---\n") + "\n"
}

/// A pod as the apiserver shows it once it runs.
fn pod_manifest(pod: &Pod, ready: bool) -> Value {
    let manifest = serde_json::to_value(&pod.manifest).unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": manifest.get("metadata"),
        "spec": manifest.get("spec"),
        "status": {
            "phase": "Running",
            "hostIP": NODE,
            "podIP": pod.ip,
            "podIPs": [{ "ip": pod.ip }],
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
        },
    })
}

fn slice_manifest(service: &Service, pods: &[Pod], ready: &impl Fn(&Pod) -> bool) -> Option<Value> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    let (namespace, name) = names(service);
    let selected = |pod: &&Pod| {
        pod.namespace() == namespace && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
    };
    let selected: Vec<&Pod> = pods.iter().filter(selected).collect();
    let number = |target: &Option<IntOrString>, port: i32| match target {
        None => Some(port),
        Some(IntOrString::Int(number)) => Some(*number),
        // Pods of one service name their ports alike here.
        Some(IntOrString::String(name)) => {
            let mut ports = selected.iter().flat_map(|pod| pod.ports());
            ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
        }
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let number = number(&port.target_port, port.port)?;
        Some(json!({ "name": port.name.as_deref().unwrap_or_default(), "port": number, "protocol": "TCP" }))
    });
    let endpoints = selected.iter().map(|pod| {
        let ready = ready(pod);
        json!({
            "addresses": [pod.ip],
            "conditions": { "ready": ready, "serving": ready, "terminating": false },
            "nodeName": NODE_NAME,
            "targetRef": { "kind": "Pod", "name": pod.name(), "namespace": pod.namespace() },
        })
    });
    Some(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-nodelet"),
            "namespace": namespace,
            "labels": { "kubernetes.io/service-name": name },
        },
        "addressType": "IPv4",
        "ports": ports.collect::<Vec<_>>(),
        "endpoints": endpoints.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bookinfo() -> Plan {
        let objects = crate::demo::objects(&crate::demo::manifests("bookinfo")).unwrap();
        plan(&objects, &crate::demo::injector(&[]).unwrap()).unwrap()
    }

    #[test]
    fn bookinfo_becomes_seven_pods() {
        let plan = bookinfo();
        let names: Vec<&str> = plan.pods.iter().map(Pod::name).collect();
        let want = [
            "details-v1-0",
            "ratings-v1-0",
            "reviews-v1-0",
            "reviews-v2-0",
            "reviews-v3-0",
            "productpage-v1-0",
            "istio-ingressgateway-0",
        ];
        assert_eq!(names, want);
        let containers = |index: usize| plan.pods[index].containers().map(|c| c.name.as_str()).collect::<Vec<_>>();
        assert_eq!((containers(3), containers(6)), (vec!["istio-proxy", "reviews"], vec!["istio-proxy"]));
        assert_eq!(plan.pod_with("istio", "ingressgateway").map(|pod| pod.ip), pod_ip(6));
        assert!(
            plan.hosts()
                .contains("10.96.0.13 reviews reviews.default reviews.default.svc reviews.default.svc.cluster.local")
        );
        assert!(
            plan.hosts().contains("10.96.0.10 istio-ingressgateway.istio-system "),
            "no short name out of its namespace"
        );
    }

    #[test]
    fn what_is_written_can_be_read() {
        let plan = bookinfo();
        let parsed = mesh_api::document::parse(&"nodelet.yaml".into(), &manifests(&plan, |_| true));
        assert_eq!(parsed.diagnostics().collect::<Vec<_>>(), Vec::<&mesh_api::Diagnostic>::new());
        let slices = parsed.objects().filter_map(|object| match object {
            Object::EndpointSlice(slice) => Some((slice.metadata.name.clone()?, slice.endpoints.clone()?)),
            _ => None,
        });
        let slices: BTreeMap<_, _> = slices.collect();
        let reviews = slices["reviews-nodelet"].clone();
        assert_eq!(
            reviews.iter().map(|e| e.addresses[0].clone()).collect::<Vec<_>>(),
            ["10.244.1.3", "10.244.1.4", "10.244.1.5"]
        );
        let gateway = parsed.objects().find_map(|object| match object {
            Object::EndpointSlice(slice) if slice.metadata.namespace.as_deref() == Some("istio-system") => {
                slice.ports.clone()
            }
            _ => None,
        });
        assert_eq!(gateway.unwrap()[0].port, Some(8080), "the target port, not the service's");
    }

    #[test]
    fn unknown_images_are_refused_by_name() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  selector: {}\n  template:\n    \
                    spec: {containers: [{name: c, image: nginx}]}\n";
        let parsed = mesh_api::document::parse(&"x.yaml".into(), text);
        let error = plan(parsed.objects(), &crate::demo::injector(&[]).unwrap()).unwrap_err();
        assert!(error.contains("Deployment x") && error.contains("nginx"), "{error}");
    }
}
