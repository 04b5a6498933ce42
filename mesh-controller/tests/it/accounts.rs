//! A server is whom its service account says: real Envoys on both ends of mesh mTLS, with the clusters that a sidecar is
//! sent. A thief at the address of a service, with a good certificate of the mesh but another account, gets not a byte.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use mesh_ca::{Authority, Csr, KeyKind, Lifetimes, PrivateKey, RootOptions};
use serde_json::{Value, json};

use crate::envtest::Process;
use crate::{envoy, pipeline};

/// A service with one pod, which runs as an account of the service's name, at a port of this machine.
fn service(name: &str, port: u16) -> String {
    format!(
        "
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{clusterIP: 10.0.0.1, ports: [{{name: tcp, port: 80}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: {name}, containers: []}}
status: {{podIP: 127.0.0.1}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: tcp, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1], targetRef: {{kind: Pod, name: {name}, namespace: default}}}}]
"
    )
}

/// The cluster of a service as a sidecar is sent it, its endpoints and secrets within it.
fn cluster(dump: &Value, name: &str, certificate: &Value, root: &str) -> Value {
    let name = format!("outbound|80||{name}.default.svc.cluster.local");
    let all = dump["clusters"].as_array().expect("clusters");
    let mut cluster = all.iter().find(|c| c["name"] == name.as_str()).expect("the cluster").clone();
    envoy::inline_endpoints(&mut cluster, dump);
    let context = &mut cluster["transportSocketMatches"][0]["transportSocket"]["typedConfig"]["commonTlsContext"];
    let mut checks = context["combinedValidationContext"]["defaultValidationContext"].clone();
    checks["trustedCa"] = json!({"inlineString": root});
    let fields = context.as_object_mut().expect("a TLS context");
    fields.remove("combinedValidationContext");
    fields.remove("tlsCertificateSdsSecretConfigs");
    fields.insert("validationContext".to_owned(), checks);
    fields.insert("tlsCertificates".to_owned(), json!([certificate]));
    cluster
}

fn listener(port: u16, cluster: &str, transport_socket: Option<Value>) -> Value {
    let mut chain = json!({"filters": [{"name": "envoy.filters.network.tcp_proxy", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "statPrefix": cluster, "cluster": cluster}}]});
    if let Some(socket) = transport_socket {
        chain["transportSocket"] = socket;
    }
    json!({"name": port.to_string(), "address": address(port), "filterChains": [chain]})
}

fn server(certificate: &Value, root: &str) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "requireClientCertificate": true,
        "commonTlsContext": {"alpnProtocols": ["istio"], "tlsCertificates": [certificate],
                             "validationContext": {"trustedCa": {"inlineString": root}}}}})
}

fn address(port: u16) -> Value {
    json!({"socketAddress": {"address": "127.0.0.1", "portValue": port}})
}

fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until the last one is known, so that none is given twice.
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// Sends back what it hears, connection after connection.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut reader = connection.unwrap();
            let mut writer = reader.try_clone().unwrap();
            let _ = std::io::copy(&mut reader, &mut writer);
        }
    });
    port
}

/// What comes back from that port, if anything.
fn ask(port: u16) -> Option<[u8; 5]> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"hello").ok()?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).ok().map(|()| answer)
}

fn admin(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

#[test]
fn a_server_of_another_account_is_refused() {
    let Some(binary) = envoy::binary("accounts of servers") else { return };
    let now = SystemTime::now();
    let authority = Authority::self_signed(&RootOptions::default(), Lifetimes::default(), now).unwrap();
    let root = authority.roots_pem().to_string();
    let certificate = |account: &str| {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let csr = Csr::from_pem(Csr::write(&key, None).unwrap().as_bytes()).unwrap();
        let id = format!("spiffe://cluster.local/ns/default/sa/{account}").parse().unwrap();
        let chain = authority.sign(&csr, &id, None, now).unwrap();
        json!({"certificateChain": {"inlineString": chain.presented_pem()},
               "privateKey": {"inlineString": key.to_pem().unwrap()}})
    };
    let [admin_port, to_honest, to_stolen, honest, thief] = free_ports();
    let proxy = json!({"type": "sidecar", "id": "a.default", "ips": ["10.9.0.1"], "namespace": "default"});
    let dump = pipeline::dump(&pipeline::Input {
        documents: vec![("world.yaml", service("honest", honest) + &service("stolen", thief))],
        mesh_config: "{}",
        env: &BTreeMap::new(),
        proxy: &proxy,
    });
    let own = certificate("a");
    let clusters = ["honest", "stolen"].map(|name| cluster(&dump.json, name, &own, &root));
    let names = clusters.clone().map(|cluster| cluster["name"].as_str().unwrap().to_owned());
    let echo = json!({"name": "echo", "type": "STATIC", "loadAssignment": {"clusterName": "echo", "endpoints": [
        {"lbEndpoints": [{"endpoint": {"address": address(echo())}}]}]}});
    let bootstrap = json!({
        "node": {"id": "a", "cluster": "a"},
        "admin": {"address": address(admin_port)},
        "staticResources": {
            "clusters": [clusters[0], clusters[1], echo],
            "listeners": [
                listener(to_honest, &names[0], None),
                listener(to_stolen, &names[1], None),
                listener(honest, "echo", Some(server(&certificate("honest"), &root))),
                listener(thief, "echo", Some(server(&certificate("thief"), &root))),
            ],
        },
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.json");
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let child = Command::new(binary)
        .args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let _process = Process(child);
    let ready = (0..400).any(|_| {
        std::thread::sleep(Duration::from_millis(25));
        admin(admin_port, "/ready").is_some()
    });
    assert!(ready, "{}", std::fs::read_to_string(folder.path().join("log")).unwrap());
    assert_eq!(ask(to_honest), Some(*b"hello"));
    assert_eq!(ask(to_stolen), None, "the account at the other end is the thief's");
    let refused = |name: &str| {
        let stats = admin(admin_port, "/stats?filter=ssl.fail_verify_san").unwrap();
        let line = stats.lines().find(|line| line.contains(name)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no {name} in {stats}")).rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!((refused("honest").as_str(), refused("stolen").as_str()), ("0", "1"));
}
