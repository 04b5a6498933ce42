//! The charts, embedded, and rendered as Helm renders them.
//!
//! They are written in the part of Helm's language that both engines have: named templates are called by `template`
//! (not `include`), and defined in `_helpers.tpl` alone; neither `tpl` nor `.Files` nor `lookup` is used.

use std::sync::LazyLock;

use mesh_api::document;
use mesh_webhook::inject::{template_functions, template_value};
use serde_json::{Value, json};

use super::{lay, text};

/// A chart of the folder `charts`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Chart {
    /// Its name, and its folder's.
    pub name: &'static str,
    about: &'static str,
    values: &'static str,
    schema: &'static str,
    templates: &'static [(&'static str, &'static str)],
    has_definitions: bool,
}

macro_rules! chart {
    ($name:literal, definitions: $definitions:literal, [$($file:literal),+ $(,)?]) => {
        Chart {
            name: $name,
            about: chart!(@ $name, "/Chart.yaml"),
            values: chart!(@ $name, "/values.yaml"),
            schema: chart!(@ $name, "/values.schema.json"),
            templates: &[$(($file, chart!(@ $name, "/templates/", $file))),+],
            has_definitions: $definitions,
        }
    };
    (@ $($part:literal),+) => { include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/", $($part),+)) };
}

/// What all control planes of a cluster share.
pub static BASE: Chart =
    chart!("mesh-base", definitions: true, ["_helpers.tpl", "defaultvalidator.yaml", "operator.yaml", "reader.yaml"]);

/// The control plane.
pub static MESHD: Chart = chart!("meshd", definitions: false, [
    "_helpers.tpl",
    "autoscale.yaml",
    "clusterrole.yaml",
    "configmap.yaml",
    "deployment.yaml",
    "injector-configmap.yaml",
    "mutatingwebhook.yaml",
    "poddisruptionbudget.yaml",
    "role.yaml",
    "service.yaml",
    "serviceaccount.yaml",
    "servicemonitor.yaml",
    "validatingwebhook.yaml",
]);

/// A gateway.
pub static GATEWAY: Chart = chart!("mesh-gateway", definitions: false, [
    "_helpers.tpl",
    "deployment.yaml",
    "hpa.yaml",
    "poddisruptionbudget.yaml",
    "role.yaml",
    "service.yaml",
    "serviceaccount.yaml",
]);

/// All charts.
pub static CHARTS: [&Chart; 3] = [&BASE, &MESHD, &GATEWAY];

/// What a chart is rendered as.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// The release's name.
    pub name: &'a str,
    /// Where it is installed.
    pub namespace: &'a str,
    /// Who installs it: `Helm`, where Helm does.
    pub service: &'a str,
}

/// Why a chart could not be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// A template fails, mostly for a value that it can't use.
    #[error("chart {chart}: {file}: {why}")]
    Template {
        /// The chart.
        chart: &'static str,
        /// The template.
        file: String,
        /// What is wrong, and where.
        why: String,
    },
    /// What is to be laid over an object doesn't fit it.
    #[error("{path}: {why}")]
    Overlay {
        /// The field of the IstioOperator that says so.
        path: String,
        /// What is wrong.
        why: String,
    },
}

impl Chart {
    /// The values that hold where nobody says otherwise.
    pub fn values(&self) -> Value {
        yaml(self.values)
    }

    /// The schema of the values, as Helm checks it.
    pub fn schema(&self) -> Value {
        yaml(self.schema)
    }

    /// The names of its templates.
    #[cfg(test)]
    pub(super) fn files(&self) -> Vec<&'static str> {
        self.templates.iter().map(|(file, _)| *file).collect()
    }

    /// The chart's version.
    pub fn version(&self) -> String {
        text(&yaml(self.about), "/version").to_owned()
    }

    /// The objects that the chart makes of these values, in the order of its files, definitions first.
    ///
    /// # Errors
    /// Where a value does not fit.
    pub fn render(&self, release: Release<'_>, values: &Value) -> Result<Vec<Value>, RenderError> {
        let mut objects = if self.has_definitions { DEFINITIONS.clone() } else { Vec::new() };
        let failed = |file: &str, why: String| RenderError::Template { chart: self.name, file: file.to_owned(), why };
        let data = template_value(&self.data(release, values));
        let templates = self.parse().map_err(|why| failed("templates", why))?;
        for (file, _) in self.templates.iter().filter(|(file, _)| !file.starts_with('_')) {
            let text = templates.execute_template_to_string(file, &data).map_err(|e| failed(file, e.to_string()))?;
            for document in document::raw(&(*file).into(), &text) {
                let object = document.map_err(|problem| failed(file, problem.to_string()))?.node.to_json();
                // What is not wanted leaves an empty document behind.
                if object.is_object() {
                    objects.push(object);
                }
            }
        }
        Ok(objects)
    }

    fn data(&self, release: Release<'_>, values: &Value) -> Value {
        let mut all = self.values();
        lay(&mut all, values.clone());
        let about = yaml(self.about);
        json!({
            "Values": all,
            "Release": {"Name": release.name, "Namespace": release.namespace, "Service": release.service},
            "Chart": {
                "Name": self.name, "Version": text(&about, "/version"), "AppVersion": text(&about, "/appVersion"),
            },
        })
    }

    fn parse(&self) -> Result<gotmpl::Template, String> {
        let template = gotmpl::Template::new(self.name).funcs(template_functions());
        self.templates.iter().try_fold(template, |template, (file, text)| {
            let text = match file.starts_with('_') {
                true => (*text).to_owned(),
                false => format!("{{{{ define {file:?} }}}}{text}{{{{ end }}}}"),
            };
            template.parse(&text).map_err(|error| format!("{file}: {error}"))
        })
    }
}

/// The definitions of all kinds, which the chart has in its folder `crds`.
static DEFINITIONS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let all = mesh_api::crds().into_iter().chain(mesh_api::install::crds());
    all.filter_map(|definition| serde_json::to_value(definition).ok()).collect()
});

/// Reads a file of ours, which a test has read before.
pub(super) fn yaml(text: &str) -> Value {
    let document = document::raw(&"chart".into(), text).into_iter().next();
    document.and_then(Result::ok).map(|document| document.node.to_json()).unwrap_or_default()
}
