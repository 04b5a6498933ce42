//! What is counted, under Citadel's names.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::Family;
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

/// A moment, in Unix seconds.
#[derive(Clone, Default, Debug)]
struct Moment(Arc<AtomicI64>);

/// How long it is until then, in seconds; below zero when it has passed.
#[derive(Clone, Debug)]
struct Until(Moment);

impl Moment {
    fn set(&self, time: SystemTime) {
        self.0.store(seconds(time), Ordering::Relaxed);
    }
    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TypedMetric for Moment {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Moment {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_gauge(&self.get())
    }
    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl EncodeMetric for Until {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_gauge(&(self.0.get() - seconds(SystemTime::now())))
    }
    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// The metrics of an authority. Cloning shares them.
#[derive(Clone, Default, Debug)]
pub struct Metrics {
    requests: Total,
    authentication_failures: Total,
    unreadable: Total,
    not_signed: Family<[(&'static str, &'static str); 1], Total>,
    issued: Total,
    root_expiry: Moment,
    chain_expiry: Moment,
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
        for (name, help, moment) in [
            ("citadel_server_root_cert_expiry", "the root expires", &self.root_expiry),
            ("citadel_server_cert_chain_expiry", "the signing certificate or its chain expires", &self.chain_expiry),
        ] {
            registry.register(format!("{name}_timestamp"), format!("When {help}, in Unix seconds"), moment.clone());
            registry.register(format!("{name}_seconds"), format!("Seconds until {help}"), Until(moment.clone()));
        }
    }

    /// Tells when an authority ends. To be called for each new one.
    pub fn authority(&self, authority: &Authority) {
        if let Some(root) = authority.roots().first() {
            self.root_expiry.set(root.not_after());
        }
        self.chain_expiry.set(authority.not_after());
    }

    /// Counts a request that cannot be read: it did not come in time, is too large, or is no request for a certificate.
    pub fn unreadable(&self) {
        self.unreadable.inc();
    }

    pub(super) fn received(&self) {
        self.requests.inc();
    }
    pub(super) fn not_authenticated(&self) {
        self.authentication_failures.inc();
    }
    pub(super) fn not_signed(&self, error: &'static str) {
        self.not_signed.get_or_create(&[("error", error)]).inc();
    }
    pub(super) fn issued(&self) {
        self.issued.inc();
    }
}
