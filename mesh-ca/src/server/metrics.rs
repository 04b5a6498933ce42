//! What is counted, under Citadel's names.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::authority::Authority;

/// A number that only grows. The library's own counter appends `_total` to the name, which Citadel's names don't have.
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

/// The metrics of an authority. Cloning shares them.
#[derive(Clone, Default, Debug)]
pub struct Metrics {
    requests: Total,
    authentication_failures: Total,
    unreadable: Total,
    not_signed: Family<[(&'static str, &'static str); 1], Total>,
    issued: Total,
    root_expiry: Gauge,
    chain_expiry: Gauge,
}

impl Metrics {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, total) in [
            ("citadel_server_csr_count", "Requests for certificates", &self.requests),
            (
                "citadel_server_authentication_failure_count",
                "Requests of callers that are not known",
                &self.authentication_failures,
            ),
            ("citadel_server_csr_parsing_err_count", "Requests that cannot be read or are forged", &self.unreadable),
            ("citadel_server_success_cert_issuance_count", "Certificates issued", &self.issued),
        ] {
            registry.register(name, help, total.clone());
        }
        registry.register(
            "citadel_server_csr_sign_err_count",
            "Requests not signed, by error",
            self.not_signed.clone(),
        );
        for (name, help, gauge) in [
            ("citadel_server_root_cert_expiry_timestamp", "When the root expires, in Unix seconds", &self.root_expiry),
            (
                "citadel_server_cert_chain_expiry_timestamp",
                "When the signing certificate or its chain expires, in Unix seconds",
                &self.chain_expiry,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    /// Tells when an authority ends. To be called for each new one.
    pub fn authority(&self, authority: &Authority) {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        if let Some(root) = authority.roots().first() {
            self.root_expiry.set(seconds(root.not_after()));
        }
        self.chain_expiry.set(seconds(authority.not_after()));
    }

    pub(super) fn received(&self) {
        self.requests.inc();
    }
    pub(super) fn not_authenticated(&self) {
        self.authentication_failures.inc();
    }
    pub(super) fn unreadable(&self) {
        self.unreadable.inc();
    }
    pub(super) fn not_signed(&self, error: &'static str) {
        self.not_signed.get_or_create(&[("error", error)]).inc();
    }
    pub(super) fn issued(&self) {
        self.issued.inc();
    }
}
