//! The parts of an installation, each with its chart and values: what an IstioOperator means.

use std::sync::LazyLock;

use mesh_api::mesh::MeshConfig;
use mesh_api::{Diagnostic, FieldPath, ObjectRef};
use serde_json::{Value, json};

use super::chart::{self, Chart, Release, RenderError};
use super::overlay::{self, Workload};
use super::{lay, profile, schema, set, text, values};

/// Where the control plane is if nobody says.
const NAMESPACE: &str = "istio-system";
/// Who renders charts here, for the label `app.kubernetes.io/managed-by`.
const SERVICE: &str = "mesh-rs";
/// Registries that have Istio's own images, not ours.
const FOREIGN: [&str; 4] = ["docker.io/istio", "istio", "gcr.io/istio-release", "registry.istio.io/release"];

/// What an IstioOperator asks for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The IstioOperator.
    pub operator: ObjectRef,
    /// The control plane's revision; empty is the default one.
    pub revision: String,
    /// The control plane's namespace.
    pub namespace: String,
    /// What is to be installed, in this order.
    pub parts: Vec<Part>,
    /// What of the IstioOperator is not acted on, and why.
    pub told: Vec<Diagnostic>,
}

/// A part of an installation: one release of one chart.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Part {
    /// Which part, as the status and the label `operator.istio.io/component` have it.
    pub component: &'static str,
    /// The release's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its chart.
    pub chart: &'static Chart,
    /// The chart's values, over its own.
    pub values: Value,
    /// The `k8s` settings, and where they are written.
    settings: (Value, FieldPath),
    workload: Option<(String, &'static str)>,
}

impl Plan {
    /// What an IstioOperator means, as an apiserver has it or as somebody wrote it.
    ///
    /// ```
    /// use mesh_controller::install::Plan;
    /// let operator = serde_json::json!({"spec": {"profile": "minimal", "revision": "canary", "nothing": 1}});
    /// let mut plan = Plan::of(&operator)?;
    /// let objects = plan.render()?;
    /// assert!(objects.iter().flatten().any(|object| object["metadata"]["name"] == "istiod-canary"));
    /// assert_eq!(plan.told[0].path.as_str(), "spec.nothing");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Where it can't be said what is to be installed; what is installed must then stay as it is.
    pub fn of(operator: &Value) -> Result<Self, Diagnostic> {
        let reference =
            ObjectRef::new("IstioOperator", text(operator, "/metadata/namespace"), text(operator, "/metadata/name"));
        Planning::new(operator).and_then(Planning::finish).map_err(|problem| problem.on(&reference)).map(|mut plan| {
            plan.told = plan.told.into_iter().map(|told| told.on(&reference)).collect();
            plan.operator = reference;
            plan
        })
    }

    /// The objects of each part, in the order in which they are to be made. What of the settings meets no object is added
    /// to what there is to tell.
    ///
    /// # Errors
    /// Where a chart can't be rendered, or a setting can't be laid over what it makes.
    pub fn render(&mut self) -> Result<Vec<Vec<Value>>, RenderError> {
        let mut told = Vec::new();
        let objects = self.parts.iter().map(|part| part.render(&mut told)).collect();
        self.told.extend(told.into_iter().map(|told| told.on(&self.operator)));
        objects
    }
}

impl Part {
    /// What the part's chart is rendered as.
    pub fn release(&self) -> Release<'_> {
        Release { name: &self.name, namespace: &self.namespace, service: SERVICE }
    }

    fn render(&self, told: &mut Vec<Diagnostic>) -> Result<Vec<Value>, RenderError> {
        let mut objects = self.chart.render(self.release(), &self.values)?;
        let (settings, at) = &self.settings;
        if let Some((name, container)) = &self.workload {
            overlay::apply(&mut objects, &Workload { name, container }, settings, at, told)?;
        }
        objects.sort_by_key(|object| rank(text(object, "/kind")));
        Ok(objects)
    }
}

/// The order in which objects are made: what others need comes first.
fn rank(kind: &str) -> usize {
    const ORDER: [&str; 9] = [
        "CustomResourceDefinition",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "ConfigMap",
        "Service",
        "Deployment",
    ];
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len())
}

/// A plan on its way.
struct Planning {
    /// The spec over its profile.
    spec: Value,
    /// The values, Istio's own and those that follow from other fields.
    values: Value,
    namespace: String,
    revision: String,
    told: Vec<Diagnostic>,
}

impl Planning {
    fn new(operator: &Value) -> Result<Self, Diagnostic> {
        let mut told = Vec::new();
        let user = supported(operator, &mut told);
        let mut spec = profile::spec(text(&user, "/profile"))?;
        lay(&mut spec, user.clone());
        let of_user = user.get("values").cloned().unwrap_or_default();
        let said = [text(&of_user, "/global/istioNamespace"), text(&spec, "/namespace"), NAMESPACE];
        let namespace = said.into_iter().find(|name| !name.is_empty()).unwrap_or(NAMESPACE).to_owned();
        let values = helm_values(&spec, of_user, &namespace);
        let revision = text(&values, "/revision").to_owned();
        if !is_label(&revision) {
            let message = "a revision is part of names: write lower-case letters, digits and hyphens, such as 1-31";
            return Err(Diagnostic::error("InvalidField", message).at(FieldPath::new("spec.revision")));
        }
        told.extend(mesh_problems(&values));
        if FOREIGN.contains(&text(&values, "/global/hub")) {
            let message = "this registry has Istio's images, not ours; remove the field, or name one that has meshd";
            told.push(Diagnostic::warning("ForeignHub", message).at(FieldPath::new("spec.hub")));
        }
        Ok(Self { spec, values, namespace, revision, told })
    }

    fn finish(mut self) -> Result<Plan, Diagnostic> {
        self.absent();
        let mut parts = Vec::new();
        parts.extend(self.base());
        parts.extend(self.pilot());
        parts.extend(self.gateways("IngressGateways", "ingressGateways", "istio-ingressgateway")?);
        parts.extend(self.gateways("EgressGateways", "egressGateways", "istio-egressgateway")?);
        let Self { namespace, revision, told, .. } = self;
        Ok(Plan { operator: ObjectRef::new("IstioOperator", "", ""), revision, namespace, parts, told })
    }

    /// Tells of parts that there are in Istio only.
    fn absent(&mut self) {
        for name in ["cni", "ztunnel", "istiodRemote"] {
            if self.component(name).and_then(|c| c.get("enabled")) == Some(&Value::Bool(true)) {
                let path = FieldPath::new("spec.components").field(name);
                self.told.push(
                    Diagnostic::error("UnsupportedField", "there is no such part here; it is not installed").at(path),
                );
            }
        }
    }

    fn component(&self, name: &str) -> Option<&Value> {
        self.spec.get("components")?.get(name)
    }

    /// A part that there is once, unless it is disabled.
    fn enabled(&self, name: &str) -> Option<Value> {
        let component = self.component(name).cloned().unwrap_or_else(|| json!({}));
        (component.get("enabled") != Some(&Value::Bool(false))).then_some(component)
    }

    fn base(&mut self) -> Option<Part> {
        let component = self.enabled("base")?;
        let path = FieldPath::new("spec.components.base.k8s");
        if component.get("k8s").and_then(Value::as_object).is_some_and(|settings| !settings.is_empty()) {
            self.told.push(schema::unsupported(path.clone()));
        }
        let mut values = values::known_to(&chart::BASE, &self.values);
        if values.get("defaultRevision").is_none() {
            let revision = if self.revision.is_empty() { "default" } else { &self.revision };
            set(&mut values, &["defaultRevision"], revision.into());
        }
        Some(Part {
            component: "Base",
            name: "istio-base".to_owned(),
            namespace: self.namespace_of(&component),
            chart: &chart::BASE,
            values,
            settings: (Value::Null, path),
            workload: None,
        })
    }

    fn pilot(&self) -> Option<Part> {
        let component = self.enabled("pilot")?;
        let name = match self.revision.as_str() {
            "" => "istiod".to_owned(),
            revision => format!("istiod-{revision}"),
        };
        let mut all = self.values.clone();
        for field in ["hub", "tag"] {
            if let Some(value) = component.get(field) {
                set(&mut all, &["pilot", field], value.clone());
            }
        }
        let settings = component.get("k8s").cloned().unwrap_or_default();
        replicas(
            &mut all,
            &settings,
            &["pilot", "replicaCount"],
            &["pilot", "autoscaleMin"],
            &["pilot", "autoscaleMax"],
        );
        Some(Part {
            component: "Pilot",
            namespace: self.namespace_of(&component),
            chart: &chart::MESHD,
            values: values::known_to(&chart::MESHD, &all),
            settings: (settings, FieldPath::new("spec.components.pilot.k8s")),
            workload: Some((name.clone(), "discovery")),
            name,
        })
    }

    fn gateways(
        &mut self,
        component: &'static str,
        field: &'static str,
        usual: &'static str,
    ) -> Result<Vec<Part>, Diagnostic> {
        let list = self.component(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let path = FieldPath::new("spec.components").field(field);
        let of_all = self.values.get("gateways").and_then(|all| all.get(usual)).cloned().unwrap_or_else(|| json!({}));
        let forced = of_all.get("enabled") == Some(&Value::Bool(true));
        let at = FieldPath::new("spec.values.gateways").field(usual);
        let of_all = values::gateway(of_all, &at, &mut self.told);
        let mut parts = Vec::new();
        for (index, gateway) in list.into_iter().enumerate() {
            if !forced && gateway.get("enabled") == Some(&Value::Bool(false)) {
                continue;
            }
            let name = text(&gateway, "/name").to_owned();
            let path = path.index(index);
            if name.is_empty() {
                return Err(Diagnostic::error("InvalidField", "a gateway needs a name").at(path.field("name")));
            }
            let settings = gateway.get("k8s").cloned().unwrap_or_default();
            parts.push(Part {
                component,
                namespace: self.namespace_of(&gateway),
                chart: &chart::GATEWAY,
                values: self.gateway_values(component, usual, &of_all, &gateway, &settings),
                settings: (settings, path.field("k8s")),
                workload: Some((name.clone(), "istio-proxy")),
                name,
            });
        }
        Ok(parts)
    }

    fn gateway_values(&self, component: &str, usual: &str, of_all: &Value, gateway: &Value, settings: &Value) -> Value {
        let name = text(gateway, "/name");
        let mut values = json!({
            "name": name,
            "revision": self.revision,
            // The labels by which Gateways select it, whatever its name.
            "labels": {"app": usual, "istio": usual.trim_start_matches("istio-")},
            "serviceAccount": {"name": format!("{name}-service-account")},
        });
        if component == "EgressGateways" {
            set(&mut values, &["service", "type"], "ClusterIP".into());
            let ports = json!([{"name": "http2", "port": 80, "protocol": "TCP", "targetPort": 80},
                               {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443}]);
            set(&mut values, &["service", "ports"], ports);
        }
        for field in ["imagePullPolicy", "priorityClassName"] {
            if let Some(value) = self.values.pointer(&format!("/global/{field}")) {
                set(&mut values, &[field], value.clone());
            }
        }
        if let Some(Value::Array(secrets)) = self.values.pointer("/global/imagePullSecrets") {
            let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
            set(&mut values, &["imagePullSecrets"], secrets.into());
        }
        lay(&mut values, of_all.clone());
        if let Some(labels) = gateway.get("label") {
            lay(&mut values, json!({"labels": labels}));
        }
        if let Some(ports) = settings.pointer("/service/ports") {
            set(&mut values, &["service", "ports"], ports.clone());
        }
        let scaling = |field| ["autoscaling", field];
        let (min, max) = (scaling("minReplicas"), scaling("maxReplicas"));
        replicas(&mut values, settings, &["replicaCount"], &min, &max);
        values
    }

    fn namespace_of(&self, component: &Value) -> String {
        let own = text(component, "/namespace");
        if own.is_empty() { self.namespace.clone() } else { own.to_owned() }
    }
}

/// What of the spec is supported. What isn't is told.
fn supported(operator: &Value, told: &mut Vec<Diagnostic>) -> Value {
    let root = FieldPath::new("spec");
    let written = operator.get("spec").cloned().unwrap_or_else(|| json!({}));
    let mut spec = schema::fit(&SPEC, written, &root, told).unwrap_or_else(|| json!({}));
    if let Some(fields) = spec.get_mut("values") {
        *fields = schema::fit(&values::SCHEMA, fields.take(), &root.field("values"), told).unwrap_or_default();
    }
    spec
}

/// The values that follow from a spec. What the user says of values goes before what follows from other fields.
fn helm_values(spec: &Value, of_user: Value, namespace: &str) -> Value {
    let mut values = json!({"meshConfig": {}});
    lay(&mut values, spec.get("values").cloned().unwrap_or_default());
    for (field, path) in
        [("hub", ["global", "hub"].as_slice()), ("tag", &["global", "tag"]), ("revision", &["revision"])]
    {
        if let Some(value) = spec.get(field) {
            set(&mut values, path, value.clone());
        }
    }
    if let Some(mesh) = spec.get("meshConfig") {
        lay(&mut values, json!({"meshConfig": mesh}));
    }
    lay(&mut values, of_user);
    set(&mut values, &["global", "istioNamespace"], namespace.into());
    values
}

/// Whether a text can be part of a name; none can.
fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= 63 && text.chars().all(plain) && !text.starts_with('-') && !text.ends_with('-')
}

/// How many pods the settings ask for, as values: charts decide by them whether there is a budget, and whoever wants
/// two pods wants them where they are scaled automatically, too.
fn replicas(values: &mut Value, settings: &Value, count: &[&str], min: &[&str], max: &[&str]) {
    let asked = settings.get("replicaCount");
    for (path, value) in [
        (count, asked),
        (min, settings.pointer("/hpaSpec/minReplicas").or(asked)),
        (max, settings.pointer("/hpaSpec/maxReplicas")),
    ] {
        if let Some(value) = value {
            set(values, path, value.clone());
        }
    }
}

/// The fields of an IstioOperator's spec that are supported, as a schema.
static SPEC: LazyLock<Value> = LazyLock::new(|| {
    let definition = serde_json::to_value(mesh_api::install::supported()).unwrap_or_default();
    definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").cloned().unwrap_or_default()
});

/// What is wrong with the mesh's settings.
fn mesh_problems(values: &Value) -> Vec<Diagnostic> {
    let root = FieldPath::new("spec.meshConfig");
    let mesh = values.get("meshConfig").map(Value::to_string).unwrap_or_default();
    let (_, told) = MeshConfig::default().apply(&"spec.meshConfig".into(), &mesh);
    told.into_iter()
        .map(|mut problem| {
            problem.location = None;
            problem.path = root.join(&problem.path);
            problem
        })
        .collect()
}
