//! Rows *as meant*: what objects say once names are resolved, defaults are known and mistakes are set aside.
//!
//! Nothing here knows Envoy, and nothing here knows YAML. Rows are compared on every write, so they hold nothing that
//! does not matter (no status, no managed fields, no annotations that nobody reads).

pub mod attachment;
pub mod authorization_policy;
pub mod destination_rule;
pub mod endpoint;
pub mod gateway;
pub mod ingress;
pub mod keys;
pub mod peer_authentication;
pub mod reference_grant;
pub mod request_authentication;
pub mod secret;
pub mod service;
pub mod settings;
pub mod sidecar;
pub mod virtual_service;
pub mod visibility;

pub use endpoint::{Endpoint, Health, Locality, Slice, Workload};
pub use keys::{ByIp, HostKey, InNamespace, ServiceId, SliceKey};
pub use service::{Port, Protocol, Registry, Resolution, Service, TargetPort};
pub use settings::{Features, Settings};
pub use sidecar::{EgressListener, HostSelector, Sidecar};
pub use visibility::Visibility;

use std::collections::BTreeMap;

use mesh_api::Name;

/// Labels of a pod, a subset or a selector.
pub type Labels = BTreeMap<Name, Name>;

/// True when every label of the selector is there with the same value. An empty selector selects everything.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}
