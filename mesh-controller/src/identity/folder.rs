//! An authority in a folder, as a mounted Secret or a machine without a cluster has it: read at start, or made if the folder
//! is empty, and followed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use mesh_ca::bundle::{self, Entries};
use mesh_ca::server::Metrics;
use mesh_ca::{Authority, Current};

use super::CaOptions;

/// How often the folder is looked at. Mounted Secrets change within a minute, so nobody waits for less.
const PERIOD: Duration = Duration::from_secs(1);
const ENTRIES: [&str; 8] = [
    bundle::CA_CERT,
    bundle::CA_KEY,
    bundle::CERT_CHAIN,
    bundle::ROOT_CERT,
    bundle::CA_CRL,
    bundle::TLS_CERT,
    bundle::TLS_KEY,
    bundle::TLS_CA,
];

/// A folder with an authority.
#[derive(Clone, Debug)]
pub struct CaFolder {
    path: PathBuf,
    options: CaOptions,
    read: BTreeMap<&'static str, Vec<u8>>,
}

impl CaFolder {
    /// Reads the folder; where it is empty or absent, makes a root and puts it there. Two processes that start together get
    /// the same root.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or what is in it does not belong together.
    pub fn open(path: PathBuf, options: CaOptions, now: SystemTime) -> anyhow::Result<(Self, Authority)> {
        let mut folder = Self { read: entries(&path)?, path, options };
        if folder.read.is_empty() {
            let authority = Authority::self_signed(&folder.options.root, folder.options.lifetimes, now)?;
            make(&folder.path, &authority)
                .with_context(|| format!("{}: a root cannot be kept here", folder.path.display()))?;
            folder.read = entries(&folder.path)?;
        }
        let authority = folder.authority(now)?;
        Ok((folder, authority))
    }

    fn authority(&self, now: SystemTime) -> anyhow::Result<Authority> {
        let entries: Entries<'_> = self.read.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        bundle::plugged_in(&entries, self.options.lifetimes, now).with_context(|| self.path.display().to_string())
    }

    /// Puts what the folder says into `current` whenever it changes and is right; otherwise the old stays, and the log says why.
    pub async fn follow(mut self, current: &Current, metrics: &Metrics) -> Infallible {
        loop {
            tokio::time::sleep(PERIOD).await;
            let path = self.path.clone();
            let Ok(Ok(read)) = tokio::task::spawn_blocking(move || entries(&path)).await else { continue };
            if read == self.read || read.is_empty() {
                continue;
            }
            self.read = read;
            match self.authority(SystemTime::now()) {
                Ok(authority) => {
                    tracing::info!(subject = authority.certificate().subject(), "the authority has changed");
                    metrics.authority(&authority);
                    current.set(authority);
                }
                Err(error) => tracing::warn!("{error:#}; the authority of before stays in force"),
            }
        }
    }
}

/// The entries of a folder; none where there is no folder.
fn entries(path: &Path) -> anyhow::Result<BTreeMap<&'static str, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for name in ENTRIES {
        match fs::read(path.join(name)) {
            Ok(bytes) => {
                found.insert(name, bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.join(name).display().to_string()),
        }
    }
    Ok(found)
}

/// Writes all files beside the folder and moves them there as one: nobody ever sees half an authority, and who comes second
/// finds the folder full.
fn make(path: &Path, authority: &Authority) -> anyhow::Result<()> {
    let mut name = path.file_name().context("the path has no last part")?.to_owned();
    name.push(".");
    // As unlikely to be anybody else's as the root itself.
    name.push(authority.certificate().serial().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let beside = path.with_file_name(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::DirBuilder::new().mode(0o700).create(&beside)?;
    let certificate = authority.certificate().to_pem();
    let files = [
        (bundle::CA_KEY, authority.key().to_pem()?),
        (bundle::CA_CERT, certificate.clone()),
        (bundle::ROOT_CERT, certificate),
    ];
    for (name, pem) in files {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside.join(name))?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()?;
    }
    match fs::rename(&beside, path) {
        // Another was quicker.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(fs::remove_dir_all(&beside)?),
        moved => Ok(moved?),
    }
}
