//! Whether the patches of an EnvoyFilter fit Envoy's messages: the half of its validation that needs to know them.
//!
//! As with Istio, a value that cannot be read is an error, and a field that nobody knows a warning: it may be of a newer
//! Envoy. Durations may be in Go's notation (`500ms`), which users of EnvoyFilter are used to.

use mesh_api::networking::envoy_filter::{ApplyTo, EnvoyConfigObjectPatch, EnvoyFilter, PatchContext};
use mesh_api::types::Duration;
use mesh_api::{Diagnostic, FieldPath, ObjectRef};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use crate::json;

/// What is wrong with the values of the patches.
///
/// ```
/// use mesh_api::networking::EnvoyFilter;
/// let filter: EnvoyFilter = serde_json::from_value(serde_json::json!({
///     "apiVersion": "networking.istio.io/v1alpha3",
///     "kind": "EnvoyFilter",
///     "metadata": {"name": "a", "namespace": "b"},
///     "spec": {"configPatches": [{"applyTo": "CLUSTER", "patch": {"operation": "MERGE", "value": {"name": false}}}]},
/// }))?;
/// assert_eq!(mesh_xds::envoy_filter::check_patches(&filter)[0].path.as_str(), "spec.configPatches[0].patch.value");
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn check_patches(filter: &EnvoyFilter) -> Vec<Diagnostic> {
    let name = |text: &Option<String>| text.clone().unwrap_or_default();
    let object = ObjectRef::new("EnvoyFilter", name(&filter.metadata.namespace), name(&filter.metadata.name));
    let list = FieldPath::new("spec.configPatches");
    let mut found = Findings::default();
    for (index, patch) in filter.spec.config_patches.iter().enumerate() {
        found.patch(&list.index(index).field("patch").field("value"), patch);
    }
    found.0.into_iter().map(|problem| problem.on(&object)).collect()
}

/// The message that is patched.
fn message(apply_to: ApplyTo) -> Option<&'static str> {
    Some(match apply_to {
        ApplyTo::Invalid => return None,
        ApplyTo::Cluster => "envoy.config.cluster.v3.Cluster",
        ApplyTo::Listener => "envoy.config.listener.v3.Listener",
        ApplyTo::RouteConfiguration => "envoy.config.route.v3.RouteConfiguration",
        ApplyTo::FilterChain => "envoy.config.listener.v3.FilterChain",
        ApplyTo::HttpFilter => "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        ApplyTo::NetworkFilter => "envoy.config.listener.v3.Filter",
        ApplyTo::VirtualHost => "envoy.config.route.v3.VirtualHost",
        ApplyTo::HttpRoute => "envoy.config.route.v3.Route",
        ApplyTo::ExtensionConfig => "envoy.config.core.v3.TypedExtensionConfig",
        ApplyTo::Bootstrap => "envoy.config.bootstrap.v3.Bootstrap",
        ApplyTo::ListenerFilter => "envoy.config.listener.v3.ListenerFilter",
    })
}

#[derive(Default)]
struct Findings(Vec<Diagnostic>);

impl Findings {
    fn patch(&mut self, path: &FieldPath, patch: &EnvoyConfigObjectPatch) {
        let for_waypoint = patch.r#match.as_ref().is_some_and(|found| found.context == PatchContext::Waypoint);
        let value = patch.patch.as_ref().and_then(|patch| patch.value.as_ref());
        let (false, Some(value), Some(name)) = (for_waypoint, value, message(patch.apply_to)) else { return };
        let Ok(descriptor) = json::descriptor(name) else { return };
        let mut value = value.clone();
        self.typed_config(path, &descriptor, &value);
        self.fields(path, &descriptor, &mut value);
        if let Err(why) = DynamicMessage::deserialize(descriptor, Value::Object(value)) {
            self.error(path, "InvalidPatch", format!("Envoy filter: the value does not fit {name}: {why}"));
        }
    }

    fn error(&mut self, path: &FieldPath, code: &'static str, message: String) {
        self.0.push(Diagnostic::error(code, message).at(path.clone()));
    }

    fn warning(&mut self, path: &FieldPath, code: &'static str, message: String) {
        self.0.push(Diagnostic::warning(code, message).at(path.clone()));
    }

    /// Looks at each field of a message and leaves those that the message takes.
    fn fields(&mut self, path: &FieldPath, message: &MessageDescriptor, fields: &mut Map<String, Value>) {
        fields.retain(|name, value| {
            let path = path.field(name);
            let known = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
            let Some(field) = known else {
                let message = format!("Envoy filter: {} has no field {name}; it is ignored", message.full_name());
                self.warning(&path, "UnknownField", message);
                return false;
            };
            self.field(&path, &field, value)
        });
    }

    /// False if the value has to be left out for the rest to be read.
    fn field(&mut self, path: &FieldPath, field: &FieldDescriptor, value: &mut Value) -> bool {
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        let Kind::Message(message) = kind else { return true };
        let mut one = |path: FieldPath, value: &mut Value| self.value(&path, &message, value);
        match value {
            Value::Array(items) if field.is_list() => {
                let mut index = 0..;
                items.retain_mut(|item| one(path.index(index.next().unwrap_or_default()), item));
            }
            Value::Object(entries) if field.is_map() => entries.retain(|key, item| one(path.field(key), item)),
            value => return one(path.clone(), value),
        }
        true
    }

    fn value(&mut self, path: &FieldPath, message: &MessageDescriptor, value: &mut Value) -> bool {
        match (message.full_name(), &mut *value) {
            ("google.protobuf.Duration", Value::String(text)) => {
                if let Ok(duration) = text.parse::<Duration>() {
                    *text = duration.to_string();
                }
            }
            ("google.protobuf.Any", Value::Object(fields)) => return self.any(path, fields),
            (name, Value::Object(fields)) if !name.starts_with("google.protobuf.") => {
                self.fields(path, message, fields)
            }
            _ => {}
        }
        true
    }

    fn any(&mut self, path: &FieldPath, fields: &mut Map<String, Value>) -> bool {
        let Some(type_url) = fields.get("@type").and_then(Value::as_str).map(str::to_owned) else { return true };
        let Ok(message) = json::descriptor(&type_url) else {
            // Extensions of today that this build carries no descriptors of.
            if !(type_url.contains("/envoy.") && type_url.contains(".v3")) {
                let hint = if type_url.contains(".v2.") { "try using the v3 XDS API" } else { "check the @type" };
                let message = format!("Envoy filter: referenced type unknown (hint: {hint}): {type_url}");
                self.error(&path.field("@type"), "UnknownType", message);
            }
            return false;
        };
        if !message.full_name().starts_with("google.protobuf.") {
            let name = fields.remove("@type");
            self.fields(path, &message, fields);
            fields.extend(name.map(|name| ("@type".to_owned(), name)));
        }
        true
    }

    /// A filter is known by the type of its settings; its name alone was enough in former times.
    fn typed_config(&mut self, path: &FieldPath, message: &MessageDescriptor, fields: &Map<String, Value>) {
        const GIVEN: [&str; 4] = ["typed_config", "typedConfig", "config_discovery", "configDiscovery"];
        if message.get_field_by_name("typed_config").is_some() && !GIVEN.iter().any(|name| fields.contains_key(*name)) {
            let name = fields.get("name").and_then(Value::as_str).unwrap_or_default();
            let message =
                format!("using deprecated types by name without typed_config; {name}: add typed_config with its @type");
            self.warning(path, "MissingType", message);
        }
        for (name, value) in fields {
            let field = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
            if let (Some(Kind::Message(inner)), Value::Object(fields)) =
                (field.filter(|f| !f.is_map()).map(|f| f.kind()), value)
                && !inner.full_name().starts_with("google.protobuf.")
            {
                self.typed_config(&path.field(name), &inner, fields);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(apply_to: &str, value: Value) -> Vec<String> {
        let filter: EnvoyFilter = serde_json::from_value(json!({
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": "a", "namespace": "b"},
            "spec": {"configPatches": [{"applyTo": apply_to, "patch": {"operation": "ADD", "value": value}}]},
        }))
        .unwrap();
        check_patches(&filter)
            .into_iter()
            .map(|problem| format!("{:?} {}: {}", problem.severity, problem.path, problem.message))
            .collect()
    }

    #[test]
    fn values_fit_their_messages() {
        let authz = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
        for (apply_to, value, expected) in [
            ("CLUSTER", json!({"lb_policy": "RING_HASH", "dns_refresh_rate": "500ms", "connectTimeout": "1s"}), ""),
            ("CLUSTER", json!({"name": false}), "Error spec.configPatches[0].patch.value: Envoy filter: the value"),
            (
                "CLUSTER",
                json!({"nmae": "a"}),
                "Warning spec.configPatches[0].patch.value.nmae: Envoy filter: envoy.config.cluster.v3.Cluster has no field",
            ),
            ("NETWORK_FILTER", json!({"typed_config": {"@type": authz}}), ""),
            (
                "NETWORK_FILTER",
                json!({"typed_config": {"@type": authz, "stat_prefixx": "a"}}),
                "Warning spec.configPatches[0].patch.value.typed_config.stat_prefixx",
            ),
            (
                "NETWORK_FILTER",
                json!({"typed_config": {"@type": "type.googleapis.com/envoy.config.filter.network.ext_authz.v2.ExtAuthz"}}),
                "Error spec.configPatches[0].patch.value.typed_config.@type: Envoy filter: referenced type unknown (hint: try using the v3",
            ),
            (
                "HTTP_FILTER",
                json!({"typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.of_tomorrow.v3.New"}}),
                "",
            ),
            (
                "HTTP_FILTER",
                json!({"name": "a"}),
                "Warning spec.configPatches[0].patch.value: using deprecated types by name without typed_config; a",
            ),
            (
                "LISTENER",
                json!({"filter_chains": [{"filters": [{"name": "a", "typedConfig": {"@type": authz, "stat_prefix": 5}}]}]}),
                "Error",
            ),
        ] {
            let found = problems(apply_to, value.clone());
            assert_eq!(found.is_empty(), expected.is_empty(), "{value}: {found:?}");
            assert!(found.first().is_none_or(|problem| problem.starts_with(expected)), "{value}: {found:?}");
        }
    }
}
