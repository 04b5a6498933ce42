//! The flags of the authority, and of those who are believed.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use kube::Client;
use mesh_api::Name;
use mesh_ca::authenticate::{AUDIENCE, Authenticator, ClientCertificate, Jwks, KubernetesTokens, Xfcc};
use mesh_ca::signer::kubernetes::Signers;
use mesh_ca::{Authority, Certificate, Current, KeyKind, Lifetimes};
use mesh_xds::model::Settings;

use super::duration;
use crate::identity::{
    CaFolder, CaOptions, CaSecrets, Clients, Identity, RegistrationAuthority, Rotating, SignerRoots, TokenReviews,
    Trust,
};

/// The one external authority that istiod knows: the signers of the cluster.
const KUBERNETES: &str = "ISTIOD_RA_KUBERNETES_API";
/// Where a pod finds the roots of its cluster.
const CLUSTER_ROOTS: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

#[derive(Args, Clone, Debug)]
pub(super) struct IdentityFlags {
    /// Folder of the authority, as the Secret cacerts has it (ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem, or
    /// tls.crt, tls.key, ca.crt), followed; if empty, a root is made there. Other certificates are led in by a rotation, which
    /// ROOT_ROTATION_SETTLE, _PATIENCE and _LONGEST time. Without it the Secrets cacerts and istio-ca-secret
    /// count, or without a cluster a root that lives as long as the process
    #[arg(long, env = "ROOT_CA_DIR", value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// Believe the tokens of service accounts that a key of this JSON Web Key Set signed, for the audience istio-ca
    #[arg(long, value_name = "FILE", requires = "jwt_issuer")]
    jwks: Option<PathBuf>,
    /// The issuer of these tokens
    #[arg(long, value_name = "URL", requires = "jwks")]
    jwt_issuer: Option<String>,
    /// Roots of the signers that EXTERNAL_CA=ISTIOD_RA_KUBERNETES_API lets sign; otherwise MeshConfig's caCertificates with
    /// certSigners, or those of the cluster itself where CERT_SIGNER_DOMAIN names no other signers
    #[arg(long, default_value = "/etc/external-ca-cert/root-cert.pem", value_name = "FILE")]
    external_ca_cert: PathBuf,
}

/// Where the authority is kept.
pub(super) enum Kept {
    /// In a folder.
    Folder(CaFolder),
    /// In the cluster's Secrets.
    Secrets(CaSecrets),
    /// Nowhere.
    Process,
}

impl Kept {
    /// Leads every change of it in.
    pub(super) async fn follow(self, rotating: &Rotating, trust: Option<&Trust>) -> Infallible {
        match self {
            Self::Folder(folder) => folder.follow(rotating).await,
            Self::Secrets(secrets) => secrets.follow(rotating, trust).await,
            Self::Process => pending().await,
        }
    }
}

/// The cluster that the control plane is of.
pub(super) struct Own {
    pub(super) client: Client,
    pub(super) cluster: Name,
    /// The control plane's own.
    pub(super) namespace: String,
    /// Those of the other clusters are added as they become known.
    pub(super) clients: Clients,
}

impl IdentityFlags {
    /// What the flags say, and where the authority is kept, for a control plane of this revision. `own` is the cluster, where
    /// there is one.
    pub(super) async fn identity(
        &self,
        settings: &Settings,
        revision: &str,
        own: Option<Own>,
    ) -> anyhow::Result<(Identity, Kept)> {
        let feature = |name: &str| settings.features.get(name).map(str::to_owned).or_else(|| std::env::var(name).ok());
        let trust_domain = settings.trust_domain();
        let options = ca_options(trust_domain, &feature)?;
        let mut authenticators: Vec<Arc<dyn Authenticator>> = vec![Arc::new(ClientCertificate)];
        let audiences = list(&feature("TOKEN_AUDIENCES").unwrap_or_else(|| AUDIENCE.to_owned()));
        if let Some(tokens) = self.tokens(trust_domain)? {
            authenticators.push(Arc::new(tokens.audiences(audiences.clone())));
        }
        let namespace = own.as_ref().map_or(settings.root_namespace.as_str(), |own| &own.namespace);
        let mut hosts = Identity::hosts_in(namespace, revision);
        hosts.extend(list(&feature("ISTIOD_CUSTOM_HOST").unwrap_or_default()));
        if let Some(Own { client, cluster, clients, .. }) = &own {
            clients.insert(cluster.clone(), client.clone());
            let reviews = TokenReviews::new(cluster.clone(), clients.clone());
            authenticators.push(Arc::new(KubernetesTokens::new(reviews, trust_domain).audiences(audiences)));
        }
        if let Some(networks) = feature("TRUSTED_GATEWAY_CIDR").filter(|networks| !networks.is_empty()) {
            let gateways = Xfcc::new(networks.split(','));
            authenticators.push(Arc::new(gateways.map_err(|error| anyhow!("TRUSTED_GATEWAY_CIDR: {error}"))?));
        }
        let registration = self.registration(settings, &feature, own.as_ref(), options.lifetimes)?;
        let (authority, kept) = self.authority(options, own).await?;
        let mut identity = Identity::new(Arc::new(Current::new(authority)), authenticators, hosts);
        if let Some((registration, roots)) = registration {
            identity = identity.signer(registration, roots);
        }
        Ok((identity, kept))
    }

    /// Who signs for workloads, if not the authority, and the roots of its certificates.
    fn registration(
        &self,
        settings: &Settings,
        feature: &dyn Fn(&str) -> Option<String>,
        own: Option<&Own>,
        lifetimes: Lifetimes,
    ) -> anyhow::Result<Option<(RegistrationAuthority, Vec<Certificate>)>> {
        match feature("EXTERNAL_CA").unwrap_or_default().as_str() {
            "" => return Ok(None),
            KUBERNETES => {}
            other => bail!("EXTERNAL_CA: {other:?} is not known; it may be {KUBERNETES}"),
        }
        let own = own.with_context(|| format!("EXTERNAL_CA={KUBERNETES} needs a cluster; serve one, or unset it"))?;
        let named = |name: &str| feature(name).unwrap_or_default();
        let signers = Signers { default: named("K8S_SIGNER"), domain: named("CERT_SIGNER_DOMAIN") };
        let of_cluster = Path::new(CLUSTER_ROOTS);
        let mut roots = SignerRoots::of_mesh(&settings.mesh)?;
        roots.all = match roots_in(&self.external_ca_cert)? {
            found if found.is_empty() && signers.domain.is_empty() && roots.by_signer.is_empty() => {
                roots_in(of_cluster)?
            }
            found => found,
        };
        let each: Vec<_> = roots.each().cloned().collect();
        if each.is_empty() {
            let file = self.external_ca_cert.display();
            tracing::warn!(
                "no root of the signers is known, so their certificates open no connection to this control plane; \
                 put it into {file}, or into MeshConfig's caCertificates with certSigners"
            );
        }
        let registration = RegistrationAuthority::new(own.client.clone(), signers, roots, lifetimes)?;
        Ok(Some((registration, each)))
    }

    async fn authority(&self, options: CaOptions, own: Option<Own>) -> anyhow::Result<(Authority, Kept)> {
        let now = SystemTime::now();
        match (&self.ca_dir, own) {
            (Some(path), _) => {
                let (folder, authority) = CaFolder::open(path.clone(), options, now)?;
                Ok((authority, Kept::Folder(folder)))
            }
            (None, Some(Own { client, namespace, .. })) => {
                let secrets = CaSecrets::new(client, &namespace, options);
                Ok((secrets.open().await?, Kept::Secrets(secrets)))
            }
            (None, None) => {
                tracing::warn!(
                    "the root of the mesh ends with this process; name a folder to keep it in with --ca-dir"
                );
                Ok((Authority::self_signed(&options.root, options.lifetimes, now)?, Kept::Process))
            }
        }
    }

    fn tokens(&self, trust_domain: &str) -> anyhow::Result<Option<Jwks>> {
        let (Some(file), Some(issuer)) = (&self.jwks, &self.jwt_issuer) else { return Ok(None) };
        let named = || format!("--jwks {}", file.display());
        let text = std::fs::read_to_string(file).with_context(named)?;
        Jwks::new(&text, issuer, trust_domain).with_context(named).map(Some)
    }
}

/// The parts of a text that commas part.
fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The certificates of a file; none where there is no file.
fn roots_in(path: &Path) -> anyhow::Result<Vec<Certificate>> {
    let named = || path.display().to_string();
    match std::fs::read(path) {
        Ok(pem) => Certificate::all_from_pem(&pem).with_context(named),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(named),
    }
}

/// Citadel's environment.
fn ca_options(trust_domain: &str, feature: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<CaOptions> {
    let time =
        |name: &str| feature(name).map(|text| duration(&text).map_err(|why| anyhow!("{name}: {why}"))).transpose();
    let mut options = CaOptions::default();
    options.root.organization = trust_domain.to_owned();
    options.root.key = match feature("CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE").as_deref() {
        // Quicker than RSA for whoever signs, and smaller for whoever verifies.
        None => KeyKind::EcdsaP256,
        Some("2048") => KeyKind::Rsa2048,
        Some("4096") => KeyKind::Rsa4096,
        Some(other) => return Err(anyhow!("CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE: {other:?} is neither 2048 nor 4096")),
    };
    let (root, lifetimes) = (&mut options.root, &mut options.lifetimes);
    for (name, field) in [
        ("CITADEL_SELF_SIGNED_CA_CERT_TTL", &mut root.ttl),
        ("DEFAULT_WORKLOAD_CERT_TTL", &mut lifetimes.default),
        ("MAX_WORKLOAD_CERT_TTL", &mut lifetimes.max),
    ] {
        if let Some(given) = time(name)? {
            *field = given;
        }
    }
    let timing = &mut options.timing;
    timing.longest = lifetimes.max;
    for (name, field) in [
        ("ROOT_ROTATION_SETTLE", &mut timing.settle),
        ("ROOT_ROTATION_PATIENCE", &mut timing.patience),
        ("ROOT_ROTATION_LONGEST", &mut timing.longest),
    ] {
        if let Some(given) = time(name)? {
            *field = given;
        }
    }
    if let Some(percent) = feature("CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE") {
        let wrong = |_| anyhow!("CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE: {percent:?} is no number");
        options.grace_percent = percent.parse().map_err(wrong)?;
    }
    Ok(options)
}
