//! What a route tells the HTTP filters in front of the router: faults to inject and the cross-origin policy. The filters
//! themselves are in every listener's chain and do nothing until a route speaks to them.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier};
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf::{Any, BoolValue};
use mesh_api::Name;

use super::action::duration;
use super::matches::string_matcher;
use crate::build::pack;
use crate::model::virtual_service::{Abort, Cors, Fault, HttpRule, PerMillion};

const FAULT: &str = "envoy.filters.http.fault";
const CORS: &str = "envoy.filters.http.cors";

pub(super) fn per_filter_config(rule: &HttpRule) -> HashMap<String, Any> {
    let mut out = HashMap::new();
    if let Some(config) = &rule.fault {
        out.insert(FAULT.to_owned(), pack(&fault(config)));
    }
    if let Some(config) = &rule.cors {
        out.insert(CORS.to_owned(), pack(&cors(config)));
    }
    out
}

/// A share of requests as Envoy writes it; whole percentages as such, for those who read dumps.
pub(super) fn fraction(share: PerMillion) -> FractionalPercent {
    if share.0.is_multiple_of(10_000) {
        FractionalPercent { numerator: share.0 / 10_000, denominator: DenominatorType::Hundred.into() }
    } else {
        FractionalPercent { numerator: share.0, denominator: DenominatorType::Million.into() }
    }
}

fn fault(config: &Fault) -> HttpFault {
    HttpFault {
        delay: config.delay.map(|(time, share)| FaultDelay {
            percentage: Some(fraction(share)),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(time))),
        }),
        abort: config.abort.map(|(abort, share)| FaultAbort {
            percentage: Some(fraction(share)),
            error_type: Some(match abort {
                Abort::Http(status) => ErrorType::HttpStatus(status.into()),
                Abort::Grpc(code) => ErrorType::GrpcStatus(code),
            }),
            ..FaultAbort::default()
        }),
        ..HttpFault::default()
    }
}

fn cors(config: &Cors) -> CorsPolicy {
    let list = |names: &[Name]| names.iter().map(Name::as_str).collect::<Vec<_>>().join(",");
    CorsPolicy {
        allow_origin_string_match: config.allow_origins.iter().filter_map(string_matcher).collect(),
        allow_methods: list(&config.allow_methods),
        allow_headers: list(&config.allow_headers),
        expose_headers: list(&config.expose_headers),
        max_age: config.max_age.map(|s| s.to_string()).unwrap_or_default(),
        allow_credentials: config.allow_credentials.map(|value| BoolValue { value }),
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(fraction(PerMillion::ALL)),
            ..RuntimeFractionalPercent::default()
        }),
        forward_not_matching_preflights: Some(BoolValue { value: config.forward_unmatched_preflights }),
        ..CorsPolicy::default()
    }
}
