//! Whom the mesh trusts, as the control plane tells it between two certificates: without it, a pod would learn of a new root
//! only with its next certificate, and a root could be replaced only as slowly as certificates are.
//!
//! The bundle is acknowledged when each of Envoy's streams has accepted the roots that hold it. On that a rotation of the root
//! relies: the new one signs only when all connected agents have said so.

use std::convert::Infallible;

use envoy_types::pb::google::protobuf::Any;
use mesh_ca::Certificate;
use mesh_xds::build::trust::ProxyConfig;
use prost::Message;
use tokio::sync::watch;
use tracing::info;

use crate::sds::Acceptance;
use crate::secrets::Workloads;
use crate::subscription::Subscription;

/// The longest bundle, in bytes.
pub const MAX_BUNDLE: usize = 1024 * 1024;

/// Roots that the control plane told; empty while it told none.
pub type Bundle = Vec<Certificate>;

/// Follows the bundle.
#[derive(Debug)]
pub struct Trust {
    /// The stream.
    pub subscription: Subscription,
    /// Who makes the workload's secrets of it.
    pub publish: watch::Sender<Bundle>,
    /// The workload's secrets.
    pub workloads: Workloads,
    /// What Envoy has accepted of them.
    pub acceptance: Acceptance,
}

impl Trust {
    /// Follows the bundle for ever. While the control plane is away the last one stays in force.
    pub async fn run(self) -> Infallible {
        let Self { subscription, publish, workloads, acceptance } = self;
        let take = |resources: Vec<Any>| {
            let bundle = read(&resources);
            if let Ok(bundle) = &bundle {
                info!(roots = bundle.len(), "roots of the mesh");
                publish.send_replace(bundle.clone());
            }
            let (workloads, acceptance) = (workloads.clone(), acceptance.clone());
            async move {
                let bundle = bundle?;
                accepted(&bundle, workloads, &acceptance).await
            }
        };
        subscription.run(take).await
    }
}

/// Ends when each of Envoy's streams has accepted roots that hold the bundle.
async fn accepted(bundle: &[Certificate], mut workloads: Workloads, acceptance: &Acceptance) -> Result<(), String> {
    loop {
        let holds = workloads.wait_for(|workload| workload.trusts(bundle)).await;
        let roots = holds.map_err(|_| "the agent ends")?.roots.clone();
        let Some(roots) = roots else { return Ok(()) };
        tokio::select! {
            () = acceptance.of(&roots) => return Ok(()),
            // A new certificate may come with others, and Envoy never accepts what it is no longer sent.
            Ok(()) = workloads.changed() => {}
        }
    }
}

/// No bundle, as istiod sends it without multi-root: only the certificate's answer counts.
fn read(resources: &[Any]) -> Result<Bundle, String> {
    let Some(any) = resources.first() else { return Ok(Bundle::new()) };
    let config = ProxyConfig::decode(any.value.as_slice());
    let config = config.map_err(|error| format!("the bundle cannot be read: {error}"))?;
    let mut bundle = Bundle::new();
    for pem in &config.ca_certificates_pem {
        let roots = Certificate::all_from_pem(pem.as_bytes());
        bundle.extend(roots.map_err(|error| format!("a root of the bundle cannot be read: {error}"))?);
    }
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    use mesh_ca::{Authority, Lifetimes, RootOptions};
    use mesh_xds::build::trust::bundle;

    use super::*;

    fn sent(roots: &[String]) -> Vec<Any> {
        let value = bundle(roots).as_slice().first().map(|resource| resource.value().to_vec()).unwrap();
        vec![Any { value, ..Any::default() }]
    }

    #[test]
    fn a_bundle_is_read_or_refused_as_a_whole() {
        let now = std::time::SystemTime::now();
        let root = Authority::self_signed(&RootOptions::default(), Lifetimes::default(), now).unwrap();
        let pem = root.roots_pem().to_string();
        assert_eq!(read(&sent(std::slice::from_ref(&pem))).unwrap(), root.roots());
        assert_eq!(read(&[]).unwrap(), []);
        assert!(read(&sent(&[pem, "nonsense".into()])).unwrap_err().contains("cannot be read"));
    }
}
