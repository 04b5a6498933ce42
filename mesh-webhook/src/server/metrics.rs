//! What is counted, under istiod's names. Labels never come from a request as such: whoever calls could make up any number
//! of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Response, StatusCode};
use mesh_api::Kind;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::review::Outcome;

/// In seconds. Istio's begin at 0.1, which says nothing of injections that take less than a millisecond.
const SECONDS: [f64; 9] = [0.0005, 0.001, 0.005, 0.01, 0.1, 1.0, 3.0, 10.0, 30.0];

/// A number that only grows. The library's own counter appends `_total` to the name, which not all of Istio's names have.
#[derive(Clone, Default, Debug)]
struct Total(Arc<AtomicU64>);

impl Total {
    fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl TypedMetric for Total {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for Total {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_gauge(&self.0.load(Ordering::Relaxed))
    }
    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

type Labels<const N: usize> = [(&'static str, String); N];

/// The metrics of a webhook. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    injections: Total,
    injected: Total,
    failed: Total,
    skipped: Total,
    time: Histogram,
    valid: Family<Labels<3>, Total>,
    invalid: Family<Labels<4>, Total>,
    http_errors: Family<Labels<1>, Total>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            injections: Total::default(),
            injected: Total::default(),
            failed: Total::default(),
            skipped: Total::default(),
            time: Histogram::new(SECONDS),
            valid: Family::default(),
            invalid: Family::default(),
            http_errors: Family::default(),
        }
    }
}

impl Metrics {
    /// Enters them.
    pub fn register(&self, registry: &mut Registry) {
        let mut total = |name: &str, help: &str, metric: &Total| registry.register(name, help, metric.clone());
        total("sidecar_injection_requests_total", "Requests for injection", &self.injections);
        total("sidecar_injection_success_total", "Pods that were injected", &self.injected);
        total("sidecar_injection_failure_total", "Requests for injection that failed", &self.failed);
        total("sidecar_injection_skip_total", "Pods that were left without a proxy", &self.skipped);
        registry.register("sidecar_injection_time_seconds", "How long an injection took", self.time.clone());
        registry.register("galley_validation_passed", "Objects that are valid", self.valid.clone());
        registry.register("galley_validation_failed", "Objects that are not", self.invalid.clone());
        let help = "Requests for validation that are no reviews";
        registry.register("galley_validation_http_error", help, self.http_errors.clone());
    }

    /// Counts an answer to a request for that path.
    pub(super) fn count<B>(&self, path: &str, response: &Response<B>, took: Duration) {
        let outcome = response.extensions().get::<Outcome>().copied();
        if is_below(path, "/inject") {
            self.injections.inc();
            match outcome {
                Some(Outcome::Injected) => {
                    self.injected.inc();
                    self.time.observe(took.as_secs_f64());
                }
                Some(Outcome::NotInjected) => self.skipped.inc(),
                _ => self.failed.inc(),
            }
        } else if is_below(path, "/validate") {
            match outcome {
                Some(Outcome::Valid(kind)) => self.valid.get_or_create(&labels(Some(kind))).inc(),
                Some(Outcome::Invalid(kind, reason)) => {
                    let [group, version, resource] = labels(kind);
                    self.invalid.get_or_create(&[group, version, resource, ("reason", reason.to_owned())]).inc();
                }
                _ if response.status() != StatusCode::OK => {
                    self.http_errors.get_or_create(&[("status", response.status().as_u16().to_string())]).inc();
                }
                _ => {}
            }
        }
    }
}

fn is_below(path: &str, route: &str) -> bool {
    path.strip_prefix(route).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The resource of a kind, as the apiserver calls it; the version is the one that we prefer.
fn labels(kind: Option<&Kind>) -> Labels<3> {
    let (group, version, resource) = match kind {
        Some(kind) => (kind.group, kind.versions.first().copied().unwrap_or_default(), plural(kind.kind)),
        None => ("", "", String::new()),
    };
    [("group", group.to_owned()), ("version", version.to_owned()), ("resource", resource)]
}

fn plural(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{kind}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_as_the_apiserver_names_them() {
        for (kind, resource) in [
            ("VirtualService", "virtualservices"),
            ("Gateway", "gateways"),
            ("ServiceEntry", "serviceentries"),
            ("Telemetry", "telemetries"),
            ("AuthorizationPolicy", "authorizationpolicies"),
        ] {
            assert_eq!(plural(kind), resource);
        }
    }

    #[test]
    fn each_answer_is_counted_once() {
        let metrics = Metrics::default();
        let count = |path: &str, status: u16, outcome: Option<Outcome>| {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(outcome) = outcome {
                response.extensions_mut().insert(outcome);
            }
            metrics.count(path, &response, Duration::from_millis(1));
        };
        let kind = Kind::find("networking.istio.io", "VirtualService").unwrap();
        count("/inject", 200, Some(Outcome::Injected));
        count("/inject/net/n", 200, Some(Outcome::NotInjected));
        count("/inject", 413, None);
        count("/injected", 404, None);
        count("/validate", 200, Some(Outcome::Valid(kind)));
        count("/validate", 200, Some(Outcome::Invalid(Some(kind), "invalid_resource")));
        count("/validate", 200, Some(Outcome::Uncounted));
        count("/validate", 413, None);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let of_kind = r#"group="networking.istio.io",version="v1",resource="virtualservices""#;
        for line in [
            "sidecar_injection_requests_total 3",
            "sidecar_injection_success_total 1",
            "sidecar_injection_failure_total 1",
            "sidecar_injection_skip_total 1",
            "sidecar_injection_time_seconds_count 1",
            &format!("galley_validation_passed{{{of_kind}}} 1"),
            &format!(r#"galley_validation_failed{{{of_kind},reason="invalid_resource"}} 1"#),
            r#"galley_validation_http_error{status="413"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
