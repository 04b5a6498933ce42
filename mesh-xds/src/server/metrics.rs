//! What is counted, under Istio's names, so that its dashboards and alerts read us as they read istiod.
//!
//! A metric is here only if something feeds it.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::ads::Nack;
use crate::resource::TypeUrl;

/// A number that only grows. The library's own counter appends `_total` to the name, which Istio's names don't have.
#[derive(Default, Debug)]
pub struct Total(AtomicU64);

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

#[derive(Clone, Copy, Hash, PartialEq, Eq, Debug, EncodeLabelSet)]
struct ByType {
    r#type: &'static str,
}

#[derive(Clone, Hash, PartialEq, Eq, Debug, EncodeLabelSet)]
struct ByVersion {
    version: String,
}

#[derive(Clone, Hash, PartialEq, Eq, Debug, EncodeLabelSet)]
struct Rejected {
    node: String,
    err: String,
}

#[derive(Clone, Copy, Debug)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// Finer at the low end than Istio's: we mean to live there.
const SECONDS: Buckets = Buckets(&[0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0]);
const BYTES: Buckets = Buckets(&[1.0, 10_000.0, 1e6, 4e6, 10e6, 40e6]);

/// How much there is of what, as the backend counts it.
#[derive(Clone, Copy, Default, Debug)]
#[non_exhaustive]
pub struct Counts {
    /// `pilot_services`.
    pub services: usize,
    /// `pilot_virt_services`.
    pub virtual_services: usize,
}

impl Counts {
    /// All counts.
    pub fn new(services: usize, virtual_services: usize) -> Self {
        Self { services, virtual_services }
    }
}

/// The metrics of one server.
pub struct Metrics {
    registry: Mutex<Registry>,
    clients: Family<ByVersion, Gauge>,
    pushes: Family<ByType, Total>,
    push_time: Family<ByType, Histogram, Buckets>,
    send_time: Histogram,
    convergence: Histogram,
    config_size: Family<ByType, Histogram, Buckets>,
    rejects: Family<ByType, Total>,
    rejected: [Family<Rejected, Gauge>; 4],
    expired: Family<ByType, Total>,
    received: Gauge,
    debounce: Histogram,
    silent: Counter,
    services: Gauge,
    virtual_services: Gauge,
}

impl Metrics {
    /// With `version` in `pilot_info` and `istio_build`.
    pub(super) fn new(version: &str) -> Self {
        let mut registry = Registry::default();
        let m = Self {
            registry: Mutex::default(),
            clients: Family::default(),
            pushes: Family::default(),
            push_time: Family::new_with_constructor(SECONDS),
            send_time: SECONDS.new_metric(),
            convergence: SECONDS.new_metric(),
            config_size: Family::new_with_constructor(BYTES),
            rejects: Family::default(),
            rejected: Default::default(),
            expired: Family::default(),
            received: Gauge::default(),
            debounce: SECONDS.new_metric(),
            silent: Counter::default(),
            services: Gauge::default(),
            virtual_services: Gauge::default(),
        };
        registry.register("pilot_xds", "Number of endpoints connected to this pilot using XDS", m.clients.clone());
        registry.register("pilot_xds_pushes", "Responses sent, by type", m.pushes.clone());
        registry.register("pilot_xds_push_time", "Seconds to build what a push sends, by type", m.push_time.clone());
        registry.register("pilot_xds_send_time", "Seconds from built to written", m.send_time.clone());
        registry.register(
            "pilot_proxy_convergence_time",
            "Seconds between a change and a proxy having been sent all of it",
            m.convergence.clone(),
        );
        registry.register("pilot_xds_config_size_bytes", "Bytes of responses, by type", m.config_size.clone());
        registry.register("pilot_total_xds_rejects", "Responses that a proxy refused, by type", m.rejects.clone());
        let types = [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::Route];
        for (ty, family) in types.into_iter().zip(&m.rejected) {
            let name = format!("pilot_xds_{}_reject", ty.short());
            registry.register(name, format!("Refused {} responses, by node and code", ty.short()), family.clone());
        }
        registry.register("pilot_xds_expired_nonce", "Requests with an expired nonce, by type", m.expired.clone());
        registry.register("pilot_xds_recv_max", "The largest request so far, in bytes", m.received.clone());
        registry.register("pilot_debounce_time", "Seconds from a first change to its snapshot", m.debounce.clone());
        let silent = "Connections closed for they never said that they speak HTTP/2";
        registry.register("meshd_silent_connections", silent, m.silent.clone());
        registry.register("pilot_services", "Total services known to pilot", m.services.clone());
        registry.register("pilot_virt_services", "Total virtual services known to pilot", m.virtual_services.clone());
        let version = ByVersion { version: version.to_owned() };
        let info: Family<ByVersion, Gauge> = Family::default();
        info.get_or_create(&version).set(1);
        registry.register("pilot_info", "Pilot version and build information", info);
        let build: Family<[(&'static str, String); 2], Gauge> = Family::default();
        build.get_or_create(&[("component", "pilot".to_owned()), ("tag", version.version)]).set(1);
        registry.register("istio_build", "Istio component build info", build);
        *m.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        m
    }

    /// Records how long the first change of a batch waited for its snapshot.
    pub fn debounced(&self, waited: Duration) {
        self.debounce.observe(waited.as_secs_f64());
    }

    /// Adds metrics of others, so that one page has all.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All metrics in OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string doesn't fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &registry);
        out
    }

    pub(super) fn counts(&self, counts: Counts) {
        self.services.set(counts.services as i64);
        self.virtual_services.set(counts.virtual_services as i64);
    }
    pub(super) fn silent(&self) -> Counter {
        self.silent.clone()
    }
    pub(super) fn connected(&self, version: &str, by: i64) {
        self.clients.get_or_create(&ByVersion { version: version.to_owned() }).inc_by(by);
    }
    pub(super) fn built(&self, ty: TypeUrl, took: Duration) {
        self.push_time.get_or_create(&ByType { r#type: ty.short() }).observe(took.as_secs_f64());
    }
    pub(super) fn pushed(&self, ty: TypeUrl) {
        self.pushes.get_or_create(&ByType { r#type: ty.short() }).inc();
    }
    pub(super) fn written(&self, ty: Option<TypeUrl>, bytes: usize, took: Duration) {
        self.send_time.observe(took.as_secs_f64());
        if let Some(ty) = ty {
            self.config_size.get_or_create(&ByType { r#type: ty.short() }).observe(bytes as f64);
        }
    }
    pub(super) fn converged(&self, took: Duration) {
        self.convergence.observe(took.as_secs_f64());
    }
    pub(super) fn rejected(&self, ty: TypeUrl, node: &str, nack: &Nack) {
        self.rejects.get_or_create(&ByType { r#type: ty.short() }).inc();
        if let Some(family) = self.rejected.get(ty as usize) {
            let err = tonic::Code::from_i32(nack.code);
            family.get_or_create(&Rejected { node: node.to_owned(), err: format!("{err:?}") }).inc();
        }
    }
    pub(super) fn expired(&self, ty: TypeUrl) {
        self.expired.get_or_create(&ByType { r#type: ty.short() }).inc();
    }
    pub(super) fn received(&self, bytes: usize) {
        if self.received.get() < bytes as i64 {
            self.received.set(bytes as i64);
        }
    }
}
