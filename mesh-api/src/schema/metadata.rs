//! What every object's metadata must be: names, labels and annotations in Kubernetes' forms, and no fields of one's own.

use serde_json::{Map, Value as Json};

use super::formats::complaint;
use super::problem::{Cause, Path, Problem};

const FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// All annotations of an object together, in bytes.
const MOST_ANNOTATIONS: usize = 256 * 1024;

pub(super) fn check(metadata: Option<&Json>) -> Vec<Problem> {
    let nothing = Map::new();
    let path = Path::ROOT.field("metadata");
    let fields = match metadata {
        Some(Json::Object(fields)) => fields,
        Some(Json::Null) | None => &nothing,
        Some(other) => return vec![Problem::invalid(path, other, "must be an object")],
    };
    let mut out: Vec<Problem> = fields
        .keys()
        .filter(|name| !FIELDS.contains(&name.as_str()))
        .map(|name| Problem::unknown(path.field(name)))
        .collect();
    name(fields, &path, &mut out);
    labels(fields, &path, &mut out);
    annotations(fields, &path, &mut out);
    out
}

fn refuse(path: Path<'_>, value: &str, format: &str, out: &mut Vec<Problem>) {
    if let Some(complaint) = complaint(format, value) {
        out.push(Problem::invalid(path, &value.into(), &complaint));
    }
}

fn name(fields: &Map<String, Json>, path: &Path<'_>, out: &mut Vec<Problem>) {
    for (field, format) in
        [("name", "dns1123Subdomain"), ("namespace", "dns1123Label"), ("generateName", "dns1123SubdomainPrefix")]
    {
        match fields.get(field) {
            Some(Json::String(text)) if !text.is_empty() => refuse(path.field(field), text, format, out),
            None | Some(Json::Null | Json::String(_)) => {}
            Some(other) => out.push(Problem::invalid(path.field(field), other, "must be a string")),
        }
    }
    let says = |field| fields.get(field).is_some_and(|value| *value != "" && !value.is_null());
    if !says("name") && !says("generateName") {
        out.push(Problem::bare(Cause::Required, path.field("name"), "name or generateName is required"));
    }
}

/// The entries of a map of texts; what is no text is told.
fn texts<'f>(map: Option<&'f Json>, path: &Path<'_>, out: &mut Vec<Problem>) -> Vec<(&'f str, &'f str)> {
    let entries = match map {
        Some(Json::Object(entries)) => entries,
        None | Some(Json::Null) => return Vec::new(),
        Some(other) => {
            out.push(Problem::invalid(path, other, "must be an object"));
            return Vec::new();
        }
    };
    let mut texts = Vec::new();
    for (key, value) in entries {
        match value {
            Json::String(text) => texts.push((key.as_str(), text.as_str())),
            Json::Null => texts.push((key.as_str(), "")),
            other => out.push(Problem::invalid(path.field(key), other, "must be a string")),
        }
    }
    texts
}

fn labels(fields: &Map<String, Json>, path: &Path<'_>, out: &mut Vec<Problem>) {
    let path = path.field("labels");
    for (key, value) in texts(fields.get("labels"), &path, out) {
        refuse(path, key, "qualifiedName", out);
        refuse(path, value, "labelValue", out);
    }
}

fn annotations(fields: &Map<String, Json>, path: &Path<'_>, out: &mut Vec<Problem>) {
    let path = path.field("annotations");
    let texts = texts(fields.get("annotations"), &path, out);
    for (key, _) in &texts {
        refuse(path, &key.to_lowercase(), "qualifiedName", out);
    }
    if texts.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MOST_ANNOTATIONS {
        let detail = format!("may not be more than {MOST_ANNOTATIONS} bytes");
        out.push(Problem::bare(Cause::TooLong, path, &detail));
    }
}
