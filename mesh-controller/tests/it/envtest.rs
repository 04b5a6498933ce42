//! A real kube-apiserver over a real etcd, where envtest's convention has them: `KUBEBUILDER_ASSETS`, or
//! /usr/local/kubebuilder/bin. Each is on ports and in a folder of its own, and ends with its handle.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::config::{AuthInfo, Config};
use mesh_api::Kind;
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "secret";
/// Starting takes some seconds; a busy machine gets more.
const START: Duration = Duration::from_secs(120);

/// A cluster without nodes and controllers.
pub(crate) struct Cluster {
    binaries: PathBuf,
    folder: TempDir,
    etcd_port: u16,
    port: u16,
    etcd: Process,
    apiserver: Option<Process>,
    /// The one that the methods here use; a new one takes longer than what it is asked for.
    client: Option<Client>,
}

/// A process that ends with its handle.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Cluster {
    /// Starts one; none, and a loud word, where the binaries are not at hand.
    pub(crate) async fn start(what: &str) -> Option<Self> {
        let binaries =
            std::env::var_os("KUBEBUILDER_ASSETS").map_or("/usr/local/kubebuilder/bin".into(), PathBuf::from);
        if ["etcd", "kube-apiserver"].iter().any(|name| !binaries.join(name).exists()) {
            println!("SKIPPED: {what}: no etcd and kube-apiserver in {}; set KUBEBUILDER_ASSETS", binaries.display());
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let data = folder.path().join("etcd");
        let urls = |flag: &str, port: u16| format!("--{flag}=http://127.0.0.1:{port}");
        let etcd = Command::new(binaries.join("etcd"))
            .arg(format!("--data-dir={}", data.display()))
            .args([urls("listen-client-urls", etcd_port), urls("advertise-client-urls", etcd_port)])
            .args([urls("listen-peer-urls", peer_port), "--unsafe-no-fsync".to_owned()])
            .log(folder.path(), "etcd.log");
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        for (name, label, der) in
            [("sa.key", "PRIVATE KEY", key.to_pkcs8v1().unwrap().as_ref()), ("sa.pub", "PUBLIC KEY", public.as_ref())]
        {
            std::fs::write(folder.path().join(name), pem::encode(&pem::Pem::new(label, der))).unwrap();
        }
        std::fs::write(folder.path().join("tokens.csv"), format!("{TOKEN},admin,1,\"system:masters\"\n")).unwrap();
        let mut cluster = Self { binaries, folder, etcd_port, port, etcd, apiserver: None, client: None };
        cluster.revive().await;
        Some(cluster)
    }

    /// Kills the apiserver; what it has stays in etcd.
    pub(crate) fn kill(&mut self) {
        self.apiserver = None;
    }

    /// Starts the apiserver where it was, and waits for it.
    pub(crate) async fn revive(&mut self) {
        let folder = self.folder.path();
        let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
        let process = Command::new(self.binaries.join("kube-apiserver"))
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg(format!("--secure-port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--authorization-mode=RBAC", "--allow-privileged"])
            .args([
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.96.0.0/16",
            ])
            // Nobody makes the accounts that pods would need.
            .arg("--disable-admission-plugins=ServiceAccount")
            .args([file("cert-dir", "certs"), file("token-auth-file", "tokens.csv")])
            .args([file("service-account-key-file", "sa.pub"), file("service-account-signing-key-file", "sa.key")])
            .log(folder, "apiserver.log");
        self.apiserver = Some(process);
        let (client, start) = (self.client(), Instant::now());
        let readyz = || http::Request::get("/readyz").body(Vec::new()).unwrap();
        while client.request_text(readyz()).await.is_err() {
            let log = || std::fs::read_to_string(folder.join("apiserver.log")).unwrap_or_default();
            let ended = self.apiserver.as_mut().is_none_or(|process| process.0.try_wait().unwrap().is_some());
            assert!(!ended && start.elapsed() < START, "the apiserver does not become ready:\n{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.client = Some(client);
    }

    /// How it is reached by its administrator.
    pub(crate) fn config(&self) -> Config {
        self.config_at(self.port)
    }

    /// The same through another port of this machine.
    pub(crate) fn config_at(&self, port: u16) -> Config {
        let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info = AuthInfo { token: Some(TOKEN.to_owned().into()), ..AuthInfo::default() };
        config
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A client of its administrator.
    pub(crate) fn client(&self) -> Client {
        Client::try_from(self.config()).unwrap()
    }

    /// A kubeconfig of its administrator.
    pub(crate) fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "clusters": [{"name": "test", "cluster": {"server": format!("https://127.0.0.1:{}", self.port),
                                                      "insecure-skip-tls-verify": true}}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
        })
    }

    /// Creates an object or makes it so, its status as well.
    pub(crate) async fn apply(&self, object: &Value) {
        self.try_apply(object).await.unwrap_or_else(|error| panic!("{object}: {error}"));
    }

    /// The same for an object that the apiserver may refuse; what it made of it comes back.
    pub(crate) async fn try_apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        let api = self.api(object);
        let name = text(&object["metadata"]["name"]);
        let how = PatchParams::apply("test").force();
        let applied = api.patch(name, &how, &Patch::Apply(object)).await?;
        match object.get("status") {
            Some(_) => api.patch_status(name, &how, &Patch::Apply(object)).await,
            None => Ok(applied),
        }
    }

    /// Whether the apiserver would create an object, unknown fields being mistakes; otherwise what it says.
    pub(crate) async fn would_create(&self, object: &Value) -> Result<(), String> {
        let url = format!("{}?dryRun=All&fieldValidation=Strict", self.api(object).resource_url());
        let request = http::Request::post(url).header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes()).unwrap();
        match self.client.as_ref().unwrap().request_text(request).await {
            Err(kube::Error::Api(status)) if status.code < 500 => Err(status.message),
            answer => answer.map(drop).map_err(|error| panic!("{object}: {error}")),
        }
    }

    /// An object as the apiserver has it.
    pub(crate) async fn get(&self, object: &Value) -> Value {
        let name = text(&object["metadata"]["name"]);
        serde_json::to_value(self.api(object).get(name).await.unwrap()).unwrap()
    }

    /// The same, if there is one.
    pub(crate) async fn find(&self, object: &Value) -> Option<Value> {
        let name = text(&object["metadata"]["name"]);
        let found = self.api(object).get_opt(name).await.unwrap();
        found.map(|found| serde_json::to_value(found).unwrap())
    }

    /// Deletes an object, which somebody may make again at once. Nobody stops a pod, so none is waited for.
    pub(crate) async fn delete_only(&self, object: &Value) {
        let how = DeleteParams::default().grace_period(0);
        match self.api(object).delete(text(&object["metadata"]["name"]), &how).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.unwrap()),
        }
    }

    /// Deletes an object and waits until it is gone.
    pub(crate) async fn delete(&self, object: &Value) {
        let api = self.api(object);
        let name = text(&object["metadata"]["name"]);
        api.delete(name, &Default::default()).await.unwrap();
        if object["kind"] == "Namespace" {
            // What the namespace controller does when all in it is gone.
            let mut namespace = api.get(name).await.unwrap();
            namespace.data["spec"] = json!({});
            api.replace_subresource("finalize", name, &Default::default(), &namespace).await.unwrap();
        }
        while api.get_opt(name).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Applies a CustomResourceDefinition and waits until its kind is served.
    pub(crate) async fn define(&self, definition: &Value) {
        self.apply(definition).await;
        let api = self.api(definition);
        let established = |definition: &DynamicObject| {
            let conditions = definition.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
        };
        while !established(&api.get(definition["metadata"]["name"].as_str().unwrap()).await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Established is said a moment before it holds.
        let (spec, version) = (&definition["spec"], &definition["spec"]["versions"][0]["name"]);
        let path = format!("/apis/{}/{}/{}", text(&spec["group"]), text(version), text(&spec["names"]["plural"]));
        let list = || http::Request::get(&path).body(Vec::new()).unwrap();
        let client = self.client.as_ref().unwrap();
        while client.request_text(list()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes etcd forget all but the newest versions, so that nobody can go on from an older one.
    pub(crate) async fn compact(&self) {
        let nodes = http::Request::get("/api/v1/nodes").body(Vec::new()).unwrap();
        let version = self.client().request::<Value>(nodes).await.unwrap()["metadata"]["resourceVersion"].clone();
        let body = json!({"revision": version}).to_string();
        let request = format!(
            "POST /v3/kv/compaction HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let port = self.etcd_port;
        let answer = tokio::task::spawn_blocking(move || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let (group, version) = mesh_api::object::group_and_version(text(&object["apiVersion"]));
        let kind = text(&object["kind"]);
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let cluster = kind == "CustomResourceDefinition"
            || kind.ends_with("WebhookConfiguration")
            || Kind::find(group, kind).is_some_and(|kind| !kind.namespaced);
        let client = self.client.clone().unwrap();
        match cluster {
            true => Api::all_with(client, &resource),
            false => {
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
                Api::namespaced_with(client, namespace, &resource)
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Etcd last: an apiserver without it hangs on its way out.
        self.apiserver = None;
        let _ = self.etcd.0.kill();
    }
}

trait Logged {
    fn log(&mut self, folder: &Path, name: &str) -> Process;
}

impl Logged for Command {
    fn log(&mut self, folder: &Path, name: &str) -> Process {
        let log = std::fs::File::create(folder.join(name)).unwrap();
        Process(self.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
