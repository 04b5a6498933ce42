//! Gateway: what a proxy at the edge of the mesh listens to. It names ports, hosts and certificates; where requests go
//! from there is a VirtualService's matter.

use std::collections::BTreeMap;

use kube::CustomResource;

use crate::types::{IstioStatus, enumeration, message, schema};

message! {
    /// Listeners of the proxies at the mesh's edge.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::networking::{Gateway, GatewaySpec, Port, Server, ServerTlsMode, ServerTlsSettings};
    /// // HTTPS for one host, with the certificate in the Secret `bookinfo-cert`.
    /// let yaml = "
    /// apiVersion: networking.istio.io/v1
    /// kind: Gateway
    /// metadata: {name: edge, namespace: bookinfo}
    /// spec:
    ///   selector: {istio: ingressgateway}
    ///   servers:
    ///   - port: {number: 443, name: https, protocol: HTTPS}
    ///     hosts: [bookinfo.example.com]
    ///     tls: {mode: SIMPLE, credentialName: bookinfo-cert}
    /// ";
    /// let spec = GatewaySpec {
    ///     selector: [("istio".into(), "ingressgateway".into())].into(),
    ///     servers: vec![Server {
    ///         port: Port { number: 443, name: "https".into(), protocol: "HTTPS".into(), ..Default::default() },
    ///         hosts: vec!["bookinfo.example.com".into()],
    ///         tls: Some(ServerTlsSettings {
    ///             mode: ServerTlsMode::Simple,
    ///             credential_name: "bookinfo-cert".into(),
    ///             ..Default::default()
    ///         }),
    ///         ..Default::default()
    ///     }],
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<Gateway>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "Gateway",
        plural = "gateways",
        shortname = "gw",
        category = "istio-io",
        category = "networking-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "Listeners of the proxies at the mesh's edge."
    )]
    pub struct GatewaySpec {
        /// What is listened to.
        pub servers: Vec<Server>,
        /// Labels of the pods that listen. Default: all gateways.
        pub selector: BTreeMap<String, String>,
    }
}

message! {
    /// A port that is listened on, and the hosts served there.
    #[schemars(extend("required" = ["port", "hosts"]))]
    pub struct Server {
        /// The port.
        pub port: Port,
        /// IP address or Unix socket (`unix:///path`) to bind. Default: every address.
        pub bind: String,
        /// Hosts served, each as `namespace/host` or `host`; `*` and a leading `*.` are allowed, `.` is this namespace.
        /// Only VirtualServices of that namespace can be bound.
        pub hosts: Vec<String>,
        /// TLS towards the clients. Needed for HTTPS and TLS.
        pub tls: Option<ServerTlsSettings>,
        /// Address or Unix socket to send all traffic to. Read, but never applied, as in Istio.
        pub default_endpoint: String,
        /// Name of the server, unique among its siblings if given.
        pub name: String,
    }
}

message! {
    /// A port of a gateway.
    #[schemars(extend("required" = ["number", "protocol", "name"]))]
    pub struct Port {
        /// Its number.
        pub number: u32,
        /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS.
        pub protocol: String,
        /// Its name.
        pub name: String,
        /// Port of the pod. Deprecated, without effect.
        pub target_port: u32,
    }
}

message! {
    /// TLS towards the clients.
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
        ("only one of credentialNames and tlsCertificates can be set", "!(has(self.credentialNames) && has(self.tlsCertificates))"),
        ("only one of credentialName and credentialNames can be set", "!(has(self.credentialName) && has(self.credentialNames))"),
    ])))]
    pub struct ServerTlsSettings {
        /// Answer plaintext HTTP with a redirection to HTTPS.
        pub https_redirect: bool,
        /// How TLS is spoken.
        pub mode: ServerTlsMode,
        /// File of the server's certificate chain, in PEM.
        pub server_certificate: String,
        /// File of the server's private key, in PEM.
        pub private_key: String,
        /// File of the certificates that a client's is checked against, in PEM.
        pub ca_certificates: String,
        /// File of revoked certificates, in PEM.
        pub ca_crl: String,
        /// Name of the Secret that holds certificate, key and CA in place of files.
        pub credential_name: String,
        /// Names of Secrets with one certificate for each type of key, one or two.
        #[schemars(length(min = 1, max = 2))]
        pub credential_names: Vec<String>,
        /// Name of the Secret or ConfigMap with the CA alone, if it isn't beside the certificate.
        pub ca_cert_credential_name: String,
        /// Files of certificates for each type of key, one or two.
        #[schemars(length(min = 1, max = 2))]
        pub tls_certificates: Vec<TlsCertificate>,
        /// Names of which a client's certificate must bear one.
        pub subject_alt_names: Vec<String>,
        /// Accepted client certificates by the base64 SHA-256 of their public key (SPKI).
        pub verify_certificate_spki: Vec<String>,
        /// Accepted client certificates by their hexadecimal SHA-256.
        pub verify_certificate_hash: Vec<String>,
        /// Lowest version of TLS. Default: 1.2.
        pub min_protocol_version: TlsProtocol,
        /// Highest version of TLS. Default: Envoy's, 1.3.
        pub max_protocol_version: TlsProtocol,
        /// Cipher suites up to TLS 1.2, by OpenSSL's names. Default: Istio's list.
        pub cipher_suites: Vec<String>,
        /// Curves for the key exchange. Default: Envoy's.
        pub ecdh_curves: Vec<String>,
        /// Ask for a client certificate, but don't check it. Default: false.
        pub insecure_skip_verify: Option<bool>,
    }
}

enumeration! {
    /// How TLS is spoken to clients.
    pub enum ServerTlsMode {
        /// It isn't: the server name alone decides where the connection goes, undecrypted.
        #[default]
        Passthrough,
        /// With a certificate of the server only.
        Simple,
        /// With certificates of both sides.
        Mutual,
        /// As passthrough, to the service that the server name spells out; for traffic between networks.
        AutoPassthrough,
        /// With the mesh's own certificates on both sides.
        IstioMutual,
        /// As `MUTUAL`, but a client may do without a certificate.
        OptionalMutual,
    }
}

enumeration! {
    /// A version of TLS.
    pub enum TlsProtocol {
        /// The default for the place.
        #[default]
        TlsAuto,
        /// TLS 1.0.
        #[serde(rename = "TLSV1_0")]
        TlsV1_0,
        /// TLS 1.1.
        #[serde(rename = "TLSV1_1")]
        TlsV1_1,
        /// TLS 1.2.
        #[serde(rename = "TLSV1_2")]
        TlsV1_2,
        /// TLS 1.3.
        #[serde(rename = "TLSV1_3")]
        TlsV1_3,
    }
}

message! {
    /// Files of a certificate for one type of key.
    pub struct TlsCertificate {
        /// File of the certificate chain, in PEM.
        pub server_certificate: String,
        /// File of the private key, in PEM.
        pub private_key: String,
        /// File of the certificates that a client's is checked against, in PEM.
        pub ca_certificates: String,
    }
}
