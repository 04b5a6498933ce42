//! Impersonation: ztunnel and other proxies of a node get certificates for the workloads of their node, and of no other.
//!
//! Kubernetes' node authorizer, applied to certificates: the caller is a trusted account, its token names the pod that it is
//! in, that pod is still the one that runs, and on its node there is a pod of the account that is asked for.

use std::collections::BTreeSet;

use mesh_api::names::SpiffeId;

use crate::authenticate::Caller;

/// Says who may ask for others.
pub trait NodeAuthorizer: Send + Sync {
    /// Whether `caller` may have certificates of `id`.
    ///
    /// # Errors
    /// With the reason, for the log.
    fn may_impersonate(&self, caller: &Caller, id: &SpiffeId) -> Result<(), String>;
}

/// A pod, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePod {
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.serviceAccountName`.
    pub service_account: String,
    /// `spec.nodeName`; empty until it is scheduled.
    pub node: String,
}

/// The pods of a cluster.
pub trait Pods: Send + Sync {
    /// A pod by namespace and name.
    fn pod(&self, namespace: &str, name: &str) -> Option<NodePod>;
    /// Whether a pod of this service account, which has not failed, is on the node.
    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool;
}

/// Trusts some accounts, `CA_TRUSTED_NODE_ACCOUNTS`, with what runs beside them.
pub struct TrustedNodes<P> {
    accounts: BTreeSet<(String, String)>,
    pods: P,
}

impl<P: Pods> TrustedNodes<P> {
    /// Trusts the accounts of a text such as `istio-system/ztunnel,kube-system/ztunnel`.
    ///
    /// # Errors
    /// With the first that is not `<namespace>/<service account>`.
    pub fn new(accounts: &str, pods: P) -> Result<Self, String> {
        let read = |text: &str| match text.trim().split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok((namespace.to_owned(), name.to_owned()))
            }
            _ => Err(format!("CA_TRUSTED_NODE_ACCOUNTS: {text:?} is no account; write <namespace>/<service account>")),
        };
        let accounts = accounts.split(',').filter(|text| !text.trim().is_empty());
        Ok(Self { accounts: accounts.map(read).collect::<Result<_, _>>()?, pods })
    }
}

impl<P: Pods> NodeAuthorizer for TrustedNodes<P> {
    fn may_impersonate(&self, caller: &Caller, id: &SpiffeId) -> Result<(), String> {
        let account = (caller.id.namespace.to_string(), caller.id.service_account.to_string());
        if !self.accounts.contains(&account) {
            return Err(format!("{} is no trusted node account", caller.id));
        }
        let claimed = caller.pod.as_ref().ok_or("the caller's token names no pod")?;
        let pod =
            self.pods.pod(&account.0, &claimed.name).ok_or_else(|| format!("there is no pod {}", claimed.name))?;
        if pod.uid != claimed.uid {
            return Err(format!("pod {} is another by now", claimed.name));
        }
        if pod.service_account != account.1 {
            return Err(format!("pod {} is not of account {}", claimed.name, account.1));
        }
        if pod.node.is_empty() || !self.pods.runs_on(&pod.node, &id.namespace, &id.service_account) {
            return Err(format!("no pod of {}/{} is on node {:?}", id.namespace, id.service_account, pod.node));
        }
        Ok(())
    }
}
