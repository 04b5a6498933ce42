use serde_json::json;

use super::*;

fn plan(spec: Value) -> Plan {
    Plan::of(&json!({"metadata": {"name": "mesh", "namespace": "istio-system"}, "spec": spec})).unwrap()
}

fn wanted(spec: Value) -> Vec<Value> {
    let mut plan = plan(spec);
    let rendered = plan.render().unwrap();
    desired(&plan, rendered)
}

fn owner(name: &str) -> Owner {
    Owner { name: name.to_owned(), namespace: "istio-system".to_owned() }
}

fn find<'a>(objects: &'a mut [Value], kind: &str) -> &'a mut Value {
    objects.iter_mut().find(|object| object["kind"] == kind).unwrap()
}

fn keys(objects: &[Value]) -> Vec<String> {
    objects.iter().map(|object| Key::of(object).to_string()).collect()
}

#[test]
fn an_empty_cluster_gets_all_and_a_full_one_nothing() {
    let wanted = wanted(json!({}));
    let all = changes(&wanted, &[], &owner("mesh"));
    assert_eq!(all.apply, wanted);
    assert_eq!((all.delete.len(), all.foreign.len()), (0, 0));
    assert!(changes(&wanted, &wanted, &owner("mesh")).is_empty());
}

#[test]
fn drift_is_repaired_and_what_others_add_stays() {
    let wanted = wanted(json!({}));
    for (what, kind, change, differs) in [
        ("a field edited", "Service", json!({"spec": {"selector": {"app": "other"}}}), true),
        ("a label removed", "ConfigMap", json!({"metadata": {"labels": {OWNER: null}}}), true),
        ("a rule added", "ClusterRole", json!({"rules": [{"verbs": ["*"]}]}), true),
        ("defaults", "Deployment", json!({"spec": {"revisionHistoryLimit": 10, "replicas": 4}}), false),
        ("an amount as the apiserver writes it", "Deployment", json!({"status": {"replicas": 1}}), false),
        ("the bundle of a webhook", "ValidatingWebhookConfiguration", json!({"metadata": {"uid": "1"}}), false),
        ("no longer wanted fields", "Role", json!({"metadata": {"annotations": {APPLIED: "old"}}}), true),
    ] {
        let mut observed = wanted.clone();
        let object = find(&mut observed, kind);
        json_patch(object, &change);
        let key = Key::of(object).to_string();
        let changes = changes(&wanted, &observed, &owner("mesh"));
        assert_eq!(keys(&changes.apply), if differs { vec![key] } else { vec![] }, "{what}");
        assert_eq!(keys(&changes.delete), Vec::<String>::new(), "{what}");
    }
}

fn json_patch(base: &mut Value, patch: &Value) {
    crate::install::lay(base, patch.clone());
}

#[test]
fn what_is_no_longer_wanted_goes_and_definitions_stay() {
    let before = wanted(json!({"values": {"revisionTags": ["prod"]}}));
    let after = wanted(json!({"profile": "minimal"}));
    let change = changes(&after, &before, &owner("mesh"));
    let gone = keys(&change.delete);
    assert_eq!(gone.first().unwrap(), "MutatingWebhookConfiguration istio-revision-tag-prod", "webhooks go first");
    for key in ["Deployment istio-system/istio-ingressgateway", "Service istio-system/istiod-revision-tag-prod"] {
        assert!(gone.contains(&key.to_owned()), "{key}: {gone:?}");
    }
    let all = changes(&[], &before, &owner("mesh"));
    let kept: Vec<_> = before.iter().filter(|object| !all.delete.contains(object)).collect();
    assert_eq!(kept.len(), 16, "the definitions");
    assert!(kept.iter().all(|object| object["kind"] == "CustomResourceDefinition"));
    assert!(changes(&[], &before, &owner("other")).is_empty(), "another's objects are none of ours");
}

/// Two installations want the part that all share: whoever was first has it.
#[test]
fn what_another_owns_is_left_to_it() {
    let first = wanted(json!({"profile": "minimal"}));
    let mut second = plan(json!({"profile": "minimal", "revision": "canary"}));
    second.operator.name = "canary".into();
    let rendered = second.render().unwrap();
    let second = desired(&second, rendered);
    let change = changes(&second, &first, &owner("canary"));
    let mut foreign: Vec<_> =
        change.foreign.iter().map(|(key, owner)| (key.to_string(), owner.name.as_str())).collect();
    foreign.sort();
    let shared = [
        "ClusterRole istio-reader-istio-system",
        "ClusterRoleBinding istio-reader-istio-system",
        "ServiceAccount istio-system/istio-reader-service-account",
        "ValidatingWebhookConfiguration istiod-default-validator",
    ];
    assert_eq!(foreign, shared.map(|key| (key.to_owned(), "mesh")));
    let applied = keys(&change.apply);
    assert!(applied.contains(&"Deployment istio-system/istiod-canary".to_owned()));
    assert!(change.apply.iter().all(|object| object["kind"] != "CustomResourceDefinition"), "they are the same");
    assert!(change.delete.is_empty());
}

#[test]
fn what_an_autoscaler_decides_is_not_applied() {
    let spec = json!({"components": {"pilot": {"k8s": {"replicaCount": 3}}}});
    let replicas = |spec| find(&mut wanted(spec), "Deployment")["spec"].get("replicas").cloned();
    assert_eq!(replicas(spec.clone()), None);
    let mut fixed = spec;
    fixed["values"] = json!({"pilot": {"autoscaleEnabled": false}});
    assert_eq!(replicas(fixed), Some(json!(3)));
}

#[test]
fn amounts_are_compared_by_what_they_mean() {
    for (a, b, same) in [
        ("1000m", "1", true),
        ("1024Mi", "1Gi", true),
        ("100m", "1", false),
        ("a", "b", false),
        ("2", "2000m", true),
        ("1.0", "1", true),
        ("true", "True", false),
    ] {
        assert_eq!(covers(&json!(a), &json!(b)), same, "{a} {b}");
    }
}
