//! The kind of `install.istio.io`: which control plane and gateways a cluster is to have.
//!
//! It is Istio's `IstioOperator` with the fields that are acted on here. As an apiserver has it, it also takes all others,
//! so that what users wrote for Istio is accepted; who acts on it names those fields. Not one of Istio's own definitions
//! any more, so it is not among [`crate::crds`].

#![allow(clippy::duplicated_attributes, reason = "columns have fields of the same names")]

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::types::message::is_default;
use crate::types::{Serving, crd, schema};

/// Any JSON object.
type Object = Map<String, Value>;

/// What is to be installed. The default is Istio's profile `default`: a control plane and an ingress gateway.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "install.istio.io",
    version = "v1alpha1",
    kind = "IstioOperator",
    plural = "istiooperators",
    shortname = "iop",
    shortname = "io",
    namespaced,
    status = "IstioOperatorStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "Which control plane and gateways the cluster is to have.",
    printcolumn(
        name = "Revision",
        type_ = "string",
        json_path = ".spec.revision",
        description = "The revision of the control plane."
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.status",
        description = "How far the installation is."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the object was created."
    )
)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct IstioOperatorSpec {
    /// What the rest is laid over: `default`, `demo`, `minimal`, `preview`, `stable` or `empty`. Default: `default`.
    #[serde(skip_serializing_if = "is_default")]
    pub profile: String,
    /// Registry of the images.
    #[serde(skip_serializing_if = "is_default")]
    pub hub: String,
    /// Tag of the images; text or a number.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub tag: Value,
    /// Namespace of the control plane. Default: `istio-system`; `values.global.istioNamespace` goes before it.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Revision of the control plane. Those of several revisions run side by side.
    #[serde(skip_serializing_if = "is_default")]
    pub revision: String,
    /// Settings of the mesh (MeshConfig).
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::any_object")]
    pub mesh_config: Object,
    /// Which parts there are, and how they run.
    #[serde(skip_serializing_if = "is_default")]
    pub components: Components,
    /// Values of the charts, as their `values.yaml` tell.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::any_object")]
    pub values: Object,
}

/// The parts of an installation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Components {
    /// What all control planes share: definitions, and who may read them.
    #[serde(skip_serializing_if = "is_default")]
    pub base: Component,
    /// The control plane.
    #[serde(skip_serializing_if = "is_default")]
    pub pilot: Component,
    /// Gateways into the mesh.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress_gateways: Vec<GatewayComponent>,
    /// Gateways out of the mesh.
    #[serde(skip_serializing_if = "is_default")]
    pub egress_gateways: Vec<GatewayComponent>,
    /// The CNI plugin; there is none here, so it can only be disabled.
    #[serde(skip_serializing_if = "is_default")]
    pub cni: Component,
    /// The node proxy of ambient meshes; there is none here, so it can only be disabled.
    #[serde(skip_serializing_if = "is_default")]
    pub ztunnel: Component,
    /// A control plane of another cluster; not supported, so it can only be disabled.
    #[serde(skip_serializing_if = "is_default")]
    pub istiod_remote: Component,
}

/// A part of an installation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Component {
    /// Whether it is installed.
    #[serde(skip_serializing_if = "is_default")]
    pub enabled: Option<bool>,
    /// Its namespace, if not that of the control plane.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Registry of its images, if not that of all.
    #[serde(skip_serializing_if = "is_default")]
    pub hub: String,
    /// Tag of its images, if not that of all.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub tag: Value,
    /// How it runs.
    #[serde(skip_serializing_if = "is_default")]
    pub k8s: KubernetesResources,
}

/// A gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct GatewayComponent {
    /// Its name, and that of its objects.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Labels of its pods, by which Gateways select it.
    #[serde(skip_serializing_if = "is_default")]
    pub label: BTreeMap<String, String>,
    /// Whether it is installed.
    #[serde(skip_serializing_if = "is_default")]
    pub enabled: Option<bool>,
    /// Its namespace, if not that of the control plane.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// How it runs.
    #[serde(skip_serializing_if = "is_default")]
    pub k8s: KubernetesResources,
}

/// How a part runs, in the words of the Kubernetes objects that are made for it: each field is laid over what the chart
/// makes, and `overlays` over all of that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct KubernetesResources {
    /// Where its pods run, relative to nodes and others.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::any_object")]
    pub affinity: Object,
    /// Environment of its container.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "objects")]
    pub env: Vec<Object>,
    /// The spec of its HorizontalPodAutoscaler.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::any_object")]
    pub hpa_spec: Object,
    /// When its image is pulled.
    #[serde(skip_serializing_if = "is_default")]
    pub image_pull_policy: String,
    /// Labels of the nodes that it may run on.
    #[serde(skip_serializing_if = "is_default")]
    pub node_selector: BTreeMap<String, String>,
    /// The spec of its PodDisruptionBudget.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::any_object")]
    pub pod_disruption_budget: Object,
    /// Annotations of its pods.
    #[serde(skip_serializing_if = "is_default")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Class of its pods' priority.
    #[serde(skip_serializing_if = "is_default")]
    pub priority_class_name: String,
    /// The readiness probe of its container.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::any_object")]
    pub readiness_probe: Object,
    /// How many pods it has, where they are not scaled automatically.
    #[serde(skip_serializing_if = "is_default")]
    pub replica_count: Option<u32>,
    /// Resources of its container.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::any_object")]
    pub resources: Object,
    /// The spec of its Service.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::any_object")]
    pub service: Object,
    /// How its Deployment is rolled out.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::any_object")]
    pub strategy: Object,
    /// Taints that its pods tolerate.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "objects")]
    pub tolerations: Vec<Object>,
    /// Annotations of its Service.
    #[serde(skip_serializing_if = "is_default")]
    pub service_annotations: BTreeMap<String, String>,
    /// Security context of its pods.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::any_object")]
    pub security_context: Object,
    /// Volumes of its pods.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "objects")]
    pub volumes: Vec<Object>,
    /// Where its container has these volumes.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "objects")]
    pub volume_mounts: Vec<Object>,
    /// Changes of its objects.
    #[serde(skip_serializing_if = "is_default")]
    pub overlays: Vec<Overlay>,
}

/// Changes of one object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Overlay {
    /// The object's API version; it counts for nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub api_version: String,
    /// The object's kind.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: String,
    /// The object's name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// The changes, made one after the other.
    #[serde(skip_serializing_if = "is_default")]
    pub patches: Vec<Patch>,
}

/// A change of one field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Patch {
    /// The field: `spec.template.spec.containers.[name:discovery].args.[-1]`. Items of a list are chosen by a field
    /// (`[name:discovery]`), by their value (`[:--x]`) or by their place (`[0]`; `[-1]` adds one).
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    /// What it becomes; without one, the field is removed.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(schema_with = "anything")]
    pub value: Value,
}

/// How far an installation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioOperatorStatus {
    /// The worst of the parts': `HEALTHY`, `RECONCILING`, `ACTION_REQUIRED` or `ERROR`.
    #[serde(skip_serializing_if = "is_default")]
    pub status: String,
    /// Why, for people.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    /// The `metadata.generation` of which all of this speaks.
    #[serde(skip_serializing_if = "is_default")]
    pub observed_generation: i64,
    /// `Supported`: everything that is asked for is acted on. `Reconciled`: all objects are as they are to be. `Ready`: all
    /// that run are available.
    #[serde(skip_serializing_if = "is_default")]
    pub conditions: Vec<Condition>,
    /// The parts by name: `Base`, `Pilot`, and each gateway.
    #[serde(skip_serializing_if = "is_default")]
    pub component_status: BTreeMap<String, ComponentStatus>,
}

/// How far a part of an installation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ComponentStatus {
    /// `HEALTHY`, `RECONCILING` or `ERROR`.
    #[serde(skip_serializing_if = "is_default")]
    pub status: String,
    /// The version of the chart that it was made of.
    #[serde(skip_serializing_if = "is_default")]
    pub version: String,
    /// What goes wrong.
    #[serde(skip_serializing_if = "is_default")]
    pub error: String,
    /// `Reconciled` and `Ready`, as for the whole.
    #[serde(skip_serializing_if = "is_default")]
    pub conditions: Vec<Condition>,
}

/// The definitions of this group, for an apiserver: fields that are not supported are kept, for somebody to name them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crd = supported();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut())
            && let Some(spec) = schema.properties.as_mut().and_then(|fields| fields.get_mut("spec"))
        {
            crate::types::keep_unknown_fields(spec);
        }
    }
    vec![crd]
}

/// The same definition with the supported fields alone.
pub fn supported() -> CustomResourceDefinition {
    crd::<IstioOperator>(Serving::default())
}

fn objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } })
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}
