//! Defaults, overlays and what happens to settings that cannot be read.

use super::*;

#[test]
fn nothing_said_is_the_default() {
    for text in ["", "# nothing\n", "---\n", "{}", "trustDomain: null\ndefaultConfig:\n"] {
        let (mesh, told) = MeshConfig::from_yaml(text);
        assert_eq!(told, [], "{text:?}");
        assert_eq!(mesh, MeshConfig::default(), "{text:?}");
    }
}

#[test]
fn fields_replace_and_three_of_them_merge() {
    let base = "
        trustDomainAliases: [b]
        enableTracing: false
        defaultConfig:
          proxyMetadata: {A: '1', B: '2'}
          proxyHeaders: {server: {value: mine}, xForwardedHost: {enabled: true}}
          tracing: {sampling: 10}
        defaultProviders: {metrics: [prometheus]}
        outboundTrafficPolicy: {mode: REGISTRY_ONLY}";
    let (base, told) = MeshConfig::from_yaml(base);
    assert_eq!(told, []);
    let over = "
        trustDomainAliases: [c, a]
        connectTimeout: 1s
        meshMTLS: {minProtocolVersion: TLSV1_3}
        defaultConfig:
          proxyMetadata: {B: '3'}
          proxyHeaders: {requestId: {disabled: true}}
          tracing: {zipkin: {address: 'z:9411'}}
          tracingServiceName: CANONICAL_NAME_ONLY
        defaultProviders: {accessLogging: [envoy]}
        extensionProviders:
        - name: envoy
          envoyFileAccessLog: {path: /tmp/log, logFormat: {labels: {path: '%REQ(:PATH)%'}}}
        - name: authz
          envoyExtAuthzGrpc: {service: authz.default.svc.cluster.local, port: '9000'}";
    let (mesh, told) = base.apply(&"over.yaml".into(), over);
    assert_eq!(told, []);
    assert_eq!(mesh.trust_domain_aliases, ["a", "b", "c"]);
    assert!(!mesh.enable_tracing);
    assert_eq!(mesh.connect_timeout, Duration::from_secs(1));
    assert_eq!(mesh.outbound_traffic_policy.mode, OutboundTrafficPolicyMode::RegistryOnly);
    assert_eq!(mesh.mesh_mtls.map(|t| t.min_protocol_version), Some(TlsProtocol::Tlsv1_3));
    assert_eq!(mesh.default_providers.metrics, ["prometheus"]);
    assert_eq!(mesh.default_providers.access_logging, ["envoy"]);
    let proxy = &mesh.default_config;
    assert_eq!(proxy.proxy_metadata, BTreeMap::from([("A".into(), "1".into()), ("B".into(), "3".into())]));
    let tracing = proxy.tracing.clone().unwrap();
    assert_eq!((tracing.sampling, tracing.tracer.is_some()), (0.0, true), "replaced as a whole");
    let headers = proxy.proxy_headers.clone().unwrap();
    assert_eq!(headers.server.unwrap().value, "mine");
    assert_eq!(headers.request_id.unwrap().disabled, Some(true));
    assert_eq!(headers.x_forwarded_host, None);
    assert_eq!(proxy.tracing_service_name, Some(TracingServiceName::CanonicalNameOnly));
    assert_eq!((proxy.service_cluster.as_str(), proxy.status_port), ("", 15020));
    let names: Vec<_> = mesh.extension_providers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["prometheus", "stackdriver", "envoy", "authz"]);
    let Some(Provider::EnvoyFileAccessLog(log)) = &mesh.extension_providers[2].provider else { panic!() };
    assert_eq!(log.path, "/tmp/log");
}

#[test]
fn what_cannot_be_read_is_told_and_stays() {
    let text = "trustDomain: [a]\nrootNamespace: mesh\ndefaultConfig:\n  concurrency: many\n  statusPort: 1\n\
                trustDomian: b\noutboundTrafficPolicy: {mode: ALLOW}\n";
    let (mesh, told) = MeshConfig::from_yaml(text);
    let lines: Vec<_> = told.iter().map(|d| (d.path.as_str(), d.location.as_ref().unwrap().line)).collect();
    assert_eq!(
        lines,
        [("trustDomain", 1), ("outboundTrafficPolicy.mode", 7), ("trustDomian", 6), ("defaultConfig.concurrency", 4)]
    );
    assert_eq!(mesh.trust_domain, "cluster.local");
    assert_eq!(mesh.root_namespace, "mesh");
    assert_eq!(mesh.outbound_traffic_policy, MeshConfig::default().outbound_traffic_policy);
    assert_eq!((mesh.default_config.concurrency, mesh.default_config.status_port), (None, 1));
    for text in ["[1]", "a: {", "a: 1\na: 2"] {
        let (mesh, told) = MeshConfig::from_yaml(text);
        assert_eq!((mesh, told.len()), (MeshConfig::default(), 1), "{text}");
    }
}

#[test]
fn settings_survive_being_written() {
    let written = serde_json::to_string(&MeshConfig::default()).unwrap();
    let (mesh, told) = MeshConfig::from_yaml(&written);
    assert_eq!((mesh, told), (MeshConfig::default(), Vec::new()));
}

#[test]
fn networks_are_read() {
    let text = "networks:\n  n1:\n    endpoints: [{fromRegistry: c1}, {fromCidr: 10.0.0.0/8}]\n    \
                gateways: [{address: 1.2.3.4, port: 15443}, {registryServiceName: gw.istio-system.svc, port: 1}]\n";
    let (networks, told) = MeshNetworks::from_yaml(text);
    assert_eq!(told, []);
    let network = &networks.networks["n1"];
    assert_eq!(network.endpoints[0].ne, Some(NetworkEndpointsSource::FromRegistry("c1".into())));
    assert_eq!(network.gateways[0].gw, Some(NetworkGatewayAddress::Address("1.2.3.4".into())));
    assert_eq!(network.gateways[1].port, 1);
}

#[test]
fn selectors_choose_as_kubernetes_does() {
    let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
    for (selector, chosen) in [
        ("{}", true),
        ("matchLabels: {a: '1'}", true),
        ("matchLabels: {a: '2'}", false),
        ("matchExpressions: [{key: a, operator: In, values: ['1', '2']}]", true),
        ("matchExpressions: [{key: a, operator: NotIn, values: ['1']}]", false),
        ("matchExpressions: [{key: b, operator: NotIn, values: ['1']}]", true),
        ("matchExpressions: [{key: a, operator: Exists}, {key: b, operator: DoesNotExist}]", true),
        ("matchExpressions: [{key: a, operator: Has}]", false),
    ] {
        let text = format!("discoverySelectors:\n- {selector}\n");
        let (mesh, told) = MeshConfig::from_yaml(&text);
        assert_eq!(told, [], "{selector}");
        assert_eq!(mesh.discovery_selectors[0].matches(&labels), chosen, "{selector}");
    }
}

#[test]
fn names_and_numbers_of_the_proto_file_are_read() {
    let text = "trust_domain: a\noutbound_traffic_policy: {mode: 3}\nmesh_mTLS: {min_protocol_version: TLSV1_3}\n\
                default_config: {status_port: 1, tracing: {zipkin: {address: 'z:1'}}}\n";
    let (mesh, told) = MeshConfig::from_yaml(text);
    assert_eq!(told, []);
    assert_eq!(mesh.trust_domain, "a");
    assert_eq!(mesh.outbound_traffic_policy.mode, OutboundTrafficPolicyMode::AllowAnyDynamicDns);
    assert_eq!(mesh.mesh_mtls.map(|tls| tls.min_protocol_version), Some(TlsProtocol::Tlsv1_3));
    assert_eq!(mesh.default_config.status_port, 1);
}
