//! Kubernetes' signers sign for the workloads, and we are their registration authority: we know who asks, and approve.
//!
//! What is asked and what an answer means is decided by [`mesh_ca::signer::kubernetes`]; here it goes over the wire. Each
//! request is an object that is created, approved, waited for and deleted, also when its caller does not wait so long.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::ResourceExt;
use kube::runtime::wait::await_condition;
use mesh_api::mesh::{CertificateSource, MeshConfig};
use mesh_ca::signer::kubernetes::{Signers, approval, is_decided, outcome, signing_request};
use mesh_ca::signer::{Later, SigningRequest};
use mesh_ca::{Certificate, Lifetimes, SignError, Signer};
use serde_json::json;

/// How long a signer may take; istiod waits as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The roots that signers' certificates lead to.
#[derive(Clone, Debug, Default)]
pub struct SignerRoots {
    /// Of all signers; goes before the rest.
    pub all: Vec<Certificate>,
    /// Of signers by their whole names.
    pub by_signer: BTreeMap<String, Vec<Certificate>>,
}

impl SignerRoots {
    /// Those that `caCertificates` of MeshConfig gives for `certSigners`.
    ///
    /// # Errors
    /// When one is no certificate.
    pub fn of_mesh(mesh: &MeshConfig) -> anyhow::Result<Self> {
        let mut roots = Self::default();
        for (index, data) in mesh.ca_certificates.iter().enumerate() {
            let Some(CertificateSource::Pem(pem)) = &data.certificate_data else { continue };
            for signer in &data.cert_signers {
                let read = Certificate::all_from_pem(pem.as_bytes());
                let read = read.with_context(|| format!("MeshConfig caCertificates[{index}].pem"))?;
                roots.by_signer.entry(signer.clone()).or_default().extend(read);
            }
        }
        Ok(roots)
    }

    /// Each root of any signer.
    pub fn each(&self) -> impl Iterator<Item = &Certificate> {
        self.all.iter().chain(self.by_signer.values().flatten())
    }

    fn of(&self, signer: &str) -> &[Certificate] {
        let of_signer = || self.by_signer.get(signer).map_or(&[][..], Vec::as_slice);
        if self.all.is_empty() { of_signer() } else { &self.all }
    }
}

/// Lets Kubernetes' signers sign: `EXTERNAL_CA=ISTIOD_RA_KUBERNETES_API`.
pub struct RegistrationAuthority {
    requests: Api<CertificateSigningRequest>,
    signers: Signers,
    roots: SignerRoots,
    lifetimes: Lifetimes,
}

impl RegistrationAuthority {
    /// Asks these signers of a cluster.
    ///
    /// # Errors
    /// When there is no signer to ask.
    pub fn new(client: Client, signers: Signers, roots: SignerRoots, lifetimes: Lifetimes) -> anyhow::Result<Self> {
        let has_any = !(signers.default.is_empty() && signers.domain.is_empty());
        ensure!(has_any, "no signer is named: set K8S_SIGNER to one, or CERT_SIGNER_DOMAIN to the domain of several");
        Ok(Self { requests: Api::all(client), signers, roots, lifetimes })
    }
}

impl Signer for RegistrationAuthority {
    fn sign<'a>(&'a self, request: SigningRequest<'a>) -> Later<'a, Result<Vec<String>, SignError>> {
        Box::pin(async move {
            let wanted = signing_request(request, &self.signers, self.lifetimes)?;
            let signer = wanted.spec.signer_name.clone();
            // A task of its own ends what it began.
            let asked = tokio::spawn(ask(self.requests.clone(), wanted)).await.map_err(Into::into).flatten();
            let object = asked.map_err(|error| SignError::Unavailable(format!("signer {signer}: {error:#}")))?;
            outcome(&object, request, self.roots.of(&signer))
        })
    }
}

/// What has become of a request while we had patience.
async fn ask(
    requests: Api<CertificateSigningRequest>,
    wanted: CertificateSigningRequest,
) -> anyhow::Result<CertificateSigningRequest> {
    let created = requests.create(&PostParams::default(), &wanted).await.context("the request is not created")?;
    let name = created.name_any();
    let decided = tokio::time::timeout(PATIENCE, approved(&requests, &name)).await;
    if let Err(error) = requests.delete(&name, &DeleteParams::default()).await {
        tracing::warn!("CertificateSigningRequest {name} is not deleted: {error}; Kubernetes does it in an hour");
    }
    decided.unwrap_or(Ok(created))
}

/// Approves a request, and waits until it is signed or refused.
async fn approved(requests: &Api<CertificateSigningRequest>, name: &str) -> anyhow::Result<CertificateSigningRequest> {
    let approved = Patch::Strategic(json!({"status": {"conditions": [approval()]}}));
    let approving = requests.patch_approval(name, &PatchParams::default(), &approved).await;
    approving.context("the request is not approved")?;
    let is_over = |object: Option<&CertificateSigningRequest>| object.is_none_or(is_decided);
    let decided = await_condition(requests.clone(), name, is_over).await?;
    decided.context("somebody has deleted the request")
}
