//! The objects of a large cluster, as an apiserver has them: with all that the mesh does not read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Services of one namespace.
const PER_NAMESPACE: usize = 50;

/// How large the cluster is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) services: usize,
    pub(crate) pods: usize,
    /// Of each service; a pod serves as many services as that takes.
    pub(crate) endpoints: usize,
    pub(crate) nodes: usize,
}

/// The texts of objects, by the plural of their kind.
pub(crate) type Objects = BTreeMap<&'static str, Vec<String>>;

/// All objects of a cluster, and the definitions of our kinds, of which there are no objects.
pub(crate) fn cluster(size: Size) -> Objects {
    let texts = |count: usize, of: &dyn Fn(usize) -> Value| (0..count).map(|n| of(n).to_string()).collect::<Vec<_>>();
    BTreeMap::from([
        ("namespaces", texts(size.services.div_ceil(PER_NAMESPACE), &namespace)),
        ("nodes", texts(size.nodes, &node)),
        ("services", texts(size.services, &service)),
        ("endpointslices", texts(size.services, &|n| slice(n, size))),
        ("pods", texts(size.pods, &|n| pod(n, size))),
        ("customresourcedefinitions", mesh_api::crds().iter().map(established).collect()),
    ])
}

fn established(definition: &impl serde::Serialize) -> String {
    let mut definition = serde_json::to_value(definition).unwrap();
    definition["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
    definition.to_string()
}

/// What every object has; its identity is made of its number.
fn metadata(n: usize, name: &str, labels: Value) -> Value {
    json!({
        "name": name,
        "namespace": format!("team-{:03}", n / PER_NAMESPACE),
        "uid": uid(n),
        "resourceVersion": (1_000_000 + n).to_string(),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": labels,
    })
}

fn uid(n: usize) -> String {
    format!("{n:08x}-5b1c-4f0e-9d3a-{n:012x}")
}

/// Server-side apply's notes of who owns which field.
fn managed(manager: &str, fields: &[&str]) -> Value {
    let fields: BTreeMap<String, Value> = fields.iter().map(|field| (format!("f:{field}"), json!({}))).collect();
    json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
           "fieldsType": "FieldsV1",
           "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:version": {}}}, "f:spec": fields}})
}

fn namespace(n: usize) -> Value {
    let name = format!("team-{n:03}");
    let labels = json!({"kubernetes.io/metadata.name": name, "istio-injection": "enabled"});
    let mut metadata = metadata(n, &name, labels);
    metadata.as_object_mut().unwrap().remove("namespace");
    json!({"metadata": metadata, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
}

fn node(n: usize) -> Value {
    let zone = format!("region-1{}", ['a', 'b', 'c'][n % 3]);
    let labels = json!({"kubernetes.io/hostname": node_name(n), "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
                        "topology.kubernetes.io/region": "region-1", "topology.kubernetes.io/zone": zone});
    let mut metadata = metadata(n, &node_name(n), labels);
    metadata.as_object_mut().unwrap().remove("namespace");
    metadata["managedFields"] = json!([managed("kubelet", &["podCIDR", "podCIDRs", "providerID"])]);
    let image =
        |i: usize| json!({"names": [format!("registry.example.com/team/image-{i}@sha256:{i:064x}")], "sizeBytes": 100});
    let status = json!({"images": (0..50).map(image).collect::<Value>(), "capacity": {"cpu": "16", "pods": "110"},
                        "nodeInfo": {"kubeletVersion": "v1.36.2", "osImage": "Linux", "architecture": "amd64"}});
    json!({"metadata": metadata, "spec": {"podCIDR": format!("10.{n}.0.0/24")}, "status": status})
}

fn node_name(n: usize) -> String {
    format!("ip-10-0-{}-{}.region-1.compute.internal", n / 256, n % 256)
}

fn service(n: usize) -> Value {
    let name = format!("service-{n:05}");
    let mut metadata = metadata(n, &name, json!({"app": name, "team": format!("team-{:03}", n / PER_NAMESPACE)}));
    let spec = json!({
        "clusterIP": format!("10.96.{}.{}", n / 250, n % 250 + 1), "clusterIPs": [format!("10.96.{}.{}", n / 250, n % 250 + 1)],
        "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "appProtocol": "http"},
                  {"name": "grpc", "port": 9090, "targetPort": "grpc", "protocol": "TCP"}],
        "selector": {"app": name}, "sessionAffinity": "None", "type": "ClusterIP",
    });
    let applied = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}).to_string();
    metadata["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
    metadata["managedFields"] =
        json!([managed("kubectl-client-side-apply", &["ports", "selector", "sessionAffinity", "type"])]);
    json!({"metadata": metadata, "spec": spec, "status": {"loadBalancer": {}}})
}

fn slice(n: usize, size: Size) -> Value {
    let name = format!("service-{n:05}");
    let labels = json!({"app": name, "kubernetes.io/service-name": name,
                        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"});
    let mut metadata = metadata(n, &format!("{name}-x7k2p"), labels);
    metadata["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"});
    metadata["generateName"] = format!("{name}-").into();
    metadata["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Service", "name": name, "uid": uid(n),
                                          "controller": true, "blockOwnerDeletion": true}]);
    metadata["managedFields"] = json!([managed("kube-controller-manager", &["addressType", "endpoints", "ports"])]);
    let endpoint = |i: usize| {
        let pod = (n * size.endpoints + i) % size.pods;
        json!({"addresses": [address(pod)], "nodeName": node_name(pod % size.nodes), "zone": "region-1a",
               "conditions": {"ready": true, "serving": true, "terminating": false},
               "targetRef": {"kind": "Pod", "namespace": format!("team-{:03}", pod / PER_NAMESPACE),
                             "name": pod_name(pod), "uid": uid(pod)}})
    };
    json!({"metadata": metadata, "addressType": "IPv4",
           "endpoints": (0..size.endpoints).map(endpoint).collect::<Value>(),
           "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http"},
                     {"name": "grpc", "port": 9090, "protocol": "TCP"}]})
}

fn address(pod: usize) -> String {
    format!("10.{}.{}.{}", 128 + pod / 62500, pod / 250 % 250, pod % 250 + 1)
}

fn pod_name(n: usize) -> String {
    format!("service-{n:05}-5d8c7b9f6d-{n:05}")
}

fn container(name: &str, ports: Value) -> Value {
    let variable =
        |n: usize| json!({"name": format!("SETTING_{n:02}"), "value": format!("https://setting-{n}.example.com/")});
    let secret = json!({"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}});
    let mut env: Vec<Value> = (0..8).map(variable).collect();
    env.push(secret);
    json!({
        "name": name, "image": format!("registry.example.com/team/{name}:v1.27.3"), "imagePullPolicy": "IfNotPresent",
        "args": ["--listen=:8080", "--log-level=info"], "env": env, "ports": ports,
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10,
                          "failureThreshold": 3, "successThreshold": 1, "timeoutSeconds": 1},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10,
                           "failureThreshold": 3, "successThreshold": 1, "timeoutSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "volumeMounts": [{"name": "config", "mountPath": "/etc/app"},
                         {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
    })
}

/// A pod with a proxy, 6 to 8 KB of text.
fn pod(n: usize, size: Size) -> Value {
    let app = format!("service-{n:05}");
    let labels = json!({"app": app, "version": "v1", "pod-template-hash": "5d8c7b9f6d", "security.istio.io/tlsMode": "istio",
                        "service.istio.io/canonical-name": app, "service.istio.io/canonical-revision": "v1"});
    let mut metadata = metadata(n, &pod_name(n), labels);
    metadata["generateName"] = format!("{app}-5d8c7b9f6d-").into();
    metadata["annotations"] = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "15020",
                                     "kubectl.kubernetes.io/default-container": "app",
                                     "sidecar.istio.io/status": r#"{"initContainers":["istio-init"],"containers":["istio-proxy"],"volumes":["istio-envoy","istio-data"],"revision":"default"}"#});
    metadata["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-5d8c7b9f6d"),
                                          "uid": uid(n), "controller": true, "blockOwnerDeletion": true}]);
    metadata["managedFields"] = json!([
        managed(
            "kube-controller-manager",
            &[
                "containers",
                "dnsPolicy",
                "enableServiceLinks",
                "restartPolicy",
                "schedulerName",
                "securityContext",
                "serviceAccount",
                "terminationGracePeriodSeconds",
                "volumes"
            ]
        ),
        managed("kubelet", &["conditions", "containerStatuses", "hostIP", "phase", "podIP", "podIPs", "startTime"]),
    ]);
    let ports = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"},
                       {"name": "grpc", "containerPort": 9090, "protocol": "TCP"}]);
    let proxy = json!([{"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"}]);
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = |name: &str| {
        json!({"name": name, "ready": true, "started": true, "restartCount": 0, "lastState": {},
               "image": format!("registry.example.com/team/{name}:v1.27.3"),
               "imageID": format!("registry.example.com/team/{name}@sha256:{:064x}", n),
               "containerID": format!("containerd://{:064x}", n), "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    };
    json!({
        "metadata": metadata,
        "spec": {
            "containers": [container("app", ports), container("istio-proxy", proxy)],
            "nodeName": node_name(n % size.nodes), "serviceAccountName": app, "serviceAccount": app,
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0, "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {},
            "terminationGracePeriodSeconds": 30,
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "volumes": [{"name": "config", "configMap": {"name": "app", "defaultMode": 420}},
                        {"name": "token", "projected": {"defaultMode": 420, "sources": [
                            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
        },
        "status": {
            "phase": "Running", "qosClass": "Burstable", "startTime": "2026-01-01T00:00:00Z",
            "hostIP": format!("10.0.{}.{}", n % size.nodes / 256, n % size.nodes % 256), "podIP": address(n), "podIPs": [{"ip": address(n)}],
            "conditions": [condition("PodReadyToStartContainers"), condition("Initialized"), condition("Ready"),
                           condition("ContainersReady"), condition("PodScheduled")],
            "containerStatuses": [status("app"), status("istio-proxy")],
        },
    })
}
