//! Telemetry: providers with names, tags with values.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::At;
use super::labels::policy_targets;
use crate::schema::expression;
use crate::telemetry::{CustomTagSource, MetricMatch, Metrics, ProviderRef, TagOperation, TelemetrySpec, Tracing};

pub(super) fn check(at: &At<'_>, _: &ObjectMeta, spec: &TelemetrySpec) {
    policy_targets(at, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    at.each("metrics", &spec.metrics, metrics);
    if spec.tracing.len() > 1 {
        at.field("tracing").warning("TooMany", "multiple tracing is not currently supported; only the first counts");
    }
    at.each("tracing", &spec.tracing, tracing);
    at.each("accessLogging", &spec.access_logging, |at, logging| {
        if let Some(filter) = &logging.filter {
            let read = expression(&filter.expression).map_err(|why| format!("must be a valid CEL expression, {why}"));
            at.field("filter").field("expression").check("InvalidExpression", read);
        }
        providers(at, &logging.providers);
    });
}

fn providers(at: &At<'_>, list: &[ProviderRef]) {
    at.each("providers", list, |at, provider| {
        at.field("name").refuse(
            provider.name.is_empty(),
            "MissingProvider",
            "providers.name may not be empty; name one of the mesh's extensionProviders",
        );
    });
}

fn tracing(at: &At<'_>, tracing: &Tracing) {
    if tracing.providers.len() > 1 {
        at.field("providers")
            .warning("TooMany", "multiple providers is not currently supported; only the first counts");
    }
    providers(at, &tracing.providers);
    if let Some(percentage) = tracing.random_sampling_percentage.filter(|p| !(0.0..=100.0).contains(p)) {
        let message = format!("randomSamplingPercentage must be in range [0.0, 100.0], not {percentage}");
        at.field("randomSamplingPercentage").error("InvalidPercentage", message);
    }
    at.entries("customTags", &tracing.custom_tags, |at, name, tag| {
        at.refuse(name.is_empty(), "MissingName", "tag name may not be empty; name the tag");
        let empty = match &tag.r#type {
            Some(CustomTagSource::Literal(text)) if text.value.is_empty() => "literal tag value",
            Some(CustomTagSource::Header(lookup)) if lookup.name.is_empty() => "header tag name",
            Some(CustomTagSource::Environment(lookup)) if lookup.name.is_empty() => "environment tag name",
            _ => return,
        };
        at.error("EmptyValue", format!("{empty} may not be empty; add it"));
    });
}

fn metrics(at: &At<'_>, metrics: &Metrics) {
    providers(at, &metrics.providers);
    at.each("overrides", &metrics.overrides, |at, change| {
        at.entries("tagOverrides", &change.tag_overrides, |at, name, tag| {
            if name.is_empty() {
                at.warning("MissingName", "tagOverrides.name may not be empty; name the tag");
            }
            let problem = match (tag.operation, tag.value.is_empty()) {
                (TagOperation::Upsert, true) => "tagOverrides.value must be set when operation is UPSERT",
                (TagOperation::Remove, false) => "tagOverrides.value may only be set when operation is UPSERT",
                _ => return,
            };
            at.field("value").error("InvalidValue", problem);
        });
        if let Some(MetricMatch::CustomMetric(name)) =
            change.r#match.as_ref().and_then(|chosen| chosen.metric_match.as_ref())
        {
            let at = at.field("match");
            at.field("customMetric").refuse(
                name.is_empty(),
                "MissingName",
                "customMetric may not be empty; name the metric",
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::telemetry::Telemetry;
    use crate::validate::testing::check;

    #[test]
    fn providers_and_tags() {
        let tracing = |tracing: Value| json!({"tracing": [tracing]});
        let tag = |tag: Value| tracing(json!({"customTags": {"a": tag}}));
        let filter = |text: &str| json!({"accessLogging": [{"filter": {"expression": text}}]});
        let change = |change: Value| json!({"metrics": [{"overrides": [change]}]});
        check::<Telemetry>(&[
            (json!({}), &[]),
            (
                json!({"accessLogging": [{"providers": [{}]}]}),
                &["E spec.accessLogging[0].providers[0].name: providers.name may not"],
            ),
            (filter("response.code >= 400 && request.url_path.matches('/a(b')"), &[]),
            (filter("some-cel-expression"), &[]),
            (filter(""), &["E spec.accessLogging[0].filter.expression: must be a valid CEL expression"]),
            (filter("response.code >= "), &["filter.expression: must be a valid CEL expression"]),
            (filter("a b"), &["filter.expression: must be a valid CEL expression"]),
            (filter("has(a)"), &["filter.expression: must be a valid CEL expression"]),
            (json!({"tracing": [{}, {}]}), &["W spec.tracing: multiple tracing"]),
            (
                tracing(json!({"providers": [{"name": "a"}, {"name": "b"}]})),
                &["W spec.tracing[0].providers: multiple providers"],
            ),
            (tracing(json!({"randomSamplingPercentage": 101})), &["randomSamplingPercentage must be in range"]),
            (tracing(json!({"randomSamplingPercentage": 100, "customTags": {"a": {"literal": {"value": "b"}}}})), &[]),
            (tracing(json!({"customTags": {"": {"literal": {"value": "b"}}}})), &["tag name may not be empty"]),
            (tag(json!({"literal": {}})), &["literal tag value may not be empty"]),
            (tag(json!({"header": {}})), &["header tag name may not be empty"]),
            (tag(json!({"environment": {}})), &["environment tag name may not be empty"]),
            (tag(json!({"formatter": {}})), &[]),
            (change(json!({"tagOverrides": {"a": {"value": "b"}}, "match": {"metric": "REQUEST_COUNT"}})), &[]),
            (change(json!({"tagOverrides": {"a": {}}})), &["tagOverrides.a.value: tagOverrides.value must be set"]),
            (
                change(json!({"tagOverrides": {"a": {"operation": "REMOVE", "value": "b"}}})),
                &["may only be set when operation is UPSERT"],
            ),
            (
                change(json!({"tagOverrides": {"": {"operation": "REMOVE"}}})),
                &["W spec.metrics[0].overrides[0].tagOverrides."],
            ),
            (change(json!({"match": {"customMetric": ""}})), &["match.customMetric: customMetric may not be empty"]),
            (
                json!({"selector": {"matchLabels": {"a": "b"}}, "targetRef": {"kind": "Service", "name": "a"}}),
                &["only one of targetRefs"],
            ),
        ]);
    }
}
