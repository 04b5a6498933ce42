//! EnvoyFilter: changes to the configuration that would be sent to proxies, in Envoy's own terms. Patches are carried as
//! they are written; what they mean is known only where Envoy's messages are.

use std::collections::BTreeMap;

use kube::CustomResource;

use super::WorkloadSelector;
use crate::types::{IstioStatus, PolicyTargetReference, enumeration, message, schema};

message! {
    /// Changes to the configuration of proxies, in Envoy's own terms.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::networking::envoy_filter::*;
    /// // Sidecars wait a quarter of a second for a connection to reviews.
    /// let yaml = "
    /// apiVersion: networking.istio.io/v1alpha3
    /// kind: EnvoyFilter
    /// metadata: {name: hasty, namespace: bookinfo}
    /// spec:
    ///   configPatches:
    ///   - applyTo: CLUSTER
    ///     match:
    ///       context: SIDECAR_OUTBOUND
    ///       cluster: {service: reviews.bookinfo.svc.cluster.local}
    ///     patch:
    ///       operation: MERGE
    ///       value: {connect_timeout: 0.25s}
    /// ";
    /// let reviews = ClusterMatch { service: "reviews.bookinfo.svc.cluster.local".into(), ..Default::default() };
    /// let spec = EnvoyFilterSpec {
    ///     config_patches: vec![EnvoyConfigObjectPatch {
    ///         apply_to: ApplyTo::Cluster,
    ///         r#match: Some(EnvoyConfigObjectMatch {
    ///             context: PatchContext::SidecarOutbound,
    ///             object_types: Some(ObjectTypes::Cluster(reviews)),
    ///             ..Default::default()
    ///         }),
    ///         patch: Some(Patch {
    ///             operation: Operation::Merge,
    ///             value: Some([("connect_timeout".to_owned(), "0.25s".into())].into_iter().collect()),
    ///             ..Default::default()
    ///         }),
    ///         ..Default::default()
    ///     }],
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<EnvoyFilter>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1alpha3",
        kind = "EnvoyFilter",
        plural = "envoyfilters",
        category = "istio-io",
        category = "networking-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "Changes to the configuration of proxies, in Envoy's own terms."
    )]
    #[schemars(extend("x-kubernetes-validations" = schema::at_most_one(&["workloadSelector", "targetRefs"])))]
    pub struct EnvoyFilterSpec {
        /// Workloads of this namespace whose proxies are changed. Default: all; in the root namespace those of every
        /// namespace. Excludes `target_refs`.
        pub workload_selector: Option<WorkloadSelector>,
        /// Objects whose proxies are changed: Gateways, GatewayClasses, Services or ServiceEntries.
        #[schemars(length(max = 16))]
        pub target_refs: Vec<PolicyTargetReference>,
        /// The changes, made in this order.
        pub config_patches: Vec<EnvoyConfigObjectPatch>,
        /// Place among the EnvoyFilters of a proxy, the lowest first. Default: 0; then the elder first.
        pub priority: i32,
    }
}

message! {
    /// One change: to what, where, and which.
    pub struct EnvoyConfigObjectPatch {
        /// What sort of object is changed.
        pub apply_to: ApplyTo,
        /// Which objects of the sort are changed. Default: all.
        pub r#match: Option<EnvoyConfigObjectMatch>,
        /// The change.
        pub patch: Option<Patch>,
    }
}

enumeration! {
    /// The sort of object that a patch changes.
    pub enum ApplyTo {
        /// Not said, which is a mistake.
        #[default]
        Invalid,
        /// A listener.
        Listener,
        /// A filter chain of a listener.
        FilterChain,
        /// A network filter of a filter chain.
        NetworkFilter,
        /// An HTTP filter of an HTTP connection manager.
        HttpFilter,
        /// A route configuration.
        RouteConfiguration,
        /// A virtual host of a route configuration.
        VirtualHost,
        /// A route of a virtual host.
        HttpRoute,
        /// A cluster.
        Cluster,
        /// An extension that is sent by itself (ECDS).
        ExtensionConfig,
        /// The proxy's bootstrap.
        Bootstrap,
        /// A listener filter.
        ListenerFilter,
    }
}

enumeration! {
    /// The part of the mesh in which a patch is made.
    pub enum PatchContext {
        /// Sidecars in both directions, and gateways.
        #[default]
        Any,
        /// What sidecars accept.
        SidecarInbound,
        /// What sidecars send.
        SidecarOutbound,
        /// Gateways.
        Gateway,
        /// Waypoints.
        Waypoint,
    }
}

message! {
    /// Which objects a patch changes. All that is given must hold.
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
        ("waypoint belongs to context WAYPOINT and to no other", "has(self.waypoint) == (has(self.context) && self.context == 'WAYPOINT')"),
    ])))]
    pub struct EnvoyConfigObjectMatch {
        /// Part of the mesh.
        pub context: PatchContext,
        /// Which proxies.
        pub proxy: Option<ProxyMatch>,
        oneof {
            /// The object, by its own properties. Default: every object of the sort.
            pub object_types: ObjectTypes {
                /// A listener and what is in it.
                listener => Listener(ListenerMatch),
                /// A route configuration and what is in it.
                route_configuration => RouteConfiguration(RouteConfigurationMatch),
                /// A cluster.
                cluster => Cluster(ClusterMatch),
                /// A part of a waypoint.
                waypoint => Waypoint(WaypointMatch),
            }
        }
    }
}

message! {
    /// Properties of a proxy.
    pub struct ProxyMatch {
        /// RE2 expression for the version that the proxy tells of itself (`ISTIO_VERSION`).
        pub proxy_version: String,
        /// Node metadata that must be there with this value.
        pub metadata: BTreeMap<String, String>,
    }
}

message! {
    /// Properties of a cluster.
    pub struct ClusterMatch {
        /// Port of the service.
        pub port_number: u32,
        /// Full host of the service; a ServiceEntry's as written.
        pub service: String,
        /// Subset of the service.
        pub subset: String,
        /// The cluster's whole name; the others then don't count.
        pub name: String,
    }
}

message! {
    /// Properties of a route configuration.
    pub struct RouteConfigurationMatch {
        /// Port of the service or the gateway's server.
        pub port_number: u32,
        /// Name of the gateway's port; gateways only.
        pub port_name: String,
        /// The Gateway as `namespace/name`; gateways only.
        pub gateway: String,
        /// A virtual host in it.
        pub vhost: Option<VirtualHostMatch>,
        /// The route configuration's name, such as `http_proxy`.
        pub name: String,
    }
}

message! {
    /// Properties of a virtual host.
    pub struct VirtualHostMatch {
        /// Its name, which is `host:port`.
        pub name: String,
        /// One of its domains.
        pub domain_name: String,
        /// A route in it.
        pub route: Option<RouteMatch>,
    }
}

message! {
    /// Properties of a route.
    pub struct RouteMatch {
        /// Its name, which is the VirtualService's for the route, or `default`.
        pub name: String,
        /// What it does.
        pub action: RouteAction,
    }
}

enumeration! {
    /// What a route does.
    pub enum RouteAction {
        /// Anything.
        #[default]
        Any,
        /// It sends on.
        Route,
        /// It redirects.
        Redirect,
        /// It answers by itself.
        DirectResponse,
    }
}

message! {
    /// Properties of a listener.
    pub struct ListenerMatch {
        /// Port of the service or the gateway's server, to which the listener belongs.
        pub port_number: u32,
        /// Name of that port. Read, but never applied, as in Istio.
        pub port_name: String,
        /// A filter chain in it.
        pub filter_chain: Option<FilterChainMatch>,
        /// Name of a listener filter in it.
        pub listener_filter: String,
        /// The listener's name.
        pub name: String,
    }
}

message! {
    /// Properties of a filter chain.
    pub struct FilterChainMatch {
        /// Its name.
        pub name: String,
        /// A server name (SNI) that it matches.
        pub sni: String,
        /// The transport protocol that it matches, such as `tls`.
        pub transport_protocol: String,
        /// The application protocols that it matches, separated by commas.
        pub application_protocols: String,
        /// A network filter in it.
        pub filter: Option<FilterMatch>,
        /// The destination port that it matches.
        pub destination_port: u32,
        /// Name of its transport socket.
        pub transport_socket: String,
    }
}

message! {
    /// Properties of a network filter.
    pub struct FilterMatch {
        /// Its name.
        pub name: String,
        /// A filter in it: an HTTP filter of a connection manager.
        pub sub_filter: Option<SubFilterMatch>,
    }
}

message! {
    /// Properties of a filter within a filter.
    pub struct SubFilterMatch {
        /// Its name.
        pub name: String,
    }
}

message! {
    /// Properties of a part of a waypoint.
    pub struct WaypointMatch {
        /// Port of the service.
        #[schemars(extend("x-kubernetes-validations" = schema::port()))]
        pub port_number: u32,
        /// A route.
        pub route: Option<WaypointRouteMatch>,
        /// A network filter.
        pub filter: Option<FilterMatch>,
    }
}

message! {
    /// Properties of a route of a waypoint.
    pub struct WaypointRouteMatch {
        /// Its name.
        pub name: String,
    }
}

message! {
    /// A change.
    pub struct Patch {
        /// What is done.
        pub operation: Operation,
        /// The object or part of it, in the JSON of Envoy's message. Not for `REMOVE`.
        #[schemars(schema_with = "schema::any_object")]
        pub value: Option<serde_json::Map<String, serde_json::Value>>,
        /// Where an added filter goes.
        pub filter_class: FilterClass,
    }
}

enumeration! {
    /// What a patch does.
    pub enum Operation {
        /// Not said, which is a mistake.
        #[default]
        Invalid,
        /// Merges the value into the object as protobuf does: lists grow.
        Merge,
        /// Adds the value to the list in question.
        Add,
        /// Removes the object.
        Remove,
        /// Inserts the value before the object that matches, or first.
        InsertBefore,
        /// Inserts the value after the object that matches, or last.
        InsertAfter,
        /// Inserts the value first.
        InsertFirst,
        /// Puts the value in the object's place. HTTP and network filters only.
        Replace,
        /// Merges as `MERGE`, but lists are replaced.
        MergeAndReplaceList,
    }
}

enumeration! {
    /// Where an added filter goes among those of the mesh.
    pub enum FilterClass {
        /// As the operation says.
        #[default]
        Unspecified,
        /// After authentication.
        Authn,
        /// After authorization.
        Authz,
        /// Before statistics.
        Stats,
    }
}
