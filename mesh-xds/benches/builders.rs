//! What a change costs, without a server around it: the fleet's input at 1,000 services, and the cases of Istio's own
//! benchmarks by their sizes.
//!
//! Each figure is a build of all types for one proxy, so it is what a push costs per class, not per proxy. It must never
//! time the making of its input.

#![allow(clippy::unwrap_used, reason = "a bench that cannot make its input has nothing to measure")]

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion};
use mesh_api::Object;
use mesh_xds::proxy::ProxyType;
use mesh_xds::{Builder, Change, Proxy, ResourceSet, Snapshot, TypeUrl};

#[path = "../../examples/src/fleet/world.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fleet client uses the rest")]
mod world;

/// As in meshd.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn objects(text: &str) -> Vec<Object> {
    let parsed = mesh_api::document::parse(&"world.yaml".into(), text);
    assert_eq!(parsed.diagnostics().count(), 0);
    parsed.objects().cloned().collect()
}

fn snapshot(text: &str) -> Snapshot {
    Snapshot::default().apply(objects(text).into_iter().map(Change::Upsert))
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

fn all(builder: &Builder, snapshot: &Snapshot, proxy: &Arc<Proxy>) -> [ResourceSet; TypeUrl::ALL.len()] {
    TypeUrl::ALL.map(|kind| builder.build(snapshot, proxy, kind))
}

fn proxy(number: u32, namespace: &str) -> Arc<Proxy> {
    let ip = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number));
    Arc::new(Proxy::sidecar(format!("app-{number}.{namespace}"), namespace, ip))
}

/// A builder that has built this proxy's configuration, and a line of snapshots to go on with.
struct Line {
    builder: Builder,
    at: RefCell<Snapshot>,
    edits: Cell<u32>,
}

impl Line {
    fn new(at: &Snapshot, proxy: &Arc<Proxy>) -> Self {
        let line = Self { builder: Builder::default(), at: RefCell::new(at.clone()), edits: Cell::new(0) };
        all(&line.builder, at, proxy);
        line
    }

    fn edit(&self) -> u32 {
        self.edits.set(self.edits.get() + 1);
        self.edits.get()
    }

    fn next(&self, text: &str) -> Snapshot {
        let next = self.at.borrow().apply(objects(text).into_iter().map(Change::Upsert));
        *self.at.borrow_mut() = next.clone();
        next
    }
}

fn fleet(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let world = world::World::write(folder.path(), 1_000, false).unwrap();
    let mut text = String::new();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        text.push_str(&read(&file.unwrap().path()));
    }
    let at = snapshot(&text);
    let first = proxy(1, "ns-0");
    let mut group = criterion.benchmark_group("1000_services");
    group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1));

    let parsed = objects(&text);
    group.bench_function("lower", |bencher| {
        let changes = || parsed.iter().cloned().map(Change::Upsert).collect::<Vec<_>>();
        bencher.iter_batched(changes, |changes| Snapshot::default().apply(changes), BatchSize::PerIteration);
    });
    group.bench_function("cold", |bencher| {
        let build = |builder| (all(&builder, &at, &first), builder);
        bencher.iter_batched(Builder::default, build, BatchSize::PerIteration);
    });
    group.bench_function("endpoint_change", |bencher| {
        let line = Line::new(&at, &first);
        let next = || {
            world.edit_endpoint(&format!("10.250.{}.{}", line.edit() / 250 % 250, line.edit() % 250)).unwrap();
            line.next(&read(&folder.path().join("edited-endpoints.yaml")))
        };
        bencher.iter_batched(next, |at| all(&line.builder, &at, &first), BatchSize::PerIteration);
    });
    group.bench_function("virtual_service_change", |bencher| {
        let line = Line::new(&at, &first);
        let next = || {
            world.edit_route(&format!("marker-{}", line.edit())).unwrap();
            line.next(&read(&folder.path().join("edited-route.yaml")))
        };
        bencher.iter_batched(next, |at| all(&line.builder, &at, &first), BatchSize::PerIteration);
    });
    group.bench_function("unread_change", |bencher| {
        let line = Line::new(&at, &first);
        let next = || {
            let edit = line.edit();
            line.next(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: x, labels: {{a: 'b{edit}'}}}}\n"))
        };
        bencher.iter_batched(next, |at| all(&line.builder, &at, &first), BatchSize::PerIteration);
    });
    group.bench_function("proxy_of_known_class", |bencher| {
        let line = Line::new(&at, &first);
        let next = || proxy(1 + line.edit(), "ns-0");
        bencher.iter_batched(next, |proxy| all(&line.builder, &at, &proxy), BatchSize::PerIteration);
    });
    group.bench_function("proxy_of_new_namespace", |bencher| {
        let builder = || Line::new(&at, &first).builder;
        let other = proxy(2, "ns-7");
        let build = |builder| (all(&builder, &at, &other), builder);
        bencher.iter_batched(builder, build, BatchSize::PerIteration);
    });
    group.finish();
}

/// Makes the builder know the scope of a proxy and the rules in it: what Istio's benchmarks leave out of their times, too.
fn mesh_scope(builder: &Builder, at: &Snapshot, proxy: &Arc<Proxy>) {
    builder.build(at, proxy, TypeUrl::Endpoint);
}

fn service_entry(name: &str, ports: usize, endpoints: usize) -> String {
    let mut out = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         hosts: [{name}.host.example]\n  resolution: STATIC\n  ports:\n"
    );
    for port in 0..ports {
        let _ = writeln!(out, "  - {{number: {}, name: http-{port}, protocol: HTTP}}", 80 + port);
    }
    out.push_str("  endpoints:\n");
    for endpoint in 0..endpoints {
        let _ = writeln!(out, "  - {{address: 10.0.{}.{}}}", endpoint / 256, endpoint % 256);
    }
    out
}

/// 100 policies with rules of all sorts for one workload, as in Istio's benchmark.
fn authorization_policies() -> String {
    let mut out = String::from(
        "apiVersion: v1\nkind: Service\nmetadata: {name: app, namespace: default}\nspec: {clusterIP: 10.9.0.1, selector: {app: app}, \
         ports: [{name: http, port: 80}, {name: tcp, port: 90}]}\n",
    );
    for i in 0..100 {
        let _ = write!(
            out,
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: policy-{i}, namespace: default}}\nspec:\n  \
             rules:\n  - from:\n    - source:\n        principals: [cluster.local/ns/a/sa/account-{i}]\n        namespaces: [ns-{i}]\n    to:\n    \
             - operation:\n        methods: [GET, HEAD]\n        paths: [/path-{i}/*]\n        hosts: [host-{i}.example]\n    when:\n    - key: \
             request.headers[x-{i}]\n      values: [a, b*]\n"
        );
    }
    out
}

/// Istio's `ClusterGeneration/empty`, `RouteGeneration/gateways-shared`, `EndpointGeneration/1000/1` and
/// `ListenerGeneration/authorizationpolicy`.
fn istio(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("istio");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1));

    let services: String = (0..102).map(|i| service_entry(&format!("random-{i}"), 4, 1)).collect();
    let (at, sidecar) = (snapshot(&services), proxy(1, "default"));
    let clusters = Builder::default().build(&at, &sidecar, TypeUrl::Cluster).len();
    assert!((409..412).contains(&clusters), "{clusters}");
    group.bench_function("cds_410_clusters", |bencher| {
        let builder = || {
            let builder = Builder::default();
            mesh_scope(&builder, &at, &sidecar);
            builder
        };
        let build = |builder: Builder| (builder.build(&at, &sidecar, TypeUrl::Cluster), builder);
        bencher.iter_batched(builder, build, BatchSize::PerIteration);
    });

    let mut gateways = String::from(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gateway, namespace: default}\nspec:\n  selector: \
         {istio: gateway}\n  servers:\n  - port: {number: 80, name: http, protocol: HTTP}\n    hosts: [a.host.example, b.host.example, \
         c.host.example]\n",
    );
    for i in 0..1_000 {
        let matches: String = ('a'..='f').map(|c| format!("    - uri: {{prefix: /route-{c}-{i}}}\n")).collect();
        let _ = write!(
            gateways,
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs-{i}, namespace: default}}\nspec:\n  hosts: \
             [a.host.example, b.host.example, c.host.example]\n  gateways: [gateway]\n  http:\n  - match:\n{matches}    route:\n    - \
             destination: {{host: random-{i}.host.example}}\n"
        );
        gateways.push_str(&service_entry(&format!("random-{i}"), 1, 1));
    }
    let at = snapshot(&gateways);
    let mut gateway = Proxy::sidecar("gateway.default", "default", IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)));
    gateway.kind = ProxyType::Router;
    gateway.labels = [("istio".into(), "gateway".into())].into_iter().collect();
    let gateway = Arc::new(gateway);
    let routes = Builder::default().build(&at, &gateway, TypeUrl::Route);
    let bytes: usize = routes.iter().map(|r| r.encoded_len()).sum();
    assert!(routes.len() == 1 && bytes > 1_000_000, "{} tables of {bytes} bytes", routes.len());
    group.bench_function("rds_1000_virtual_services_in_one_table", |bencher| {
        let builder = || {
            let builder = Builder::default();
            mesh_scope(&builder, &at, &gateway);
            builder.build(&at, &gateway, TypeUrl::Listener);
            builder
        };
        let build = |builder: Builder| (builder.build(&at, &gateway, TypeUrl::Route), builder);
        bencher.iter_batched(builder, build, BatchSize::PerIteration);
    });

    let at = snapshot(&service_entry("one", 1, 1_000));
    group.bench_function("eds_1000_endpoints", |bencher| {
        let builder = || {
            let builder = Builder::default();
            builder.build(&at, &sidecar, TypeUrl::Cluster);
            builder
        };
        let build = |builder: Builder| (black_box(builder.build(&at, &sidecar, TypeUrl::Endpoint)), builder);
        bencher.iter_batched(builder, build, BatchSize::PerIteration);
    });

    let at = snapshot(&authorization_policies());
    let mut guarded = Proxy::sidecar("app.default", "default", IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)));
    guarded.labels = [("app".into(), "app".into())].into_iter().collect();
    let guarded = Arc::new(guarded);
    let built: usize = Builder::default().build(&at, &guarded, TypeUrl::Listener).iter().map(|l| l.encoded_len()).sum();
    assert!(built > 100_000, "{built} bytes are no listener with 100 policies");
    group.bench_function("lds_100_authorization_policies", |bencher| {
        let builder = || {
            let builder = Builder::default();
            mesh_scope(&builder, &at, &guarded);
            builder
        };
        let build = |builder: Builder| (builder.build(&at, &guarded, TypeUrl::Listener), builder);
        bencher.iter_batched(builder, build, BatchSize::PerIteration);
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    fleet(&mut criterion);
    istio(&mut criterion);
    criterion.final_summary();
}
