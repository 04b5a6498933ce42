//! Whom the mesh trusts, for the agents beside proxies (PCDS): all proxies are sent the same bundle.
//!
//! An agent acknowledges a bundle when its Envoy has it, which is what a rotation of the root waits for. Unlike istiod, which
//! sends it with `ISTIO_MULTIROOT_MESH` only, we send it to every agent that asks: those that do not trust as their
//! certificate's answer says.

use std::sync::Arc;

use prost::Message;

use crate::memo::Query;
use crate::resource::{Resource, ResourceSet, TypeUrl};
use crate::view::View;

/// `istio.mesh.v1alpha1.ProxyConfig`: the part of it that is sent over xDS.
#[derive(Clone, PartialEq, Message)]
pub struct ProxyConfig {
    /// Certificates of authorities in PEM, one each.
    #[prost(string, repeated, tag = "34")]
    pub ca_certificates_pem: Vec<String>,
}

/// What agents are sent who should trust these roots. Equal roots have equal versions, in every control plane.
pub fn bundle(roots: &[String]) -> ResourceSet {
    let config = ProxyConfig { ca_certificates_pem: roots.to_vec() };
    let url = TypeUrl::ProxyConfig.as_str();
    ResourceSet::new(vec![Arc::new(Resource::from_value("pcds".into(), url, &config.encode_to_vec()))])
}

/// The bundle of the mesh; empty where nobody is certified.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TrustBundle;

impl Query for TrustBundle {
    type Out = ResourceSet;

    fn run(&self, view: &View<'_>) -> ResourceSet {
        view.row(|snapshot| &snapshot.trust, &()).map(|roots| bundle(roots)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Change, Proxy, Snapshot};

    #[test]
    fn agents_are_sent_the_roots_in_force() {
        let proxy = Arc::new(Proxy::sidecar("a.default", "default", [10, 2, 0, 1].into()));
        let (builder, empty) = (Builder::default(), Snapshot::default());
        let sent = |snapshot: &Snapshot| builder.build(snapshot, &proxy, TypeUrl::ProxyConfig);
        assert!(sent(&empty).is_empty());
        let roots = ["one".to_owned(), "two".to_owned()];
        let trusting = empty.apply([Change::Trust(roots.to_vec())]);
        assert_eq!(sent(&trusting).version(), bundle(&roots).version());
        let message = ProxyConfig::decode(sent(&trusting).as_slice()[0].value()).unwrap();
        assert_eq!(message.ca_certificates_pem, roots);
        assert_eq!(trusting.apply([Change::Trust(roots.to_vec())]).revision(), trusting.revision());
    }
}
