//! The flags of the webhooks, and what is followed for them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use clap::Args;
use kube::Client;
use mesh_ca::Current;
use mesh_webhook::server::ServingCertificate;
use tokio::sync::watch;

use super::{Meshd, address};
use crate::identity::Identity;
use crate::mesh_config::{MeshConfigMap, of_revision};
use crate::webhooks::{CONFIG_MAP, InjectorConfig, Options, Webhooks, certificate};

#[derive(Args, Clone, Debug, Default)]
pub(super) struct WebhookFlags {
    /// Where the webhooks are served over HTTPS, empty for nowhere; otherwise port 15017 of the host of --http-addr, or any
    /// free port if that is any
    #[arg(long, alias = "httpsAddr", value_parser = address_or_none, value_name = "[HOST]:PORT")]
    https_addr: Option<Maybe>,
    /// The certificate of the webhooks with its chain (PEM), followed; otherwise one of the mesh's own authority
    #[arg(long, alias = "tlsCertFile", value_name = "FILE", requires = "tls_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// The key of --tls-cert-file
    #[arg(long, alias = "tlsKeyFile", value_name = "FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,
    /// Refuse objects that are at odds with others, such as a second VirtualService for a host, instead of warning
    #[arg(long)]
    deny_conflicts: bool,
}

/// An address, or that there is to be none.
type Maybe = (Option<SocketAddr>,);

fn address_or_none(text: &str) -> Result<Maybe, String> {
    Ok((if text.is_empty() { None } else { Some(address(text)?) },))
}

impl WebhookFlags {
    fn address(&self, http: SocketAddr) -> Option<SocketAddr> {
        let port = if http.port() == 0 { 0 } else { 15017 };
        self.https_addr.map_or(Some(SocketAddr::new(http.ip(), port)), |(address,)| address)
    }

    /// The certificate, as it is followed.
    async fn certificate(
        self,
        authority: Arc<Current>,
        hosts: Vec<String>,
        to: watch::Sender<Option<ServingCertificate>>,
    ) -> Infallible {
        match (self.tls_cert_file, self.tls_key_file) {
            (Some(chain), Some(key)) => certificate::follow_files(chain, key, to).await,
            _ => certificate::follow_authority(authority, hosts, to).await,
        }
    }
}

/// The webhooks in the making.
pub(super) struct Serving {
    flags: WebhookFlags,
    address: Option<SocketAddr>,
    options: Options,
    authority: Arc<Current>,
    hosts: Vec<String>,
    config_map: Option<MeshConfigMap>,
}

/// What goes on for as long as the process.
type Following = Pin<Box<dyn Future<Output = Infallible>>>;

impl Serving {
    pub(super) fn new(meshd: &Meshd, identity: &Identity, cluster: Option<Client>) -> Self {
        let options = Options { deny_conflicts: meshd.webhooks.deny_conflicts, revision: meshd.revision.clone() };
        let name = of_revision(CONFIG_MAP, &meshd.revision);
        Self {
            address: meshd.webhooks.address(meshd.http_addr),
            flags: meshd.webhooks.clone(),
            options,
            authority: identity.authority.clone(),
            hosts: identity.hosts.clone(),
            config_map: cluster.map(|client| MeshConfigMap::named(client, &meshd.namespace, &name)),
        }
    }

    /// The webhooks, if there are to be any, and what has to go on for them. A cluster is waited for: pods must not be injected
    /// by other templates than its own.
    pub(super) async fn start(self) -> (Option<Webhooks>, Following) {
        let Some(address) = self.address else { return (None, Box::pin(pending())) };
        let (to, certificate) = watch::channel(None);
        let mut webhooks = Webhooks::new(address, certificate).options(self.options);
        let follow_certificate = self.flags.certificate(self.authority, self.hosts, to);
        let Some(mut config_map) = self.config_map else { return (Some(webhooks), Box::pin(follow_certificate)) };
        let (data, followed) = watch::channel(Arc::new(config_map.next().await));
        webhooks = webhooks.injector(InjectorConfig::Followed(followed));
        let following = async move {
            tokio::select! {
                never = follow_certificate => never,
                never = follow(config_map, data) => never,
            }
        };
        (Some(webhooks), Box::pin(following))
    }
}

async fn follow(mut config_map: MeshConfigMap, to: watch::Sender<Arc<BTreeMap<String, String>>>) -> Infallible {
    loop {
        let new = config_map.next().await;
        tracing::info!("{} has changed", config_map.name());
        to.send_replace(Arc::new(new));
    }
}
