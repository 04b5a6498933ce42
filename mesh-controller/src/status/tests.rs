use mesh_api::{Name, document};
use serde_json::{Value, json};

use super::*;

const AT: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

fn time(text: &str) -> Time {
    serde_json::from_value(json!(text)).unwrap()
}

/// A state of the mesh with these objects.
fn published(text: &str) -> Published {
    let parsed = document::parse(&Name::from("status.yaml"), text);
    assert_eq!(parsed.diagnostics().count(), 0);
    let mut state = Published::default();
    state.snapshot = state.snapshot.apply(parsed.objects().cloned().map(mesh_xds::Change::Upsert));
    state.objects = parsed.objects().map(|object| (object.object_ref(), object.clone())).collect();
    state
}

fn virtual_service(host: &str, status: &Value) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: cart, namespace: shop, generation: 3}}\n\
         spec: {{hosts: [cart], http: [{{route: [{{destination: {{host: {host}}}}}]}}]}}\nstatus: {status}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}\n"
    )
}

/// What must be written where the VirtualService sends requests to this host and has this status.
fn written(host: &str, status: &Value, now: &str) -> Option<Value> {
    let state = published(&virtual_service(host, status));
    let changes = changes(&findings(&state, &Problems::default()), &state.objects, &BTreeMap::new(), &time(now));
    assert!(changes.iter().all(|change| change.object.name == "cart" && change.object.kind == "VirtualService"));
    assert!(changes.len() <= 1);
    changes.first().map(|change| json!(change.status))
}

#[test]
fn what_is_wrong_is_written_once() {
    let status = written("card", &json!({}), AT).unwrap();
    assert_eq!(
        status["validationMessages"],
        json!([{"type": {"name": "UnservedHost", "code": "UnservedHost"}, "level": "WARNING"}])
    );
    assert_eq!(status["observedGeneration"], json!(3));
    let condition = &status["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"], &condition["lastTransitionTime"]),
        (&json!(CONDITION), &json!("False"), &json!("ProblemsFound"), &json!(AT))
    );
    let message = condition["message"].as_str().unwrap();
    assert!(message.starts_with("UnservedHost spec.http[0]: "), "{message}");
    assert_eq!(written("card", &status, LATER), None, "it says so already");
}

#[test]
fn a_new_generation_is_said_to_be_seen_and_the_condition_keeps_its_age() {
    let mut old = written("card", &json!({}), AT).unwrap();
    old["observedGeneration"] = json!(2);
    let new = written("card", &old, LATER).unwrap();
    assert_eq!((&new["observedGeneration"], &new["conditions"][0]["lastTransitionTime"]), (&json!(3), &json!(AT)));
}

#[test]
fn where_nothing_is_wrong_nothing_is_written_and_what_was_goes() {
    let others = json!({"conditions": [{"type": "Reconciled", "status": "True"}], "observedGeneration": 3});
    assert_eq!(written("cart", &json!({}), AT), None);
    assert_eq!(written("cart", &others, AT), None);
    let status = written("card", &others, AT).unwrap();
    assert_eq!(status["conditions"][0], others["conditions"][0], "what others say stays");
    assert_eq!(written("cart", &status, AT), Some(json!({"conditions": others["conditions"]})));
}

#[test]
fn what_was_written_and_is_not_heard_of_yet_counts() {
    let state = published(&virtual_service("card", &json!({})));
    let found = findings(&state, &Problems::default());
    let first = changes(&found, &state.objects, &BTreeMap::new(), &time(AT));
    let recent = first.into_iter().map(|change| (change.object, change.status)).collect();
    assert_eq!(changes(&found, &state.objects, &recent, &time(LATER)), []);
}

#[test]
fn what_is_worst_comes_first_and_each_once() {
    let of = |severity, path: &str| Diagnostic::new(severity, "Code", "why").at(mesh_api::FieldPath::new(path));
    let told = worst_first(vec![
        of(Severity::Info, "a"),
        of(Severity::Warning, "c"),
        of(Severity::Error, "d"),
        of(Severity::Warning, "b"),
        of(Severity::Error, "d"),
    ]);
    assert_eq!(told.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["d", "b", "c", "a"]);
}
