//! The certificate service with Vault's PKI engine as its signer: who calls is found out here, and Vault holds the key.
//!
//! `VAULT_TOKEN=… cargo run -p mesh-examples --example vault -- 127.0.0.1:15010 http://127.0.0.1:8200 pki/mesh root.pem jwks.json https://kubernetes.default.svc`
//!
//! The role: `vault write pki/roles/mesh allowed_uri_sans='spiffe://*' require_cn=false use_csr_sans=false
//! use_csr_common_name=false max_ttl=2160h`.

use std::fs::read_to_string;
use std::sync::Arc;

use anyhow::{Context, Result};
use mesh_ca::authenticate::Jwks;
use mesh_ca::server::CertificateService;
use mesh_ca::signer::vault::{Vault, VaultOptions};
use mesh_ca::{Certificate, Lifetimes};
use mesh_examples::vault::Agent;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, vault, path, roots, jwks, issuer] = arguments.as_slice() else {
        anyhow::bail!("usage: vault ADDRESS VAULT_URL MOUNT/ROLE ROOTS JWKS ISSUER");
    };
    let (mount, role) = path.rsplit_once('/').context("the third argument is MOUNT/ROLE, such as pki/mesh")?;
    let read = |file: &String| read_to_string(file).with_context(|| file.clone());
    let options = VaultOptions {
        mount: mount.to_owned(),
        role: role.to_owned(),
        // A Vault Agent may have a token of its own.
        token: std::env::var("VAULT_TOKEN").unwrap_or_default(),
        lifetimes: Lifetimes::default(),
        roots: Certificate::all_from_pem(read(roots)?.as_bytes())?,
    };
    let service = CertificateService::new(Arc::new(Vault::new(Agent(vault.clone()), options)))
        .authenticator(Jwks::new(&read(jwks)?, issuer, "cluster.local")?);
    Ok(tonic::transport::Server::builder().add_service(service.into_service()).serve(address.parse()?).await?)
}
