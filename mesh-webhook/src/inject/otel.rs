//! What a pod is called in OpenTelemetry: the resource attributes that Kubernetes' conventions make of its metadata.

use serde_json::Value;

/// The value of `OTEL_RESOURCE_ATTRIBUTES`, or nothing where no tracing provider of the mesh wants it. The arguments are
/// MeshConfig, annotations, labels, namespace and containers.
pub(super) fn attributes(arguments: &[Value]) -> String {
    let [mesh, annotations, labels, namespace, containers] = arguments else { return String::new() };
    let providers = mesh.get("extensionProviders").and_then(Value::as_array);
    let wanted = providers.into_iter().flatten().any(|provider| {
        provider.pointer("/opentelemetry/serviceAttributeEnrichment").and_then(Value::as_str)
            == Some("OTEL_SEMANTIC_CONVENTIONS")
    });
    if !wanted {
        return String::new();
    }
    let text = |value: Option<&Value>| value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let annotated = |name: &str| text(annotations.get(format!("resource.opentelemetry.io/{name}")));
    let namespace = text(Some(namespace));
    let all = containers.as_array().map(Vec::as_slice).unwrap_or_default();
    let version = || match all {
        [only] => version(&text(only.get("image"))?),
        _ => None,
    };
    let instance = || {
        let first = text(all.first()?.get("name")).unwrap_or_default();
        // The pod's name is not known yet; the kubelet puts it in.
        Some(format!("{}.$(POD_NAME).{first}", namespace.clone().unwrap_or_default()))
    };
    let attributes = [
        ("service.namespace", annotated("service.namespace").or_else(|| namespace.clone())),
        (
            "service.version",
            annotated("service.version").or_else(|| text(labels.get("app.kubernetes.io/version"))).or_else(version),
        ),
        ("service.instance.id", annotated("service.instance.id").or_else(instance)),
    ];
    let said = attributes.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    said.collect::<Vec<_>>().join(",")
}

/// The tag and digest of an image, `registry:5000/name:tag@digest`.
fn version(image: &str) -> Option<String> {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.rsplit_once(':').map(|(_, tag)| tag);
    let parts: Vec<&str> = [tag, digest].into_iter().flatten().filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join("@"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_the_pod_and_what_it_says() {
        let mesh = json!({"extensionProviders": [{"opentelemetry": {"serviceAttributeEnrichment": "OTEL_SEMANTIC_CONVENTIONS"}}]});
        let of = |mesh: &Value, annotations: Value, image: &str| {
            attributes(&[mesh.clone(), annotations, json!({}), json!("shop"), json!([{"name": "app", "image": image}])])
        };
        let instance = "service.instance.id=shop.$(POD_NAME).app";
        assert_eq!(
            of(&mesh, json!({}), "r:5000/n:1@sha256:a"),
            format!("service.namespace=shop,service.version=1@sha256:a,{instance}")
        );
        assert_eq!(of(&mesh, json!({}), "r:5000/n"), format!("service.namespace=shop,{instance}"));
        let said = json!({"resource.opentelemetry.io/service.version": "2"});
        assert_eq!(of(&mesh, said, "n:1"), format!("service.namespace=shop,service.version=2,{instance}"));
        assert_eq!(of(&json!({}), json!({}), "n:1"), "");
    }
}
