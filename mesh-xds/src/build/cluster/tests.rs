//! Rules as users write them, and what becomes of the clusters.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy};
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::extensions::clusters::dns::v3::DnsCluster;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::google::protobuf::value::Kind;
use prost::Message;

use super::*;
use crate::model::Settings;
use crate::snapshot::{Change, Snapshot};
use crate::testing::{envoy_accepts, objects};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec:
  clusterIP: 10.0.0.1
  selector: {app: reviews}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: grpc, port: 81}
  - {name: any, port: 82}
  - {name: tcp, port: 83}
";

const HEADLESS: &str = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: tcp, port: 80, targetPort: 8080}]
";

fn entry(resolution: &str, more: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: ext, namespace: default}}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: {resolution}
  subjectAltNames: [spiffe://ext]
  ports: [{{number: 443, name: http, protocol: HTTP}}]
{more}"
    )
}

fn rule(host: &str, spec: &str) -> String {
    let indented: String = spec.lines().map(|line| format!("\n  {line}")).collect();
    format!(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: rule, namespace: default}}
spec:
  host: {host}{indented}
"
    )
}

struct World {
    snapshot: Snapshot,
    traits: Traits,
    defaults: Defaults,
    mtls: MtlsMode,
    mode: Mode,
}

fn world(documents: &[&str]) -> World {
    let changes = objects(&documents.join("\n---\n")).into_iter().map(Change::Upsert);
    World {
        snapshot: Snapshot::default().apply(changes),
        traits: Traits::default(),
        defaults: Defaults::of(&Settings::default()),
        mtls: MtlsMode::Unknown,
        mode: Mode::Client,
    }
}

impl World {
    /// The port of the only service.
    fn outbound(&self, port: u16) -> Outbound<'_> {
        let (id, service) = self.snapshot.services.iter().next().expect("a service");
        Outbound {
            service,
            port: service.port(port).expect("a port"),
            rule: self.snapshot.destination_rules.iter().next().map(|(_, rule)| &**rule),
            endpoints: self.snapshot.inline_endpoints.get(id).map_or(&[], |e| &**e),
            subject_alt_names: &service.subject_alt_names,
            mtls: self.mtls,
            mode: self.mode,
            defaults: &self.defaults,
            traits: &self.traits,
        }
    }

    /// The clusters of the port of the only service.
    fn clusters(&self, port: u16) -> Vec<Cluster> {
        let clusters = self.outbound(port).clusters(|plain| Arc::new(plain.shape(&self.defaults)));
        let clusters: Vec<Cluster> = clusters.iter().map(|cluster| cluster.decode().expect("a cluster")).collect();
        let mut asked = clusters.clone();
        asked.extend(["sds-external", "sds-files-grpc"].map(secrets));
        for cluster in &mut asked {
            // A static configuration has no ADS stream to name.
            if let Some(eds) = &mut cluster.eds_cluster_config {
                eds.eds_config = Some(super::tls::mesh_secret("x").sds_config.expect("a source"));
            }
        }
        envoy_accepts(Vec::new(), asked);
        clusters
    }

    fn one(&self, port: u16) -> Cluster {
        self.clusters(port).into_iter().next().expect("a cluster")
    }

    fn told(&self) -> Vec<String> {
        self.snapshot.diagnostics().map(|d| format!("{} {}", d.path, d.code)).collect()
    }
}

fn secrets(name: &str) -> Cluster {
    let mut draft = Draft::new(name.to_owned(), None);
    draft.set_type(DiscoveryType::Static);
    draft.protocol(crate::model::Protocol::Http2, &Traits::default());
    draft.build()
}

fn http(cluster: &Cluster) -> Option<HttpProtocolOptions> {
    let any = cluster.typed_extension_protocol_options.values().next()?;
    Some(HttpProtocolOptions::decode(&*any.value).expect("HTTP options"))
}

fn is(cluster: &Cluster, discovery: DiscoveryType) -> bool {
    cluster.cluster_discovery_type == Some(ClusterDiscoveryType::Type(discovery as i32))
}

fn dns(cluster: &Cluster) -> DnsCluster {
    let Some(ClusterDiscoveryType::ClusterType(custom)) = &cluster.cluster_discovery_type else { panic!("custom") };
    DnsCluster::decode(&*custom.typed_config.as_ref().expect("config").value).expect("DNS")
}

pub(crate) fn tls(socket: &core::TransportSocket) -> UpstreamTlsContext {
    let Some(ConfigType::TypedConfig(any)) = &socket.config_type else { panic!("config") };
    UpstreamTlsContext::decode(&*any.value).expect("TLS")
}

fn istio(cluster: &Cluster, key: &str) -> Option<String> {
    match cluster.metadata.as_ref()?.filter_metadata.get("istio")?.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

const HOST: &str = "reviews.default.svc.cluster.local";

#[test]
fn a_service_without_a_rule_has_istios_defaults() {
    let cluster = world(&[SERVICE]).one(80);
    assert_eq!(cluster.name, format!("outbound|80||{HOST}"));
    assert_eq!(cluster.alt_stat_name, format!("outbound|80||{HOST};"));
    assert!(is(&cluster, DiscoveryType::Eds));
    assert_eq!(cluster.lb_policy, LbPolicy::LeastRequest as i32);
    assert_eq!(cluster.connect_timeout.as_ref().map(|d| d.seconds), Some(10));
    let limits = &cluster.circuit_breakers.as_ref().expect("limits").thresholds[0];
    for limit in [&limits.max_connections, &limits.max_pending_requests, &limits.max_requests, &limits.max_retries] {
        assert_eq!(limit.as_ref().map(|l| l.value), Some(u32::MAX));
    }
    assert!(http(&cluster).is_none(), "HTTP/1 needs no options");
    assert_eq!(
        cluster.common_lb_config.as_ref().and_then(|c| c.healthy_panic_threshold.as_ref()).map(|p| p.value),
        Some(0.0)
    );
    assert!(istio(&cluster, "services").is_some_and(|s| s.contains(HOST)));
    assert!(istio(&cluster, "config").is_none());
}

#[test]
fn the_ports_protocol_decides_what_is_spoken() {
    let world = world(&[SERVICE]);
    let spoken = |port| http(&world.one(port)).and_then(|o| o.upstream_protocol_options).map(|o| format!("{o:?}"));
    assert!(spoken(81).is_some_and(|o| o.contains("Http2ProtocolOptions")));
    assert!(spoken(82).is_some_and(|o| o.contains("UseDownstreamProtocolConfig")));
    assert_eq!(spoken(83), None);
    let gateway = World { traits: Traits { kind: ProxyType::Router, ..Traits::default() }, ..world };
    assert_eq!(http(&gateway.one(82)), None, "a gateway's callers must not choose");
}

#[test]
fn subsets_override_blocks_and_ports_replace_them() {
    let rule = rule(
        "reviews",
        "trafficPolicy:
  loadBalancer: {simple: RANDOM}
  connectionPool: {tcp: {maxConnections: 7}}
  portLevelSettings:
  - port: {number: 81}
    loadBalancer: {simple: ROUND_ROBIN}
subsets:
- name: v1
  labels: {version: v1}
- name: v2
  labels: {version: v2}
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 9}}",
    );
    let world = world(&[SERVICE, &rule]);
    let summary = |port| -> Vec<(String, i32, u32, Option<String>)> {
        let of = |c: &Cluster| {
            let most = c.circuit_breakers.as_ref().and_then(|b| b.thresholds[0].max_connections).expect("limit").value;
            (c.name.clone(), c.lb_policy, most, istio(c, "path"))
        };
        world.clusters(port).iter().map(of).collect()
    };
    let name = |port: u16, subset: &str| format!("outbound|{port}|{subset}|{HOST}");
    let (random, in_turn) = (LbPolicy::Random as i32, LbPolicy::RoundRobin as i32);
    assert_eq!(
        summary(80),
        [
            (name(80, ""), random, 7, Some("spec.trafficPolicy".into())),
            (name(80, "v1"), random, 7, Some("spec.subsets[0]".into())),
            (name(80, "v2"), random, 9, Some("spec.subsets[1]".into())),
        ]
    );
    assert_eq!(
        summary(81),
        [
            (name(81, ""), in_turn, u32::MAX, Some("spec.trafficPolicy.portLevelSettings[0]".into())),
            (name(81, "v1"), in_turn, u32::MAX, Some("spec.subsets[0]".into())),
            (name(81, "v2"), in_turn, 9, Some("spec.subsets[1]".into())),
        ]
    );
    let subset = &world.clusters(80)[1];
    assert_eq!(istio(subset, "subset").as_deref(), Some("v1"));
    let config = "/apis/networking.istio.io/v1/namespaces/default/destination-rule/rule";
    assert_eq!(istio(subset, "config").as_deref(), Some(config));
}

#[test]
fn pools_become_limits_timeouts_and_http_options() {
    let rule = rule(
        "reviews",
        "trafficPolicy:
  retryBudget: {percent: 30}
  connectionPool:
    tcp: {connectTimeout: 3s, idleTimeout: 9s, maxConnectionDuration: 1h, tcpKeepalive: {probes: 2, time: 7s}}
    http:
      http1MaxPendingRequests: 1
      http2MaxRequests: 2
      maxRequestsPerConnection: 3
      maxRetries: 4
      idleTimeout: 5s
      h2UpgradePolicy: UPGRADE
      maxConcurrentStreams: 6
      http2KeepAlive: {interval: 11s, timeout: 12s}",
    );
    let cluster = world(&[SERVICE, &rule]).one(80);
    let limits = &cluster.circuit_breakers.as_ref().expect("limits").thresholds[0];
    assert_eq!(limits.max_pending_requests.map(|l| l.value), Some(1));
    assert_eq!(limits.max_requests.map(|l| l.value), Some(2));
    assert_eq!(limits.max_retries.map(|l| l.value), Some(4));
    let budget = limits.retry_budget.as_ref().expect("budget");
    assert_eq!(
        (budget.budget_percent.map(|p| p.value), budget.min_retry_concurrency.map(|n| n.value)),
        (Some(30.0), Some(3))
    );
    assert_eq!(cluster.connect_timeout.map(|d| d.seconds), Some(3));
    let keepalive = cluster.upstream_connection_options.and_then(|o| o.tcp_keepalive).expect("keepalive");
    assert_eq!(
        (keepalive.keepalive_probes.map(|v| v.value), keepalive.keepalive_time.map(|v| v.value)),
        (Some(2), Some(7))
    );
    assert_eq!(keepalive.keepalive_interval, None);
    let options = http(&Cluster {
        typed_extension_protocol_options: cluster.typed_extension_protocol_options,
        ..Cluster::default()
    });
    let options = options.expect("HTTP options");
    let common = options.common_http_protocol_options.expect("common");
    assert_eq!(common.idle_timeout.map(|d| d.seconds), Some(5), "HTTP's before TCP's");
    assert_eq!(common.max_requests_per_connection.map(|v| v.value), Some(3));
    assert_eq!(common.max_connection_duration.map(|d| d.seconds), Some(3600));
    let spoken = format!("{:?}", options.upstream_protocol_options);
    assert!(spoken.contains("max_concurrent_streams: Some(UInt32Value { value: 6 })"), "{spoken}");
    assert!(spoken.contains("seconds: 11"), "{spoken}");
}

#[test]
fn load_balancers() {
    type Check = fn(&Cluster) -> bool;
    let cases: &[(&str, LbPolicy, Check)] = &[
        ("{simple: ROUND_ROBIN, warmup: {duration: 10s}}", LbPolicy::RoundRobin, |c| {
            matches!(&c.lb_config, Some(LbConfig::RoundRobinLbConfig(r)) if r.slow_start_config.as_ref()
                .is_some_and(|s| s.min_weight_percent.is_some_and(|p| p.value == 10.0)))
        }),
        (
            "{warmupDurationSecs: 10s}",
            LbPolicy::LeastRequest,
            |c| matches!(&c.lb_config, Some(LbConfig::LeastRequestLbConfig(r)) if r.slow_start_config.is_some()),
        ),
        (
            "{consistentHash: {httpHeaderName: x}}",
            LbPolicy::RingHash,
            |c| matches!(&c.lb_config, Some(LbConfig::RingHashLbConfig(r)) if r.minimum_ring_size.is_some_and(|s| s.value == 1024)),
        ),
        ("{consistentHash: {useSourceIp: true, ringHash: {}}}", LbPolicy::RingHash, |c| c.lb_config.is_none()),
        (
            "{consistentHash: {useSourceIp: true, maglev: {tableSize: 1021}}}",
            LbPolicy::Maglev,
            |c| matches!(&c.lb_config, Some(LbConfig::MaglevLbConfig(m)) if m.table_size.is_some_and(|s| s.value == 1021)),
        ),
        ("{simple: PASSTHROUGH}", LbPolicy::ClusterProvided, |c| {
            is(c, DiscoveryType::OriginalDst) && c.eds_cluster_config.is_none()
        }),
        ("{localityLbSetting: {distribute: [{from: r/*, to: {r/z: 100}}]}}", LbPolicy::LeastRequest, |c| {
            format!("{:?}", c.common_lb_config).contains("LocalityWeightedLbConfig")
        }),
        ("{zoneAwareLbSetting: {enabled: false, minClusterSize: 3}}", LbPolicy::LeastRequest, |c| {
            format!("{:?}", c.common_lb_config).contains("ZoneAwareLbConfig")
        }),
    ];
    for (written, policy, check) in cases {
        let rule = rule("reviews", &format!("trafficPolicy: {{loadBalancer: {written}}}"));
        let cluster = world(&[SERVICE, &rule]).one(80);
        assert_eq!(cluster.lb_policy, *policy as i32, "{written}");
        assert!(check(&cluster), "{written}: {cluster:?}");
    }
}

#[test]
fn outlier_detection_counts_consecutive_failures_only() {
    let rule = rule(
        "reviews",
        "trafficPolicy:
  outlierDetection:
    consecutive5xxErrors: 7
    consecutiveGatewayErrors: 0
    interval: 5m
    baseEjectionTime: 15m
    maxEjectionPercent: 20
    minHealthPercent: 30
    splitExternalLocalOriginErrors: true
    consecutiveLocalOriginFailures: 4
    outlierDetectionHttpErrorCodes: [429, 503]",
    );
    let cluster = world(&[SERVICE, &rule]).one(80);
    let out = cluster.outlier_detection.as_ref().expect("outlier detection");
    assert_eq!(out.enforcing_success_rate.map(|v| v.value), Some(0));
    assert_eq!(
        (out.consecutive_5xx.map(|v| v.value), out.enforcing_consecutive_5xx.map(|v| v.value)),
        (Some(7), Some(100))
    );
    assert_eq!(out.enforcing_consecutive_gateway_failure.map(|v| v.value), Some(0));
    assert_eq!(out.consecutive_local_origin_failure.map(|v| v.value), Some(4));
    assert_eq!(out.interval.map(|d| d.seconds), Some(300));
    assert_eq!(out.max_ejection_percent.map(|v| v.value), Some(20));
    let panic = cluster.common_lb_config.as_ref().and_then(|c| c.healthy_panic_threshold.as_ref()).map(|p| p.value);
    assert_eq!(panic, Some(30.0));
    assert!(format!("{:?}", http(&cluster).expect("HTTP options").outlier_detection).contains("429"));
}

#[test]
fn tls_to_endpoints() {
    let socket = |written: &str, traits: Traits| {
        let rule = rule("reviews", &format!("trafficPolicy: {{tls: {written}}}"));
        World { traits, ..world(&[SERVICE, &rule]) }.one(80).transport_socket
    };
    let mesh = || Traits { identity: true, ..Traits::default() };
    let gateway = || Traits { kind: ProxyType::Router, ..Traits::default() };
    let secret = |context: &UpstreamTlsContext| {
        let common = context.common_tls_context.as_ref().expect("common");
        let names: Vec<_> = common.tls_certificate_sds_secret_configs.iter().map(|s| s.name.clone()).collect();
        let root = format!("{:?}", common.validation_context_type);
        let at = root.find("SdsSecretConfig { name: \"").map(|i| i + 25);
        (names.join(","), at.map(|i| root[i..].split('"').next().unwrap_or_default().to_owned()).unwrap_or_default())
    };
    let both = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert!(socket("{mode: DISABLE}", mesh()).is_none());
    let simple = tls(&socket("{mode: SIMPLE, sni: a.com}", mesh()).expect("TLS"));
    assert_eq!((simple.sni.as_str(), secret(&simple)), ("a.com", both("", "file-root:system")));
    let written = "{mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /ca}";
    assert_eq!(secret(&tls(&socket(written, mesh()).expect("TLS"))), both("file-cert:/c~/k", "file-root:/ca"));
    let written = "{mode: MUTUAL, credentialName: cred}";
    assert_eq!(
        secret(&tls(&socket(written, gateway()).expect("TLS"))),
        both("kubernetes://cred", "kubernetes://cred-cacert")
    );
    assert!(socket(written, mesh()).is_none(), "sidecars may only use credentials that are meant for them");
    let istio = tls(&socket("{mode: ISTIO_MUTUAL}", mesh()).expect("TLS"));
    assert_eq!(secret(&istio), both("default", "ROOTCA"));
    assert_eq!(istio.sni, format!("outbound_.80_._.{HOST}"));
    assert!(socket("{mode: ISTIO_MUTUAL}", Traits::default()).is_none(), "no identity, no mTLS");
}

#[test]
fn mesh_mtls_is_on_where_both_sides_can() {
    let with = |mtls, identity, service: &str| {
        let traits = Traits { identity, ..Traits::default() };
        World { mtls, traits, ..world(&[service]) }.one(80)
    };
    let cluster = with(MtlsMode::Permissive, true, SERVICE);
    let names: Vec<_> = cluster.transport_socket_matches.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["tlsMode-istio", "tlsMode-disabled"]);
    assert!(with(MtlsMode::Strict, true, HEADLESS).transport_socket.is_some());
    for (mtls, identity) in [(MtlsMode::Disable, true), (MtlsMode::Unknown, true), (MtlsMode::Strict, false)] {
        let cluster = with(mtls, identity, SERVICE);
        assert!(cluster.transport_socket.is_none() && cluster.transport_socket_matches.is_empty(), "{mtls:?}");
    }
}

#[test]
fn proxy_protocol_wraps_what_is_there() {
    let rule = rule("reviews", "trafficPolicy: {proxyProtocol: {version: V2}}");
    let mut world = world(&[SERVICE, &rule]);
    assert_eq!(world.one(80).transport_socket.expect("socket").name, "envoy.transport_sockets.upstream_proxy_protocol");
    world.mtls = MtlsMode::Strict;
    world.traits.identity = true;
    for matched in world.one(80).transport_socket_matches {
        assert_eq!(matched.transport_socket.expect("socket").name, "envoy.transport_sockets.upstream_proxy_protocol");
    }
}

#[test]
fn headless_services_keep_the_callers_destination() {
    let mut world = world(&[HEADLESS]);
    let cluster = world.one(80);
    assert!(is(&cluster, DiscoveryType::OriginalDst));
    assert_eq!(cluster.lb_policy, LbPolicy::ClusterProvided as i32);
    assert!(cluster.lb_config.is_none(), "the caller knows the pod's port");
    world.traits.kind = ProxyType::Router;
    assert!(is(&world.one(80), DiscoveryType::Eds), "a gateway has no destination to keep");
}

#[test]
fn entries_without_resolution_keep_the_address_but_translate_the_port() {
    let entry = entry("NONE", "").replace("protocol: HTTP}", "protocol: HTTP, targetPort: 8443}");
    let cluster = world(&[&entry]).one(443);
    assert!(is(&cluster, DiscoveryType::OriginalDst));
    assert!(matches!(&cluster.lb_config, Some(LbConfig::OriginalDstLbConfig(o))
        if o.upstream_port_override.is_some_and(|p| p.value == 8443)));
}

#[test]
fn names_are_resolved_by_the_data_plane() {
    let two = "
  endpoints:
  - {address: b.example.com, locality: r/b, labels: {version: v2}, weight: 3}
  - {address: a.example.com, locality: r/a, labels: {version: v1}}
";
    let rule =
        rule("api.example.com", "subsets:\n- {name: v2, labels: {version: v2}}\n- {name: v3, labels: {version: v3}}");
    let strict = world(&[&entry("DNS", two), &rule]);
    let clusters = strict.clusters(443);
    let names: Vec<_> = clusters.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        names,
        ["outbound|443||api.example.com", "outbound|443|v2|api.example.com"],
        "a subset of nothing is left out"
    );
    assert!(!dns(&clusters[0]).all_addresses_in_single_endpoint);
    let assignment = clusters[0].load_assignment.as_ref().expect("names");
    let weights: Vec<_> = assignment
        .endpoints
        .iter()
        .map(|l| (l.locality.as_ref().expect("locality").zone.as_str(), l.load_balancing_weight.expect("weight").value))
        .collect();
    assert_eq!(weights, [("a", 1), ("b", 3)]);
    assert!(istio(&clusters[0], "external").is_some());
    let logical = world(&[&entry("DNS_ROUND_ROBIN", "  endpoints: [{address: a.example.com}]\n")]).one(443);
    assert!(dns(&logical).all_addresses_in_single_endpoint);
}

#[test]
fn external_tls_verifies_the_names_of_the_entry() {
    let rule = rule("api.example.com", "trafficPolicy: {tls: {mode: SIMPLE}}");
    let cluster = world(&[&entry("DNS", ""), &rule]).one(443);
    let context = tls(cluster.transport_socket.as_ref().expect("TLS"));
    assert!(format!("{context:?}").contains("spiffe://ext"));
    let upstream = http(&cluster).and_then(|o| o.upstream_http_protocol_options).expect("automatic names");
    assert!(upstream.auto_sni && upstream.auto_san_validation);
    assert_eq!(istio(&cluster, "alpn_override").as_deref(), Some("false"));
}

#[test]
fn gateways_that_route_by_server_name_have_clusters_without_tls() {
    let rule = rule("reviews", "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}\nsubsets: [{name: v1}]");
    let mut world = world(&[SERVICE, &rule]);
    world.mode = Mode::SniDnat;
    world.traits.identity = true;
    let clusters = world.clusters(80);
    let names: Vec<_> = clusters.iter().map(|c| c.name.clone()).collect();
    assert_eq!(names, [format!("outbound_.80_._.{HOST}"), format!("outbound_.80_.v1_.{HOST}")]);
    assert!(clusters.iter().all(|c| c.transport_socket.is_none()));
}

#[test]
fn plain_clusters_are_as_all_others() {
    let mut world = world(&[SERVICE]);
    let names = ["spiffe://td/ns/a/sa/b", "a.example"].map(Name::from);
    for mtls in [MtlsMode::Unknown, MtlsMode::Disable, MtlsMode::Permissive, MtlsMode::Strict] {
        for (mode, identity) in [(Mode::Client, true), (Mode::Client, false), (Mode::SniDnat, true)] {
            (world.mtls, world.mode, world.traits.identity) = (mtls, mode, identity);
            for (port, names) in (80..=83).flat_map(|port| [(port, &names[..0]), (port, &names[..])]) {
                let outbound = Outbound { subject_alt_names: names, ..world.outbound(port) };
                let shape =
                    Plain { protocol: outbound.port.protocol, traits: world.traits.clone() }.shape(&world.defaults);
                let plain: Cluster = outbound.plain_cluster(&shape).decode().unwrap();
                let other = outbound.cluster(Discovery::Eds, None, world.defaults.policy(None).as_ref()).unwrap();
                assert!(outbound.is_plain(Discovery::Eds));
                assert_eq!(plain, other.decode::<Cluster>().unwrap(), "{mtls:?} {mode:?} {identity} {port}");
            }
        }
    }
}

#[test]
fn special_clusters() {
    let (defaults, traits) = (Defaults::default(), Traits { ip_family: IpFamily::Dual, ..Traits::default() });
    let clusters =
        vec![black_hole(&defaults), passthrough(&defaults, &traits), inbound_passthrough(&defaults, &traits)];
    let names: Vec<_> = clusters.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster"]);
    let source = clusters[2].upstream_bind_config.as_ref().and_then(|b| b.source_address.as_ref()).expect("source");
    assert_eq!(source.address, "127.0.0.6");
    envoy_accepts(Vec::new(), clusters);
}

#[test]
fn the_mesh_names_statistics() {
    let mut world = world(&[SERVICE, &rule("reviews", "subsets: [{name: v1}]")]);
    world.defaults.outbound_stat_name = "%SERVICE%_%SERVICE_PORT%_%SERVICE_PORT_NAME%_%SUBSET_NAME%".into();
    let names: Vec<_> = world.clusters(80).into_iter().map(|c| c.alt_stat_name).collect();
    assert_eq!(names, ["reviews.default_80_http_;", "reviews.default_80_http_v1;"]);
}

#[test]
fn mistakes_are_told_and_the_rest_stands() {
    let rule = rule(
        "reviews",
        "exportTo: ['*']
workloadSelector: {matchLabels: {app: a}}
trafficPolicy:
  connectionPool: {tcp: {maxConnections: -1, connectTimeout: 0s}, http: {maxRetries: 5}}
  outlierDetection: {consecutiveErrors: 3, maxEjectionPercent: 200}
  tls: {mode: MUTUAL}
  portLevelSettings:
  - {port: {number: 0}}
subsets:
- {name: v1}
- {name: v1}
- {labels: {a: b}}",
    );
    let world = world(&[SERVICE, &rule]);
    assert_eq!(
        world.told(),
        [
            "spec.exportTo SelectorIsPrivate",
            "spec.trafficPolicy.connectionPool.tcp.maxConnections NegativeNumber",
            "spec.trafficPolicy.connectionPool.tcp.connectTimeout InvalidDuration",
            "spec.trafficPolicy.outlierDetection.consecutiveErrors DeprecatedField",
            "spec.trafficPolicy.outlierDetection.maxEjectionPercent OutOfRange",
            "spec.trafficPolicy.tls MissingCertificate",
            "spec.trafficPolicy.portLevelSettings[0].port.number InvalidPort",
            "spec.subsets[1].name DuplicateSubset",
            "spec.subsets[2].name MissingSubsetName",
        ]
    );
    let clusters = world.clusters(80);
    assert_eq!(clusters.len(), 2);
    let limits = &clusters[0].circuit_breakers.as_ref().expect("limits").thresholds[0];
    assert_eq!(limits.max_retries.map(|l| l.value), Some(5));
}
