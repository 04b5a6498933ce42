//! Validation of Istio's objects at admission: what reading an object finds and what it says of itself, in the words of
//! [`mesh_api`], and what others add who know more: the objects that are there already, or Envoy.
//!
//! A mistake denies the object, all else is a warning. Nothing but an Istio object is ever denied: not the deletion of one, not
//! an object of a kind that we don't know. So no configuration of the webhook makes it stand in the way of its own pods,
//! of namespaces, or of whoever cleans up.

use std::borrow::Cow;
use std::sync::Arc;

use mesh_api::document::Node;
use mesh_api::object::group_and_version;
use mesh_api::{Diagnostic, FieldPath, Kind, Object, Severity, Validate};
use serde_json::Value;

use crate::review::{Outcome, Request, Response};
use crate::webhook::Admit;

/// What others find about an object.
type Check = Arc<dyn Fn(&Object) -> Vec<Diagnostic> + Send + Sync>;

/// Istio's words for why something was not found valid.
mod reason {
    pub(super) const UNSUPPORTED_OPERATION: &str = "unsupported_operation";
    pub(super) const UNREADABLE: &str = "yaml_decode_error";
    pub(super) const UNKNOWN_TYPE: &str = "unknown_type";
    pub(super) const WRONG_FORM: &str = "crd_conversion_error";
    pub(super) const INVALID: &str = "invalid_resource";
}

/// Says whether Istio's objects may be stored.
///
/// ```
/// use mesh_api::Diagnostic;
/// use mesh_webhook::{Validator, Webhook};
///
/// // Whoever knows more than the object itself may add to what is found: an error denies, a warning warns.
/// let forbidden = |object: &mesh_api::Object| match object.metadata().name.as_deref() {
///     Some("default") => vec![Diagnostic::warning("Name", "a name says what an object is for; choose another")],
///     _ => Vec::new(),
/// };
/// let hook = Webhook::new().route("/validate", Validator::new().also(forbidden));
/// let answer = hook.answer("/validate", br#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
///     "request": {"uid": "1", "operation": "CREATE", "object": {"apiVersion": "networking.istio.io/v1",
///     "kind": "Gateway", "metadata": {"name": "default", "namespace": "shop"}, "spec": {"servers": []}}}}"#);
/// let response = answer.unwrap().response.unwrap();
/// assert!(!response.allowed && response.warnings.len() == 1);
/// assert!(response.status.unwrap().message.contains("gateway must have at least one server"));
/// ```
#[derive(Clone, Default)]
pub struct Validator {
    checks: Vec<Check>,
}

impl Validator {
    /// A validator that looks at each object by itself.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also says what this finds.
    #[must_use]
    pub fn also(mut self, check: impl Fn(&Object) -> Vec<Diagnostic> + Send + Sync + 'static) -> Self {
        self.checks.push(Arc::new(check));
        self
    }

    /// All that is found about an object of one of Istio's kinds, or why it can't be read.
    fn problems(&self, kind: &Kind, object: &Value) -> Result<Vec<Diagnostic>, Box<Diagnostic>> {
        // All versions of a kind have one form, so one that we don't serve yet is read as one that we do.
        let version = group_and_version(text(object, "apiVersion")).1;
        let version = kind.versions.iter().find(|served| **served == version).or(kind.versions.first());
        let api_version = format!("{}/{}", kind.group, version.copied().unwrap_or_default());
        let (object, unknown) = Object::from_node(&api_version, kind.kind, &Node::from_json(object))
            .map_err(|error| Box::new(Diagnostic::error(error.code, error.message).at(error.path)))?;
        let reference = object.object_ref();
        let mut problems: Vec<_> = unknown.into_iter().map(|(path, _)| unknown_field(path).on(&reference)).collect();
        problems.extend(object.validate());
        problems.extend(self.checks.iter().flat_map(|check| check(&object)));
        Ok(problems)
    }
}

impl Admit for Validator {
    fn admit(&self, request: &Request, _: &str) -> Response {
        let count = |response: Response, outcome| if request.dry_run { response } else { response.counted(outcome) };
        if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
            return count(Response::allow(), Outcome::Invalid(None, reason::UNSUPPORTED_OPERATION));
        }
        let object = in_its_namespace(request);
        let (api_version, kind) = (text(&object, "apiVersion"), text(&object, "kind"));
        if api_version.is_empty() || kind.is_empty() {
            let message = "the review has no object with apiVersion and kind in it";
            return count(Response::deny(400, message), Outcome::Invalid(None, reason::UNREADABLE));
        }
        let group = group_and_version(api_version).0;
        let Some(kind) = Kind::find(group, kind).filter(|kind| kind.group.ends_with(".istio.io")) else {
            return count(Response::allow(), Outcome::Invalid(None, reason::UNKNOWN_TYPE));
        };
        let problems = match self.problems(kind, &object) {
            Ok(problems) => problems,
            Err(problem) => {
                let message = format!("configuration is invalid: {}", words(&problem));
                return count(Response::deny(422, message), Outcome::Invalid(Some(kind), reason::WRONG_FORM));
            }
        };
        let (errors, others): (Vec<_>, Vec<_>) =
            problems.iter().partition(|problem| problem.severity == Severity::Error);
        let (response, outcome) = if errors.is_empty() {
            (Response::allow(), Outcome::Valid(kind))
        } else {
            let errors: Vec<String> = errors.into_iter().map(words).collect();
            let message = format!("configuration is invalid: {}", errors.join("; "));
            (Response::deny(422, message), Outcome::Invalid(Some(kind), reason::INVALID))
        };
        count(Response { warnings: others.into_iter().map(words).collect(), ..response }, outcome)
    }
}

/// The object with the namespace that it will be in.
fn in_its_namespace(request: &Request) -> Cow<'_, Value> {
    let written = request.object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    if !written.is_empty() || request.namespace.is_empty() {
        return Cow::Borrowed(&request.object);
    }
    let mut object = request.object.clone();
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert("namespace".to_owned(), request.namespace.as_str().into());
    }
    Cow::Owned(object)
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Within `spec` the apiserver leaves out what the kind doesn't have; beside it, it is a misspelt `spec`.
fn unknown_field(path: FieldPath) -> Diagnostic {
    let message = "unknown field; check its spelling and its place, or remove it";
    let told = if path.as_str().contains(['.', '[']) { Diagnostic::warning } else { Diagnostic::error };
    told("UnknownField", message).at(path)
}

/// The problem with its field, without the object: the apiserver names that.
fn words(problem: &Diagnostic) -> String {
    match problem.path.as_str() {
        "" => format!("{} [{}]", problem.message, problem.code),
        path => format!("{path}: {} [{}]", problem.message, problem.code),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn admit(operation: &str, object: Value) -> Response {
        let request =
            Request { operation: operation.to_owned(), namespace: "shop".to_owned(), object, ..Request::default() };
        Validator::new().admit(&request, "")
    }

    fn virtual_service(version: &str, spec: Value) -> Value {
        json!({"apiVersion": format!("networking.istio.io/{version}"), "kind": "VirtualService",
               "metadata": {"name": "cart"}, "spec": spec})
    }

    fn good() -> Value {
        json!({"hosts": ["cart"], "http": [{"route": [{"destination": {"host": "cart"}}]}]})
    }

    #[test]
    fn what_is_valid_is_allowed_and_what_is_not_is_denied_with_its_field() {
        for version in ["v1", "v1beta1", "v1alpha3", "v2"] {
            let response = admit("CREATE", virtual_service(version, good()));
            assert!(response.allowed && response.warnings.is_empty(), "{version}: {response:?}");
            assert!(matches!(response.outcome, Outcome::Valid(_)));
        }
        for (spec, reason, told) in [
            (json!({"hosts": ["cart"]}), reason::INVALID, "configuration is invalid: spec"),
            (json!({"hosts": "cart"}), reason::WRONG_FORM, "spec.hosts: "),
            (
                json!({"hosts": ["cart"], "http": [{"timeout": "0s", "route": [{"destination": {"host": "a b"}}]}]}),
                reason::INVALID,
                "spec.http[0].route[0].destination.host: ",
            ),
        ] {
            let response = admit("UPDATE", virtual_service("v1", spec));
            assert!(matches!(response.outcome, Outcome::Invalid(Some(_), why) if why == reason), "{response:?}");
            let status = response.status.unwrap();
            assert!(!response.allowed && status.code == 422 && status.message.contains(told), "{status:?}");
        }
    }

    #[test]
    fn unknown_fields() {
        let mut spec = good();
        spec["http"][0]["retry"] = json!({});
        let response = admit("CREATE", virtual_service("v1", spec));
        assert!(
            response.allowed && response.warnings[0].starts_with("spec.http[0].retry: unknown field"),
            "{response:?}"
        );
        let mut object = virtual_service("v1", good());
        object["specs"] = json!({});
        let response = admit("CREATE", object);
        assert!(!response.allowed && response.status.unwrap().message.contains("specs: unknown field"));
    }

    #[test]
    fn nothing_else_is_in_the_way() {
        let broken = virtual_service("v1", json!({}));
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": 5});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}});
        let newer = json!({"apiVersion": "networking.istio.io/v1", "kind": "Wormhole", "metadata": {"name": "w"}});
        for (operation, object) in [
            ("DELETE", broken.clone()),
            ("DELETE", Value::Null),
            ("CREATE", pod),
            ("CREATE", namespace),
            ("CREATE", newer),
        ] {
            let response = admit(operation, object);
            assert!(response.allowed && response.warnings.is_empty(), "{response:?}");
        }
        let dry = Request { operation: "CREATE".to_owned(), object: broken, dry_run: true, ..Request::default() };
        let response = Validator::new().admit(&dry, "");
        assert!(!response.allowed && response.outcome == Outcome::Uncounted);
        assert_eq!(admit("CREATE", json!([])).status.unwrap().code, 400);
    }

    #[test]
    fn others_may_add_what_they_know() {
        let object = virtual_service("v1", good());
        let request =
            Request { operation: "CREATE".to_owned(), namespace: "shop".to_owned(), object, ..Request::default() };
        let seen = |told: Diagnostic| {
            Validator::new().also(move |object| vec![told.clone().on(&object.object_ref())]).admit(&request, "")
        };
        let warned = seen(Diagnostic::warning("Taken", "shop/old has this host").at(FieldPath::new("spec.hosts[0]")));
        assert_eq!(
            (warned.allowed, warned.warnings),
            (true, vec!["spec.hosts[0]: shop/old has this host [Taken]".to_owned()])
        );
        assert!(!seen(Diagnostic::error("Taken", "taken")).allowed);
    }
}
