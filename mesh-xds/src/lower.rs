//! From objects as written to rows as meant, one object at a time.
//!
//! Lowering is a pure function of the object and the settings that never change (the domain). It knows no other object:
//! whatever joins objects is a query. What it can't use it reports; everything else of the object stays in force.

mod attachment;
pub(crate) mod authorization_policy;
pub(crate) mod destination_rule;
pub(crate) mod gateway;
pub(crate) mod ingress;
pub(crate) mod peer_authentication;
pub(crate) mod reference_grant;
pub(crate) mod request_authentication;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod service_entry;
pub(crate) mod sidecar;
pub(crate) mod tls;
pub(crate) mod virtual_service;
pub(crate) mod workload;

use std::sync::Arc;

use mesh_api::{Diagnostic, FieldPath, Object, ObjectRef};

use crate::model::Settings;
use crate::snapshot::Row;

/// What one object results in.
#[derive(Default, Debug)]
pub(crate) struct Lowered {
    pub(crate) rows: Vec<Row>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl From<(Vec<Row>, Vec<Diagnostic>)> for Lowered {
    fn from((rows, diagnostics): (Vec<Row>, Vec<Diagnostic>)) -> Self {
        Self { rows, diagnostics }
    }
}

/// Lowers any object; kinds that configure nothing here result in nothing.
pub(crate) fn object(object: &Object, settings: &Arc<Settings>) -> Lowered {
    match object {
        Object::Service(o) => service::service(o, settings),
        Object::EndpointSlice(o) => workload::slice(o),
        Object::Endpoints(o) => workload::endpoints(o),
        Object::Pod(o) => workload::pod(o),
        Object::Node(o) => workload::node(o),
        Object::Namespace(o) => workload::namespace(o),
        Object::ServiceEntry(o) => service_entry::service_entry(o),
        Object::WorkloadEntry(o) => workload::workload_entry(o),
        Object::DestinationRule(o) => destination_rule::lower(o, settings),
        Object::AuthorizationPolicy(o) => authorization_policy::lower(o),
        Object::ReferenceGrant(o) => reference_grant::reference_grant(o),
        Object::RequestAuthentication(o) => request_authentication::lower(o),
        Object::PeerAuthentication(o) => peer_authentication::lower(o),
        Object::Sidecar(o) => sidecar::sidecar(o, settings),
        Object::Gateway(o) => gateway::gateway(o),
        Object::Ingress(o) => ingress::ingress(o),
        Object::Secret(o) => secret::secret(o),
        Object::ConfigMap(o) => secret::config_map(o),
        Object::VirtualService(o) => {
            let (row, diagnostics) = virtual_service::virtual_service(o, settings);
            (vec![Row::VirtualService(row.key(), Arc::new(row))], diagnostics).into()
        }
        _ => Lowered::default(),
    }
}

/// Collects what there is to say about one object.
pub(crate) struct Told<'o> {
    object: &'o ObjectRef,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl<'o> Told<'o> {
    pub(crate) fn about(object: &'o ObjectRef) -> Self {
        Self { object, diagnostics: Vec::new() }
    }
    /// The field can't be used: the message says why and what to write instead.
    pub(crate) fn error(&mut self, code: &'static str, path: impl Into<String>, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(code, message).on(self.object).at(FieldPath::new(path)));
    }
    /// The field is used, but probably not as meant.
    pub(crate) fn warning(&mut self, code: &'static str, path: impl Into<String>, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::warning(code, message).on(self.object).at(FieldPath::new(path)));
    }
    /// The field means something in Istio that is not done here.
    pub(crate) fn unsupported(&mut self, path: impl Into<String>, what: &str) {
        self.warning("UnsupportedField", path, format!("{what}; the field has no effect"));
    }
}

/// Seconds since the epoch of `metadata.creationTimestamp`; unknown counts as oldest.
pub(crate) fn created(metadata: &kube_meta::ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second())
}

/// True for what can name a header. Envoy refuses whole listeners for control characters in one.
pub(crate) fn is_header_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

pub(crate) use k8s_openapi::apimachinery::pkg::apis::meta::v1 as kube_meta;
