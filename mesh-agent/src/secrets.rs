//! What Envoy is given under a name: the workload's own certificate (`default`), the roots of the mesh (`ROOTCA`), and files
//! in the proxy's container (`file-cert:CHAIN~KEY`, `file-root:ROOTS`, `file-root:system`).
//!
//! Files are looked at again every second while somebody is subscribed to them: the kubelet replaces mounted folders by
//! moving links about, which watches on files miss, and a look costs microseconds.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mesh_ca::Certificate;
use tokio::sync::watch;
use tracing::warn;

use crate::endpoint::Roots;

/// The name of the workload's own certificate.
pub const WORKLOAD: &str = "default";
/// The name of the roots of the mesh.
pub const ROOTS: &str = "ROOTCA";

/// A secret. Its `Debug` form shows no key.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Secret {
    /// A certificate with its key.
    KeyPair {
        /// The certificate and what leads to a root, in PEM.
        chain: Bytes,
        /// The key, in PEM.
        key: Bytes,
    },
    /// Authorities that are trusted, in PEM.
    Roots(Bytes),
    /// The same, with lists of what they have revoked.
    RevocableRoots {
        /// The authorities, in PEM.
        roots: Bytes,
        /// A list of each authority that signs, in PEM.
        lists: Bytes,
    },
}

impl Secret {
    /// Roots with the lists of this file, where it has any.
    #[must_use]
    pub fn revocable(self, file: &Path) -> Self {
        let lists = std::fs::read(file).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                warn!(?file, %error, "the lists of revoked certificates cannot be read; nothing counts as revoked");
            }
            Vec::new()
        });
        match self {
            Self::Roots(roots) if !lists.is_empty() => Self::RevocableRoots { roots, lists: lists.into() },
            secret => secret,
        }
    }

    /// Equal for equal secrets, and the same in each process.
    pub fn version(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyPair { .. } => "KeyPair",
            Self::Roots(_) => "Roots",
            Self::RevocableRoots { .. } => "RevocableRoots",
        })
    }
}

/// The workload's secrets, as far as they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Workload {
    /// Its certificate and key.
    pub pair: Option<Secret>,
    /// Whom it trusts.
    pub roots: Option<Secret>,
}

/// Reads the workload's secrets as they are at the moment.
pub type Workloads = watch::Receiver<Arc<Workload>>;

impl Workload {
    /// A certificate, its key and the roots, all in PEM.
    pub fn new(chain: impl Into<Bytes>, key: impl Into<Bytes>, roots: impl Into<Bytes>) -> Self {
        let pair = Secret::KeyPair { chain: chain.into(), key: key.into() };
        Self { pair: Some(pair), roots: Some(Secret::Roots(roots.into())) }
    }

    /// The same, trusting these roots besides. What is trusted more is taken back with the next certificate, whose answer says
    /// all; until then nobody loses a peer.
    #[must_use]
    pub fn also_trusting(&self, bundle: &[Certificate]) -> Self {
        let known = self.certificates();
        let mut roots = match &self.roots {
            Some(Secret::Roots(pem)) => pem.to_vec(),
            _ => Vec::new(),
        };
        for root in bundle.iter().filter(|root| !known.contains(root)) {
            if roots.last().is_some_and(|last| *last != b'\n') {
                roots.push(b'\n');
            }
            roots.extend_from_slice(root.to_pem().as_bytes());
        }
        let roots = (!roots.is_empty()).then(|| Secret::Roots(roots.into()));
        Self { pair: self.pair.clone(), roots }
    }

    /// True when all these roots are trusted.
    pub fn trusts(&self, bundle: &[Certificate]) -> bool {
        let known = self.certificates();
        bundle.iter().all(|root| known.contains(root))
    }

    /// Its roots, one by one.
    fn certificates(&self) -> Vec<Certificate> {
        match &self.roots {
            Some(Secret::Roots(pem)) => Certificate::all_from_pem(pem).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// The secret of this name. `None` while it is not there.
    pub fn get(&self, name: &str) -> Option<Secret> {
        match name {
            WORKLOAD => self.pair.clone(),
            ROOTS => self.roots.clone(),
            _ => FileSecret::parse(name)?.read().map_err(|error| tracing::warn!(name, %error, "no such secret")).ok(),
        }
    }
}

/// A secret that is in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSecret {
    /// `file-cert:CHAIN~KEY`.
    KeyPair(PathBuf, PathBuf),
    /// `file-root:ROOTS`.
    Roots(Roots),
}

/// True for names that are served here, even if there is nothing yet.
pub fn is_served(name: &str) -> bool {
    matches!(name, WORKLOAD | ROOTS) || FileSecret::parse(name).is_some()
}

/// What shows that a file has changed.
pub type Stamp = Vec<Option<(u64, i64, i64, u64)>>;

impl FileSecret {
    /// Reads such a name.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(pair) = name.strip_prefix("file-cert:") {
            let (chain, key) = pair.split_once('~')?;
            return Some(Self::KeyPair(chain.into(), key.into()));
        }
        Some(Self::Roots(match name.strip_prefix("file-root:")? {
            "system" => Roots::System,
            file => Roots::File(file.into()),
        }))
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> io::Result<Secret> {
        Ok(match self {
            Self::KeyPair(chain, key) => {
                Secret::KeyPair { chain: std::fs::read(chain)?.into(), key: std::fs::read(key)?.into() }
            }
            Self::Roots(roots) => Secret::Roots(roots.read()?.into()),
        })
    }

    /// What it would take to see a change, without reading the files.
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::KeyPair(chain, key) => vec![stamp(chain), stamp(key)],
            Self::Roots(Roots::File(file)) => vec![stamp(file)],
            // The system's own change with its image.
            Self::Roots(_) => Vec::new(),
        }
    }
}

/// What would show that this file has changed.
pub(crate) fn stamp(file: &Path) -> Option<(u64, i64, i64, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_which_files() {
        assert_eq!(FileSecret::parse("file-cert:/c~/k"), Some(FileSecret::KeyPair("/c".into(), "/k".into())));
        assert_eq!(FileSecret::parse("file-root:/r"), Some(FileSecret::Roots(Roots::File("/r".into()))));
        assert_eq!(FileSecret::parse("file-root:system"), Some(FileSecret::Roots(Roots::System)));
        for other in ["file-cert:/c", "kubernetes://a", "default", ""] {
            assert_eq!(FileSecret::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_replaced_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("root.pem");
        let name = format!("file-root:{}", file.display());
        let secret = FileSecret::parse(&name).unwrap();
        let empty = secret.stamp();
        assert_eq!(Workload::default().get(&name), None);
        std::fs::write(&file, "one").unwrap();
        let before = (secret.stamp(), secret.read().unwrap().version());
        std::fs::write(folder.path().join("new"), "two").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        let after = (secret.stamp(), secret.read().unwrap().version());
        assert!(empty != before.0 && before.0 != after.0 && before.1 != after.1);
        assert_eq!(Workload::default().get(&name), Some(Secret::Roots("two".into())));
    }

    #[test]
    fn what_is_told_is_trusted_besides() {
        use mesh_ca::{Authority, Lifetimes, RootOptions};
        let now = std::time::SystemTime::now();
        let [old, new] = [0, 1].map(|_| {
            let made = Authority::self_signed(&RootOptions::default(), Lifetimes::default(), now);
            made.unwrap().roots().first().unwrap().clone()
        });
        let both = [old.clone(), new.clone()];
        let workload = Workload::new("chain", "key", old.to_pem());
        assert!(workload.trusts(&both[..1]) && !workload.trusts(&both));
        let told = workload.also_trusting(&both);
        assert!(told.trusts(&both) && told.pair == workload.pair);
        assert_eq!(told.also_trusting(&both), told, "once");
        assert_eq!(told.also_trusting(&[]), told);
        assert_eq!(told, Workload::new("chain", "key", format!("{}{}", old.to_pem(), new.to_pem())));
        assert!(Workload::default().also_trusting(&both).trusts(&both), "without a certificate yet");
        assert_eq!(Workload::default().also_trusting(&[]), Workload::default());
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?}", Workload::new("chain", "a key", "roots"));
        assert!(!shown.contains("a key") && shown.contains("KeyPair"), "{shown}");
    }
}
