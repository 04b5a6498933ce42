//! The cluster's signers as those who sign: meshd, as its chart starts it, finds out who asks, and approves.

use std::fs;
use std::time::SystemTime;

use futures::StreamExt;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use mesh_api::names::SpiffeId;
use mesh_ca::server::proto::{CERT_SIGNER, IstioCertificateRequest, metadata};
use mesh_ca::{Authority, Certificate, Csr, KeyKind, Lifetimes, PrivateKey, RootOptions};
use mesh_controller::install::Plan;
use serde_json::{Value, json};
use tonic::Code;

use crate::certificates::{Meshd, asked, certified, streamed, token_request};
use crate::envtest::Cluster;
use crate::rights::{install, kubeconfig_of_istiod, objects};

const SIGNER: &str = "signers.example.com/mesh";

fn plan(env: &Value, signers: &Value) -> Plan {
    let values = json!({"pilot": {"env": env}, "global": {"certSigners": signers}});
    let operator = json!({
        "metadata": {"name": "rights", "namespace": "istio-system"}, "spec": {"profile": "minimal", "values": values},
    });
    Plan::of(&operator).unwrap()
}

#[test]
fn rights_on_requests_are_given_only_where_the_cluster_signs() {
    let external = json!({"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API"});
    for (env, signers, want) in [
        (json!({}), json!([SIGNER]), None),
        (external.clone(), json!([]), Some(None)),
        (external, json!([SIGNER]), Some(Some(json!([SIGNER])))),
    ] {
        let objects = objects(plan(&env, &signers));
        let rules = objects.iter().filter(|object| object["kind"] == "ClusterRole");
        let rules = rules.flat_map(|role| role["rules"].as_array().unwrap());
        let ours: Vec<_> = rules.filter(|rule| rule["apiGroups"] == json!(["certificates.k8s.io"])).collect();
        let approve = ours.iter().find(|rule| rule["verbs"] == json!(["approve"]));
        let got = (!ours.is_empty()).then(|| approve.map(|rule| rule["resourceNames"].clone()));
        assert_eq!(got, want, "{env} {signers}");
    }
}

/// Signs what is approved, as the controller of a signer does; for the account `refused` it fails.
async fn sign(client: Client, authority: &Authority) {
    let requests = Api::<CertificateSigningRequest>::all(client);
    let mut seen = watcher(requests.clone(), watcher::Config::default()).applied_objects().boxed();
    while let Some(object) = seen.next().await {
        let object = object.unwrap();
        let status = object.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        if status.certificate.is_some() || conditions.iter().map(|c| &*c.type_).collect::<Vec<_>>() != ["Approved"] {
            continue;
        }
        let spec = &object.spec;
        assert_eq!((&*spec.signer_name, spec.expiration_seconds), (SIGNER, Some(3600)));
        assert_eq!(spec.username.as_deref(), Some("system:serviceaccount:istio-system:istiod"));
        let csr = Csr::from_pem(&spec.request.0).unwrap();
        let id: SpiffeId = csr.uris()[0].parse().unwrap();
        let status = if &*id.service_account == "refused" {
            let failed = json!({"type": "Failed", "status": "True", "reason": "Policy", "message": "not this one"});
            json!({"conditions": [conditions[0], failed]})
        } else {
            let chain = authority.sign(&csr, &id, None, SystemTime::now()).unwrap();
            json!({"certificate": k8s_openapi::ByteString(chain.presented_pem().into_bytes())})
        };
        let status = Patch::Merge(json!({ "status": status }));
        requests.patch_status(&object.name_any(), &PatchParams::default(), &status).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_signs_for_callers_that_meshd_vouches_for() {
    let Some(cluster) = Cluster::start("Kubernetes as the signer").await else { return };
    let env = json!({"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API", "K8S_SIGNER": SIGNER});
    let objects = objects(plan(&env, &json!([SIGNER])));
    install(&cluster, &objects).await;
    for account in ["sleep", "refused"] {
        let metadata = json!({"name": account, "namespace": "default"});
        cluster.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})).await;
    }
    let mut options = RootOptions::default();
    options.key = KeyKind::EcdsaP256;
    let external = Authority::self_signed(&options, Lifetimes::default(), SystemTime::now()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("external.pem"), external.roots_pem().as_bytes()).unwrap();
    fs::write(folder.path().join("kubeconfig"), kubeconfig_of_istiod(&cluster).to_string()).unwrap();

    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let flags = ["--kubeconfig", "kubeconfig", "--external-ca-cert", "external.pem", "--pod-name", "a"];
    let meshd = Meshd::with(folder.path(), args.chain(flags));
    let (root, signing) = (external.certificate().clone(), cluster.client());
    let signing = tokio::spawn(async move { sign(signing, &external).await });

    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = |account: &str| {
        let id = format!("spiffe://td/ns/default/sa/{account}").parse().unwrap();
        Csr::write(&key, Some(&id)).unwrap()
    };
    let token = token_request(&cluster, "sleep", "istio-ca").await;
    let chain = certified(meshd.plaintext().await, &csr("sleep"), Some(&token)).await.unwrap();
    let leaf = &Certificate::all_from_pem(chain[0].as_bytes()).unwrap()[0];
    assert_eq!(leaf.uris(), ["spiffe://td/ns/default/sa/sleep"]);
    assert_eq!(chain[1..], [root.to_pem()]);

    // What would be signed as it stands in the request is refused, and so is what the signer does not sign.
    let anonymous = Csr::write(&key, None).unwrap();
    let other = token_request(&cluster, "refused", "istio-ca").await;
    for (csr, token, code, why) in [
        (&csr("other"), &token, Code::PermissionDenied, "the request is for"),
        (&anonymous, &token, Code::PermissionDenied, "no SPIFFE id"),
        (&csr("refused"), &other, Code::Unavailable, "Failed: not this one"),
    ] {
        let refused = certified(meshd.plaintext().await, csr, Some(token)).await.unwrap_err();
        assert!(refused.code() == code && refused.message().contains(why), "{refused:?}");
    }
    let metadata = Some(metadata([(CERT_SIGNER, "mine")]));
    let wish = IstioCertificateRequest { csr: csr("sleep"), validity_duration: 3600, metadata };
    let refused = asked(meshd.plaintext().await, wish, Some(&token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "nobody may choose a signer");

    // The certificate is believed, though it is not of meshd's own root; and nothing is left behind.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "istio-ca-secret", "namespace": "istio-system"}});
    let own = cluster.get(&secret).await["data"]["ca-cert.pem"].as_str().unwrap().to_owned();
    let own = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, own).unwrap();
    let own = Certificate::all_from_pem(&own).unwrap().remove(0);
    let secure = meshd.secure(&own, Some((&chain[0], &key))).await.unwrap();
    streamed(secure.clone(), "default", None).await.unwrap();
    assert_eq!(streamed(secure, "other", None).await.unwrap_err().code(), Code::PermissionDenied);
    let requests = Api::<CertificateSigningRequest>::all(cluster.client());
    assert_eq!(requests.list(&ListParams::default()).await.unwrap().items, []);
    signing.abort();
}
