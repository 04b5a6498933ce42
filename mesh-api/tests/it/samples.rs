//! Istio's own samples: every document of them must be read.

use std::path::{Path, PathBuf};

use mesh_api::document;

use crate::corpus;

pub(crate) fn manifests(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            // Go templates, not YAML.
            if !path.ends_with("benchmarks") {
                manifests(&path, out);
            }
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            out.push(path);
        }
    }
}

/// Five files are no Kubernetes objects: settings of the installer, Helm values, an OpenAPI document.
fn is_no_object(complaint: &str) -> bool {
    let file = |name: &str| complaint.contains(name);
    (complaint.contains("metadata.name is missing")
        && (file("demo-profile-no-gateways.yaml") || file("istio-spire-config.yaml")))
        || (complaint.contains("apiVersion is missing")
            && (file("swagger.yaml") || file("spire-east.yaml") || file("spire-west.yaml")))
}

#[test]
fn every_sample_is_read_without_complaint() {
    let Some(samples) = corpus::folder("every_sample_is_read_without_complaint", "samples") else { return };
    let mut files = Vec::new();
    manifests(&samples, &mut files);
    assert!(files.len() > 50, "only {} samples found", files.len());
    let (mut objects, mut complaints) = (0, Vec::new());
    for file in files {
        let text = std::fs::read(&file).unwrap();
        let parsed = document::parse(&file.to_string_lossy().as_ref().into(), &text);
        objects += parsed.objects().count();
        complaints.extend(parsed.diagnostics().map(ToString::to_string).filter(|c| !is_no_object(c)));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(objects > 200, "only {objects} objects");
}
