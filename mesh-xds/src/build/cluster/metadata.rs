//! What clusters and endpoints say about themselves to telemetry, to EnvoyFilters and to people.

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use super::{Draft, Outbound, wire};
use crate::model::destination_rule::{Origin, Subset, TlsMode, TrafficPolicy};
use crate::model::{Endpoint, Service};
use crate::resource::Writer;

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

impl Outbound<'_> {
    /// Service, rule and subset of an outbound cluster, as fields of a `Struct`.
    pub(super) fn metadata(&self, fields: &mut Writer, subset: Option<&Subset>, policy: Option<&TrafficPolicy>) {
        let service = self.service;
        fields.struct_list("services", |services| {
            services.list_struct(|fields| {
                fields.struct_text("host", service.hostname.as_str());
                fields.struct_text("name", &service.name);
                fields.struct_text("namespace", &service.namespace);
            });
        });
        if subset.is_none() && service.mesh_external {
            fields.struct_true("external");
        }
        if let Some(rule) = self.rule {
            let whole = Origin { object: rule.source.clone(), path: mesh_api::FieldPath::new("spec") };
            let of_rule = policy.map(|p| &p.origin).filter(|o| o.object.kind == rule.source.kind);
            let origin = subset.map(|s| &s.origin).or(of_rule).unwrap_or(&whole);
            fields.struct_text("config", &config_of(origin));
            fields.struct_text("path", origin.path.as_str());
            let own_tls = |p: &TrafficPolicy| {
                p.tls.as_ref().is_some_and(|tls| matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual))
            };
            if policy.is_some_and(own_tls) {
                fields.struct_text("alpn_override", "false");
            }
        }
        if let Some(subset) = subset {
            fields.struct_text("subset", &subset.name);
        }
    }
}

/// The object behind a policy, as Istio writes it.
fn config_of(origin: &Origin) -> String {
    let object = &origin.object;
    format!("/apis/networking.istio.io/v1/namespaces/{}/destination-rule/{}", object.namespace, object.name)
}

impl Draft {
    pub(crate) fn istio_metadata(&mut self) -> &mut std::collections::HashMap<String, Value> {
        let metadata = self.cluster.metadata.get_or_insert_default();
        &mut metadata.filter_metadata.entry(ISTIO.to_owned()).or_default().fields
    }

    /// The object behind the cluster, as Istio writes it, and the field in it.
    pub(crate) fn config_metadata(&mut self, origin: &Origin) {
        let istio = self.istio_metadata();
        istio.insert("config".to_owned(), wire::text(config_of(origin)));
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
