//! An authority in a folder, as a mounted Secret or a machine without a cluster has it: read at start, or made if the folder
//! is empty, and followed. Other certificates that appear there are led in by a rotation, whose record is kept beside them in
//! `rotation.json`; `rotation-status.json` says where it stands. Of several processes with one folder one moves it and sees
//! its own proxies only. In a folder that cannot be written nothing is kept: there other certificates hold at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use mesh_ca::Authority;
use mesh_ca::bundle::{self, Entries};
use mesh_ca::rotation::{Observed, Record};

use super::CaOptions;
use super::rotation::{Acting, Rotating, STEP, hex, status, tell_if_busy};

/// How often the folder is looked at. Mounted Secrets change within a minute, so nobody waits for less.
const PERIOD: Duration = STEP;
/// The record of the authority, as secret as the keys.
const RECORD: &str = "rotation.json";
/// Where its rotation stands, for people.
const STATUS: &str = "rotation-status.json";
/// Locked by the process that moves the rotation.
const LOCK: &str = "rotation.lock";
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
        let said = folder.authority(now)?;
        let kept = folder.record().and_then(|record| {
            let kept = record.authority(folder.options.lifetimes, now);
            kept.map_err(|error| tracing::warn!("{RECORD}: {error}; it is not followed")).ok()
        });
        Ok((folder, kept.unwrap_or(said)))
    }

    /// What is kept; none where nothing is.
    fn record(&self) -> Option<Record> {
        let text = fs::read(self.path.join(RECORD)).ok()?;
        let record = Record::from_json(&text);
        record.map_err(|error| tracing::warn!("{RECORD} cannot be read: {error}; it is not followed")).ok()
    }

    fn authority(&self, now: SystemTime) -> anyhow::Result<Authority> {
        let entries: Entries<'_> = self.read.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        bundle::plugged_in(&entries, self.options.lifetimes, now).with_context(|| self.path.display().to_string())
    }

    /// Follows the folder: what it says is led in, and `rotating` acts by what is kept. What cannot be used changes nothing,
    /// and the log says why.
    pub async fn follow(mut self, rotating: &Rotating) -> Infallible {
        let mut acting = Acting::new(rotating.clone(), self.options.lifetimes);
        let mut said = self.authority(SystemTime::now()).ok();
        let mut lead = None;
        let mut before: Option<Record> = None;
        loop {
            lead = lead.or_else(|| self.lead());
            let kept = before.take().filter(|_| lead.is_some()).or_else(|| self.record());
            let next = match &said {
                Some(said) if lead.is_some() => self.moved(kept, said, rotating),
                _ => kept,
            };
            if let Some(record) = &next {
                acting.act(record);
            }
            before = next;
            tokio::time::sleep(PERIOD).await;
            if let Some(new) = self.news().await {
                tell_if_busy(before.as_ref(), &new);
                said = Some(new);
            }
        }
    }

    /// The authority in the folder, when it is another and right.
    async fn news(&mut self) -> Option<Authority> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || entries(&path)).await.ok()?.ok()?;
        if read == self.read || read.is_empty() {
            return None;
        }
        self.read = read;
        let authority = self.authority(SystemTime::now());
        authority.map_err(|error| tracing::warn!("{error:#}; the authority of before stays in force")).ok()
    }

    /// The next record, written; the same where it cannot be written.
    fn moved(&self, kept: Option<Record>, said: &Authority, rotating: &Rotating) -> Option<Record> {
        let (timing, lifetimes, now) = (&self.options.timing, self.options.lifetimes, SystemTime::now());
        let first = || Record::new(said).map_err(|error| tracing::warn!("{error}")).ok();
        let Some(record) = kept else { return first().map(|record| self.written(None, record, said)) };
        // Nobody publishes ConfigMaps here: whoever mounts the root's certificate sees to it.
        let observed = Observed { published: true, ..rotating.observe(&record) };
        let next = record.moved(said, &observed, timing, lifetimes, now).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            record.clone()
        });
        let status = format!("{:#}\n", status(&next, &observed));
        let file = self.path.join(STATUS);
        if fs::read_to_string(&file).ok().as_ref() != Some(&status)
            && let Err(error) = replace(&file, status.as_bytes())
        {
            tracing::debug!("{}: {error}", file.display());
        }
        Some(if next == record { record } else { self.written(Some(record), next, said) })
    }

    /// A record that may be acted upon, as it is written.
    fn written(&self, before: Option<Record>, record: Record, said: &Authority) -> Record {
        let written = record.to_json().map_err(io::Error::other);
        let Err(error) = written.and_then(|text| replace(&self.path.join(RECORD), &text)) else { return record };
        if before.as_ref() != Some(&record) {
            let folder = self.path.display();
            tracing::warn!("{folder}: {RECORD} cannot be written ({error}); other certificates hold at once");
        }
        // Half of a rotation that nobody remembers is worse than none.
        Record::new(said).unwrap_or(record)
    }

    /// The right to move the rotation, unless another process has it.
    fn lead(&self) -> Option<Lead> {
        let path = self.path.join(LOCK);
        match fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path) {
            Ok(file) => file.try_lock().is_ok().then_some(Lead::Locked { _file: file }),
            Err(_) => Some(Lead::ReadOnly),
        }
    }
}

/// The right to move a rotation.
enum Lead {
    /// The kernel takes it back when the process ends.
    Locked { _file: fs::File },
    /// Nothing can be kept, by nobody.
    ReadOnly,
}

/// Replaces a file so that a reader sees the old text or the new, never a part; only its owner may read it.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)
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
    name.push(hex(authority.certificate().serial()));
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
