//! What MeshConfig and compliance limit TLS to, in what Envoy accepts.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{TlsParameters, UpstreamTlsContext};
use mesh_api::mesh::MeshConfig;
use prost::Message;

use super::*;
use crate::model::{Features, Settings};
use crate::proxy::ProxyType;
use crate::testing::{envoy_accepts, snapshot};
use crate::{Builder, Proxy, TypeUrl};

const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: app, namespace: default}
spec: {clusterIP: 10.0.0.1, selector: {app: app}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  selector: {app: app}
  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}]
";

fn decoded<M: Message + Default>(socket: &TransportSocket) -> M {
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else { panic!("typed") };
    M::decode(&*any.value).unwrap()
}

/// The parameters of TLS that ends at the proxy, and of the mesh's own that begins there.
fn parameters(mesh: &str, policy: &str, kind: ProxyType) -> (TlsParameters, TlsParameters) {
    let (mesh, told) = MeshConfig::from_yaml(mesh);
    assert!(told.is_empty(), "{told:?}");
    let features = Features::new([("COMPLIANCE_POLICY".to_owned(), policy.to_owned())].into());
    let world = snapshot(WORLD, Settings { mesh: Arc::new(mesh), features, ..Settings::default() });
    let mut proxy = Proxy::sidecar("app.default", "default", [10, 1, 0, 1].into());
    proxy.kind = kind;
    proxy.labels = [("app".into(), "app".into())].into();
    let (builder, proxy) = (Builder::default(), Arc::new(proxy));
    let listeners: Vec<Listener> =
        builder.build(&world, &proxy, TypeUrl::Listener).iter().map(|l| l.decode().unwrap()).collect();
    let clusters: Vec<Cluster> =
        builder.build(&world, &proxy, TypeUrl::Cluster).iter().map(|c| c.decode().unwrap()).collect();
    envoy_accepts(listeners.clone(), clusters.clone());
    let of = |common: Option<CommonTlsContext>| common.and_then(|common| common.tls_params).unwrap_or_default();
    let mut ends = listeners.iter().flat_map(|l| &l.filter_chains).filter_map(|chain| chain.transport_socket.as_ref());
    let ends = ends.next().map(decoded::<DownstreamTlsContext>).expect("TLS ends somewhere");
    let begins = clusters.iter().flat_map(|c| &c.transport_socket_matches).filter_map(|m| m.transport_socket.as_ref());
    let begins = begins.map(decoded::<UpstreamTlsContext>).next().expect("TLS begins somewhere");
    (of(ends.common_tls_context), of(begins.common_tls_context))
}

#[test]
fn the_mesh_sets_versions_suites_and_curves() {
    let mesh = "meshMTLS: {minProtocolVersion: TLSV1_3, ecdhCurves: [X25519MLKEM768, X25519], cipherSuites: [AES128-GCM-SHA256]}";
    let (ends, begins) = parameters(mesh, "", ProxyType::Sidecar);
    assert_eq!(ends.tls_minimum_protocol_version, i32::from(TlsProtocol::TlSv13));
    assert_eq!(ends.cipher_suites, ["AES128-GCM-SHA256"]);
    let curves = ["X25519MLKEM768", "X25519"];
    assert_eq!(
        (ends.ecdh_curves.as_slice(), begins.ecdh_curves.as_slice()),
        (curves.map(str::to_owned).as_slice(), curves.map(str::to_owned).as_slice())
    );

    let users = "tlsDefaults: {minProtocolVersion: TLSV1_3, ecdhCurves: [P-256]}";
    let (ends, _) = parameters(users, "", ProxyType::Router);
    assert_eq!(ends.tls_minimum_protocol_version, i32::from(TlsProtocol::TlSv13));
    assert_eq!(ends.ecdh_curves, ["P-256"]);
    assert!(parameters(users, "", ProxyType::Sidecar).0.ecdh_curves.is_empty(), "the mesh's own is another matter");
}

#[test]
fn a_policy_limits_all_tls() {
    for kind in [ProxyType::Sidecar, ProxyType::Router] {
        let (ends, begins) = parameters("tlsDefaults: {ecdhCurves: [P-256]}", "pqc", kind);
        for parameters in [ends, begins] {
            assert_eq!(parameters.ecdh_curves, ["X25519MLKEM768"]);
            assert_eq!(parameters.tls_minimum_protocol_version, i32::from(TlsProtocol::TlSv13));
        }
        let (ends, _) = parameters("{}", "fips-140-2", kind);
        assert_eq!(ends.tls_maximum_protocol_version, i32::from(TlsProtocol::TlSv12));
        assert!(ends.cipher_suites.iter().all(|suite| APPROVED.contains(&suite.as_str())));
        let (ends, _) = parameters("{}", "fips-140-3", kind);
        assert_eq!(ends.compliance_policies, [i32::from(CompliancePolicy::Fips202205)]);
    }
}

#[test]
fn what_envoy_does_not_know_is_left_out_and_told() {
    let (mesh, _) = MeshConfig::from_yaml("meshMTLS: {ecdhCurves: [P-1]}\ntlsDefaults: {cipherSuites: [ROT13]}");
    let features = Features::new([("COMPLIANCE_POLICY".to_owned(), "none".to_owned())].into());
    let world = snapshot(WORLD, Settings { mesh: Arc::new(mesh), features, ..Settings::default() });
    let told: Vec<_> = world.diagnostics().map(|d| format!("{} {}", d.code, d.path)).collect();
    let wanted =
        ["UnknownCipherSuite tlsDefaults.cipherSuites[0]", "UnknownCurve meshMTLS.ecdhCurves[0]", "UnknownPolicy "];
    assert_eq!(told, wanted);
}
