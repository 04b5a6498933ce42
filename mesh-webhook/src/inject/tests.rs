//! Whole pods, from as written to injected.

use mesh_api::mesh::MeshConfig;
use serde_json::json;

use super::*;

fn injector(values: Value, change: impl FnOnce(&mut Config)) -> Injector {
    let (mut config, told) = Config::new(values, MeshConfig::default());
    assert_eq!(told, []);
    change(&mut config);
    Injector::new(config)
}

fn inject(injector: &Injector, pod: Value) -> Result<Value, InjectError> {
    match injector.inject(pod, "shop", None, BTreeMap::new())? {
        Outcome::Injected(pod) => Ok(pod),
        Outcome::Skipped(decision) => panic!("skipped: {decision}"),
    }
}

fn injected(pod: Value) -> Value {
    inject(&Injector::new(Config::default()), pod).unwrap()
}

fn pod(annotations: Value) -> Value {
    let metadata = json!({"name": "p", "annotations": annotations});
    json!({"metadata": metadata, "spec": {"containers": [{"name": "app", "image": "app:1"}]}})
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let containers = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
    containers.into_iter().flatten().map(|container| pod::entry_name(container).to_owned()).collect()
}

fn proxy(pod: &Value) -> Value {
    let pod = Pod::read(pod.clone()).unwrap();
    Value::Object(pod.container(pod::PROXY).unwrap().clone())
}

fn env(pod: &Value, variable: &str) -> Option<String> {
    Pod::read(pod.clone()).unwrap().proxy_env(variable).map(str::to_owned)
}

#[test]
fn the_built_in_configuration_is_sound() {
    let (config, told) = Config::new(Value::Null, MeshConfig::default());
    assert_eq!(told, []);
    assert_eq!(config.templates.keys().collect::<Vec<_>>(), ["gateway", "grpc-agent", "grpc-simple", "sidecar"]);
    for template in config.templates.keys() {
        let injected = injected(pod(json!({"inject.istio.io/templates": template})));
        assert!(!injected.to_string().contains("<no value>"), "{template}: {injected:#}");
    }
}

#[test]
fn the_order_of_containers() {
    let written = || {
        let mut pod = pod(json!({}));
        pod["spec"]["initContainers"] = json!([{"name": "setup"}]);
        pod
    };
    for (native, hold, containers, init) in [
        (false, false, ["app", "istio-proxy"].as_slice(), ["setup", "istio-init"].as_slice()),
        (false, true, &["istio-proxy", "app"], &["setup", "istio-init"]),
        (true, false, &["app"], &["istio-init", "istio-proxy", "setup"]),
        (true, true, &["app"], &["istio-init", "istio-proxy", "setup"]),
    ] {
        let values = json!({"global": {"proxy": {"holdApplicationUntilProxyStarts": hold}}});
        let injector = injector(values, |config| config.native_sidecars = native.into());
        let got = inject(&injector, written()).unwrap();
        assert_eq!((names(&got, "containers"), names(&got, "initContainers")), (strings(containers), strings(init)));
        // Where the kubelet knows sidecars it waits for them by itself.
        assert_eq!(proxy(&got).pointer("/lifecycle/postStart").is_some(), hold && !native);
        assert_eq!(inject(&injector, got.clone()).unwrap(), got, "twice is once");
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn what_the_user_says_of_the_proxy_wins() {
    let mut written = pod(json!({}));
    written["spec"]["containers"] = json!([
        {"name": "istio-proxy", "image": "auto", "securityContext": {"runAsUser": 4000}, "env": [{"name": "TRUST_DOMAIN", "value": "own"}]},
        {"name": "app"},
    ]);
    for native in [false, true] {
        let injector = injector(Value::Null, |config| config.native_sidecars = native.into());
        let got = inject(&injector, written.clone()).unwrap();
        assert_eq!(names(&got, "containers").contains(&"istio-proxy".to_owned()), !native);
        let proxy = proxy(&got);
        assert_eq!(
            (&proxy["image"], &proxy["securityContext"]["runAsUser"]),
            (&json!("ghcr.io/mesh-rs/mesh-agent:latest"), &json!(4000))
        );
        assert_eq!(proxy["securityContext"]["runAsGroup"], 1337);
        let kept = got["metadata"]["annotations"]["proxy.istio.io/overrides"].as_str().unwrap();
        let own = r#"{"name":"istio-proxy","env":[{"name":"TRUST_DOMAIN","value":"own"}],"resources":{},"securityContext":{"runAsUser":4000}}"#;
        assert!(kept.contains(own), "{kept}");
        assert_eq!(env(&got, "TRUST_DOMAIN").as_deref(), Some("own"));
        // The rules spare the user that the proxy now runs as.
        let setup = Pod::read(got.clone()).unwrap().container("istio-init").unwrap()["args"].to_string();
        assert!(setup.contains(r#""-u","4000""#), "{setup}");
        assert_eq!(inject(&injector, got.clone()).unwrap(), got, "twice is once");
    }
}

#[test]
fn rules_are_of_nftables_where_the_values_say_so() {
    let arguments = |values| {
        let got = inject(&injector(values, |_| {}), pod(json!({}))).unwrap();
        Pod::read(got).unwrap().container("istio-init").unwrap()["args"].to_string()
    };
    assert!(!arguments(Value::Null).contains("nftables"));
    assert!(arguments(json!({"global": {"nativeNftables": true}})).contains("\"--native-nftables\""));
}

#[test]
fn a_proxy_of_another_user_is_root_where_it_intercepts_transparently() {
    let mut written = pod(json!({"sidecar.istio.io/interceptionMode": "TPROXY"}));
    written["spec"]["containers"] =
        json!([{"name": "istio-proxy", "securityContext": {"runAsUser": 4000}}, {"name": "app"}]);
    let got = injected(written);
    assert_eq!(proxy(&got)["securityContext"]["runAsUser"], 0);
    assert_eq!(injected(got.clone()), got, "twice is once");
}

#[test]
fn on_openshift_the_proxy_is_of_its_namespaces_last_user() {
    let annotations = [("openshift.io/sa.scc.uid-range".to_owned(), "1000620000/10000".to_owned())].into();
    let injector = injector(json!({"pilot": {"cni": {"enabled": true}}}), |config| {
        config.openshift = Some(OpenShift::new([("shop", &annotations)]));
    });
    for (mode, user, of_proxy) in [("REDIRECT", 1_000_629_999, 1_000_629_999), ("TPROXY", 1337, 0)] {
        let mut written = pod(json!({"sidecar.istio.io/interceptionMode": mode}));
        // As OpenShift gives it to all containers of a pod.
        let assigned = json!({"runAsUser": 1_000_620_000});
        written["spec"]["containers"] = json!([
            {"name": "app", "securityContext": assigned},
            {"name": "istio-proxy", "image": "auto", "securityContext": assigned},
        ]);
        let got = inject(&injector, written).unwrap();
        let setup = Pod::read(got.clone()).unwrap().container("istio-validation").unwrap().clone();
        assert_eq!(setup["securityContext"]["runAsUser"], user);
        assert!(setup["args"].to_string().contains(&format!(r#""-u","{user}""#)));
        let context = &proxy(&got)["securityContext"];
        assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(of_proxy), &json!(user)));
        assert_eq!(inject(&injector, got.clone()).unwrap(), got, "twice is once");
    }
}

#[test]
fn a_gateway_is_a_pod_with_the_gateway_template() {
    let mut written = pod(json!({"inject.istio.io/templates": "gateway"}));
    written["spec"]["containers"] =
        json!([{"name": "istio-proxy", "image": "auto", "ports": [{"containerPort": 8080}]}]);
    let got = injected(written);
    assert_eq!((names(&got, "containers"), names(&got, "initContainers")), (strings(&["istio-proxy"]), vec![]));
    let proxy = proxy(&got);
    assert_eq!(proxy["args"][1], "router");
    assert_eq!(
        proxy["ports"],
        json!([{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}, {"containerPort": 8080}])
    );
    assert_eq!(got.pointer("/spec/securityContext/sysctls/0/value"), Some(&json!("0")));
}

#[test]
fn the_control_plane_is_never_in_its_own_way() {
    let mut own = pod(json!({"sidecar.istio.io/inject": "true", "sidecar.istio.io/interceptionMode": "nonsense"}));
    own["metadata"]["labels"] = json!({"app": "istiod"});
    let injector = Injector::new(Config::default());
    let inject = |namespace: &str| injector.inject(own.clone(), namespace, None, BTreeMap::new());
    assert_eq!(inject("istio-system").unwrap(), Outcome::Skipped(Decision::ControlPlane));
    assert!(inject("shop").is_err());
}

fn proxy_config(namespace: &str, name: &str, spec: Value) -> std::sync::Arc<mesh_api::networking::ProxyConfig> {
    let metadata = json!({"namespace": namespace, "name": name});
    let object =
        json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "ProxyConfig", "metadata": metadata, "spec": spec});
    std::sync::Arc::new(serde_json::from_value(object).unwrap())
}

#[test]
fn proxy_configs_lie_over_the_mesh() {
    let variables = |value: &str| json!({"WHOSE": value, value: "here"});
    let with = |selector: Value, spec: Value| {
        let mut spec = spec;
        spec["selector"] = json!({"matchLabels": selector});
        spec
    };
    let all = [
        proxy_config("istio-system", "mesh", json!({"concurrency": 1, "environmentVariables": variables("MESH")})),
        proxy_config("shop", "a", json!({"concurrency": 2, "environmentVariables": variables("NAMESPACE")})),
        proxy_config("shop", "b", json!({"concurrency": 9})),
        proxy_config(
            "shop",
            "c",
            with(
                json!({"app": "cart"}),
                json!({"image": {"imageType": "debug"}, "environmentVariables": variables("WORKLOAD")}),
            ),
        ),
        proxy_config("shop", "d", with(json!({}), json!({"concurrency": 8}))),
    ];
    let injector = injector(Value::Null, |config| config.proxy_configs = ProxyConfigs::new("istio-system", all));
    let annotation = "{concurrency: 4, proxyMetadata: {WHOSE: POD, POD: here}}";
    for (namespace, app, annotation, whose, concurrency, also) in [
        ("other", "cart", None, "MESH", "1", &["MESH"][..]),
        ("istio-system", "cart", None, "MESH", "1", &["MESH"]),
        ("shop", "other", None, "NAMESPACE", "2", &["MESH", "NAMESPACE"]),
        ("shop", "other", Some(annotation), "POD", "4", &["MESH", "NAMESPACE", "POD"]),
        ("shop", "cart", Some(annotation), "WORKLOAD", "4", &["MESH", "NAMESPACE", "POD", "WORKLOAD"]),
    ] {
        let mut written = pod(annotation.map_or(json!({}), |text| json!({"proxy.istio.io/config": text})));
        written["metadata"]["labels"] = json!({"app": app});
        let got = match injector.inject(written, namespace, None, BTreeMap::new()).unwrap() {
            Outcome::Injected(pod) => pod,
            Outcome::Skipped(decision) => panic!("{decision}"),
        };
        assert_eq!(env(&got, "WHOSE").as_deref(), Some(whose), "{namespace}/{app}");
        assert!(also.iter().all(|name| env(&got, name).as_deref() == Some("here")), "{namespace}/{app}: {also:?}");
        let args = proxy(&got)["args"].to_string() + &env(&got, "PROXY_CONFIG").unwrap_or_default();
        assert!(args.contains(concurrency), "{args}");
        assert_eq!(proxy(&got)["image"].as_str().unwrap().ends_with("-debug"), whose == "WORKLOAD");
    }
}

#[test]
fn the_jobs_of_a_cron_job_bear_its_labels() {
    let template = json!({"metadata": {"labels": {"own": "kept"}}, "spec": {"containers": [{"name": "app"}]}});
    let mut document = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
                              "spec": {"jobTemplate": {"metadata": {"labels": {"app": "n"}}, "spec": {"template": template}}}});
    let injector = Injector::new(Config::default());
    assert_eq!(injector.inject_document(&mut document).unwrap(), []);
    let job = &document["spec"]["jobTemplate"];
    assert_eq!(job["metadata"]["labels"]["service.istio.io/canonical-name"], "n");
    assert!(job["metadata"]["annotations"]["sidecar.istio.io/status"].is_string());
    assert_eq!(job["spec"]["template"]["metadata"], template["metadata"]);
    assert_eq!(names(&job["spec"]["template"], "containers"), ["app", "istio-proxy"]);
    let once = document.clone();
    injector.inject_document(&mut document).unwrap();
    assert_eq!(document, once, "twice is once");
}

#[test]
fn templates_of_the_config_map() {
    let custom = "metadata: {annotations: {of: '{{ .ObjectMeta.Name }} {{ .Values.own.key }} {{ .ProxyConfig.GetConcurrency }}'}}\n\
                  spec:\n  containers:\n  {{- range .Spec.Containers }}\n  - {name: {{ .Name }}, tty: true}\n  {{- end }}\n";
    let config = json!({
        "templates": {"custom": custom, "bad": "{{ if }}"},
        "aliases": {"both": ["sidecar", "custom"]},
        "defaultTemplates": ["both"],
        "injectedAnnotations": {"x": "y"},
    });
    let data = BTreeMap::from([
        ("config".to_owned(), config.to_string()),
        ("values".to_owned(), json!({"own": {"key": "v"}}).to_string()),
    ]);
    let (config, told) = Config::from_config_map(&data, MeshConfig::default());
    assert_eq!(told.iter().map(|problem| problem.code.as_ref()).collect::<Vec<_>>(), ["InvalidInjectorConfig"]);
    assert!(told[0].message.contains("template bad"), "{}", told[0]);
    let injector = Injector::new(config);
    let got = inject(&injector, pod(json!({}))).unwrap();
    assert_eq!(names(&got, "containers"), ["app", "istio-proxy"]);
    assert_eq!(got.pointer("/spec/containers/0/tty"), Some(&json!(true)));
    let annotations = &got["metadata"]["annotations"];
    assert_eq!((&annotations["of"], &annotations["x"]), (&json!("p v <no value>"), &json!("y")));
    let unknown = inject(&injector, pod(json!({"inject.istio.io/templates": "none"}))).unwrap_err();
    assert!(unknown.to_string().contains(r#"no template "none""#), "{unknown}");
}

#[test]
fn where_the_pod_is() {
    let injector = injector(json!({"global": {"network": "values", "multiCluster": {"clusterName": "c"}}}), |_| {});
    let at = |path: &str, labels: Value| {
        let mut pod = pod(json!({}));
        pod["metadata"]["labels"] = labels;
        match injector.inject(pod, "shop", None, variables(path)).unwrap() {
            Outcome::Injected(pod) => pod,
            Outcome::Skipped(decision) => panic!("{decision}"),
        }
    };
    for (path, labels, cluster, network) in [
        ("", json!({}), "c", "values"),
        ("/cluster/a--slash--b/net/path/", json!({}), "a/b", "path"),
        ("/net/path", json!({"topology.istio.io/network": "label"}), "c", "label"),
        ("/other", json!({}), "c", "values"),
    ] {
        let pod = at(path, labels);
        assert_eq!(env(&pod, "ISTIO_META_CLUSTER_ID").as_deref(), Some(cluster), "{path}");
        assert_eq!(env(&pod, "ISTIO_META_NETWORK").as_deref(), Some(network), "{path}");
        assert_eq!(pod["metadata"]["labels"]["topology.istio.io/network"], network, "{path}");
    }
}

#[test]
fn probes_ask_the_agent() {
    let mut written = pod(json!({}));
    written["spec"]["containers"] = json!([{
        "name": "app",
        "ports": [{"name": "web", "containerPort": 80}],
        "readinessProbe": {"httpGet": {"port": "web", "path": "/r", "scheme": "HTTPS"}, "timeoutSeconds": 5, "periodSeconds": 9},
        "livenessProbe": {"grpc": {"port": 90}},
        "startupProbe": {"exec": {"command": ["true"]}},
        "lifecycle": {"preStop": {"tcpSocket": {"port": 81}}},
    }]);
    let got = injected(written.clone());
    let app = got["spec"]["containers"][0].clone();
    assert_eq!(
        app["readinessProbe"],
        json!({"httpGet": {"port": 15020, "path": "/app-health/app/readyz", "scheme": "HTTP"}, "timeoutSeconds": 5, "periodSeconds": 9})
    );
    assert_eq!(app["livenessProbe"], json!({"httpGet": {"port": 15020, "path": "/app-health/app/livez"}}));
    assert_eq!(app["startupProbe"], written["spec"]["containers"][0]["startupProbe"]);
    assert_eq!(
        app["lifecycle"],
        json!({"preStop": {"httpGet": {"port": 15020, "path": "/app-lifecycle/app/prestopz"}}})
    );
    let probers: Value = serde_json::from_str(&env(&got, "ISTIO_KUBE_APP_PROBERS").unwrap()).unwrap();
    assert_eq!(
        probers,
        json!({
            "/app-health/app/readyz": {"httpGet": {"port": 80, "path": "/r", "scheme": "HTTPS"}, "timeoutSeconds": 5},
            "/app-health/app/livez": {"grpc": {"port": 90}},
            "/app-lifecycle/app/prestopz": {"tcpSocket": {"port": 81}},
        })
    );
    assert_eq!(injected(got.clone()), got, "twice is once");
}

#[test]
fn owners_behind_controllers() {
    let owner = |kind: &str, name: &str, labels: Value| {
        let reference = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true});
        let metadata = json!({"generateName": "p-", "labels": labels, "ownerReferences": [reference]});
        let owner = Owner::of(&Pod::read(json!({"metadata": metadata})).unwrap(), "shop");
        (owner.kind, owner.name)
    };
    let of = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    assert_eq!(owner("ReplicaSet", "web-5d9", json!({"pod-template-hash": "5d9"})), of("Deployment", "web"));
    assert_eq!(owner("ReplicaSet", "web-5d9", json!({"rollouts-pod-template-hash": "5d9"})), of("Rollout", "web"));
    assert_eq!(owner("ReplicaSet", "web", json!({})), of("ReplicaSet", "web"));
    assert_eq!(
        owner("ReplicationController", "web-1", json!({"deploymentconfig": "web"})),
        of("DeploymentConfig", "web")
    );
    assert_eq!(owner("Job", "nightly-28391520", json!({})), of("CronJob", "nightly"));
    assert_eq!(owner("Job", "nightly-1", json!({})), of("Job", "nightly-1"));
}

#[test]
fn a_review_is_answered_with_a_patch() {
    let injector = Injector::new(Config::default());
    let mut written = pod(json!({"sidecar.istio.io/interceptionMode": "TPROXY"}));
    written["metadata"]["managedFields"] = json!([{}]);
    let request = Request { namespace: "shop".to_owned(), object: written, ..Request::default() };
    let response = injector.admit(&request, "");
    assert!(response.allowed && response.patch.is_some(), "{response:?}");
    for (object, code) in [
        (json!("pod"), 400),
        (json!({"spec": {"containers": {}}}), 400),
        (json!({"spec": {"containers": [{"name": "app", "ports": 2_969_140_632_976_830_543_i64}]}}), 422),
        (pod(json!({"sidecar.istio.io/interceptionMode": "ALL"})), 422),
    ] {
        let response = injector.admit(&Request { object, ..request.clone() }, "");
        assert_eq!(response.status.map(|status| status.code), Some(code));
    }
    let system = Request { namespace: "kube-system".to_owned(), object: pod(json!({})), ..Request::default() };
    let response = injector.admit(&system, "");
    assert_eq!((response.allowed, response.patch, response.outcome), (true, None, Counted::NotInjected));
}
