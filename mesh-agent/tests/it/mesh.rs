//! Whole sidecars, each in a network namespace, with a real control plane and real Envoys: identity by token, configuration
//! over TLS, a control plane that goes away and comes back.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh_ca::{KeyKind, PrivateKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

use crate::network::{Ended, Namespace, eventually, get, pod_ip, tail};

const AGENT: &str = env!("CARGO_BIN_EXE_mesh-agent");

/// A node with a control plane's files.
struct Node {
    folder: tempfile::TempDir,
    meshd: PathBuf,
    envoy: PathBuf,
    issuer: EncodingKey,
    _namespace: Namespace,
}

/// The control plane; killed, not asked, as a node takes it away.
struct Meshd(Child);

impl Drop for Meshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Pod {
    name: String,
    index: u8,
    folder: PathBuf,
    started: Instant,
    agent: Ended,
    namespace: Namespace,
}

impl Node {
    /// `None` after having said what is missing.
    fn new(test: &str) -> Option<Self> {
        let skipped = |why: &str| {
            eprintln!("SKIPPED {test}: {why}");
            None
        };
        let Some(envoy) = std::env::var_os("ENVOY_PATH") else { return skipped("ENVOY_PATH names no Envoy") };
        let meshd = Path::new(AGENT).with_file_name("meshd");
        if !meshd.is_file() {
            return skipped("no meshd beside mesh-agent; build it with cargo build -p mesh-controller --bin meshd");
        }
        let Some(namespace) = Namespace::node() else { return skipped("no network namespaces here") };
        let folder = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.to_pem().unwrap().as_bytes()).unwrap();
        let issuer = EncodingKey::from_ec_der(key.secret_der());
        let jwk = Jwk::from_encoding_key(&issuer, Algorithm::ES256).unwrap();
        std::fs::write(folder.path().join("jwks.json"), json!({ "keys": [jwk] }).to_string()).unwrap();
        std::fs::create_dir(folder.path().join("manifests")).unwrap();
        Some(Self { folder, meshd, envoy: envoy.into(), issuer, _namespace: namespace })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn meshd(&self) -> Meshd {
        let log = std::fs::File::options().create(true).append(true).open(self.path("meshd.log")).unwrap();
        let mut child = Command::new(&self.meshd)
            .args(["--config-dir", "manifests", "--print-addrs", "--ca-dir", "ca"])
            .args(["--jwks", "jwks.json", "--jwt-issuer", "https://issuer"])
            .current_dir(self.folder.path())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("15012"), "{line}{}", tail(&self.path("meshd.log")));
        Meshd(child)
    }

    /// A workload and its service, for the control plane.
    fn describe(&self, index: u8) {
        let (name, ip) = (format!("app-{index}"), pod_ip(index));
        let documents = [
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
                "spec": {"clusterIP": format!("10.9.0.{index}"), "selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "labels": {"app": name, "security.istio.io/tlsMode": "istio"}},
                "spec": {"serviceAccountName": name, "containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]},
                "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}}),
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
                "ports": [{"name": "http", "port": 8080}],
                "endpoints": [{"addresses": [ip], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": name, "namespace": "default"}}]}),
        ];
        let text = documents.map(|document| document.to_string()).join("\n---\n");
        std::fs::write(self.path("manifests").join(format!("{name}.yaml")), text).unwrap();
    }

    /// Starts a pod as the injector describes it. `env` is laid over what it says.
    fn pod(&self, index: u8, env: &[(&str, &str)]) -> Pod {
        self.describe(index);
        let name = format!("app-{index}");
        let folder = self.path(&name);
        let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
        let subject = format!("system:serviceaccount:default:{name}");
        let claims = json!({"iss": "https://issuer", "aud": ["istio-ca"], "exp": exp, "sub": subject});
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.issuer).unwrap();
        let root = std::fs::read_to_string(self.path("ca/root-cert.pem")).unwrap();
        for (file, text) in [
            ("var/run/secrets/tokens/istio-token", token),
            ("var/run/secrets/istio/root-cert.pem", root),
            ("etc/istio/pod/labels", format!("app=\"{name}\"\n")),
        ] {
            let file = folder.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let namespace = Namespace::pod(index);
        let control_plane = format!("10.7.{index}.1:15012");
        let config = json!({"discoveryAddress": control_plane, "concurrency": 1, "terminationDrainDuration": "0.1s"});
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let started = Instant::now();
        let agent = namespace
            .command(AGENT)
            .args(["proxy", "sidecar", "--proxyLogLevel", "warning"])
            .current_dir(&folder)
            .env("ENVOY_PATH", &self.envoy)
            .env("PROXY_CONFIG", config.to_string())
            .env("CA_ADDR", &control_plane)
            .env("ISTIOD_SAN", "istiod.istio-system.svc")
            .env("PILOT_CERT_PROVIDER", "istiod")
            .env("POD_NAME", &name)
            .env("POD_NAMESPACE", "default")
            .env("SERVICE_ACCOUNT", &name)
            .env("INSTANCE_IP", pod_ip(index).to_string())
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Pod { name, index, folder, started, agent: Ended(agent), namespace }
    }

    /// How long an Envoy takes that is told everything at its start.
    fn envoy_alone(&self) -> Duration {
        let bootstrap =
            json!({"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}}});
        std::fs::write(self.path("alone.json"), bootstrap.to_string()).unwrap();
        let started = Instant::now();
        let envoy = Command::new(&self.envoy)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"])
            .arg(self.path("alone.json"))
            .spawn();
        let _envoy = Ended(envoy.unwrap());
        eventually("Envoy alone", || match get(([127, 0, 0, 1], 15000), "/ready") {
            Some(answer) if answer.contains("LIVE") => Ok(()),
            answer => Err(format!("{answer:?}")),
        });
        started.elapsed()
    }
}

impl Pod {
    /// As the kubelet asks: through Envoy.
    fn is_ready(&mut self) -> Result<(), String> {
        assert!(self.agent.0.try_wait().unwrap().is_none(), "the agent ended\n{}", tail(&self.folder.join("log")));
        match get((pod_ip(self.index), 15021), "/healthz/ready") {
            Some(answer) if answer.starts_with("HTTP/1.1 200") => Ok(()),
            answer => Err(format!("{} is not ready: {answer:?}\n{}", self.name, tail(&self.folder.join("log")))),
        }
    }

    /// Asks Envoy's admin port, as a user would in the pod.
    fn request(&self, path: &str) -> String {
        let done = self.namespace.command(AGENT).args(["request", "GET", path]).output().unwrap();
        assert!(done.status.success(), "{path}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn metrics(&self) -> String {
        get((pod_ip(self.index), 15020), "/stats/prometheus").unwrap_or_default()
    }

    /// The first address of a name, as an application of the pod would ask for it.
    fn address_of(&self, name: &str) -> Result<Ipv4Addr, String> {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let ask = || {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.send_to(&question.to_vec().unwrap(), "127.0.0.1:15053")?;
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer)?;
            Ok::<_, std::io::Error>(Message::from_vec(&buffer[..length]).unwrap())
        };
        let answer = self.namespace.within(ask).map_err(|error| error.to_string())?;
        match answer.answers.first().map(|record| &record.data) {
            Some(RData::A(address)) => Ok(address.0),
            _ => Err(format!("{name} has no address: {answer:?}")),
        }
    }

    /// What the agent alone, without its Envoy, holds in memory, in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.agent.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// The serial number of the certificate that Envoy has.
    fn serial(&self) -> Result<String, String> {
        let certs: serde_json::Value = serde_json::from_str(&self.request("certs")).map_err(|e| e.to_string())?;
        let chains = certs["certificates"].as_array().into_iter().flatten();
        let chains = chains.flat_map(|c| c["cert_chain"].as_array().into_iter().flatten());
        let id = json!({"uri": format!("spiffe://cluster.local/ns/default/sa/{}", self.name)});
        let ours = chains.into_iter().find(|c| c["subject_alt_names"].as_array().is_some_and(|n| n.contains(&id)));
        ours.map(|c| c["serial_number"].to_string()).ok_or_else(|| certs.to_string())
    }
}

fn has(text: &str, line: &str) -> Result<(), String> {
    let ours: Vec<&str> = text.lines().filter(|line| line.starts_with("istio_agent_")).collect();
    if ours.contains(&line) { Ok(()) } else { Err(format!("no {line} in\n{}", ours.join("\n"))) }
}

#[test]
fn pods_live_through_a_control_plane_that_goes_and_comes() {
    let Some(node) = Node::new("pods_live_through_a_control_plane_that_goes_and_comes") else { return };
    node.describe(1);
    let meshd = node.meshd();
    // Certificates of a few seconds, so that they are renewed while we look.
    let mut first = node.pod(1, &[("SECRET_TTL", "4s"), ("ISTIO_META_DNS_CAPTURE", "true")]);
    eventually("the first pod", || first.is_ready());
    let before = eventually("its certificate", || first.serial());
    eventually("a renewal", || match first.serial()? {
        after if after != before => Ok(()),
        _ => Err(tail(&first.folder.join("log"))),
    });
    has(&first.metrics(), "istio_agent_istiod_connections 1").unwrap();
    let found = Command::new("grep").args(["-rl", "PRIVATE KEY"]).arg(&first.folder).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "a key is on disk");

    assert_eq!(first.address_of("app-1.default."), Ok(Ipv4Addr::new(10, 9, 0, 1)));

    drop(meshd);
    eventually("the break to be seen", || has(&first.metrics(), "istio_agent_istiod_connections 0"));
    let mut second = node.pod(2, &[]);
    eventually("the second agent to say what it waits for", || match get((pod_ip(2), 15020), "/healthz/ready") {
        Some(answer) if answer.contains("no configuration from the control plane yet") => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    assert!(second.is_ready().is_err(), "ready without any configuration");
    first.is_ready().unwrap();
    assert_eq!(first.address_of("app-1."), Ok(Ipv4Addr::new(10, 9, 0, 1)), "names stay");
    let inbound = SocketAddr::from((pod_ip(1), 15006));
    TcpStream::connect(inbound).expect("the first pod still serves");

    let _meshd = node.meshd();
    eventually("the second pod", || second.is_ready());
    eventually("the first to be back", || has(&first.metrics(), "istio_agent_istiod_connections 1"));
    assert!(second.serial().is_ok());
    let names = first.namespace.within(|| get(([127, 0, 0, 1], 15020), "/debug/ndsz")).unwrap();
    assert!(names.contains(r#""app-1.default.svc.cluster.local":["10.9.0.1"]"#), "{names}");
    eventually("the second's name at the first", || first.address_of("app-2."));
    let (one, two) = (first.memory(), second.memory());
    eprintln!("agents hold {one} and {two} KiB");
    // Without optimisation the program itself is larger than that.
    assert!(cfg!(debug_assertions) || one.max(two) <= 12 * 1024, "{one} and {two} KiB");
    // What has not changed meanwhile is not sent again: Envoy says what it has.
    let stats = first.request("stats?filter=update_success");
    assert!(stats.contains("listener_manager.lds.update_success: 1"), "{stats}");
}

#[test]
fn a_pod_is_ready_soon_after_its_envoy() {
    let Some(node) = Node::new("a_pod_is_ready_soon_after_its_envoy") else { return };
    let _meshd = node.meshd();
    // The least of three: other processes of the machine only ever add.
    let envoy = (0..3).map(|_| node.envoy_alone()).min().unwrap();
    let pods = (1..=3).map(|index| {
        let mut pod = node.pod(index, &[]);
        eventually("the pod", || pod.is_ready());
        pod.started.elapsed()
    });
    let pod = pods.min().unwrap();
    let ours = pod.saturating_sub(envoy);
    eprintln!("bootstrap to ready: {pod:.0?}, of which Envoy's own start {envoy:.0?}, and the rest {ours:.0?}");
    // Without optimisation the handshakes alone take as long.
    assert!(cfg!(debug_assertions) || ours < Duration::from_millis(300), "{ours:?}");
}
