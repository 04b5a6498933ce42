//! The webhooks as the control plane runs them: what they are told comes from the store and from the cluster, and changes while they
//! run.
//!
//! Deciding and answering are mesh-webhook's. Here its injector gets the settings of this moment (`injection`), its validator the
//! neighbours of the object that it looks at, and its server a certificate that is renewed ([`certificate`]).

pub mod certificate;
mod injection;

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api::{Diagnostic, Object, Severity};
use mesh_webhook::server::ServingCertificate;
use mesh_webhook::{Validator, Webhook};
use mesh_xds::{Snapshot, conflicts, envoy_filter};
use tokio::sync::watch;

pub(crate) use injection::{CONFIG_MAP, openshift};
pub use injection::{InjectorConfig, proxy_configs};

use crate::store::Published;
use injection::Injection;

/// The webhooks `/inject` and `/validate`, for
/// [`ControlPlaneBuilder::serve_webhooks`](crate::control_plane::ControlPlaneBuilder::serve_webhooks).
pub struct Webhooks {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: watch::Receiver<Option<ServingCertificate>>,
    injector: InjectorConfig,
    options: Options,
}

/// How the webhooks behave.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Refuse objects that are at odds with others, rather than warn.
    pub deny_conflicts: bool,
    /// The control plane's revision; empty is `default`.
    pub revision: String,
}

impl Webhooks {
    /// Served at this address (port 0 is any free one), with the newest certificate of the channel.
    pub fn new(address: SocketAddr, certificate: watch::Receiver<Option<ServingCertificate>>) -> Self {
        Self { address, certificate, injector: InjectorConfig::InStore, options: Options::default() }
    }

    /// Where the ConfigMap `istio-sidecar-injector` is.
    #[must_use]
    pub fn injector(mut self, injector: InjectorConfig) -> Self {
        self.injector = injector;
        self
    }

    /// How they behave.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The routes over these states of the mesh.
    pub(crate) fn hook(self, states: watch::Receiver<Arc<Published>>) -> Webhook {
        let deny = self.options.deny_conflicts;
        let neighbours = states.clone();
        let validator = validator().also(move |object| {
            // Not to be held while the work is done: the store would have to wait.
            let state = neighbours.borrow().clone();
            conflicts_of(&state.snapshot, object, deny)
        });
        let injection = Injection::new(states, self.injector, self.options.revision);
        Webhook::new().route("/inject", injection).route("/validate", validator)
    }
}

/// A validator that also knows Envoy, but no neighbours.
pub fn validator() -> Validator {
    Validator::new().also(|object| match object {
        Object::EnvoyFilter(filter) => envoy_filter::check_patches(filter),
        _ => Vec::new(),
    })
}

/// What an object would be at odds with in this world, as errors if they are to deny it.
pub fn conflicts_of(snapshot: &Snapshot, object: &Object, deny: bool) -> Vec<Diagnostic> {
    let mut told = conflicts::conflicts(snapshot, object);
    if deny {
        told.iter_mut().for_each(|problem| problem.severity = Severity::Error);
    }
    told
}
