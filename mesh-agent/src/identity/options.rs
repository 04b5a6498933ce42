//! What a pod's environment says of its identity, by pilot-agent's names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_api::names::SpiffeId;
use mesh_ca::KeyKind;
use mesh_xds::bootstrap::ProxyConfig;

use super::schedule::Schedule;
use crate::Environment;
use crate::endpoint::{Endpoint, Proof, Roots, Tls};

/// Where a token of the service account is mounted.
const TOKEN: &str = "./var/run/secrets/tokens/istio-token";
/// Where the control plane's root is mounted.
const MESH_ROOT: &str = "./var/run/secrets/istio/root-cert.pem";
/// Where the cluster's root is mounted.
const CLUSTER_ROOT: &str = "./var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// Where users mount certificates of their own.
const OWN_CERTIFICATES: &str = "./etc/certs";
/// Where others than us put a workload's certificate.
const CREDENTIALS: &str = "./var/run/secrets/workload-spiffe-credentials";
/// Where Envoy looks for secrets.
pub(crate) const SOCKET: &str = "./var/run/secrets/workload-spiffe-uds/socket";

/// Who the workload is certified by, and how the control plane is reached.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// Where the certificate comes from.
    pub source: Source,
    /// Where configuration comes from.
    pub xds: Endpoint,
    /// Where Envoy looks for secrets.
    pub socket: PathBuf,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// An authority signs it.
    Authority(Box<Authority>),
    /// Somebody mounts it.
    Files(Files),
    /// Somebody else serves it on the socket.
    Elsewhere,
}

/// An authority and what is asked of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Authority {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Headers that it wants besides (`CA_HEADER_*`).
    pub headers: Vec<(String, String)>,
    /// The kind of our key.
    pub key: KeyKind,
    /// How long the certificate is to live (`SECRET_TTL`).
    pub ttl: Duration,
    /// The name that we expect to get; the authority decides.
    pub id: Option<SpiffeId>,
    /// The Kubernetes signer that is to sign (`ISTIO_META_CERT_SIGNER`).
    pub signer: Option<String>,
    /// When to ask again.
    pub schedule: Schedule,
    /// The folder into which key and certificate are written; `None`: they stay in memory (`OUTPUT_CERTS`).
    pub output: Option<PathBuf>,
}

/// Files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate and what leads to a root.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whom to trust.
    pub roots: PathBuf,
}

/// What the environment says wrongly.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {why}")]
pub struct OptionsError {
    /// The variable.
    pub variable: &'static str,
    /// What is wrong with it.
    pub why: String,
}

fn wrong(variable: &'static str, why: impl Into<String>) -> OptionsError {
    OptionsError { variable, why: why.into() }
}

impl Options {
    /// What the environment asks for. `None`: neither an authority nor files of certificates are named, and the control plane's
    /// address is one of plaintext; the workload then has no identity.
    ///
    /// # Errors
    /// At the first variable that means nothing.
    pub fn new(
        env: &Environment,
        config: &ProxyConfig,
        has: &dyn Fn(&Path) -> bool,
    ) -> Result<Option<Self>, OptionsError> {
        let discovery = &config.discovery_address;
        let files = mounted(env, has);
        let provisioned = env.get("PROV_CERT");
        if provisioned.is_some() && env.flag("FILE_MOUNTED_CERTS", false) {
            return Err(wrong("PROV_CERT", "and FILE_MOUNTED_CERTS exclude each other"));
        }
        let asks = env.get("CA_ADDR").is_some() || files.is_some() || discovery.ends_with(":15012");
        if !asks {
            return Ok(None);
        }
        let socket = PathBuf::from(match env.get("WORKLOAD_IDENTITY_SOCKET_FILE") {
            Some(name) => format!("./var/run/secrets/workload-spiffe-uds/{name}"),
            None => SOCKET.to_owned(),
        });
        let source = match files {
            Some(files) => Source::Files(files),
            None => Source::Authority(Box::new(authority(env, config)?)),
        };
        Ok(Some(Self { source, xds: xds(env, config, has)?, socket }))
    }
}

/// Certificates that are in files already.
fn mounted(env: &Environment, has: &dyn Fn(&Path) -> bool) -> Option<Files> {
    let files = |folder: &str| {
        let file = |name: &str| Path::new(folder).join(name);
        Files { chain: file("cert-chain.pem"), key: file("key.pem"), roots: file("root-cert.pem") }
    };
    if env.flag("FILE_MOUNTED_CERTS", false) {
        return Some(files(OWN_CERTIFICATES));
    }
    Some(files(CREDENTIALS)).filter(|files| [&files.chain, &files.key, &files.roots].iter().all(|file| has(file)))
}

fn authority(env: &Environment, config: &ProxyConfig) -> Result<Authority, OptionsError> {
    let address = env.get("CA_ADDR").unwrap_or(&config.discovery_address);
    let roots = match (env.get("CA_ROOT_CA"), env.get("PROV_CERT"), env.get("PILOT_CERT_PROVIDER")) {
        (Some(said), _, _) => said_roots(said),
        (None, _, Some("custom")) => file_in(OWN_CERTIFICATES, "root-cert.pem"),
        (None, Some(folder), _) => file_in(folder, "root-cert.pem"),
        (None, None, provider) => provider_roots(provider)?,
    };
    let proof = match env.get("PROV_CERT") {
        Some(folder) => certificate_in(folder),
        None => token(env)?,
    };
    let ttl = env.get("SECRET_TTL").unwrap_or("24h");
    let ttl = ttl
        .parse::<mesh_api::types::Duration>()
        .map_err(|_| wrong("SECRET_TTL", format!("{ttl:?} is no duration such as 24h")))?;
    let id = match (env.get("POD_NAMESPACE"), env.get("SERVICE_ACCOUNT")) {
        (Some(namespace), Some(account)) => Some(SpiffeId {
            trust_domain: env.get("TRUST_DOMAIN").unwrap_or("cluster.local").into(),
            namespace: namespace.into(),
            service_account: account.into(),
        }),
        _ => None,
    };
    Ok(Authority {
        endpoint: secured(address, roots, proof, env),
        headers: env.with_prefix("CA_HEADER_").map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        key: key_kind(env)?,
        ttl: ttl.to_std(),
        id,
        signer: env.get("ISTIO_META_CERT_SIGNER").map(str::to_owned),
        schedule: Schedule {
            grace: ratio(env, "SECRET_GRACE_PERIOD_RATIO", Schedule::default().grace)?,
            jitter: ratio(env, "SECRET_GRACE_PERIOD_RATIO_JITTER", Schedule::default().jitter)?,
        },
        output: env.get("OUTPUT_CERTS").map(PathBuf::from),
    })
}

fn xds(env: &Environment, config: &ProxyConfig, has: &dyn Fn(&Path) -> bool) -> Result<Endpoint, OptionsError> {
    let policy = config.others.get("controlPlaneAuthPolicy").and_then(serde_json::Value::as_str);
    if policy == Some("NONE") || config.discovery_address.ends_with(":15010") {
        return Ok(Endpoint::plain(&config.discovery_address));
    }
    let own_root = Path::new(OWN_CERTIFICATES).join("root-cert.pem");
    let metadata = |name: &str| config.proxy_metadata.get(name).map(PathBuf::from);
    let files = env.flag("FILE_MOUNTED_CERTS", false);
    let roots = match (env.get("XDS_ROOT_CA"), env.get("PROV_CERT")) {
        (Some(said), _) => said_roots(said),
        (None, _) if has(&own_root) => Roots::File(own_root),
        (None, Some(folder)) => file_in(folder, "root-cert.pem"),
        (None, None) => match metadata("ISTIO_META_TLS_CLIENT_ROOT_CERT").filter(|_| files) {
            Some(root) => Roots::File(root),
            None => provider_roots(env.get("PILOT_CERT_PROVIDER"))?,
        },
    };
    let client = (metadata("ISTIO_META_TLS_CLIENT_CERT_CHAIN"), metadata("ISTIO_META_TLS_CLIENT_KEY"));
    let proof = match (env.get("PROV_CERT"), client) {
        (Some(folder), _) => certificate_in(folder),
        (None, (Some(chain), Some(key))) if files => Proof::Certificate { chain, key },
        _ if files => certificate_in(OWN_CERTIFICATES),
        _ => token(env)?,
    };
    Ok(secured(&config.discovery_address, roots, proof, env))
}

fn secured(address: &str, roots: Roots, proof: Proof, env: &Environment) -> Endpoint {
    let mut endpoint = Endpoint::plain(address);
    let server_name = env.get("ISTIOD_SAN").unwrap_or(endpoint.host()).to_owned();
    endpoint.tls = Some(Tls { server_name, roots, proof });
    endpoint.cluster = env.get("ISTIO_META_CLUSTER_ID").map(str::to_owned);
    endpoint
}

fn said_roots(said: &str) -> Roots {
    if said == "SYSTEM" { Roots::System } else { Roots::File(said.into()) }
}

fn file_in(folder: &str, name: &str) -> Roots {
    Roots::File(Path::new(folder).join(name))
}

fn provider_roots(provider: Option<&str>) -> Result<Roots, OptionsError> {
    match provider {
        Some("none") => {
            Err(wrong("PILOT_CERT_PROVIDER", "is none; name the control plane's root with CA_ROOT_CA and XDS_ROOT_CA"))
        }
        Some("kubernetes") => Ok(Roots::File(CLUSTER_ROOT.into())),
        Some("custom") => Ok(file_in(OWN_CERTIFICATES, "root-cert.pem")),
        _ => Ok(Roots::File(MESH_ROOT.into())),
    }
}

fn certificate_in(folder: &str) -> Proof {
    let folder = Path::new(folder);
    Proof::Certificate { chain: folder.join("cert-chain.pem"), key: folder.join("key.pem") }
}

/// The token; first-party ones, which any service would have to be trusted with, are gone from Istio as well.
fn token(env: &Environment) -> Result<Proof, OptionsError> {
    match env.get("JWT_POLICY") {
        None | Some("third-party-jwt" | "first-party-jwt") => Ok(Proof::Token(TOKEN.into())),
        Some("none") => Ok(Proof::None),
        Some(other) => Err(wrong("JWT_POLICY", format!("{other:?} is neither third-party-jwt nor none"))),
    }
}

/// ECDSA unless RSA is asked for: quicker to make and to use, and every peer takes it.
fn key_kind(env: &Environment) -> Result<KeyKind, OptionsError> {
    match (env.get("ECC_SIGNATURE_ALGORITHM"), env.get("ECC_CURVE"), env.get("WORKLOAD_RSA_KEY_SIZE")) {
        (Some("ECDSA"), Some("P384"), _) => Ok(KeyKind::EcdsaP384),
        (Some("ECDSA"), None | Some("P256"), _) | (None, _, None) => Ok(KeyKind::EcdsaP256),
        (Some("ECDSA"), Some(curve), _) => Err(wrong("ECC_CURVE", format!("{curve:?} is neither P256 nor P384"))),
        (Some(other), _, _) => Err(wrong("ECC_SIGNATURE_ALGORITHM", format!("{other:?} is not ECDSA"))),
        (None, _, Some("2048")) => Ok(KeyKind::Rsa2048),
        (None, _, Some("4096")) => Ok(KeyKind::Rsa4096),
        (None, _, Some(size)) => Err(wrong("WORKLOAD_RSA_KEY_SIZE", format!("{size:?} is neither 2048 nor 4096"))),
    }
}

fn ratio(env: &Environment, name: &'static str, default: f64) -> Result<f64, OptionsError> {
    let Some(text) = env.get(name) else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| wrong(name, format!("{text:?} is no number from 0 to 1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)], discovery: &str, files: &[&str]) -> Result<Option<Options>, OptionsError> {
        let config = ProxyConfig::from_json(&serde_json::json!({"discoveryAddress": discovery}).to_string()).unwrap();
        let env = Environment::from_iter(variables.iter().copied());
        Options::new(&env, &config, &|path| files.iter().any(|file| path == Path::new(file)))
    }

    #[test]
    fn an_injected_pod_asks_the_control_plane() {
        let variables = [
            ("CA_ADDR", "istiod.istio-system.svc:15012"),
            ("PILOT_CERT_PROVIDER", "istiod"),
            ("POD_NAMESPACE", "default"),
            ("SERVICE_ACCOUNT", "sleep"),
            ("TRUST_DOMAIN", "td"),
            ("ISTIO_META_CLUSTER_ID", "c1"),
            ("CA_HEADER_X", "y"),
        ];
        let got = options(&variables, "istiod.istio-system.svc:15012", &[]).unwrap().unwrap();
        let Source::Authority(ca) = got.source else { panic!("{got:?}") };
        assert_eq!(ca.endpoint, got.xds, "one server for both");
        assert_eq!(ca.endpoint.cluster.as_deref(), Some("c1"));
        let tls = ca.endpoint.tls.unwrap();
        assert_eq!(tls.server_name, "istiod.istio-system.svc");
        assert_eq!(tls.roots, Roots::File(MESH_ROOT.into()));
        assert_eq!(tls.proof, Proof::Token(TOKEN.into()));
        assert_eq!(ca.id.unwrap().to_string(), "spiffe://td/ns/default/sa/sleep");
        assert_eq!((ca.key, ca.ttl, ca.output), (KeyKind::EcdsaP256, Duration::from_secs(86_400), None));
        assert_eq!(ca.headers, [("X".into(), "y".into())]);
    }

    #[test]
    fn without_an_authority_there_is_no_identity() {
        assert_eq!(options(&[], "10.0.0.1:15010", &[]), Ok(None));
        assert!(options(&[], "istiod:15012", &[]).unwrap().is_some(), "the port says that it wants TLS");
        let plain = options(&[("CA_ADDR", "istiod:15012")], "istiod:15010", &[]).unwrap().unwrap();
        assert_eq!(plain.xds.tls, None);
    }

    #[test]
    fn certificates_may_be_mounted() {
        let own = options(&[("FILE_MOUNTED_CERTS", "true")], "istiod:15012", &[]).unwrap().unwrap();
        let Source::Files(files) = own.source else { panic!("{own:?}") };
        assert_eq!(files.key, Path::new("./etc/certs/key.pem"));
        assert_eq!(own.xds.tls.unwrap().proof, certificate_in(OWN_CERTIFICATES));
        let names = ["cert-chain.pem", "key.pem", "root-cert.pem"].map(|name| format!("{CREDENTIALS}/{name}"));
        let found = options(&[], "istiod:15012", &names.each_ref().map(String::as_str)).unwrap().unwrap();
        assert!(matches!(found.source, Source::Files(files) if files.chain == Path::new(&names[0])));
    }

    #[test]
    fn a_machine_shows_the_certificate_that_it_was_given() {
        let variables = [("PROV_CERT", "/etc/certs"), ("OUTPUT_CERTS", "/etc/certs"), ("ISTIOD_SAN", "istiod")];
        let got = options(&variables, "10.0.0.1:15012", &[]).unwrap().unwrap();
        let Source::Authority(ca) = got.source else { panic!("{got:?}") };
        assert_eq!(ca.output.as_deref(), Some(Path::new("/etc/certs")));
        for tls in [ca.endpoint.tls.unwrap(), got.xds.tls.unwrap()] {
            assert_eq!(tls.proof, certificate_in("/etc/certs"));
            assert_eq!((tls.server_name.as_str(), tls.roots), ("istiod", file_in("/etc/certs", "root-cert.pem")));
        }
    }

    #[test]
    fn what_means_nothing_is_named() {
        for (name, value) in [
            ("JWT_POLICY", "x"),
            ("ECC_SIGNATURE_ALGORITHM", "EdDSA"),
            ("WORKLOAD_RSA_KEY_SIZE", "1024"),
            ("SECRET_GRACE_PERIOD_RATIO", "2"),
            ("SECRET_TTL", "soon"),
            ("PILOT_CERT_PROVIDER", "none"),
        ] {
            assert_eq!(options(&[(name, value)], "istiod:15012", &[]).unwrap_err().variable, name);
        }
        let both = [("PROV_CERT", "/x"), ("FILE_MOUNTED_CERTS", "true")];
        assert_eq!(options(&both, "istiod:15012", &[]).unwrap_err().variable, "PROV_CERT");
    }
}
