//! The environment of a container: values, and what the downward API knows of the pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::network::NODE;
use super::plan::{NODE_NAME, Pod};

/// The variables of a container.
///
/// # Errors
/// A source that a node like this does not know.
pub fn variables(pod: &Pod, container: &Container) -> Result<BTreeMap<String, String>, String> {
    let mut known = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => from(pod, container, source).map_err(|error| format!("env {}: {error}", variable.name))?,
            None => expand(variable.value.as_deref().unwrap_or_default(), &known),
        };
        known.insert(variable.name.clone(), value);
    }
    Ok(known)
}

/// Replaces `$(NAME)` where the name is known.
pub fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$(") {
        out.push_str(before);
        let found = after.split_once(')').and_then(|(name, after)| Some((known.get(name)?, after)));
        rest = match found {
            Some((value, after)) => {
                out.push_str(value);
                after
            }
            None => {
                out.push_str("$(");
                after
            }
        };
    }
    out + rest
}

fn from(pod: &Pod, container: &Container, source: &EnvVarSource) -> Result<String, String> {
    match (&source.field_ref, &source.resource_field_ref) {
        (Some(selector), _) => field(pod, &selector.field_path),
        (None, Some(selector)) => resource(container, selector),
        (None, None) => Err("this node knows fields and resources only".into()),
    }
}

/// A field of a pod.
///
/// # Errors
/// It has no such field here.
pub fn field(pod: &Pod, path: &str) -> Result<String, String> {
    let of = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    let metadata = &pod.manifest.metadata;
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return match map {
            "metadata.labels" => Ok(of(&metadata.labels, key)),
            "metadata.annotations" => Ok(of(&metadata.annotations, key)),
            _ => Err(format!("there is no field {path}")),
        };
    }
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "spec.nodeName" => NODE_NAME.to_owned(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_else(|| "default".into()),
        "status.podIP" | "status.podIPs" => pod.ip.to_string(),
        "status.hostIP" | "status.hostIPs" => NODE.to_string(),
        _ => return Err(format!("there is no field {path}")),
    })
}

fn resource(container: &Container, selector: &ResourceFieldSelector) -> Result<String, String> {
    let resources = container.resources.as_ref();
    let (kind, name) = selector.resource.split_once('.').unwrap_or_default();
    let quantities = match kind {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(format!("there is no resource {}", selector.resource)),
    };
    let amount = |quantity: &Quantity| thousandths(&quantity.0).ok_or_else(|| format!("{:?} is no amount", quantity.0));
    let Some(quantity) = quantities.and_then(|quantities| quantities.get(name)) else {
        // Without a limit a container may have what the node has.
        return Ok(if name == "cpu" { "1".into() } else { (1_u64 << 30).to_string() });
    };
    let divisor = selector.divisor.as_ref().map(amount).transpose()?.filter(|divisor| *divisor > 0).unwrap_or(1000);
    Ok(amount(quantity)?.div_ceil(divisor).to_string())
}

/// A quantity as a number of thousandths.
fn thousandths(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("Ki", 1000 << 10),
        ("Mi", 1000 << 20),
        ("Gi", 1000 << 30),
        ("k", 1_000_000),
        ("M", 1_000_000_000),
        ("G", 1_000_000_000_000),
        ("m", 1),
        ("", 1000),
    ];
    let (number, unit) = UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    number.parse::<u64>().ok()?.checked_mul(*unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_expanded_where_they_are_known() {
        let known = BTreeMap::from([("NS".to_owned(), "default".to_owned())]);
        assert_eq!(expand("$(NS).svc, $(OTHER) and $(NS", &known), "default.svc, $(OTHER) and $(NS");
    }

    #[test]
    fn quantities_are_read() {
        let of = ["2", "2000m", "1Gi", "100m", "x"].map(thousandths);
        assert_eq!(of, [Some(2000), Some(2000), Some(1000 << 30), Some(100), None]);
    }
}
