//! Kubernetes Ingresses as meant. Each becomes a Gateway, and all that speak of one host together a VirtualService
//! (`scope::ingress`); whether one is ours depends on the mesh's settings.

use mesh_api::{Hostname, Name};

use super::virtual_service::TextMatch;

/// An Ingress.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ingress {
    /// The namespace of the object.
    pub namespace: Name,
    /// The name of the object.
    pub name: Name,
    /// `metadata.creationTimestamp`, seconds since the epoch; 0 when the object doesn't say.
    pub created: i64,
    /// Whose it is.
    pub class: IngressClass,
    /// Hosts and paths, in the order written.
    pub rules: Vec<IngressRule>,
    /// Certificates by host.
    pub tls: Vec<IngressTls>,
}

/// Whose an Ingress is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum IngressClass {
    /// Not said.
    #[default]
    Unsaid,
    /// By the annotation `kubernetes.io/ingress.class`.
    Annotation(Name),
    /// By `ingressClassName`.
    Named(Name),
}

/// The paths of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IngressRule {
    /// `*` when not said.
    pub host: Hostname,
    /// In the order written.
    pub paths: Vec<IngressPath>,
}

/// Where the requests of a path go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IngressPath {
    /// Exact or by prefix; `None` for every path.
    pub path: Option<TextMatch>,
    /// The name of a Service of the Ingress's namespace.
    pub service: Name,
    /// Its port.
    pub port: IngressPort,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IngressPort {
    /// By number.
    Number(u16),
    /// By name.
    Named(Name),
}

/// A certificate and the hosts that it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IngressTls {
    /// The index in the object's list.
    pub index: usize,
    /// `*` when none is said.
    pub hosts: Vec<Hostname>,
    /// The Secret, in the namespace of the gateway.
    pub secret: Name,
}
