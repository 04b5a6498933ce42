//! What the agent counts of itself, by pilot-agent's names where it has one.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The agent's metrics. Clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Counted>);

struct Counted {
    registry: Registry,
    certified: Counter,
    not_certified: Counter,
    expiry: Gauge,
    upstream_failures: Counter,
    upstream_connections: Gauge,
    scrapes: Counter,
    scrape_failures: Family<[(&'static str, &'static str); 1], Counter>,
}

/// Whose metrics Prometheus is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scraped {
    Envoy,
    Application,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("istio_agent");
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let gauge = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let r = &mut registry;
        Self(Arc::new(Counted {
            certified: counter(r, "certificates_issued", "Certificates of the workload that were issued"),
            not_certified: counter(r, "num_failed_outgoing_requests", "Requests for a certificate that failed"),
            expiry: gauge(r, "cert_expiry_timestamp", "When the workload's certificate ends, in seconds since 1970"),
            upstream_failures: counter(
                r,
                "istiod_connection_failures",
                "Streams to the control plane that could not be opened",
            ),
            upstream_connections: gauge(r, "istiod_connections", "Streams to the control plane that are open"),
            scrapes: counter(r, "scrapes", "Merged metrics that were asked for"),
            scrape_failures: {
                let failures = Family::default();
                r.register("scrape_failures", "Metrics that were missing in merged ones, by whose", failures.clone());
                failures
            },
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
        self.0.certified.inc();
        let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.0.expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    pub(crate) fn not_certified(&self) {
        self.0.not_certified.inc();
    }

    pub(crate) fn upstream_failed(&self) {
        self.0.upstream_failures.inc();
    }

    pub(crate) fn upstream_connected(&self) -> Counting {
        self.0.upstream_connections.inc();
        Counting(self.0.upstream_connections.clone())
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
    pub fn text(&self) -> String {
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
        metrics.certified(UNIX_EPOCH + std::time::Duration::from_secs(7));
        let connected = metrics.clone().upstream_connected();
        let text = metrics.text();
        for line in [
            "istio_agent_certificates_issued_total 1",
            "istio_agent_cert_expiry_timestamp 7",
            "istio_agent_istiod_connections 1",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
        }
        assert!(!text.contains("EOF"));
        drop(connected);
        assert!(metrics.text().contains("istio_agent_istiod_connections 0"));
    }
}
