//! Gateways as meant: what proxies at the edge listen to, with hosts and credentials resolved. Which proxies, on which of
//! their ports, and what comes of several Gateways on one proxy is for a query to say: it takes more than one object.

use mesh_api::networking::ServerTlsMode;
use mesh_api::{Hostname, Name};

use super::Labels;
use super::keys::InNamespace;
use super::service::Protocol;

/// A Gateway.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gateway {
    /// The namespace of the object.
    pub namespace: Name,
    /// The name of the object.
    pub name: Name,
    /// `metadata.creationTimestamp`, seconds since the epoch; 0 when the object doesn't say.
    pub created: i64,
    /// Labels of the proxies; empty means all gateways.
    pub selector: Labels,
    /// The Services whose ports it names, instead of a selector (`internal.istio.io/gateway-service`).
    pub services: Option<Vec<Hostname>>,
    /// What is listened to.
    pub servers: Vec<Server>,
}

impl Gateway {
    /// The key of its row.
    pub fn key(&self) -> InNamespace {
        InNamespace::new(self.namespace.clone(), self.name.clone())
    }
    /// `namespace/name`, as VirtualServices refer to it.
    pub fn full_name(&self) -> Name {
        format!("{}/{}", self.namespace, self.name).into()
    }
    /// Istio's order of objects: by age, then namespace, then name.
    pub fn order(&self) -> (i64, &Name, &Name) {
        (self.created, &self.namespace, &self.name)
    }
}

/// One port of a Gateway and the hosts that are served there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Server {
    /// The index in the object's list.
    pub index: usize,
    /// Its own name, possibly empty.
    pub name: Name,
    /// The port; that of the Service in front where there is one.
    pub port: u16,
    /// The name of the port.
    pub port_name: Name,
    /// What is spoken.
    pub protocol: Protocol,
    /// The address to bind, possibly empty.
    pub bind: Name,
    /// Never empty.
    pub hosts: Vec<ServerHost>,
    /// TLS towards the clients. There for `HTTPS` and `TLS`; with HTTP it only says whether to redirect.
    pub tls: Option<ServerTls>,
}

impl Server {
    /// HTTP in plaintext.
    pub fn is_plain_http(&self) -> bool {
        self.protocol.is_http()
    }
    /// TLS that goes through undecrypted.
    pub fn is_passthrough(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| {
            !self.is_plain_http() && matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
        })
    }
    /// TLS of any kind.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some() && !self.is_plain_http()
    }
    /// HTTP behind TLS that ends here.
    pub fn is_https(&self) -> bool {
        self.protocol == Protocol::Https && self.is_tls() && !self.is_passthrough()
    }
    /// Plaintext requests are sent to HTTPS.
    pub fn redirects(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }
}

/// A host of a server, and whose VirtualServices may be bound to it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServerHost {
    /// A namespace; `None` for all.
    pub namespace: Option<Name>,
    /// A host, `*` or `*.example.com`.
    pub host: Hostname,
}

impl ServerHost {
    /// True when VirtualServices of that namespace may be bound.
    pub fn admits(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|ns| ns == namespace)
    }
}

/// TLS towards the clients. Only combinations that an Envoy takes are here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct ServerTls {
    /// Answer plaintext requests with a redirection.
    pub https_redirect: bool,
    /// Who shows certificates.
    pub mode: ServerTlsMode,
    /// Where the server's certificates are.
    pub certificates: Vec<Certificate>,
    /// What a client's certificate is checked against; `None` where clients show none, and for mesh certificates.
    pub authorities: Option<Authorities>,
    /// A file of revoked certificates in the proxy's container, possibly empty.
    pub revoked: Name,
    /// Names of which a client's certificate must bear one; empty for any.
    pub subject_alt_names: Vec<Name>,
    /// SHA-256 of acceptable public keys in base64.
    pub verify_spki: Vec<Name>,
    /// SHA-256 of acceptable certificates in hexadecimal.
    pub verify_hash: Vec<Name>,
    /// Lowest version, 0 for the default: 10, 11, 12, 13.
    pub min_version: u8,
    /// Highest version, 0 for the default.
    pub max_version: u8,
    /// Up to TLS 1.2; empty for Envoy's.
    pub cipher_suites: Vec<Name>,
    /// For the key exchange; empty for Envoy's.
    pub ecdh_curves: Vec<Name>,
    /// Client certificates are asked for, but may come from anybody.
    pub accept_untrusted: bool,
}

/// Where a certificate and its key are.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Certificate {
    /// A `credentialName`.
    Credential(Name),
    /// Files in the proxy's container.
    Files {
        /// The chain.
        chain: Name,
        /// The key.
        key: Name,
    },
}

/// Where the authorities are that a client's certificate is checked against.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Authorities {
    /// A `credentialName`, with the suffix `-cacert` where it is that of a certificate.
    Credential(Name),
    /// A file in the proxy's container.
    File(Name),
}
