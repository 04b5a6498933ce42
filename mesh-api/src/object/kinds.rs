//! The table of kinds, once: from it come the variants of [`Object`], the list [`KINDS`] and all that differs by kind.
//! Kinds stand under the function that reads them: Kubernetes' through serde, Istio's as messages.

use std::sync::{Arc, LazyLock};

use gateway_api::apis::experimental as gateway_api;
use k8s_openapi::api::networking::v1 as ingress;
use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core, discovery::v1 as discovery};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Kind, NotAnObject, Other, place};
use crate::Name;
use crate::document::Node;
use crate::document::at::Unknown;
use crate::document::de;
use crate::{extensions, networking, security, telemetry};

macro_rules! kinds {
    ($($reader:path {
        $($variant:ident: $type:ty = $group:literal / $kind:literal $versions:tt $scope:ident as $name:literal;)*
    })*) => {
        /// Any object that the mesh accepts, as written, shared.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "each variant is the kind of its name")]
        pub enum Object {
            $($($variant(Arc<$type>),)*)*
            /// A kind that is not ours.
            Other(Arc<Other>),
        }

        /// The kinds that have a type of their own.
        pub const KINDS: &[Kind] = &[$($(
            Kind { name: $name, group: $group, kind: $kind, versions: &$versions, namespaced: kinds!(@$scope) },
        )*)*];

        impl Object {
            /// The kind, as an [`ObjectRef`](crate::ObjectRef) names it.
            pub fn kind_name(&self) -> Name {
                match self {
                    $($(Self::$variant(_) => {
                        static NAME: LazyLock<Name> = LazyLock::new(|| $name.into());
                        NAME.clone()
                    })*)*
                    Self::Other(other) => other.kind.as_str().into(),
                }
            }

            /// The object's metadata.
            pub fn metadata(&self) -> &ObjectMeta {
                match self {
                    $($(Self::$variant(object) => &object.metadata,)*)*
                    Self::Other(other) => &other.metadata,
                }
            }

            /// The object as JSON, as an apiserver would return it.
            ///
            /// # Errors
            /// None for objects that were read; reserved for values that JSON cannot hold.
            // Inline, so that only who writes objects has the writers of all kinds compiled.
            #[inline]
            pub fn to_json(&self) -> serde_json::Result<serde_json::Value> {
                match self {
                    $($(Self::$variant(object) => serde_json::to_value(object.as_ref()),)*)*
                    Self::Other(other) => Ok(other.content.clone()),
                }
            }

            pub(super) fn typed(kind: &Kind, node: &Node<'_>) -> Result<(Self, Unknown), NotAnObject> {
                match kind.name {
                    $($($name => {
                        let (mut object, unknown): ($type, Unknown) = $reader(node)?;
                        place(&mut object.metadata, kind.namespaced);
                        Ok((object.into(), unknown))
                    })*)*
                    _ => super::other(kind.group, kind.kind, node),
                }
            }
        }

        $($(impl From<$type> for Object {
            fn from(object: $type) -> Self {
                Self::$variant(Arc::new(object))
            }
        }

        impl TryFrom<Object> for $type {
            type Error = Object;
            /// The object itself where it is of this kind; otherwise it is given back.
            fn try_from(object: Object) -> Result<Self, Object> {
                match object {
                    Object::$variant(object) => Ok(Arc::unwrap_or_clone(object)),
                    other => Err(other),
                }
            }
        })*)*
    };
    (@namespaced) => { true };
    (@cluster) => { false };
}

kinds! {
    de::from_node {
        Namespace: core::Namespace = "" / "Namespace" ["v1"] cluster as "Namespace";
        Node: core::Node = "" / "Node" ["v1"] cluster as "Node";
        Service: core::Service = "" / "Service" ["v1"] namespaced as "Service";
        Endpoints: core::Endpoints = "" / "Endpoints" ["v1"] namespaced as "Endpoints";
        Pod: core::Pod = "" / "Pod" ["v1"] namespaced as "Pod";
        Secret: core::Secret = "" / "Secret" ["v1"] namespaced as "Secret";
        ConfigMap: core::ConfigMap = "" / "ConfigMap" ["v1"] namespaced as "ConfigMap";
        ServiceAccount: core::ServiceAccount = "" / "ServiceAccount" ["v1"] namespaced as "ServiceAccount";
        EndpointSlice: discovery::EndpointSlice = "discovery.k8s.io" / "EndpointSlice" ["v1"] namespaced as "EndpointSlice";
        Deployment: apps::Deployment = "apps" / "Deployment" ["v1"] namespaced as "Deployment";
        StatefulSet: apps::StatefulSet = "apps" / "StatefulSet" ["v1"] namespaced as "StatefulSet";
        DaemonSet: apps::DaemonSet = "apps" / "DaemonSet" ["v1"] namespaced as "DaemonSet";
        ReplicaSet: apps::ReplicaSet = "apps" / "ReplicaSet" ["v1"] namespaced as "ReplicaSet";
        Job: batch::Job = "batch" / "Job" ["v1"] namespaced as "Job";
        CronJob: batch::CronJob = "batch" / "CronJob" ["v1"] namespaced as "CronJob";
        Ingress: ingress::Ingress = "networking.k8s.io" / "Ingress" ["v1"] namespaced as "Ingress";
    }
    super::istio {
        VirtualService: networking::VirtualService =
            "networking.istio.io" / "VirtualService" ["v1", "v1beta1", "v1alpha3"] namespaced as "VirtualService";
        DestinationRule: networking::DestinationRule =
            "networking.istio.io" / "DestinationRule" ["v1", "v1beta1", "v1alpha3"] namespaced as "DestinationRule";
        Gateway: networking::Gateway =
            "networking.istio.io" / "Gateway" ["v1", "v1beta1", "v1alpha3"] namespaced as "Gateway";
        ServiceEntry: networking::ServiceEntry =
            "networking.istio.io" / "ServiceEntry" ["v1", "v1beta1", "v1alpha3"] namespaced as "ServiceEntry";
        WorkloadEntry: networking::WorkloadEntry =
            "networking.istio.io" / "WorkloadEntry" ["v1", "v1beta1", "v1alpha3"] namespaced as "WorkloadEntry";
        WorkloadGroup: networking::WorkloadGroup =
            "networking.istio.io" / "WorkloadGroup" ["v1", "v1beta1", "v1alpha3"] namespaced as "WorkloadGroup";
        Sidecar: networking::Sidecar =
            "networking.istio.io" / "Sidecar" ["v1", "v1beta1", "v1alpha3"] namespaced as "Sidecar";
        PeerAuthentication: security::PeerAuthentication =
            "security.istio.io" / "PeerAuthentication" ["v1", "v1beta1"] namespaced as "PeerAuthentication";
        RequestAuthentication: security::RequestAuthentication =
            "security.istio.io" / "RequestAuthentication" ["v1", "v1beta1"] namespaced as "RequestAuthentication";
        AuthorizationPolicy: security::AuthorizationPolicy =
            "security.istio.io" / "AuthorizationPolicy" ["v1", "v1beta1"] namespaced as "AuthorizationPolicy";
        Telemetry: telemetry::Telemetry =
            "telemetry.istio.io" / "Telemetry" ["v1", "v1alpha1"] namespaced as "Telemetry";
        WasmPlugin: extensions::WasmPlugin =
            "extensions.istio.io" / "WasmPlugin" ["v1alpha1"] namespaced as "WasmPlugin";
        TrafficExtension: extensions::TrafficExtension =
            "extensions.istio.io" / "TrafficExtension" ["v1alpha1"] namespaced as "TrafficExtension";
        EnvoyFilter: networking::EnvoyFilter =
            "networking.istio.io" / "EnvoyFilter" ["v1alpha3"] namespaced as "EnvoyFilter";
        ProxyConfig: networking::ProxyConfig =
            "networking.istio.io" / "ProxyConfig" ["v1beta1"] namespaced as "ProxyConfig";
    }
    de::from_node {
        GatewayClass: gateway_api::gatewayclasses::GatewayClass =
            "gateway.networking.k8s.io" / "GatewayClass" ["v1", "v1beta1"] cluster as "GatewayClass";
        KubernetesGateway: gateway_api::gateways::Gateway =
            "gateway.networking.k8s.io" / "Gateway" ["v1", "v1beta1"] namespaced as "Gateway.gateway.networking.k8s.io";
        HTTPRoute: gateway_api::httproutes::HttpRoute =
            "gateway.networking.k8s.io" / "HTTPRoute" ["v1", "v1beta1"] namespaced as "HTTPRoute";
        GRPCRoute: gateway_api::grpcroutes::GrpcRoute =
            "gateway.networking.k8s.io" / "GRPCRoute" ["v1"] namespaced as "GRPCRoute";
        TCPRoute: gateway_api::tcproutes::TcpRoute =
            "gateway.networking.k8s.io" / "TCPRoute" ["v1", "v1alpha2"] namespaced as "TCPRoute";
        TLSRoute: gateway_api::tlsroutes::TlsRoute =
            "gateway.networking.k8s.io" / "TLSRoute" ["v1", "v1alpha3", "v1alpha2"] namespaced as "TLSRoute";
        ListenerSet: gateway_api::listenersets::ListenerSet =
            "gateway.networking.k8s.io" / "ListenerSet" ["v1"] namespaced as "ListenerSet";
        ReferenceGrant: gateway_api::referencegrants::ReferenceGrant =
            "gateway.networking.k8s.io" / "ReferenceGrant" ["v1", "v1beta1"] namespaced as "ReferenceGrant";
    }
}
