//! The flags of the authority, and of those who are believed.

use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use clap::Args;
use kube::Client;
use mesh_api::Name;
use mesh_ca::authenticate::{Authenticator, ClientCertificate, Jwks, KubernetesTokens, Xfcc};
use mesh_ca::server::Metrics;
use mesh_ca::{Authority, Current, KeyKind};
use mesh_xds::model::Settings;

use super::duration;
use crate::identity::{CaFolder, CaOptions, CaSecrets, Clients, Identity, TokenReviews};

#[derive(Args, Clone, Debug, Default)]
pub(super) struct IdentityFlags {
    /// Folder of the authority, as the Secret cacerts has it (ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem, or
    /// tls.crt, tls.key, ca.crt), followed; if empty, a root is made there. Without it the Secrets cacerts and istio-ca-secret
    /// count, or without a cluster a root that lives as long as the process
    #[arg(long, env = "ROOT_CA_DIR", value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// Believe the tokens of service accounts that a key of this JSON Web Key Set signed, for the audience istio-ca
    #[arg(long, value_name = "FILE", requires = "jwt_issuer")]
    jwks: Option<PathBuf>,
    /// The issuer of these tokens
    #[arg(long, value_name = "URL", requires = "jwks")]
    jwt_issuer: Option<String>,
    /// Trust domain of the identities; otherwise as MeshConfig says
    #[arg(long, env = "TRUST_DOMAIN")]
    trust_domain: Option<String>,
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
    /// Puts every change of it into `current`.
    pub(super) async fn follow(self, current: &Current, metrics: &Metrics) -> Infallible {
        match self {
            Self::Folder(folder) => folder.follow(current, metrics).await,
            Self::Secrets(secrets) => secrets.follow(current, metrics).await,
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
        let of_mesh = settings.mesh.trust_domain.as_str();
        let trust_domain = self.trust_domain.as_deref().unwrap_or(of_mesh);
        let trust_domain = if trust_domain.is_empty() { "cluster.local" } else { trust_domain };
        let options = ca_options(trust_domain, &feature)?;
        let mut authenticators: Vec<Arc<dyn Authenticator>> = vec![Arc::new(ClientCertificate)];
        if let Some(tokens) = self.tokens(trust_domain)? {
            authenticators.push(Arc::new(tokens));
        }
        let namespace = own.as_ref().map_or(settings.root_namespace.as_str(), |own| &own.namespace);
        let mut hosts = Identity::hosts_in(namespace, revision);
        hosts.extend(feature("ISTIOD_CUSTOM_HOST").iter().flat_map(|hosts| hosts.split(',')).map(str::to_owned));
        hosts.retain(|host| !host.is_empty());
        if let Some(Own { client, cluster, clients, .. }) = &own {
            clients.insert(cluster.clone(), client.clone());
            let reviews = TokenReviews::new(cluster.clone(), clients.clone());
            authenticators.push(Arc::new(KubernetesTokens::new(reviews, trust_domain)));
        }
        if let Some(networks) = feature("TRUSTED_GATEWAY_CIDR").filter(|networks| !networks.is_empty()) {
            let gateways = Xfcc::new(networks.split(','));
            authenticators.push(Arc::new(gateways.map_err(|error| anyhow!("TRUSTED_GATEWAY_CIDR: {error}"))?));
        }
        let (authority, kept) = self.authority(options, own).await?;
        Ok((Identity { authority: Arc::new(Current::new(authority)), authenticators, hosts }, kept))
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
    if let Some(percent) = feature("CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE") {
        let wrong = |_| anyhow!("CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE: {percent:?} is no number");
        options.grace_percent = percent.parse().map_err(wrong)?;
    }
    Ok(options)
}
