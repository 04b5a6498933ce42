//! The workload's identity: a key that is made here and stays here, a certificate that the control plane signs for it, and
//! a new one of both long before the old one ends.
//!
//! [`Options`] says what a pod's environment asks for and [`schedule`] when to ask again; both are pure. [`Identity::run`] is
//! the shell: it calls, waits, and publishes what it got. While no certificate can be had the old one stays in force.

mod options;
pub mod schedule;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_ca::proto::{CERT_SIGNER, IstioCertificateRequest, IstioCertificateServiceClient};
use mesh_ca::{Certificate, Csr, PrivateKey};
use tokio::sync::watch;
use tonic::metadata::{AsciiMetadataKey, MetadataValue};
use tracing::{info, warn};

pub use options::{Authority, Files, Options, OptionsError, Source};

use crate::backoff::Backoff;
use crate::endpoint::ConnectError;
use crate::endpoint::Roots;
use crate::metrics::Metrics;
use crate::secrets::{FileSecret, Secret, Workload, Workloads};
use crate::trust::Bundle;

/// How long the authority may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Sleeping is by the machine's uptime and certificates are by the clock; so long may the two disagree.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How often mounted files are looked at, and files that cannot be written are tried again.
const LOOK: Duration = Duration::from_secs(1);
/// A chain with all its roots has a few kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// Keeps the workload's certificate fresh.
#[derive(Debug)]
pub struct Identity {
    source: Source,
    /// What the control plane tells of trust between two certificates.
    bundle: watch::Receiver<Bundle>,
    publish: watch::Sender<Arc<Workload>>,
    metrics: Metrics,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The authority refused, or the call broke off.
    #[error("the authority at {address} answered {code:?}: {message}")]
    Refused {
        /// Where.
        address: String,
        /// gRPC's code.
        code: tonic::Code,
        /// What it said.
        message: String,
    },
    /// No answer.
    #[error("the authority at {0} did not answer within {PATIENCE:?}")]
    Late(String),
    /// The answer is no certificate of ours.
    #[error("the answer of the authority at {address} is of no use: {why}")]
    Answer {
        /// Where.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// No key.
    #[error(transparent)]
    Key(#[from] mesh_ca::key::KeyError),
    /// No thread to make a key.
    #[error("making a key was interrupted")]
    Interrupted,
    /// What was to be written could not be.
    #[error("{file:?} cannot be written: {source}; check OUTPUT_CERTS")]
    Output {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A certificate and when to replace it.
struct Certified {
    workload: Workload,
    leaf: Certificate,
}

impl Identity {
    /// An identity from this source that trusts the bundle besides, if an authority signs it; and where its secrets appear.
    /// Nothing happens before [`run`](Self::run).
    pub fn new(source: Source, bundle: watch::Receiver<Bundle>, metrics: Metrics) -> (Self, Workloads) {
        let (publish, workloads) = watch::channel(Arc::new(Workload::default()));
        (Self { source, bundle, publish, metrics }, workloads)
    }

    /// Gets certificates and publishes them, for ever.
    pub async fn run(self) -> Infallible {
        let Self { source, bundle, publish, metrics } = self;
        match &source {
            Source::Authority(authority) => {
                let (certified, workloads) = watch::channel(Workload::default());
                tokio::select! {
                    never = certify(authority, &certified, &metrics) => never,
                    never = join(workloads, bundle, authority.output.as_deref(), &publish) => never,
                }
            }
            Source::Files(files) => follow(files, &publish).await,
            // Another process serves the secrets.
            Source::Elsewhere => std::future::pending().await,
        }
    }
}

/// Gets certificates, for ever.
async fn certify(authority: &Authority, publish: &watch::Sender<Workload>, metrics: &Metrics) -> Infallible {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        let asked = SystemTime::now();
        match ask(authority).await {
            Ok(Certified { workload, leaf }) => {
                publish.send_replace(workload);
                metrics.certified(leaf.not_after());
                backoff.reset();
                let random = fastrand::f64() * 2.0 - 1.0;
                let at = authority.schedule.renew_at(asked, leaf.not_after(), random);
                info!(id = ?leaf.uris(), until = %until(leaf.not_after()), renewal = %until(at), "certified");
                sleep_until(at).await;
            }
            Err(error) => {
                let wait = backoff.next(fastrand::f64());
                metrics.not_certified();
                warn!("no certificate, trying again in {wait:.1?}: {error}");
                tokio::time::sleep(wait).await;
            }
        }
    }
}

async fn ask(authority: &Authority) -> Result<Certified, IdentityError> {
    let (kind, id) = (authority.key, authority.id.clone());
    // Making an RSA key takes long enough for others to notice.
    let made = tokio::task::spawn_blocking(move || {
        let key = PrivateKey::generate(kind)?;
        let csr = Csr::write(&key, id.as_ref())?;
        Ok::<_, mesh_ca::key::KeyError>((key, csr))
    });
    let (key, csr) = made.await.map_err(|_| IdentityError::Interrupted)??;
    let chain = request(authority, csr).await?;
    certified(chain, &key).map_err(|why| {
        let address = authority.endpoint.address.clone();
        IdentityError::Answer { address, why }
    })
}

/// Publishes what was certified with the trust that was told, into a folder as well if one is named.
async fn join(
    mut certified: watch::Receiver<Workload>,
    mut bundle: watch::Receiver<Bundle>,
    output: Option<&Path>,
    publish: &watch::Sender<Arc<Workload>>,
) -> Infallible {
    loop {
        let joined = certified.borrow_and_update().also_trusting(&bundle.borrow_and_update());
        let written = output.map_or(Ok(()), |folder| write(folder, &joined));
        let is_written = written.map_err(|error| warn!("{error}")).is_ok();
        publish.send_if_modified(|published| {
            let differs = **published != joined;
            if differs {
                *published = Arc::new(joined);
            }
            differs
        });
        tokio::select! {
            Ok(()) = certified.changed() => {}
            Ok(()) = bundle.changed() => {}
            () = tokio::time::sleep(LOOK), if !is_written => {}
            // Nobody tells anything any more.
            else => std::future::pending().await,
        }
    }
}

/// Publishes mounted files whenever they change, for ever.
async fn follow(files: &Files, publish: &watch::Sender<Arc<Workload>>) -> Infallible {
    let pair = FileSecret::KeyPair(files.chain.clone(), files.key.clone());
    let roots = FileSecret::Roots(Roots::File(files.roots.clone()));
    let read = |secret: &FileSecret, before: &Option<Secret>| {
        let read = secret.read().map_err(|error| warn!(?secret, %error, "a mounted certificate cannot be read"));
        // A file that is being replaced may be away for a moment.
        read.ok().or_else(|| before.clone())
    };
    let mut seen = None;
    loop {
        let stamps = (pair.stamp(), roots.stamp());
        if seen.as_ref() != Some(&stamps) {
            let before = publish.borrow().clone();
            let workload = Workload { pair: read(&pair, &before.pair), roots: read(&roots, &before.roots) };
            publish.send_if_modified(|published| {
                let differs = **published != workload;
                *published = Arc::new(workload);
                differs
            });
            seen = Some(stamps);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn request(authority: &Authority, csr: String) -> Result<Vec<String>, IdentityError> {
    let address = &authority.endpoint.address;
    let call = async {
        let channel = authority.endpoint.channel().await?;
        let mut request = authority.endpoint.request(IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(authority.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: authority
                .signer
                .as_ref()
                .map(|signer| mesh_ca::proto::metadata([(CERT_SIGNER, signer.as_str())])),
        })?;
        for (name, value) in &authority.headers {
            match (name.to_ascii_lowercase().parse::<AsciiMetadataKey>(), MetadataValue::try_from(value.as_str())) {
                (Ok(name), Ok(value)) => drop(request.metadata_mut().insert(name, value)),
                _ => warn!("CA_HEADER_{name} is no header and is left out"),
            }
        }
        let mut client = IstioCertificateServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let answer = client.create_certificate(request).await.map_err(|status| IdentityError::Refused {
            address: address.clone(),
            code: status.code(),
            message: status.message().to_owned(),
        })?;
        Ok(answer.into_inner().cert_chain)
    };
    tokio::time::timeout(PATIENCE, call).await.map_err(|_| IdentityError::Late(address.clone()))?
}

/// Takes an answer apart: our certificate, what leads from it to a root, and last all roots together.
fn certified(chain: Vec<String>, key: &PrivateKey) -> Result<Certified, String> {
    let [leaf, between @ .., roots] = chain.as_slice() else {
        return Err(format!("it has {} parts; at least a certificate and its roots were expected", chain.len()));
    };
    let read = |pem: &str| Certificate::all_from_pem(pem.as_bytes()).map_err(|error| error.to_string());
    read(roots)?;
    let first = read(leaf)?.into_iter().next().ok_or("its first part is empty")?;
    if !key.is_of(&first) {
        return Err("its certificate is of another key".into());
    }
    let mut all = String::new();
    for part in std::iter::once(leaf).chain(between) {
        all.push_str(part.trim_end());
        all.push('\n');
    }
    let key = key.to_pem().map_err(|error| error.to_string())?;
    Ok(Certified { workload: Workload::new(all, key, roots.clone()), leaf: first })
}

/// Writes what was certified into a folder, for those who cannot ask for secrets. Each file is whole at any time.
fn write(folder: &Path, workload: &Workload) -> Result<(), IdentityError> {
    let (Some(Secret::KeyPair { chain, key }), Some(Secret::Roots(roots))) = (&workload.pair, &workload.roots) else {
        return Ok(());
    };
    for (name, bytes, mode) in
        [("key.pem", key, 0o600), ("cert-chain.pem", chain, 0o644), ("root-cert.pem", roots, 0o644)]
    {
        let file = folder.join(name);
        write_whole(&file, bytes, mode).map_err(|source| IdentityError::Output { file, source })?;
    }
    Ok(())
}

fn write_whole(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let new = file.with_extension("new");
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?.write_all(bytes)?;
    std::fs::rename(&new, file)
}

async fn sleep_until(at: SystemTime) {
    while let Ok(left) = at.duration_since(SystemTime::now()).map(|left| left.min(LONGEST_SLEEP))
        && !left.is_zero()
    {
        tokio::time::sleep(left).await;
    }
}

/// For the log: how long from now.
fn until(at: SystemTime) -> String {
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    format!("in {}", mesh_api::types::Duration::from(Duration::from_secs(left.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_ca::{Authority as Ca, KeyKind, Lifetimes, RootOptions};

    #[test]
    fn an_answer_is_taken_apart_and_checked() {
        let now = SystemTime::now();
        let ca = Ca::self_signed(&RootOptions::default(), Lifetimes::default(), now).unwrap();
        let [key, other] = [0, 1].map(|_| PrivateKey::generate(KeyKind::EcdsaP256).unwrap());
        let csr = Csr::from_pem(Csr::write(&key, None).unwrap().as_bytes()).unwrap();
        let id = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
        let chain = ca.sign(&csr, &id, None, now).unwrap().response();
        let got = certified(chain.clone(), &key).unwrap();
        assert_eq!(got.leaf.uris(), ["spiffe://cluster.local/ns/a/sa/b"]);
        let Some(Secret::KeyPair { chain: pem, .. }) = got.workload.get("default") else { panic!("no certificate") };
        assert_eq!(Certificate::all_from_pem(&pem).unwrap().len(), chain.len() - 1);
        assert_eq!(got.workload.get("ROOTCA"), Some(Secret::Roots(chain[chain.len() - 1].clone().into())));

        let why = |chain: &[String], key| certified(chain.to_vec(), key).err().unwrap();
        assert!(why(&chain, &other).contains("another key"));
        assert!(why(&chain[..1], &key).contains("1 parts"));
        assert!(why(&["x".into(), "y".into()], &key).contains("no certificates in PEM"));
    }

    #[test]
    fn keys_are_written_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("certs");
        for chain in ["one", "two"] {
            write(&output, &Workload::new(chain, "key", "roots")).unwrap();
            assert_eq!(std::fs::read_to_string(output.join("cert-chain.pem")).unwrap(), chain);
        }
        let mode = std::fs::metadata(output.join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&output).unwrap().count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn mounted_files_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let files = Files { chain: file("c"), key: file("k"), roots: file("r") };
        for (name, text) in [("c", "chain"), ("k", "key"), ("r", "roots")] {
            std::fs::write(file(name), text).unwrap();
        }
        let (identity, mut workloads) =
            Identity::new(Source::Files(files), watch::channel(Bundle::new()).1, Metrics::default());
        let running = tokio::spawn(identity.run());
        let has = |roots: &'static str| {
            move |workload: &Arc<Workload>| workload.get("ROOTCA") == Some(Secret::Roots(roots.into()))
        };
        workloads.wait_for(has("roots")).await.unwrap();
        std::fs::write(file("new"), "other roots").unwrap();
        std::fs::rename(file("new"), file("r")).unwrap();
        workloads.wait_for(has("other roots")).await.unwrap();
        std::fs::remove_file(file("r")).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(has("other roots")(&workloads.borrow()), "what was there before stays in force");
        running.abort();
    }
}
