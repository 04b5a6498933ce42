//! What clusters and endpoints say about themselves to telemetry, to EnvoyFilters and to people.

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use super::{Draft, Outbound, wire};
use crate::model::destination_rule::{Origin, Subset, TlsMode, TrafficPolicy};
use crate::model::{Endpoint, Service};

const ISTIO: &str = "istio";
/// What Envoy matches transport sockets of a cluster by.
const TRANSPORT_SOCKET: &str = "envoy.transport_socket_match";

/// The match of endpoints that terminate mesh mTLS.
pub(super) fn mesh_mtls() -> Struct {
    wire::structure([("tlsMode", wire::text("istio"))])
}

/// The metadata of an endpoint: whether it terminates mesh mTLS.
pub(super) fn endpoint(endpoint: &Endpoint) -> Option<Metadata> {
    (endpoint.tls_mode == "istio").then(|| Metadata {
        filter_metadata: [(TRANSPORT_SOCKET.to_owned(), mesh_mtls())].into(),
        ..Metadata::default()
    })
}

impl Draft {
    pub(crate) fn istio_metadata(&mut self) -> &mut std::collections::HashMap<String, Value> {
        let metadata = self.cluster.metadata.get_or_insert_default();
        &mut metadata.filter_metadata.entry(ISTIO.to_owned()).or_default().fields
    }

    /// Service, rule and subset of an outbound cluster.
    pub(super) fn outbound_metadata(
        &mut self,
        outbound: &Outbound<'_>,
        subset: Option<&Subset>,
        policy: Option<&TrafficPolicy>,
    ) {
        let istio = self.istio_metadata();
        istio.insert("services".to_owned(), wire::list(vec![service(outbound.service)]));
        if subset.is_none() && outbound.service.mesh_external {
            istio.insert("external".to_owned(), wire::boolean(true));
        }
        if let Some(rule) = outbound.rule {
            let whole = Origin { object: rule.source.clone(), path: mesh_api::FieldPath::new("spec") };
            let of_rule = policy.map(|p| &p.origin).filter(|o| o.object.kind == rule.source.kind);
            let origin = subset.map(|s| &s.origin).or(of_rule).unwrap_or(&whole);
            self.config_metadata(origin);
            if policy.and_then(|p| p.tls.as_ref()).is_some_and(|t| matches!(t.mode, TlsMode::Simple | TlsMode::Mutual))
            {
                self.istio_metadata().insert("alpn_override".to_owned(), wire::text("false"));
            }
        }
        if let Some(subset) = subset {
            self.istio_metadata().insert("subset".to_owned(), wire::text(&*subset.name));
        }
    }

    /// The object behind the cluster, as Istio writes it, and the field in it.
    pub(crate) fn config_metadata(&mut self, origin: &Origin) {
        let object = &origin.object;
        let istio = self.istio_metadata();
        let config =
            format!("/apis/networking.istio.io/v1/namespaces/{}/destination-rule/{}", object.namespace, object.name);
        istio.insert("config".to_owned(), wire::text(config));
        istio.insert("path".to_owned(), wire::text(origin.path.as_str()));
    }

    /// Adds a service to those that an inbound cluster serves.
    pub(crate) fn add_service_metadata(&mut self, of: &Service) {
        let services = self.istio_metadata().entry("services".to_owned()).or_insert_with(|| wire::list(Vec::new()));
        if let Some(Kind::ListValue(list)) = &mut services.kind {
            let value = service(of);
            if !list.values.contains(&value) {
                list.values.push(value);
            }
        }
    }
}

fn service(service: &Service) -> Value {
    let fields = [
        ("host", service.hostname.as_str()),
        ("name", service.name.as_str()),
        ("namespace", service.namespace.as_str()),
    ];
    let fields = wire::structure(fields.map(|(k, v)| (k, wire::text(v))));
    Value { kind: Some(Kind::StructValue(fields)) }
}
