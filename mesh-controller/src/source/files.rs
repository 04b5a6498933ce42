//! Manifests in files and folders, read and followed: created, edited, renamed, replaced, deleted, mounted from a
//! ConfigMap.
//!
//! A change is told as soon as the kernel tells of it, with nothing to wait for: a file counts when its writer closes
//! it or when it is renamed into place. Only two things wait, because at once would be wrong: a file that vanished may be
//! about to be written anew (`VANISHED`), and a file whose writer keeps it open may be half written (`UNCLOSED`).
//! Where the kernel tells nothing (network file systems), a walk over names and times finds out. The runtime never
//! waits for a disk: all reading and parsing is done on its blocking threads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_api::Name;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use self::folder::{Content, FileId, Folder};
use self::walk::{Found, Print, Root};
use self::watch::{Signal, Watch, What};
use super::{Batch, Event, Next, Source};

mod folder;
mod text;
mod walk;
mod watch;

/// How long a file that vanished stays in force. Editors that move the old file away write the new one next.
const VANISHED: Duration = Duration::from_millis(5);
/// How long after its last write a file is taken for whole though nobody closed it.
const UNCLOSED: Duration = Duration::from_secs(1);
/// How often all is looked at where the kernel does not tell.
const UNWATCHED: Duration = Duration::from_secs(1);

/// A source over files and folders; `-` is standard input, read once.
///
/// Folders are searched recursively for `*.yaml`, `*.yml` and `*.json`; links are followed, hidden names are left out.
/// Of several definitions of an object the last one counts, by order of the paths given, then by path, then by order
/// in the file; the others are reported.
///
/// ```no_run
/// use mesh_controller::source::Files;
/// let source = Files::new(["manifests".into()]);
/// ```
pub struct Files {
    state: State,
}

enum State {
    Idle(Box<Core>),
    Busy(JoinHandle<(Box<Core>, Batch)>),
    Ended,
}

impl Files {
    /// Reads the given paths and follows them. Nothing is read before the first call of [`Source::next`].
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { state: State::Idle(Box::new(Core::new(paths))) }
    }

    /// How often the names and times of all files are compared with what is known, for what the kernel did not tell.
    /// The default is 5 seconds.
    #[must_use]
    pub fn rescan(mut self, period: Duration) -> Self {
        if let State::Idle(core) = &mut self.state {
            core.rescan = period;
        }
        self
    }
}

/// Reads the given paths once, without following them: what [`Files`] tells up to [`Event::Synced`]. Blocks.
pub fn read(paths: impl IntoIterator<Item = PathBuf>) -> Batch {
    let mut core = Core::new(paths);
    core.followed = false;
    core.step(Vec::new())
}

/// A text that was given as input.
#[derive(Clone, Debug)]
pub struct Input {
    /// What it is called: the path, or `-`.
    pub name: Name,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The texts behind the given paths, in the order of the paths and of the names in a folder. Blocks.
///
/// # Errors
/// The first path that cannot be read, with the reason.
pub fn inputs(paths: impl IntoIterator<Item = PathBuf>) -> Result<Vec<Input>, Unreadable> {
    let mut all = Vec::new();
    for path in paths {
        if is_stdin(&path) {
            let bytes = stdin().map_err(|error| Unreadable { name: "-".into(), why: error.to_string() })?;
            all.push(Input { name: "-".into(), bytes });
            continue;
        }
        let found = walk::walk(&[Root::new(path)]);
        if let Some((id, why)) = found.troubles.into_values().next() {
            return Err(Unreadable { name: id.name, why });
        }
        let mut files: Vec<_> = found.files.into_iter().map(|(path, (id, _))| (id, path)).collect();
        files.sort();
        for (FileId { name, .. }, path) in files {
            match fs::read(&path) {
                Ok(bytes) => all.push(Input { name, bytes }),
                Err(error) => return Err(Unreadable { name, why: error.to_string() }),
            }
        }
    }
    Ok(all)
}

/// A path that the user gave and that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {why}")]
pub struct Unreadable {
    /// The path as given.
    pub name: Name,
    /// The system's reason.
    pub why: String,
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn stdin() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Source for Files {
    fn name(&self) -> &str {
        "files"
    }

    fn next(&mut self) -> Next<'_> {
        Box::pin(async move {
            loop {
                match &mut self.state {
                    State::Ended => return None,
                    State::Busy(step) => match step.await {
                        Ok((core, batch)) => {
                            self.state = State::Idle(core);
                            if !batch.is_empty() {
                                return Some(batch);
                            }
                        }
                        Err(error) => {
                            tracing::error!(%error, "the file source has failed; files are no longer followed");
                            self.state = State::Ended;
                        }
                    },
                    State::Idle(core) => {
                        let signals = core.wait().await;
                        if let State::Idle(mut core) = std::mem::replace(&mut self.state, State::Ended) {
                            self.state = State::Busy(tokio::task::spawn_blocking(move || {
                                let batch = core.step(signals);
                                (core, batch)
                            }));
                        }
                    }
                }
            }
        })
    }
}

/// The source's state; it lives on a blocking thread while it works.
struct Core {
    roots: Vec<Root>,
    stdin: Option<usize>,
    followed: bool,
    rescan: Duration,
    folder: Folder,
    known: BTreeMap<PathBuf, Known>,
    /// Paths that were reported as unreadable.
    troubles: BTreeMap<PathBuf, FileId>,
    /// Files that are being written, by the time of the last write.
    writing: BTreeMap<PathBuf, Instant>,
    /// Files that are in force but no longer there, since when.
    vanished: BTreeMap<PathBuf, Instant>,
    watch: Option<Watch>,
    link_folders: BTreeSet<PathBuf>,
    sender: UnboundedSender<Signal>,
    signals: UnboundedReceiver<Signal>,
    backlog: Vec<Signal>,
    next_walk: Option<Instant>,
    synced: bool,
}

struct Known {
    id: FileId,
    /// None when it could not be read.
    content: Option<(Print, u64)>,
}

impl Core {
    fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let (sender, signals) = unbounded_channel();
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        Self {
            stdin: paths.iter().position(|path| is_stdin(path)),
            roots: paths.into_iter().filter(|path| !is_stdin(path)).map(Root::new).collect(),
            followed: true,
            rescan: Duration::from_secs(5),
            folder: Folder::default(),
            known: BTreeMap::new(),
            troubles: BTreeMap::new(),
            writing: BTreeMap::new(),
            vanished: BTreeMap::new(),
            watch: None,
            link_folders: BTreeSet::new(),
            sender,
            signals,
            backlog: Vec::new(),
            next_walk: None,
            synced: false,
        }
    }

    /// Waits until there is something to do. Dropping the future loses nothing.
    async fn wait(&mut self) -> Vec<Signal> {
        if self.synced && self.backlog.is_empty() {
            let due = self.due();
            tokio::select! {
                signal = self.signals.recv() => self.backlog.extend(signal),
                () = tokio::time::sleep_until(due) => {}
            }
        }
        let mut signals = std::mem::take(&mut self.backlog);
        while let Ok(signal) = self.signals.try_recv() {
            signals.push(signal);
        }
        signals
    }

    fn due(&self) -> Instant {
        let vanished = self.vanished.values().min().map(|since| *since + VANISHED);
        let unclosed = self.writing.values().min().map(|since| *since + UNCLOSED);
        let walk = self.next_walk.unwrap_or_else(Instant::now);
        [vanished, unclosed].into_iter().flatten().fold(walk, Instant::min)
    }

    /// Finds out what is new. The first step is the initial sync.
    fn step(&mut self, signals: Vec<Signal>) -> Batch {
        let now = Instant::now();
        let mut to_read = BTreeSet::new();
        let mut look = self.next_walk.is_none_or(|at| at <= now);
        for signal in signals {
            look |= self.hear(signal, now, &mut to_read);
        }
        let unclosed: Vec<PathBuf> =
            self.writing.iter().filter(|(_, last)| now >= **last + UNCLOSED).map(|(path, _)| path.clone()).collect();
        for path in unclosed {
            self.writing.remove(&path);
            look |= !self.known.contains_key(&path);
            to_read.insert(path);
        }

        let mut news = Vec::new();
        let mut replaced = false;
        if look {
            let found = self.look(now);
            replaced = found.files.keys().any(|path| !self.known.contains_key(path));
            self.compare(&found, now, &mut to_read, &mut news);
        }
        self.read_all(to_read, now, &mut news);
        self.bury(now, replaced, &mut news);
        if !self.synced
            && let Some(root) = self.stdin
        {
            let id = FileId { root, name: Name::from("-") };
            news.push((id, stdin().map_or_else(|error| Content::Unreadable(error.to_string()), Content::Bytes)));
        }

        let mut batch = if news.is_empty() { Batch::new() } else { self.folder.apply(news) };
        if !self.synced {
            self.synced = true;
            batch.push(Event::Synced);
        }
        batch
    }

    /// Sorts one signal; true when only a walk can tell what it means.
    fn hear(&mut self, Signal { what, path }: Signal, now: Instant, to_read: &mut BTreeSet<PathBuf>) -> bool {
        let linked = path.parent().is_some_and(|folder| self.link_folders.contains(folder));
        if what == What::Lost {
            return true;
        }
        if !linked && !self.roots.iter().any(|root| root.concerns(&path)) {
            return false;
        }
        let known = self.known.contains_key(&path);
        let manifest = known || walk::is_manifest(&path);
        let meta = || fs::symlink_metadata(&path);
        match what {
            What::Created => match meta() {
                // Empty as yet, most likely. A second name of a file comes as a whole.
                Ok(meta) if meta.is_file() && meta.nlink() == 1 => {
                    if manifest {
                        self.being_written(path, now);
                    }
                    linked
                }
                Ok(meta) if meta.is_dir() => !walk::is_hidden(&path),
                Ok(_) => true,
                Err(_) => false,
            },
            What::Writing => {
                if manifest {
                    to_read.remove(&path);
                    self.being_written(path, now);
                }
                false
            }
            What::Whole => {
                self.writing.remove(&path);
                let plain = meta().is_ok_and(|meta| meta.is_file());
                if plain && known && !self.vanished.contains_key(&path) {
                    to_read.insert(path);
                    return linked;
                }
                manifest || !plain || linked
            }
            What::Changed | What::Lost => {
                let watched = self.watch.as_mut().is_some_and(|watch| watch.forget(&path));
                known || linked || watched
            }
        }
    }

    fn being_written(&mut self, path: PathBuf, now: Instant) {
        // It is back, if it was gone; its last good version waits for the new one.
        self.vanished.remove(&path);
        self.writing.insert(path, now);
    }

    /// Walks, and sees to it that what was found is watched.
    fn look(&mut self, now: Instant) -> Found {
        let mut period = self.rescan;
        let mut found = walk::walk(&self.roots);
        if self.followed {
            // What came into a folder before its watch was set is found by walking once more.
            loop {
                match self.follow(&found) {
                    Ok(false) => break,
                    Ok(true) => found = walk::walk(&self.roots),
                    Err(error) => {
                        if !self.synced {
                            tracing::warn!(%error, "files cannot be watched; they are looked at every {UNWATCHED:?}");
                        }
                        period = period.min(UNWATCHED);
                        break;
                    }
                }
            }
        }
        self.next_walk = Some(now + period);
        self.link_folders.clone_from(&found.link_folders);
        self.writing.retain(|path, _| found.files.contains_key(path));
        found
    }

    fn follow(&mut self, found: &Found) -> notify::Result<bool> {
        let watch = match self.watch.take() {
            Some(watch) => watch,
            None => Watch::new(self.sender.clone())?,
        };
        self.watch.insert(watch).follow(&found.folders)
    }

    /// Compares what there is with what is known.
    fn compare(
        &mut self,
        found: &Found,
        now: Instant,
        to_read: &mut BTreeSet<PathBuf>,
        news: &mut Vec<(FileId, Content)>,
    ) {
        for (path, (id, print)) in &found.files {
            self.vanished.remove(path);
            let known = self.known.entry(path.clone()).or_insert_with(|| Known { id: id.clone(), content: None });
            if known.content.is_none_or(|(known, _)| known != *print) && !self.writing.contains_key(path) {
                to_read.insert(path.clone());
            }
        }
        for path in self.known.keys().filter(|path| !found.files.contains_key(*path)) {
            // Below a folder that cannot be read nothing is known to be gone.
            if !path.ancestors().any(|above| found.troubles.contains_key(above)) {
                self.vanished.entry(path.clone()).or_insert(now);
            }
        }
        for (path, id) in std::mem::take(&mut self.troubles) {
            if !found.troubles.contains_key(&path) && !found.files.contains_key(&path) {
                news.push((id, Content::Gone));
            }
        }
        for (path, (id, why)) in &found.troubles {
            if let Some(known) = self.known.get_mut(path) {
                known.content = None;
            }
            news.push((id.clone(), Content::Unreadable(why.clone())));
            self.troubles.insert(path.clone(), id.clone());
        }
    }

    /// Reads what is to be read, except what somebody has begun to write in the meantime.
    fn read_all(&mut self, to_read: BTreeSet<PathBuf>, now: Instant, news: &mut Vec<(FileId, Content)>) {
        let results: Vec<_> = to_read
            .into_iter()
            .map(|path| {
                let result = read_file(&path);
                (path, result)
            })
            .collect();
        while let Ok(signal) = self.signals.try_recv() {
            self.backlog.push(signal);
        }
        for (path, result) in results {
            if self.backlog.iter().any(|signal| signal.what == What::Writing && signal.path == path) {
                continue;
            }
            let Some(known) = self.known.get_mut(&path) else { continue };
            match result {
                Ok((print, bytes)) => {
                    let hash = xxh3_64(&bytes);
                    if known.content.replace((print, hash)).is_none_or(|(_, old)| old != hash) {
                        news.push((known.id.clone(), Content::Bytes(bytes)));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.vanished.entry(path).or_insert(now);
                }
                Err(error) => {
                    known.content = None;
                    news.push((known.id.clone(), Content::Unreadable(error.to_string())));
                }
            }
        }
    }

    /// Lets go of files that are gone for good.
    fn bury(&mut self, now: Instant, replaced: bool, news: &mut Vec<(FileId, Content)>) {
        let gone: Vec<PathBuf> = self
            .vanished
            .iter()
            .filter(|(path, since)| !self.writing.contains_key(*path) && (replaced || now >= **since + VANISHED))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.vanished.remove(&path);
            if let Some(known) = self.known.remove(&path) {
                news.push((known.id, Content::Gone));
            }
        }
    }
}

#[cfg(test)]
mod tests;

fn read_file(path: &Path) -> std::io::Result<(Print, Vec<u8>)> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut file = fs::File::open(path)?;
    // Taken before reading: what is written later differs from it and is found by the next walk.
    let meta = file.metadata()?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    file.read_to_end(&mut bytes)?;
    Ok((Print::new(&meta), bytes))
}
