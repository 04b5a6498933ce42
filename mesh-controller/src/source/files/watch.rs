//! What the kernel tells of the folders, sorted by what it means for us.
//!
//! We add our watches ourselves, one per folder: only the walk knows which links lead to folders of ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::UnboundedSender;

use super::walk::Inode;

/// One thing that happened to a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Signal {
    pub(super) what: What,
    pub(super) path: PathBuf,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    /// Somebody has begun to write the file and is not done.
    Writing,
    /// Somebody who wrote the file has closed it, or it was renamed into place: it is whole.
    Whole,
    /// It came into being: a link, a folder, or the beginning of a file.
    Created,
    /// Its name is gone, or its mode has changed.
    Changed,
    /// Nobody knows; the path means nothing.
    Lost,
}

/// The watches.
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    folders: BTreeMap<PathBuf, Inode>,
}

impl Watch {
    pub(super) fn new(signals: UnboundedSender<Signal>) -> notify::Result<Self> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // The reader is gone only when the source is; there is nobody to tell then.
            sort(event, |what, path| drop(signals.send(Signal { what, path })));
        })?;
        Ok(Self { watcher, folders: BTreeMap::new() })
    }

    /// Watches exactly these folders; returns whether any is new, and so may have changed before it was watched.
    pub(super) fn follow(&mut self, wanted: &BTreeMap<PathBuf, Inode>) -> notify::Result<bool> {
        let stale: Vec<PathBuf> = self
            .folders
            .iter()
            .filter(|(path, inode)| wanted.get(*path) != Some(inode))
            .map(|(p, _)| p.clone())
            .collect();
        for path in stale {
            // The kernel drops the watch of a folder that is gone by itself.
            let _ = self.watcher.unwatch(&path);
            self.folders.remove(&path);
        }
        let mut any_new = false;
        for (path, inode) in wanted {
            if !self.folders.contains_key(path) {
                match self.watcher.watch(path, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        self.folders.insert(path.clone(), *inode);
                        any_new = true;
                    }
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(any_new)
    }

    /// A path is gone, or another has its name: its watches, and those below it, must be set anew. True if there were any.
    pub(super) fn forget(&mut self, path: &Path) -> bool {
        let below: Vec<PathBuf> = self.folders.keys().filter(|folder| folder.starts_with(path)).cloned().collect();
        for folder in &below {
            // The watcher has let go of it already, where the kernel told.
            let _ = self.watcher.unwatch(folder);
            self.folders.remove(folder);
        }
        !below.is_empty()
    }
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn sort(event: notify::Result<Event>, tell: impl Fn(What, PathBuf)) {
    let what = match &event {
        Err(_) => What::Lost,
        Ok(event) if event.need_rescan() => What::Lost,
        Ok(event) => match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => What::Whole,
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => What::Whole,
            // Both ends of a rename have been told apart already. Reading is no change; we do it ourselves.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return,
            EventKind::Modify(ModifyKind::Data(_)) => What::Writing,
            EventKind::Create(_) => What::Created,
            _ => What::Changed,
        },
    };
    match event {
        Ok(event) if what != What::Lost => event.paths.into_iter().for_each(|path| tell(what, path)),
        _ => tell(what, PathBuf::new()),
    }
}
