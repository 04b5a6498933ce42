use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::chart::{CHARTS, yaml};
use super::*;

fn plan(spec: Value) -> Plan {
    Plan::of(&json!({"metadata": {"name": "test", "namespace": "istio-system"}, "spec": spec})).unwrap()
}

/// The objects by `Kind name`.
fn objects(plan: &mut Plan) -> BTreeMap<String, Value> {
    let all = plan.render().unwrap().into_iter().flatten();
    all.map(|object| (format!("{} {}", text(&object, "/kind"), text(&object, "/metadata/name")), object)).collect()
}

fn told(plan: &Plan) -> Vec<String> {
    plan.told.iter().map(|told| format!("{} [{}]", told.path, told.code)).collect()
}

#[test]
fn all_files_of_the_charts_are_embedded() {
    for chart in CHARTS {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("charts").join(chart.name).join("templates");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.retain(|file| file != "NOTES.txt");
        files.sort();
        assert_eq!(files, chart.files(), "{}", chart.name);
        assert!(chart.values().is_object() && !chart.version().is_empty());
    }
}

#[test]
fn there_is_a_dockerfile_for_each_image() {
    let images = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../images");
    for (chart, image) in [
        (&chart::BASE, "/operator/image"),
        (&chart::MESHD, "/pilot/image"),
        (&chart::MESHD, "/global/proxy/image"),
        (&chart::MESHD, "/global/proxy_init/image"),
    ] {
        let values = chart.values();
        let file = images.join(format!("{}.Dockerfile", text(&values, image)));
        let built = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(built.contains("USER 1337"), "{}: not root", file.display());
    }
}

#[test]
fn the_default_values_are_what_the_schemas_take() {
    for chart in CHARTS {
        let mut told = Vec::new();
        let fit = schema::fit(&chart.schema(), chart.values(), &mesh_api::FieldPath::default(), &mut told);
        assert_eq!((fit, told), (Some(chart.values()), vec![]), "{}", chart.name);
    }
}

/// What the injector assumes where the ConfigMap says nothing is what the chart's ConfigMap says by default.
#[test]
fn the_values_are_those_of_the_injector() {
    fn differences(path: &str, injector: &Value, chart: &Value, out: &mut Vec<String>) {
        match (injector, chart) {
            (Value::Object(fields), _) if !fields.is_empty() => {
                for (key, value) in fields {
                    let there = chart.get(key).unwrap_or(&Value::Null);
                    differences(&format!("{path}.{key}"), value, there, out);
                }
            }
            (injector, chart) if injector == chart => {}
            (injector, chart) => out.push(format!("{path}: {injector}, and in the chart {chart}")),
        }
    }
    let mut out = Vec::new();
    differences("", &mesh_webhook::inject::default_values(), &chart::MESHD.values(), &mut out);
    assert_eq!(out, Vec::<String>::new());
}

#[test]
fn profiles_have_the_parts_that_istios_have() {
    for (profile, want) in [
        ("", "Base Pilot IngressGateways"),
        ("default", "Base Pilot IngressGateways"),
        ("demo", "Base Pilot IngressGateways EgressGateways"),
        ("minimal", "Base Pilot"),
        ("preview", "Base Pilot IngressGateways"),
        ("stable", "Base Pilot IngressGateways"),
        ("empty", ""),
    ] {
        let plan = plan(json!({"profile": profile}));
        let parts: Vec<&str> = plan.parts.iter().map(|part| part.component).collect();
        assert_eq!(parts.join(" "), want, "{profile}");
        assert_eq!(told(&plan), Vec::<String>::new(), "{profile}");
    }
    let error = Plan::of(&json!({"spec": {"revision": "1.31"}})).unwrap_err();
    assert_eq!((error.code.as_ref(), error.path.as_str()), ("InvalidField", "spec.revision"));
    let error = Plan::of(&json!({"spec": {"profile": "ambient"}})).unwrap_err();
    assert_eq!(error.code, "UnknownProfile");
    assert!(error.message.contains("default, demo, empty, minimal"), "{error}");
}

#[test]
fn whatever_is_not_acted_on_is_named() {
    let mut plan = plan(json!({
        "hub": "docker.io/istio",
        "installPackagePath": "/tmp",
        "compatibilityVersion": "1.27",
        "components": {
            "cni": {"enabled": true},
            "ztunnel": {"enabled": false},
            "pilot": {"k8s": {"dnsPolicy": "None", "podDisruptionBudget": {"minAvailable": 1},
                "overlays": [{"kind": "Deployment", "name": "x", "patches": [{"path": "a", "value": 1}]},
                             {"kind": "Deployment", "name": "istiod", "patches": [{"path": "spec.[0]", "value": 1}]}]}},
        },
        "meshConfig": {"enableTracing": true, "nothingSuch": 1},
        "values": {
            "global": {"proxy": {"tracer": "zipkin"}, "tag": 1},
            "pilot": {"traceSampling": 1, "autoscaleMin": "two"},
            "gateways": {"istio-ingressgateway": {"customService": true, "autoscaleMax": 3}},
            "cni": {"logLevel": "debug"},
        },
    }));
    plan.render().unwrap();
    assert_eq!(
        told(&plan),
        [
            "spec.compatibilityVersion [UnsupportedField]",
            "spec.components.pilot.k8s.dnsPolicy [UnsupportedField]",
            "spec.installPackagePath [UnsupportedField]",
            "spec.values.cni [UnsupportedField]",
            "spec.values.global.proxy.tracer [UnsupportedField]",
            "spec.values.pilot.autoscaleMin [InvalidField]",
            "spec.values.pilot.traceSampling [UnsupportedField]",
            "spec.meshConfig.nothingSuch [UnknownField]",
            "spec.hub [ForeignHub]",
            "spec.components.cni [UnsupportedField]",
            "spec.values.gateways.istio-ingressgateway.customService [UnsupportedField]",
            "spec.components.pilot.k8s.podDisruptionBudget [NothingToChange]",
            "spec.components.pilot.k8s.overlays[0] [NothingToChange]",
            "spec.components.pilot.k8s.overlays[1].patches[0].path [NothingToChange]",
        ]
    );
}

#[test]
fn settings_reach_the_objects() {
    let mut plan = plan(json!({
        "hub": "example.com/mesh",
        "tag": 7,
        "revision": "canary",
        "namespace": "mesh",
        "meshConfig": {"accessLogFile": "/dev/stdout", "trustDomain": "example.com"},
        "components": {
            "pilot": {"k8s": {
                "env": [{"name": "PILOT_X", "value": "1"}],
                "resources": {"requests": {"cpu": "1"}},
                "replicaCount": 3,
                "hpaSpec": {"maxReplicas": 9},
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "podAnnotations": {"a": "b"},
                "service": {"type": "ClusterIP"},
                "strategy": {"rollingUpdate": {"maxSurge": "50%"}},
                "podDisruptionBudget": {"maxUnavailable": 1},
                "volumes": [{"name": "extra", "emptyDir": {}}],
                "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
                "overlays": [{"kind": "Deployment", "name": "istiod-canary", "patches": [
                    {"path": "spec.template.spec.containers.[name:discovery].args.[-1]", "value": "--remote-debug"},
                    {"path": "spec.template.metadata.annotations.prometheus\\.io/scrape"},
                ]}],
            }},
            "ingressGateways": [{"name": "edge", "namespace": "edge", "label": {"istio": "edge"}, "k8s": {
                "service": {"type": "NodePort", "ports": [{"name": "tcp", "port": 1, "targetPort": 2}]},
            }}],
        },
        "values": {"gateways": {"istio-ingressgateway": {"autoscaleEnabled": false, "env": {"A": "b"}}}},
    }));
    let objects = objects(&mut plan);
    assert_eq!(told(&plan), Vec::<String>::new());
    let pilot = &objects["Deployment istiod-canary"];
    let pod = &pilot["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pilot["metadata"]["namespace"], "mesh");
    assert_eq!(container["image"], "example.com/mesh/meshd:7");
    assert!(container["env"].as_array().unwrap().iter().any(|env| env["name"] == "PILOT_X"));
    assert_eq!(container["resources"]["requests"], json!({"cpu": "1", "memory": "256Mi"}));
    assert_eq!(container["args"].as_array().unwrap().last().unwrap(), "--remote-debug");
    assert!(container["volumeMounts"].as_array().unwrap().iter().any(|mount| mount["mountPath"] == "/extra"));
    assert_eq!(pod["nodeSelector"], json!({"disk": "ssd"}));
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    assert!(pod["affinity"]["nodeAffinity"].is_object() && pod["affinity"]["podAntiAffinity"].is_object());
    let annotations = &pilot["spec"]["template"]["metadata"]["annotations"];
    assert_eq!((&annotations["a"], annotations.get("prometheus.io/scrape")), (&json!("b"), None));
    assert_eq!(pilot["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": "50%", "maxUnavailable": "25%"}));
    let scaling = &objects["HorizontalPodAutoscaler istiod-canary"]["spec"];
    assert_eq!((&scaling["minReplicas"], &scaling["maxReplicas"]), (&json!(3), &json!(9)));
    let budget = &objects["PodDisruptionBudget istiod-canary"]["spec"];
    assert_eq!((budget.get("minAvailable"), &budget["maxUnavailable"]), (None, &json!(1)));
    assert_eq!(objects["Service istiod-canary"]["spec"]["type"], "ClusterIP");
    let mesh = yaml(text(&objects["ConfigMap istio-canary"], "/data/mesh"));
    assert_eq!(
        mesh,
        json!({
            "accessLogFile": "/dev/stdout", "trustDomain": "example.com", "rootNamespace": "mesh",
            "defaultConfig": {"discoveryAddress": "istiod-canary.mesh.svc:15012"},
        })
    );
    let gateway = &objects["Deployment edge"];
    assert_eq!(gateway["metadata"]["namespace"], "edge");
    assert_eq!(gateway["spec"]["replicas"], 1);
    let labels = &gateway["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["istio"], &labels["istio.io/rev"]), (&json!("edge"), &json!("canary")));
    assert_eq!(gateway["spec"]["template"]["spec"]["containers"][0]["env"], json!([{"name": "A", "value": "b"}]));
    let service = &objects["Service edge"]["spec"];
    assert_eq!((&service["type"], service["ports"].as_array().unwrap().len()), (&json!("NodePort"), 1));
    assert!(objects["MutatingWebhookConfiguration istio-sidecar-injector-canary-mesh"].is_object());
}

/// A gateway's pods are as the chart makes them until the webhook, told by the chart's ConfigMap, puts the proxy in.
#[test]
fn the_injector_takes_the_config_map_and_completes_a_gateway() {
    let objects = objects(&mut plan(json!({"hub": "example.com", "tag": "1.0", "revision": "canary"})));
    let data = objects["ConfigMap istio-sidecar-injector-canary"]["data"].clone();
    let mesh = mesh_api::mesh::MeshConfig::default();
    let (config, told) = mesh_webhook::Config::from_config_map(&serde_json::from_value(data).unwrap(), mesh);
    assert_eq!(told, []);
    let pod = objects["Deployment istio-ingressgateway"]["spec"]["template"].clone();
    let injected = mesh_webhook::Injector::new(config).inject(pod, "istio-system", None, BTreeMap::new()).unwrap();
    let mesh_webhook::inject::Outcome::Injected(pod) = injected else { panic!("{injected:?}") };
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "example.com/mesh-agent:1.0");
    assert_eq!((&container["args"][0], &container["args"][1]), (&json!("proxy"), &json!("router")));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "what the chart says stays");
}

/// Two revisions share nothing but the part that all share.
#[test]
fn revisions_run_side_by_side() {
    let names = |spec| -> Vec<String> {
        let mut plan = plan(spec);
        plan.parts.retain(|part| part.component == "Pilot");
        objects(&mut plan).into_keys().collect()
    };
    let old = names(json!({"profile": "minimal", "values": {"revisionTags": ["prod"]}}));
    let new = names(json!({"profile": "minimal", "revision": "canary"}));
    assert!(old.iter().all(|name| !new.contains(name)), "{old:?} {new:?}");
    assert!(old.contains(&"MutatingWebhookConfiguration istio-revision-tag-prod".to_owned()), "{old:?}");
    assert!(old.contains(&"Service istiod-revision-tag-prod".to_owned()));
}

#[test]
fn roles_have_no_wildcards_and_pods_no_more_rights_than_they_need() {
    let mut plan = plan(json!({"profile": "demo", "values": {"operator": {"enabled": true}}}));
    for (name, object) in objects(&mut plan) {
        for rule in object.get("rules").and_then(Value::as_array).into_iter().flatten() {
            for field in ["apiGroups", "resources", "verbs"] {
                assert!(!rule[field].as_array().unwrap().contains(&json!("*")), "{name}: {rule}");
            }
        }
        if let Some(pod) = object.pointer("/spec/template/spec") {
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            assert!(pod["affinity"]["podAntiAffinity"].is_object(), "{name}");
            for container in pod["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["runAsNonRoot"], true, "{name}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{name}");
                // A gateway's probes come with its proxy, from the webhook.
                let probed = container["readinessProbe"].is_object() && container["livenessProbe"].is_object();
                assert!(probed || container["image"] == "auto", "{name}");
            }
        }
    }
}
