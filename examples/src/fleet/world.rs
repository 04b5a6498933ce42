//! The input of the measurements: S services, 20 a namespace, 5 to 10 endpoints each, every 4th with a TCP port too, every
//! 10th with a VirtualService and a DestinationRule with two subsets, all as Istio YAML: STATIC, MESH_INTERNAL ServiceEntries
//! with a virtual IP.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The input in a folder: one file for each namespace, and two files of their own for what is edited.
pub struct World {
    folder: PathBuf,
    services: usize,
}

/// Services a namespace.
const PER_NAMESPACE: usize = 20;

impl World {
    /// Writes the input.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn write(folder: &Path, services: usize, scoped: bool) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let world = Self { folder: folder.to_owned(), services };
        for first in (0..services).step_by(PER_NAMESPACE) {
            let mut text = String::new();
            for i in first..(first + PER_NAMESPACE).min(services) {
                if i != 0 {
                    text.push_str(&world.service(i, None));
                }
                if i % 10 == 0 {
                    text.push_str(&rule(i));
                    if i != 0 {
                        text.push_str(&virtual_service(i, "none"));
                    }
                }
            }
            fs::write(folder.join(format!("{}.yaml", namespace(first))), text)?;
        }
        if scoped {
            let sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: istio-system}\n\
                           spec: {egress: [{hosts: ['./*', 'istio-system/*']}]}\n";
            fs::write(folder.join("sidecar.yaml"), sidecar)?;
        }
        world.edit_endpoint("10.250.0.1")?;
        world.edit_route("none")?;
        Ok(world)
    }

    /// Gives the first service's first endpoint another address.
    ///
    /// # Errors
    /// When the file can't be replaced.
    pub fn edit_endpoint(&self, address: &str) -> io::Result<()> {
        self.replace("edited-endpoints.yaml", &self.service(0, Some(address)))
    }

    /// Gives the first service's VirtualService another header value.
    ///
    /// # Errors
    /// When the file can't be replaced.
    pub fn edit_route(&self, marker: &str) -> io::Result<()> {
        self.replace("edited-route.yaml", &virtual_service(0, marker))
    }

    /// How many namespaces there are.
    pub fn namespaces(&self) -> usize {
        self.services.div_ceil(PER_NAMESPACE)
    }

    fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = self.folder.join(format!(".{name}"));
        fs::write(&temporary, text)?;
        fs::rename(temporary, self.folder.join(name))
    }

    fn service(&self, i: usize, first: Option<&str>) -> String {
        let mut out = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: svc-{i}, namespace: {}}}\nspec:\n  \
             hosts: [{}]\n  addresses: [10.{}.{}.{}]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports:\n  - {{number: 80, name: \
             http, protocol: HTTP}}\n",
            namespace(i),
            host(i),
            100 + i / 65_536,
            i / 256 % 256,
            i % 256
        );
        if i.is_multiple_of(4) {
            out.push_str("  - {number: 9000, name: tcp, protocol: TCP}\n");
        }
        out.push_str("  endpoints:\n");
        for e in 0..5 + i % 6 {
            let n = i * 10 + e;
            let address = match first {
                Some(address) if e == 0 => address.to_owned(),
                _ => format!("10.{}.{}.{}", 150 + n / 65_536, n / 256 % 256, n % 256),
            };
            let _ = writeln!(out, "  - {{address: {address}, labels: {{app: svc-{i}, version: v{}}}}}", 1 + e % 2);
        }
        out
    }
}

/// `ns-0`, `ns-1`, …
pub fn namespace(service: usize) -> String {
    format!("ns-{}", service / PER_NAMESPACE)
}

fn host(i: usize) -> String {
    format!("svc-{i}.{}.svc.cluster.local", namespace(i))
}

fn rule(i: usize) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: svc-{i}, namespace: {}}}\nspec:\n  host: \
         {}\n  subsets:\n  - {{name: v1, labels: {{version: v1}}}}\n  - {{name: v2, labels: {{version: v2}}}}\n",
        namespace(i),
        host(i)
    )
}

fn virtual_service(i: usize, marker: &str) -> String {
    let host = host(i);
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: svc-{i}, namespace: {}}}\nspec:\n  hosts: \
         [{host}]\n  http:\n  - match: [{{uri: {{prefix: /v2}}}}]\n    headers: {{request: {{set: {{x-marker: {marker}}}}}}}\n    \
         route: [{{destination: {{host: {host}, subset: v2, port: {{number: 80}}}}}}]\n  - route:\n    - {{destination: {{host: {host}, \
         subset: v1, port: {{number: 80}}}}, weight: 90}}\n    - {{destination: {{host: {host}, subset: v2, port: {{number: 80}}}}, \
         weight: 10}}\n",
        namespace(i)
    )
}
