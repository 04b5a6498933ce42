//! From manifests to pods: what a scheduler, a ReplicaSet and an EndpointSlice controller would make of them. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mesh_api::Object;
use serde_json::{Value, json};

use super::network::pod_ip;

/// The name of the one node.
pub const NODE_NAME: &str = "nodelet";
/// Images of the stand-in app: the rest of the name is its part.
const APP_IMAGE: &str = "mesh-rs/bookinfo-";
/// The image of a gateway: an agent with an Envoy and no application.
const PROXY_IMAGE: &str = "mesh-rs/proxy";

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
    /// Its namespace in the mesh.
    pub namespace: String,
    /// Its name: the Deployment's and a number.
    pub name: String,
    /// The Deployment's name.
    pub workload: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its service account.
    pub service_account: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Ports of its containers.
    pub ports: Vec<Port>,
    /// What runs in it.
    pub program: Program,
    image: String,
    container: String,
}

/// A container's port.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name, empty if it has none.
    pub name: String,
    /// Its number.
    pub number: i32,
}

/// What runs in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A part of bookinfo (`reviews-v2`), with a sidecar.
    App(String),
    /// A gateway's Envoy alone.
    Gateway,
}

/// Makes the plan.
///
/// # Errors
/// The first Deployment that cannot run here, and why.
pub fn plan<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Result<Plan, String> {
    let mut plan = Plan::default();
    for object in objects {
        match object {
            Object::Deployment(deployment) => deploy(deployment, &mut plan.pods)?,
            Object::Service(service) => plan.services.push(service.as_ref().clone()),
            _ => {}
        }
    }
    Ok(plan)
}

fn deploy(deployment: &Deployment, pods: &mut Vec<Pod>) -> Result<(), String> {
    let workload = deployment.metadata.name.clone().unwrap_or_default();
    let wrong = |why: &str| format!("Deployment {workload}: {why}");
    let spec = deployment.spec.as_ref().ok_or_else(|| wrong("has no spec"))?;
    let template = spec.template.spec.as_ref().ok_or_else(|| wrong("its pod has no spec"))?;
    let [container] = template.containers.as_slice() else {
        return Err(wrong("a pod has exactly one container here; the proxy is added by the nodelet"));
    };
    let image = container.image.clone().unwrap_or_default();
    let program = match image.strip_prefix(APP_IMAGE) {
        Some(part) => {
            Program::App(part.parse::<crate::bookinfo::Part>().map(|_| part.to_owned()).map_err(|e| wrong(&e))?)
        }
        None if image == PROXY_IMAGE => Program::Gateway,
        None => return Err(wrong(&format!("image {image} is none of {APP_IMAGE}*, {PROXY_IMAGE}"))),
    };
    let labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    for replica in 0..spec.replicas.unwrap_or(1) {
        pods.push(Pod {
            namespace: deployment.metadata.namespace.clone().unwrap_or_else(|| "default".into()),
            name: format!("{workload}-{replica}"),
            workload: workload.clone(),
            labels: labels.clone(),
            service_account: template.service_account_name.clone().unwrap_or_else(|| "default".into()),
            ip: pod_ip(pods.len()).ok_or_else(|| wrong("no addresses left for its pods"))?,
            ports: ports(container),
            program: program.clone(),
            image: image.clone(),
            container: container.name.clone(),
        });
    }
    Ok(())
}

fn ports(container: &Container) -> Vec<Port> {
    let ports = container.ports.iter().flatten();
    ports.map(|port| Port { name: port.name.clone().unwrap_or_default(), number: port.container_port }).collect()
}

impl Plan {
    /// The address of a pod with this label.
    pub fn ip_of(&self, key: &str, value: &str) -> Option<Ipv4Addr> {
        self.pods.iter().find(|pod| pod.labels.get(key).is_some_and(|v| v == value)).map(|pod| pod.ip)
    }

    /// The text of `/etc/hosts`, which stands for the cluster's DNS: every service's names. The short name belongs to
    /// namespace `default`, where all applications are.
    pub fn hosts(&self) -> String {
        let mut text = String::from("127.0.0.1 localhost\n");
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
pub fn manifests(plan: &Plan, ready: bool) -> String {
    let pods = plan.pods.iter().map(|pod| pod_manifest(pod, ready));
    let slices = plan.services.iter().filter_map(|service| slice_manifest(service, &plan.pods, ready));
    let node = std::iter::once(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE_NAME } }));
    let documents: Vec<String> = node.chain(pods).chain(slices).map(|document| document.to_string()).collect();
    documents.join("\n---\n") + "\n"
}

fn pod_manifest(pod: &Pod, ready: bool) -> Value {
    let ports: Vec<Value> = pod
        .ports
        .iter()
        .map(|port| {
            let mut value = json!({ "containerPort": port.number, "protocol": "TCP" });
            if let (false, Some(value)) = (port.name.is_empty(), value.as_object_mut()) {
                value.insert("name".into(), port.name.as_str().into());
            }
            value
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": pod.name, "namespace": pod.namespace, "labels": pod.labels },
        "spec": {
            "nodeName": NODE_NAME,
            "serviceAccountName": pod.service_account,
            "containers": [{ "name": pod.container, "image": pod.image, "ports": ports }],
        },
        "status": {
            "phase": "Running",
            "podIP": pod.ip,
            "podIPs": [{ "ip": pod.ip }],
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
        },
    })
}

fn slice_manifest(service: &Service, pods: &[Pod], ready: bool) -> Option<Value> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    let (namespace, name) = names(service);
    let selected = |pod: &&Pod| {
        pod.namespace == namespace && selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    };
    let selected: Vec<&Pod> = pods.iter().filter(selected).collect();
    let number = |target: &Option<IntOrString>, port: i32| match target {
        None => Some(port),
        Some(IntOrString::Int(number)) => Some(*number),
        // Pods of one service name their ports alike here.
        Some(IntOrString::String(name)) => {
            selected.iter().flat_map(|pod| &pod.ports).find(|p| p.name == *name).map(|p| p.number)
        }
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let number = number(&port.target_port, port.port)?;
        Some(json!({ "name": port.name.as_deref().unwrap_or_default(), "port": number, "protocol": "TCP" }))
    });
    let endpoints = selected.iter().map(|pod| {
        json!({
            "addresses": [pod.ip],
            "conditions": { "ready": ready, "serving": ready, "terminating": false },
            "nodeName": NODE_NAME,
            "targetRef": { "kind": "Pod", "name": pod.name, "namespace": pod.namespace },
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
        let objects = crate::demo::objects(&crate::demo::manifests()).unwrap();
        plan(&objects).unwrap()
    }

    #[test]
    fn bookinfo_becomes_seven_pods() {
        let plan = bookinfo();
        let names: Vec<&str> = plan.pods.iter().map(|pod| pod.name.as_str()).collect();
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
        assert_eq!(plan.pods[3].program, Program::App("reviews-v2".into()));
        assert_eq!(plan.ip_of("istio", "ingressgateway"), pod_ip(6));
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
        let parsed = mesh_api::document::parse(&"nodelet.yaml".into(), &manifests(&plan, true));
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
        let error = plan(parsed.objects()).unwrap_err();
        assert!(error.contains("Deployment x") && error.contains("nginx"), "{error}");
    }
}
