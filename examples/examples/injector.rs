//! Injection in your own operator: the webhook for pods and for Istio's objects, with a rule of your own, and a certificate of
//! your own authority that is renewed at half of its life.
//!
//! `cargo run -p mesh-examples --example injector -- 127.0.0.1:15017 ca`, then register `https://…/inject` and `/validate`
//! with `ca/root-cert.pem` as their caBundle

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use mesh_api::{Diagnostic, Object};
use mesh_ca::reconcile::needs_renewal;
use mesh_controller::identity::{CaFolder, CaOptions};
use mesh_webhook::server::{Server, ServingCertificate};
use mesh_webhook::{Config, Injector, Validator, Webhook};
use tokio::sync::watch;

/// Your rule: gateways listen on known ports only.
fn known_ports(object: &Object) -> Vec<Diagnostic> {
    let Object::Gateway(gateway) = object else { return Vec::new() };
    let ports = gateway.spec.servers.iter().map(|server| &server.port);
    let wrong = ports.filter(|port| ![80, 443].contains(&port.number));
    let tell = |number| Diagnostic::warning("UnusualPort", format!("port {number} is neither 80 nor 443"));
    wrong.map(|port| tell(port.number).on(&object.object_ref())).collect()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, folder] = arguments.as_slice() else { anyhow::bail!("usage: injector ADDRESS FOLDER") };
    let (_, authority) = CaFolder::open(PathBuf::from(folder), CaOptions::default(), SystemTime::now())?;

    let hook = Webhook::new()
        .route("/inject", Injector::new(Config::default()))
        .route("/validate", Validator::new().also(known_ports));
    let (certificates, certificate) = watch::channel(None);
    let listener = tokio::net::TcpListener::bind(address).await?;
    let server = Server::new(hook, certificate).serve(listener, std::future::pending());

    let (hosts, day) = ([listener_host(address)], Duration::from_secs(24 * 60 * 60));
    let renew = async {
        loop {
            let (key, chain) = authority.serving(&hosts, day, SystemTime::now())?;
            let serving = ServingCertificate::from_pem(chain.presented_pem().as_bytes(), key.to_pem()?.as_bytes())?;
            certificates.send_replace(Some(serving));
            while !needs_renewal(&chain, &authority, &hosts, SystemTime::now()) {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        }
    };
    tokio::select! { ended = server => Ok(ended?), failed = renew => failed }
}

fn listener_host(address: &str) -> String {
    address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned()
}
