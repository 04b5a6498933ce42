//! Only the CA: Istio's certificate service, for whoever shows a token of an issuer. The root is made once, in a folder.
//!
//! `cargo run -p mesh-examples --example ca -- 127.0.0.1:15010 ca jwks.json https://kubernetes.default.svc`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use mesh_ca::Current;
use mesh_ca::authenticate::Jwks;
use mesh_ca::server::{CertificateService, Metrics};
use mesh_controller::identity::{CaFolder, CaOptions, Rotating};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, folder, jwks, issuer] = arguments.as_slice() else {
        anyhow::bail!("usage: ca ADDRESS FOLDER JWKS ISSUER");
    };
    let (folder, authority) = CaFolder::open(PathBuf::from(folder), CaOptions::default(), SystemTime::now())?;
    let keys = std::fs::read_to_string(jwks).with_context(|| jwks.clone())?;
    let tokens = Jwks::new(&keys, issuer, "cluster.local")?;

    let (current, metrics) = (Arc::new(Current::new(authority)), Metrics::default());
    let service = CertificateService::new(current.clone()).authenticator(tokens).metrics(metrics.clone());
    let server = tonic::transport::Server::builder().add_service(service.into_service()).serve(address.parse()?);
    let rotating = Rotating::new(current, metrics);
    tokio::select! {
        ended = server => Ok(ended?),
        // What is put into the folder is led in: an intermediate of your own root at once, a new root phase by phase.
        never = folder.follow(&rotating) => match never {},
    }
}
