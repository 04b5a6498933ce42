//! What a rule for the destination makes of a TCP proxy, in the listeners of a sidecar.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener, filter::ConfigType};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use prost::Message;

use crate::model::Settings;
use crate::testing::snapshot;
use crate::{Builder, Proxy, TypeUrl};

const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: proxy, namespace: default}
spec: {clusterIP: 10.0.0.1, ports: [{name: tcp, port: 3128}]}
---
apiVersion: v1
kind: Service
metadata: {name: whole, namespace: default}
spec: {clusterIP: 10.0.0.2, ports: [{name: tcp, port: 1}]}
---
apiVersion: v1
kind: Service
metadata: {name: part, namespace: default}
spec: {clusterIP: 10.0.0.3, ports: [{name: tls, port: 2}]}
---
apiVersion: v1
kind: Service
metadata: {name: both, namespace: default}
spec: {clusterIP: 10.0.0.4, ports: [{name: tcp, port: 3}]}
---
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: default}
spec: {clusterIP: 10.0.0.5, ports: [{name: tcp, port: 4}]}
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: default}
spec: {clusterIP: 10.0.0.6, ports: [{name: tcp, port: 5}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: proxy, namespace: default}
spec:
  host: proxy
  trafficPolicy:
    tunnel: {protocol: CONNECT, targetHost: target.example, targetPort: 443}
    loadBalancer: {consistentHash: {useSourceIp: true}}
    connectionPool: {tcp: {idleTimeout: 5s, maxConnectionDuration: 1h}}
  subsets:
  - name: post
    trafficPolicy:
      tunnel: {protocol: POST, targetHost: '2001:db8::1', targetPort: 80}
      loadBalancer: {simple: RANDOM}
  - {name: bare, labels: {a: b}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: whole, namespace: default}
spec: {hosts: [whole], tcp: [{route: [{destination: {host: proxy}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: part, namespace: default}
spec:
  hosts: [part]
  tls: [{match: [{sniHosts: [part]}], route: [{destination: {host: proxy, subset: post}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: both, namespace: default}
spec:
  hosts: [both]
  tcp: [{route: [{destination: {host: proxy, subset: post}, weight: 1}, {destination: {host: whole}, weight: 1}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bare, namespace: default}
spec: {hosts: [bare], tcp: [{route: [{destination: {host: proxy, subset: bare}}]}]}
";

/// The only TCP proxy to a service, by listener: `METHOD target, idle, age, by address`.
fn proxies(metadata: &[(&str, &str)]) -> BTreeMap<String, String> {
    let world = snapshot(WORLD, Settings::default());
    let mut proxy = Proxy::sidecar("a.default", "default", [10, 2, 0, 1].into());
    proxy.metadata = metadata.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let listeners = Builder::default().build(&world, &Arc::new(proxy), TypeUrl::Listener);
    let mut out = BTreeMap::new();
    for resource in listeners.iter().filter(|l| l.name().starts_with("10.0.0.")) {
        let listener: Listener = resource.decode().unwrap();
        let chain: &FilterChain = listener.filter_chains.first().expect("a chain");
        let Some(ConfigType::TypedConfig(any)) = &chain.filters[0].config_type else { panic!("{chain:?}") };
        let proxy = TcpProxy::decode(&*any.value).unwrap();
        let tunnel = proxy.tunneling_config.map_or("direct".to_owned(), |tunnel| {
            format!("{} {}", if tunnel.use_post { "POST" } else { "CONNECT" }, tunnel.hostname)
        });
        let seconds = |time: Option<envoy_types::pb::google::protobuf::Duration>| time.map_or(0, |t| t.seconds);
        let (idle, age) = (seconds(proxy.idle_timeout), seconds(proxy.max_downstream_connection_duration));
        let said = format!("{tunnel}, {idle}, {age}, {}", proxy.hash_policy.len() == 1);
        out.insert(resource.name().to_string(), said);
    }
    out
}

#[test]
fn the_rule_for_the_destination_decides() {
    let wanted = [
        ("10.0.0.1_3128", "CONNECT target.example:443, 5, 3600, true"),
        ("10.0.0.2_1", "CONNECT target.example:443, 5, 3600, true"),
        ("10.0.0.3_2", "POST [2001:db8::1]:80, 5, 3600, false"),
        // Of several destinations the first one's host counts, and no subset.
        ("10.0.0.4_3", "CONNECT target.example:443, 5, 3600, true"),
        // A subset has no tunnel but its own.
        ("10.0.0.5_4", "direct, 5, 3600, true"),
        ("10.0.0.6_5", "direct, 0, 0, false"),
    ];
    let mut wanted: BTreeMap<_, _> = wanted.map(|(name, said)| (name.to_owned(), said.to_owned())).into();
    assert_eq!(proxies(&[]), wanted);
    wanted.insert("10.0.0.6_5".to_owned(), "direct, 9, 0, false".to_owned());
    assert_eq!(proxies(&[("IDLE_TIMEOUT", "9s")]), wanted, "a rule knows better");
}
