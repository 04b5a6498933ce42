//! Which files there are, and whether they look as they did: names and `stat`, no content.
//!
//! Hidden names are not ours: `..data` of a mounted ConfigMap is reached through its visible links, and editors keep
//! their scratch files behind a dot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mesh_api::Name;

use super::folder::FileId;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Print {
    inode: Inode,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Device and number.
pub(super) type Inode = (u64, u64);

impl Print {
    pub(super) fn new(meta: &Metadata) -> Self {
        Self {
            inode: inode(meta),
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

fn inode(meta: &Metadata) -> Inode {
    (meta.dev(), meta.ino())
}

/// A path that the user gave.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// As given, for messages.
    given: PathBuf,
    /// Without regard to the working directory, for comparison with what the kernel tells.
    absolute: PathBuf,
}

impl Root {
    pub(super) fn new(given: PathBuf) -> Self {
        let absolute = std::path::absolute(&given).unwrap_or_else(|_| given.clone());
        Self { given, absolute }
    }

    /// True for what is below it, and for the folders on the way to it.
    pub(super) fn concerns(&self, path: &Path) -> bool {
        path.starts_with(&self.absolute) || self.absolute.starts_with(path)
    }

    fn name(&self, path: &Path) -> Name {
        let shown = match path.strip_prefix(&self.absolute) {
            Ok(rest) if !rest.as_os_str().is_empty() => self.given.join(rest),
            _ => self.given.clone(),
        };
        Name::from(shown.display().to_string())
    }
}

/// The result of a walk; all paths are absolute.
#[derive(Default, Debug)]
pub(super) struct Found {
    pub(super) files: BTreeMap<PathBuf, (FileId, Print)>,
    /// The folders outside that links of ours lead to.
    pub(super) link_folders: BTreeSet<PathBuf>,
    /// The folders to watch for this picture to stay true.
    pub(super) folders: BTreeMap<PathBuf, Inode>,
    /// What could not be looked at. All that was known below such a path is to be left alone.
    pub(super) troubles: BTreeMap<PathBuf, (FileId, String)>,
    visited: BTreeSet<Inode>,
}

/// True for the names that a folder is searched for.
pub(super) fn is_manifest(path: &Path) -> bool {
    let yaml = path.extension().is_some_and(|ext| ["yaml", "yml", "json"].iter().any(|ours| ext == *ours));
    yaml && !is_hidden(path)
}

pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Looks at all roots. A file that is given by name counts whatever its name is.
pub(super) fn walk(roots: &[Root]) -> Found {
    let mut found = Found::default();
    for (index, root) in roots.iter().enumerate() {
        found.visit(index, root, &root.absolute);
    }
    found
}

impl Found {
    fn visit(&mut self, index: usize, root: &Root, path: &Path) {
        let id = || FileId { root: index, name: root.name(path) };
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) => {
                self.troubles.insert(path.to_owned(), (id(), error.to_string()));
                // What is missing may come: its folder tells.
                self.watch(path.parent());
                return;
            }
        };
        let given = path == root.absolute;
        if meta.is_dir() {
            // A folder that is reached on two ways is read once, and a link upwards ends here.
            if !self.visited.insert(inode(&meta)) {
                return;
            }
            self.folders.insert(path.to_owned(), inode(&meta));
            if given {
                self.watch(path.parent());
            }
            let entries = match fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                Ok(entries) => entries,
                Err(error) => {
                    self.troubles.insert(path.to_owned(), (id(), error.to_string()));
                    return;
                }
            };
            let mut inside: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
            inside.sort();
            for path in inside.iter().filter(|path| !is_hidden(path)) {
                if is_manifest(path) || path.is_dir() {
                    self.visit(index, root, path);
                }
            }
        } else if meta.is_file() {
            if given {
                self.watch(path.parent());
            }
            if path.is_symlink()
                && let Ok(target) = fs::canonicalize(path)
                && let Some(folder) = target.parent()
            {
                self.link_folders.insert(folder.to_owned());
                self.watch(Some(folder));
            }
            self.files.entry(path.to_owned()).or_insert_with(|| (id(), Print::new(&meta)));
        } else if given {
            self.troubles.insert(path.to_owned(), (id(), "neither a file nor a folder".to_owned()));
        }
    }

    fn watch(&mut self, folder: Option<&Path>) {
        if let Some(folder) = folder
            && let Ok(meta) = fs::metadata(folder)
        {
            self.folders.entry(folder.to_owned()).or_insert(inode(&meta));
        }
    }
}
