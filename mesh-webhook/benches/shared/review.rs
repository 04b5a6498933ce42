//! The review of an ordinary pod of a Deployment.

use serde_json::{Value, json};

/// Its text; the pod has these annotations.
pub(crate) fn review(annotations: &Value) -> String {
    let probe = json!({"httpGet": {"path": "/ready", "port": "http"}});
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "7", "namespace": "shop", "object": {
            "metadata": {
                "generateName": "cart-5d9-", "labels": {"app": "cart", "version": "v1", "pod-template-hash": "5d9"},
                "annotations": annotations,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-5d9", "controller": true}]},
            "spec": {
                "containers": [{
                    "name": "cart", "image": "cart:1", "ports": [{"name": "http", "containerPort": 8080}],
                    "readinessProbe": probe, "livenessProbe": probe,
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                    "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
                "serviceAccountName": "cart",
                "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}}},
    })
    .to_string()
}
