//! How one of a service's endpoints is chosen: algorithm, locality and warming up.

use super::*;

message! {
    /// How an endpoint is chosen.
    pub struct LoadBalancerSettings {
        /// Preferences among regions, zones and subzones; replaces the mesh's settings as a whole.
        pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        /// Stay within the client's zone as far as its share of endpoints allows.
        pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
        /// How long a new endpoint gets less than its share. Deprecated for `warmup`.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub warmup_duration_secs: Option<Duration>,
        /// How a new endpoint is given its share little by little.
        pub warmup: Option<WarmupConfiguration>,
        oneof {
            /// The load balancing algorithm. Default: least request.
            pub lb_policy: LbPolicy {
                /// One that needs no settings.
                simple => Simple(SimpleLb),
                /// The same endpoint for the same key.
                consistent_hash => ConsistentHash(ConsistentHashLb),
                /// By the load that endpoints report.
                backend_utilization => BackendUtilization(BackendUtilizationLb),
            }
        }
    }
}

enumeration! {
    /// A load balancing algorithm that needs no settings.
    pub enum SimpleLb {
        /// Istio's choice, which is least request.
        #[default]
        Unspecified,
        /// Deprecated name of `LEAST_REQUEST`.
        LeastConn,
        /// Any endpoint, by chance.
        Random,
        /// The address that the client asked for, without balancing.
        Passthrough,
        /// One after the other.
        RoundRobin,
        /// The one with fewer requests in flight of two taken by chance.
        LeastRequest,
    }
}

message! {
    /// Balancing by hash: requests with the same key reach the same endpoint as long as endpoints don't change.
    pub struct ConsistentHashLb {
        /// Entries in the ring, at least. Deprecated for the ring's own setting. Default: 1024.
        pub minimum_ring_size: u64,
        oneof {
            /// Where the key of the hash comes from.
            pub hash_key: HashKey {
                /// A request header of this name.
                http_header_name => HttpHeaderName(String),
                /// A cookie, which is set if the request has none and a lifetime is given.
                http_cookie => HttpCookie(HttpCookie),
                /// The client's IP address, if true.
                use_source_ip => UseSourceIp(bool),
                /// A query parameter of this name.
                http_query_parameter_name => HttpQueryParameterName(String),
            }
            /// The algorithm of consistent hashing. Default: ring hash.
            pub hash_algorithm: HashAlgorithm {
                /// A ring on which each endpoint has many places.
                ring_hash => RingHash(RingHash),
                /// Maglev: faster, disturbed a little more when endpoints change.
                maglev => Maglev(MagLev),
            }
        }
    }
}

message! {
    /// Settings of ring hash.
    pub struct RingHash {
        /// Entries in the ring, at least. Default: 1024.
        pub minimum_ring_size: u64,
    }
}

message! {
    /// Settings of Maglev.
    pub struct MagLev {
        /// Entries in the table; a prime number. Default: 65537.
        pub table_size: u64,
    }
}

message! {
    /// A cookie that holds the key of a hash.
    #[schemars(extend("required" = ["name"]))]
    pub struct HttpCookie {
        /// Its name.
        pub name: String,
        /// Its path attribute.
        pub path: String,
        /// Its lifetime; 0 makes it last for the browser's session. Not given: the cookie is never set here.
        pub ttl: Option<Duration>,
        /// Further attributes, such as `SameSite`.
        pub attributes: Vec<HttpCookieAttribute>,
    }
}

message! {
    /// An attribute of a cookie.
    #[schemars(extend("required" = ["name"]))]
    pub struct HttpCookieAttribute {
        /// Its name.
        pub name: String,
        /// Its value; none for attributes such as `Secure`.
        pub value: String,
    }
}

message! {
    /// Balancing by the load that endpoints report in their responses (ORCA).
    pub struct BackendUtilizationLb {
        /// Per cent of the load added for the share of errors that an endpoint returns.
        pub error_utilization_penalty_percent: u32,
        /// Reported metrics of which the load is computed. Default: CPU.
        pub metric_names_for_computing_utilization: Vec<String>,
        /// After so long without a report an endpoint has an ordinary weight again.
        pub weight_expiration_period: Option<Duration>,
        /// So long an endpoint must have reported before its weight counts.
        pub weight_stabilization_period: Option<Duration>,
        /// Time between two computations of the weights.
        pub weight_update_period: Option<Duration>,
    }
}

message! {
    /// How a new endpoint is given its share of the load little by little.
    #[schemars(extend("required" = ["duration"]))]
    pub struct WarmupConfiguration {
        /// How long it takes until the share is whole.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub duration: Option<Duration>,
        /// Per cent of its share that it has from the first moment, 0.0 to 100.0. Default: 10.
        #[schemars(range(min = 0.0, max = 100.0))]
        pub minimum_percent: Option<f64>,
        /// Shape of the growth: 1.0 is linear, more is slower at first. Default: 1.0.
        #[schemars(range(min = 0.0))]
        pub aggression: Option<f64>,
    }
}

message! {
    /// Preferences among localities, each written `region/zone/subzone`. At most one of the three lists may be given.
    pub struct LocalityLoadBalancerSetting {
        /// Explicit shares, by the client's locality.
        pub distribute: Vec<Distribute>,
        /// Where to go when a region has no healthy endpoint left.
        pub failover: Vec<Failover>,
        /// Labels, or `label=value`, in order of weight: endpoints that agree with the client on more of them come first.
        pub failover_priority: Vec<String>,
        /// Whether localities count at all. Default: the mesh's setting.
        pub enabled: Option<bool>,
    }
}

message! {
    /// Shares of the traffic that comes from one locality.
    pub struct Distribute {
        /// Locality of the client; `*` may stand for its last parts.
        pub from: String,
        /// Per cent by locality of the endpoints; the sum is 100.
        pub to: BTreeMap<String, u32>,
    }
}

message! {
    /// Where traffic of a region goes when its endpoints there are unhealthy.
    pub struct Failover {
        /// Region of the client.
        pub from: String,
        /// Region to go to.
        pub to: String,
    }
}

message! {
    /// Balancing that stays within the client's zone as far as its share of endpoints allows, and always within its region
    /// while that has healthy endpoints.
    pub struct ZoneAwareLoadBalancerSetting {
        /// Whether it is done; replaces the mesh's setting as a whole.
        pub enabled: Option<bool>,
        /// Order of the other regions.
        pub failover: Vec<Failover>,
        /// Labels, or `label=value`, in order of weight; not those of region, zone and subzone.
        pub failover_priority: Vec<String>,
        /// With fewer endpoints than this in the region it isn't done. Default: 6.
        #[schemars(range(min = 1, max = u32::MAX))]
        pub min_cluster_size: Option<u64>,
    }
}
