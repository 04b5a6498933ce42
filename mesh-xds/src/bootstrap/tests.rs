//! Bootstraps of all kinds of pods, judged by eye and by a real Envoy.

use std::process::Command;

use super::*;

fn node(ips: &[&str], annotations: Value) -> Node {
    let metadata = json!({"NAME": "a-1", "NAMESPACE": "ns", "LABELS": {"app": "a"}, "ANNOTATIONS": annotations});
    Node {
        role: Role::Sidecar,
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        id: "a-1.ns".into(),
        dns_domain: "ns.svc.cluster.local".into(),
        locality: "r/z".into(),
        metadata: metadata.as_object().unwrap().clone(),
    }
}

fn at<'a>(value: &'a Value, name: &str) -> &'a Value {
    let clusters = value["static_resources"]["clusters"].as_array().unwrap();
    clusters.iter().find(|c| c["name"] == name).unwrap()
}

/// The cases that every Envoy must take: families, DNS and IP addresses of the control plane, annotations, a mark.
fn cases() -> Vec<(&'static str, Value)> {
    let settings = |address: &str| {
        let mut settings = Settings::new(ProxyConfig { discovery_address: address.into(), ..Default::default() });
        settings.watch_connections = true;
        settings
    };
    let mut marked = settings("10.0.0.1:15010");
    marked.upstream_mark = Some(1337);
    let mut relayed = settings("istiod.istio-system.svc:15012");
    relayed.xds_socket = Some("./etc/istio/proxy/XDS".into());
    let annotations = json!({"sidecar.istio.io/statsInclusionPrefixes": "http.{pod_ip}_,cluster.outbound"});
    vec![
        ("v4", bootstrap(&node(&["10.0.0.7"], json!({})), &settings("istiod.istio-system.svc:15010")).unwrap()),
        ("v6", bootstrap(&node(&["fd00::7"], json!({})), &settings("[fd00::1]:15010")).unwrap()),
        ("dual", bootstrap(&node(&["10.0.0.7", "fd00::7"], annotations), &settings("10.0.0.1:15010")).unwrap()),
        ("relayed", bootstrap(&node(&["10.0.0.7"], json!({})), &relayed).unwrap()),
        ("marked", bootstrap(&node(&["10.0.0.7"], json!({})), &marked).unwrap()),
    ]
}

#[test]
fn says_who_and_where() {
    let cases = cases();
    let v4 = &cases[0].1;
    assert_eq!(v4["node"]["id"], "sidecar~10.0.0.7~a-1.ns~ns.svc.cluster.local");
    assert_eq!(v4["node"]["cluster"], "a.ns");
    assert_eq!(v4["node"]["locality"], json!({"region": "r", "zone": "z"}));
    assert_eq!(at(v4, "xds-grpc")["type"], "STRICT_DNS");
    assert_eq!(v4["admin"]["address"]["socket_address"]["address"], "127.0.0.1");
    let v6 = &cases[1].1;
    assert_eq!(at(v6, "xds-grpc")["type"], "STATIC");
    assert_eq!(
        at(v6, "xds-grpc")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"],
        socket("fd00::1", 15010)
    );
    assert_eq!(v6["static_resources"]["listeners"][0]["address"], socket("::", 15090));
    let dual = &cases[2].1;
    assert_eq!(dual["static_resources"]["listeners"][1]["additional_addresses"][0]["address"], socket("::", 15021));
    let relayed = &cases[3].1;
    for (cluster, path) in
        [("xds-grpc", "./etc/istio/proxy/XDS"), ("sds-grpc", "./var/run/secrets/workload-spiffe-uds/socket")]
    {
        let endpoint = &at(relayed, cluster)["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(endpoint["address"], pipe(path));
    }
    let kept = dual["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"].as_array().unwrap();
    for want in [json!({"prefix": "http.10.0.0.7_"}), json!({"prefix": "http.fd00::7_"}), json!({"prefix": "server"})] {
        assert!(kept.contains(&want), "{want} in {kept:?}");
    }
}

#[test]
fn a_bad_discovery_address_is_named() {
    for bad in ["istiod", "istiod:", ":15010", "istiod:http"] {
        let settings = Settings::new(ProxyConfig { discovery_address: bad.into(), ..Default::default() });
        let error = bootstrap(&node(&["10.0.0.7"], json!({})), &settings).unwrap_err();
        assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
    }
}

#[test]
fn a_described_proxy_is_one_like_any_other() {
    let proxy = json!({
        "type": "router", "id": "gw.istio-system", "ips": ["1.1.1.1"], "namespace": "istio-system",
        "labels": {"istio": "ingressgateway"}, "locality": "r/z/s", "metadata": {"CLUSTER_ID": "c"},
    });
    let got = for_description(&proxy, Some("1.2.3.4:15010")).unwrap();
    assert_eq!(got["node"]["id"], "router~1.1.1.1~gw.istio-system~istio-system.svc.cluster.local");
    assert_eq!(got["node"]["metadata"]["LABELS"], json!({"istio": "ingressgateway"}));
    assert_eq!(got["node"]["metadata"]["NAME"], "gw");
    assert_eq!(got["node"]["metadata"]["CLUSTER_ID"], "c");
    assert_eq!(got["node"]["metadata"]["PROXY_CONFIG"]["discoveryAddress"], "1.2.3.4:15010");
    assert_eq!(got["node"]["locality"]["sub_zone"], "s");
    assert_eq!(got["node"]["metadata"]["MESH_MTLS"], "false");
    let secure = for_description(&proxy, None).unwrap();
    let endpoint = &at(&secure, "xds-grpc")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    assert_eq!(endpoint["address"], pipe("./etc/istio/proxy/XDS"));
    assert_eq!(secure["node"]["metadata"].get("MESH_MTLS"), None);
    assert!(for_description(&json!({"type": "teapot"}), None).unwrap_err().to_string().contains("teapot"));
    assert!(for_description(&json!({"ips": ["x"]}), None).unwrap_err().to_string().contains("\"x\""));
}

#[test]
fn a_real_envoy_takes_it() {
    let Some(envoy) = std::env::var_os("ENVOY_PATH") else {
        eprintln!("SKIPPED a_real_envoy_takes_it: ENVOY_PATH names no Envoy");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for (name, bootstrap) in cases() {
        let file = folder.path().join(format!("{name}.json"));
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let done = Command::new(&envoy).args(["--mode", "validate", "-c"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{name}: {said}");
        for bad in ["[warning]", "[error]", "[critical]"] {
            assert!(!said.contains(bad), "{name}: {said}");
        }
    }
}
