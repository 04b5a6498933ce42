//! Secrets that Gateways of other namespaces may use.

use mesh_api::Name;

/// What a ReferenceGrant says about Secrets of its own namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReferenceGrant {
    /// The namespaces whose Gateways may use them.
    pub from: Vec<Name>,
    /// The Secrets, by name; `None`: all of the namespace.
    pub secrets: Option<Vec<Name>>,
}

impl ReferenceGrant {
    /// True when Gateways of a namespace may use the Secret.
    pub fn allows(&self, secret: &Name, to: &Name) -> bool {
        self.from.contains(to) && self.secrets.as_ref().is_none_or(|names| names.contains(secret))
    }
}
