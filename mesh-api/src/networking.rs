//! The kinds of `networking.istio.io` as users write them: who listens where, which routes there are, how a destination is
//! reached, what exists outside the cluster and what each proxy gets to see.
//!
//! Each served version (v1, v1beta1, v1alpha3) reads into the same Rust type, since their schemas are equal. Types bear the
//! names of Istio's messages in Rust's spelling; the spec of a kind is `<Kind>Spec`, the object `<Kind>`. No type here knows
//! a default beyond the zero value, resolves a host or decides between contradicting fields: that is for `lower`, which
//! turns what is written into what is meant.
//!
//! Numbers that protobuf has as `int32` stay signed: that nothing below zero makes sense is for validation to say.

mod destination_rule;
pub mod envoy_filter;
mod gateway;
mod proxy_config;
mod service_entry;
mod sidecar;
mod virtual_service;
mod workload;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::object::served;
pub use crate::types::{PortSelector, StringMatch};
use crate::types::{Serving, crd};
pub use destination_rule::*;
pub use envoy_filter::{EnvoyFilter, EnvoyFilterSpec};
pub use gateway::*;
pub use proxy_config::*;
pub use service_entry::*;
pub use sidecar::*;
pub use virtual_service::*;
pub use workload::*;

served! {
    /// The kinds as `networking.istio.io/v1beta1` serves them. [`ProxyConfig`] has this version by itself.
    v1beta1 = V1Beta1: DestinationRule Gateway ServiceEntry Sidecar VirtualService WorkloadEntry WorkloadGroup
}

served! {
    /// The kinds as `networking.istio.io/v1alpha3` serves them. [`EnvoyFilter`] has this version by itself.
    v1alpha3 = V1Alpha3: DestinationRule Gateway ServiceEntry Sidecar VirtualService WorkloadEntry WorkloadGroup
}

/// The definitions of all kinds of this group, for an apiserver.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let alone = Serving::default();
    let served = Serving { older: &["v1alpha3", "v1beta1"], ..alone };
    let with_spec = Serving { spec_required: true, ..served };
    vec![
        crd::<DestinationRule>(served),
        crd::<EnvoyFilter>(alone),
        crd::<Gateway>(served),
        crd::<ProxyConfig>(alone),
        crd::<ServiceEntry>(with_spec),
        crd::<Sidecar>(served),
        crd::<VirtualService>(served),
        crd::<WorkloadEntry>(with_spec),
        crd::<WorkloadGroup>(with_spec),
    ]
}

#[cfg(test)]
mod tests;
