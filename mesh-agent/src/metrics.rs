//! What the agent counts of itself, by pilot-agent's names where it has one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

/// The agent's metrics. Clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Counted>);

struct Counted {
    registry: Registry,
    outgoing: Labelled<Counter>,
    outgoing_failures: Labelled<Counter>,
    expiry: Labelled<Gauge>,
    /// When the workload's certificate ends, in seconds since 1970; 0 while there is none.
    expires_at: AtomicU64,
    upstream_failures: Counter,
    upstream_connections: Gauge,
    dns_asked: Counter,
    dns_forwarded: Counter,
    dns_failed: Counter,
    scrapes: Counter,
    scrape_failures: Labelled<Counter>,
}

/// A metric with one label.
type Labelled<M> = Family<[(&'static str, &'static str); 1], M>;

const CSR: [(&str, &str); 1] = [("request_type", "csr")];
const WORKLOAD: [(&str, &str); 1] = [("resource_name", "default")];

/// Whose metrics Prometheus is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scraped {
    Envoy,
    Application,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("istio_agent");
        fn new<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
            let metric = M::default();
            registry.register(name, help, metric.clone());
            metric
        }
        let r = &mut registry;
        Self(Arc::new(Counted {
            outgoing: new(r, "num_outgoing_requests", "Requests to an authority"),
            outgoing_failures: new(r, "num_failed_outgoing_requests", "Requests to an authority that failed"),
            expiry: new(r, "cert_expiry_seconds", "How long the workload's certificate counts, in seconds from now"),
            expires_at: AtomicU64::new(0),
            upstream_failures: new(
                r,
                "istiod_connection_failures",
                "Streams to the control plane that could not be opened",
            ),
            upstream_connections: new(r, "istiod_connections", "Streams to the control plane that are open"),
            dns_asked: new(r, "dns_requests", "Questions of DNS"),
            dns_forwarded: new(r, "dns_upstream_requests", "Questions of DNS that other servers were asked"),
            dns_failed: new(r, "dns_upstream_failures", "Questions of DNS that no other server has answered"),
            scrapes: new(r, "scrapes", "Merged metrics that were asked for"),
            scrape_failures: new(r, "scrape_failures", "Metrics that were missing in merged ones, by whose"),
            registry,
        }))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Counts as long as it lives.
pub struct Counting(Gauge);

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn certified(&self, until: SystemTime) {
        self.0.outgoing.get_or_create(&CSR).inc();
        self.0.expires_at.store(until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(), Ordering::Relaxed);
    }

    pub(crate) fn not_certified(&self) {
        self.0.outgoing.get_or_create(&CSR).inc();
        self.0.outgoing_failures.get_or_create(&CSR).inc();
    }

    pub(crate) fn upstream_failed(&self) {
        self.0.upstream_failures.inc();
    }

    pub(crate) fn upstream_connected(&self) -> Counting {
        self.0.upstream_connections.inc();
        Counting(self.0.upstream_connections.clone())
    }

    pub(crate) fn dns_asked(&self) {
        self.0.dns_asked.inc();
    }

    pub(crate) fn dns_forwarded(&self) {
        self.0.dns_forwarded.inc();
    }

    pub(crate) fn dns_failed(&self) {
        self.0.dns_failed.inc();
    }

    pub(crate) fn scraped(&self) {
        self.0.scrapes.inc();
    }

    pub(crate) fn not_scraped(&self, what: Scraped) {
        let kind = match what {
            Scraped::Envoy => "envoy",
            Scraped::Application => "application",
        };
        self.0.scrape_failures.get_or_create(&[("type", kind)]).inc();
    }

    /// All of them in Prometheus' text form, without the mark at the end that only one of several texts may have.
    pub fn text(&self, now: SystemTime) -> String {
        let expires_at = self.0.expires_at.load(Ordering::Relaxed);
        if expires_at > 0 {
            let left = UNIX_EPOCH + Duration::from_secs(expires_at);
            let left = left.duration_since(now).unwrap_or_default().as_secs();
            self.0.expiry.get_or_create(&WORKLOAD).set(i64::try_from(left).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.0.registry);
        text.truncate(text.strip_suffix("# EOF\n").map_or(text.len(), str::len));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_counted() {
        let metrics = Metrics::default();
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        metrics.not_certified();
        metrics.certified(now + Duration::from_secs(7));
        let connected = metrics.clone().upstream_connected();
        let text = metrics.text(now);
        for line in [
            "istio_agent_num_outgoing_requests_total{request_type=\"csr\"} 2",
            "istio_agent_num_failed_outgoing_requests_total{request_type=\"csr\"} 1",
            "istio_agent_cert_expiry_seconds{resource_name=\"default\"} 7",
            "istio_agent_istiod_connections 1",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
        }
        assert!(!text.contains("EOF"));
        drop(connected);
        assert!(metrics.text(now).contains("istio_agent_istiod_connections 0"));
    }
}
