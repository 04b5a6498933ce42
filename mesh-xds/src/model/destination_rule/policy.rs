//! The blocks of a traffic policy, and how ports and subsets override them.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::Name;
use mesh_api::types::Duration;

use super::Origin;

/// A policy at one level: of a rule, of a subset or of a port.
#[derive(Clone, PartialEq, Debug)]
pub struct TrafficPolicy {
    /// Where it is written; of merged policies the most specific place.
    pub origin: Origin,
    /// How an endpoint is chosen.
    pub load_balancer: Option<Arc<LoadBalancer>>,
    /// Limits and timeouts of connections.
    pub connection_pool: Option<Arc<ConnectionPool>>,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<Arc<OutlierDetection>>,
    /// TLS to the endpoints.
    pub tls: Option<Arc<ClientTls>>,
    /// Tunnelling of TCP through a proxy.
    pub tunnel: Option<Arc<Tunnel>>,
    /// The PROXY protocol header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// A bound on concurrent retries.
    pub retry_budget: Option<RetryBudget>,
    /// What differs by port; empty in a policy that was resolved for a port.
    pub ports: Vec<PortPolicy>,
}

/// The settings of one port, which replace those of its level wholesale.
#[derive(Clone, PartialEq, Debug)]
pub struct PortPolicy {
    /// The service's port number.
    pub port: u16,
    /// Only load balancer, connection pool, outlier detection and TLS can differ by port.
    pub policy: Arc<TrafficPolicy>,
}

impl TrafficPolicy {
    /// A policy that says nothing.
    pub fn empty(origin: Origin) -> Self {
        Self {
            origin,
            load_balancer: None,
            connection_pool: None,
            outlier_detection: None,
            tls: None,
            tunnel: None,
            proxy_protocol: None,
            retry_budget: None,
            ports: Vec::new(),
        }
    }

    fn port_level(&self, port: u16) -> Option<&Arc<TrafficPolicy>> {
        self.ports.iter().find(|p| p.port == port).map(|p| &p.policy)
    }

    /// This policy for a port: the port's settings wholesale if there are any, else the policy itself.
    pub fn for_port(self: &Arc<Self>, port: u16) -> Arc<Self> {
        self.port_level(port).unwrap_or(self).clone()
    }

    /// The rule's policy (resolved for the port already) with what a subset says laid over it.
    pub fn with_subset(base: Option<Arc<Self>>, subset: Option<&Arc<Self>>, port: u16) -> Option<Arc<Self>> {
        let Some(subset) = subset else { return base };
        let port_level = subset.port_level(port);
        let over = port_level.unwrap_or(subset);
        let Some(base) = base else { return Some(over.clone()) };
        let wholesale = port_level.is_some();
        Some(Arc::new(Self {
            origin: over.origin.clone(),
            load_balancer: block(&over.load_balancer, &base.load_balancer, wholesale),
            connection_pool: block(&over.connection_pool, &base.connection_pool, wholesale),
            outlier_detection: block(&over.outlier_detection, &base.outlier_detection, wholesale),
            tls: block(&over.tls, &base.tls, wholesale),
            tunnel: block(&over.tunnel, &base.tunnel, false),
            proxy_protocol: over.proxy_protocol.or(base.proxy_protocol),
            retry_budget: over.retry_budget.or(base.retry_budget),
            ports: Vec::new(),
        }))
    }

    /// A policy with mesh-wide defaults for the blocks that it leaves out.
    pub fn with_defaults(
        policy: Option<Arc<Self>>,
        origin: &Origin,
        connection_pool: Option<&Arc<ConnectionPool>>,
        outlier_detection: Option<&Arc<OutlierDetection>>,
    ) -> Option<Arc<Self>> {
        let needs_pool = connection_pool.is_some() && policy.as_ref().is_none_or(|p| p.connection_pool.is_none());
        let needs_outlier =
            outlier_detection.is_some() && policy.as_ref().is_none_or(|p| p.outlier_detection.is_none());
        if !needs_pool && !needs_outlier {
            return policy;
        }
        let mut policy = policy.map_or_else(|| Self::empty(origin.clone()), |p| (*p).clone());
        if needs_pool {
            policy.connection_pool = connection_pool.cloned();
        }
        if needs_outlier {
            policy.outlier_detection = outlier_detection.cloned();
        }
        Some(Arc::new(policy))
    }

    /// True when the caller's own destination is kept: `simple: PASSTHROUGH`.
    pub fn is_passthrough(&self) -> bool {
        self.load_balancer.as_ref().is_some_and(|lb| lb.algorithm == Algorithm::Passthrough)
    }

    /// What the policy says of localities.
    pub fn locality(&self) -> Option<&LocalityLb> {
        self.load_balancer.as_ref()?.locality.as_ref()
    }

    /// How requests are kept on one endpoint, if they are.
    pub fn consistent_hash(&self) -> Option<&ConsistentHash> {
        match &self.load_balancer.as_ref()?.algorithm {
            Algorithm::ConsistentHash(hash) => Some(hash),
            _ => None,
        }
    }
}

fn block<T>(over: &Option<Arc<T>>, base: &Option<Arc<T>>, wholesale: bool) -> Option<Arc<T>> {
    if wholesale || over.is_some() { over.clone() } else { base.clone() }
}

/// How an endpoint is chosen.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LoadBalancer {
    /// Among the endpoints of one priority.
    pub algorithm: Algorithm,
    /// Between localities; `None`: as the service or the mesh says.
    pub locality: Option<LocalityLb>,
    /// New endpoints get their full share only after a while.
    pub warmup: Option<Warmup>,
}

/// Among the endpoints of one priority.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Algorithm {
    /// Not said.
    #[default]
    Unspecified,
    /// The one with fewer requests of two picked at random.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// None is chosen: to where the caller was going.
    Passthrough,
    /// Requests with one key stay on one endpoint.
    ConsistentHash(ConsistentHash),
}

/// Requests with one key stay on one endpoint.
#[derive(Clone, PartialEq, Debug)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// How endpoints are laid out.
    pub table: HashTable,
}

/// What is hashed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum HashKey {
    /// The value of a request header.
    Header(Name),
    /// The value of a cookie, which is made when there is none and a lifetime is given.
    Cookie {
        /// Its name.
        name: Name,
        /// Its path; empty: none.
        path: Name,
        /// Its lifetime; zero makes a session cookie, `None` never makes one.
        ttl: Option<Duration>,
        /// Other attributes such as `SameSite`.
        attributes: Vec<(Name, Name)>,
    },
    /// The caller's address.
    SourceIp,
    /// The value of a query parameter.
    QueryParameter(Name),
    /// Nothing said.
    None,
}

/// How endpoints are laid out for consistent hashing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashTable {
    /// On a ring of at least so many entries; `None`: the data plane's default.
    RingHash(Option<u64>),
    /// In a Maglev table of that size; `None`: the data plane's default.
    Maglev(Option<u64>),
}

/// New endpoints get their full share only after a while.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Warmup {
    /// How long it takes.
    pub duration: Duration,
    /// The share at the beginning in percent and the shape of the growth (1 is linear); `None` for the older field that
    /// only has a duration.
    pub curve: Option<(f64, f64)>,
}

/// Between localities.
#[derive(Clone, PartialEq, Debug)]
pub enum LocalityLb {
    /// `enabled: false`.
    Off,
    /// Weights or failover between localities.
    Locality(LocalitySettings),
    /// The data plane keeps traffic in its zone as long as that is balanced.
    ZoneAware(ZoneAware),
}

/// Weights or failover between localities.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalitySettings {
    /// Where traffic from a locality goes; any entry excludes failover.
    pub distribute: Vec<Distribute>,
    /// Region to region, when all of a region is down.
    pub failover: Vec<(Name, Name)>,
    /// Labels, optionally `label=value`: endpoints that agree in more of them from the front come first.
    pub failover_priority: Vec<Name>,
    /// Failover even without outlier detection.
    pub force: bool,
}

/// Where traffic from a locality goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Distribute {
    /// `region/zone/subzone`, with wildcards.
    pub from: Name,
    /// Localities, with wildcards, and their weights.
    pub to: BTreeMap<Name, u32>,
}

/// Zone-aware routing of the data plane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ZoneAware {
    /// False switches off what the data plane would do by itself.
    pub enabled: bool,
    /// Region to region.
    pub failover: Vec<(Name, Name)>,
    /// As in [`LocalitySettings`].
    pub failover_priority: Vec<Name>,
    /// With fewer endpoints zones do not matter.
    pub min_cluster_size: Option<u64>,
}

/// Limits and timeouts of connections.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ConnectionPool {
    /// For all connections.
    pub tcp: TcpPool,
    /// For HTTP.
    pub http: HttpPool,
}

/// Limits and timeouts of all connections. A limit of zero means not said, and is `None`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TcpPool {
    /// At most so many connections.
    pub max_connections: Option<u32>,
    /// For establishing one.
    pub connect_timeout: Option<Duration>,
    /// Probes on idle connections.
    pub keepalive: Option<TcpKeepalive>,
    /// A connection is drained after that time.
    pub max_connection_duration: Option<Duration>,
    /// Without a byte.
    pub idle_timeout: Option<Duration>,
}

/// `SO_KEEPALIVE`; what is `None` the operating system decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpKeepalive {
    /// Unanswered probes until the connection counts as dead.
    pub probes: Option<u32>,
    /// Idle seconds until the first probe.
    pub time: Option<u32>,
    /// Seconds between probes.
    pub interval: Option<u32>,
}

/// Limits and timeouts of HTTP. A limit of zero means not said, and is `None`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HttpPool {
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests in flight.
    pub max_requests: Option<u32>,
    /// Requests until a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// Retries in flight.
    pub max_retries: Option<u32>,
    /// Without a request.
    pub idle_timeout: Option<Duration>,
    /// HTTP/1.1 callers are upgraded.
    pub h2_upgrade: H2Upgrade,
    /// Upstream as the caller speaks.
    pub use_client_protocol: bool,
    /// Streams on one HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 pings.
    pub http2_keepalive: Option<Keepalive>,
}

/// Whether HTTP/1.1 is upgraded to HTTP/2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum H2Upgrade {
    /// As the mesh says.
    #[default]
    Unspecified,
    /// Never.
    DoNotUpgrade,
    /// Always.
    Upgrade,
}

/// HTTP/2 pings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// Between pings.
    pub interval: Option<Duration>,
    /// For the answer.
    pub timeout: Option<Duration>,
}

/// When an endpoint is taken out, and for how long.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct OutlierDetection {
    /// 5xx answers (and connection failures) in a row; 0 switches the check off.
    pub consecutive_5xx: Option<u32>,
    /// 502, 503 and 504 in a row; 0 switches the check off.
    pub consecutive_gateway_errors: Option<u32>,
    /// Failures to connect are counted apart from answers.
    pub split_local_origin: bool,
    /// Failures to connect in a row; only with the split.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Between two checks.
    pub interval: Option<Duration>,
    /// Times the number of ejections so far.
    pub base_ejection_time: Option<Duration>,
    /// At most this share of endpoints.
    pub max_ejection_percent: Option<u32>,
    /// Below this share of healthy endpoints, health is ignored; `None` leaves it to the data plane.
    pub min_health_percent: Option<u32>,
    /// Only these answers count as failures, instead of all 5xx.
    pub http_error_codes: Vec<u32>,
}

/// TLS to the endpoints.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientTls {
    /// Which side shows certificates.
    pub mode: TlsMode,
    /// A file in the proxy's container.
    pub client_certificate: Name,
    /// A file in the proxy's container.
    pub private_key: Name,
    /// A file in the proxy's container; empty: the system's authorities.
    pub ca_certificates: Name,
    /// A Secret with all of these.
    pub credential_name: Name,
    /// Names of which the server's certificate must bear one.
    pub subject_alt_names: Vec<Name>,
    /// The server name; empty: from the request's host.
    pub sni: Name,
    /// The server's certificate is not verified.
    pub insecure_skip_verify: bool,
    /// A file in the proxy's container with revoked certificates.
    pub ca_crl: Name,
}

/// Which side shows certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsMode {
    /// No TLS.
    #[default]
    Disable,
    /// The server.
    Simple,
    /// Both, with certificates of the user.
    Mutual,
    /// Both, with certificates of the mesh.
    IstioMutual,
}

/// TCP through a proxy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Tunnel {
    /// How it is asked for.
    pub protocol: TunnelProtocol,
    /// Where the proxy shall connect to.
    pub target_host: Name,
    /// The port there.
    pub target_port: u16,
}

/// How a tunnel is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TunnelProtocol {
    /// HTTP CONNECT.
    Connect,
    /// HTTP POST.
    Post,
}

/// The version of the PROXY protocol header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// A bound on concurrent retries.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RetryBudget {
    /// Of the active requests.
    pub percent: f64,
    /// At least so many are always allowed.
    pub min_retry_concurrency: u32,
    /// The time over which active requests are counted.
    pub interval: Option<Duration>,
}
