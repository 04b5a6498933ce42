//! Retry policies with Istio's defaults: what is retried when nobody says, and hosts tried before are left out unless a
//! consistent hash decides on the host.

use envoy_types::pb::envoy::config::route::v3::RetryPolicy;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use envoy_types::pb::google::protobuf::UInt32Value;

use super::action::duration;
use crate::build::pack;
use crate::model::virtual_service::Retries;

/// Istio's conditions for outbound retries.
pub const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// A request that was reset before it was sent was never seen, so repeating it is safe.
const DEFAULT_INBOUND_RETRY_ON: &str = "reset-before-request";
const DEFAULT_ATTEMPTS: u32 = 2;

/// The policy of a route to other services; `None` when retries are switched off.
pub fn outbound(retries: Option<&Retries>, consistent_hash: bool) -> Option<RetryPolicy> {
    let mut out = RetryPolicy {
        num_retries: Some(UInt32Value { value: DEFAULT_ATTEMPTS }),
        retry_on: DEFAULT_RETRY_ON.to_owned(),
        host_selection_retry_max_attempts: 5,
        ..RetryPolicy::default()
    };
    let mut other_hosts = !consistent_hash;
    if let Some(said) = retries {
        if said.attempts == 0 {
            return None;
        }
        overlay(said, &mut out);
        out.per_try_timeout = said.per_try_timeout.map(duration);
        other_hosts = said.ignore_previous_hosts.unwrap_or(other_hosts);
        if said.remote_localities {
            let config = PreviousPrioritiesConfig { update_frequency: 2 };
            out.retry_priority = Some(RetryPriority {
                name: "envoy.retry_priorities.previous_priorities".to_owned(),
                config_type: Some(retry_priority::ConfigType::TypedConfig(pack(&config))),
            });
        }
    }
    if other_hosts {
        out.retry_host_predicate.push(RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(&PreviousHostsPredicate {}))),
        });
    }
    Some(out)
}

/// The policy of an inbound route (`defaultInboundHttpRetryPolicy`); only attempts, conditions and backoff count there.
pub fn inbound(retries: Option<&Retries>) -> Option<RetryPolicy> {
    let mut out = RetryPolicy {
        num_retries: Some(UInt32Value { value: DEFAULT_ATTEMPTS }),
        retry_on: DEFAULT_INBOUND_RETRY_ON.to_owned(),
        ..RetryPolicy::default()
    };
    match retries {
        Some(said) if said.attempts == 0 => return None,
        Some(said) => overlay(said, &mut out),
        None => {}
    }
    Some(out)
}

fn overlay(said: &Retries, out: &mut RetryPolicy) {
    out.num_retries = Some(UInt32Value { value: said.attempts });
    if let Some(conditions) = &said.retry_on {
        out.retry_on = conditions.to_string();
        out.retriable_status_codes.clone_from(&said.status_codes);
        if !said.status_codes.is_empty() && !conditions.contains("retriable-status-codes") {
            let comma = if conditions.is_empty() { "" } else { "," };
            out.retry_on.push_str(&format!("{comma}retriable-status-codes"));
        }
    }
    out.retry_back_off =
        said.backoff.map(|base| RetryBackOff { base_interval: Some(duration(base)), max_interval: None });
}
