//! The file source on a real folder: every way in which files come to be, change and go.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_api::Severity;
use tokio::time::Instant;

use super::super::conformance::{self, Seen, Subject, key, manifest};
use super::*;

/// A folder and a way of writing into it.
struct OnDisk {
    folder: tempfile::TempDir,
    write: fn(&Path, &str),
}

fn rename_over(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, path).unwrap();
}

fn write_in_place(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

/// As editors do: the old file aside, the new one written, the old one dropped.
fn with_backup(path: &Path, text: &str) {
    let backup = path.with_extension("yaml~");
    if path.exists() {
        fs::rename(path, &backup).unwrap();
    }
    fs::write(path, text).unwrap();
    let _ = fs::remove_file(backup);
}

impl OnDisk {
    fn new(write: fn(&Path, &str)) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), write }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.yaml"))
    }
}

impl Subject for OnDisk {
    fn source(&self) -> Box<dyn Source> {
        Box::new(Files::new([self.folder.path().to_owned()]))
    }
    fn put(&self, name: &str, value: &str) {
        (self.write)(&self.path(name), &manifest(name, value));
    }
    fn delete(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }
    fn spoil(&self, name: &str) -> bool {
        (self.write)(&self.path(name), "kind: [\n");
        true
    }
}

/// All objects in one file.
struct OneFile {
    folder: tempfile::TempDir,
    documents: RefCell<BTreeMap<String, String>>,
}

impl OneFile {
    fn write(&self) {
        let all: Vec<String> = self.documents.borrow().values().cloned().collect();
        rename_over(&self.folder.path().join("all.yaml"), &all.join("---\n"));
    }
}

impl Subject for OneFile {
    fn source(&self) -> Box<dyn Source> {
        Box::new(Files::new([self.folder.path().join("all.yaml")]))
    }
    fn put(&self, name: &str, value: &str) {
        self.documents.borrow_mut().insert(name.into(), manifest(name, value));
        self.write();
    }
    fn delete(&self, name: &str) {
        self.documents.borrow_mut().remove(name);
        self.write();
    }
    fn spoil(&self, name: &str) -> bool {
        self.documents.borrow_mut().insert(name.into(), "kind: [\n".into());
        self.write();
        true
    }
}

/// A folder as the kubelet mounts a ConfigMap: visible links through `..data`, which is swapped.
struct Mounted {
    folder: tempfile::TempDir,
    documents: RefCell<BTreeMap<String, String>>,
    version: RefCell<u32>,
}

impl Mounted {
    fn swap(&self) {
        let root = self.folder.path();
        let old = format!("..v{}", self.version.borrow());
        *self.version.borrow_mut() += 1;
        let new = format!("..v{}", self.version.borrow());
        fs::create_dir(root.join(&new)).unwrap();
        for (name, text) in self.documents.borrow().iter() {
            fs::write(root.join(&new).join(format!("{name}.yaml")), text).unwrap();
        }
        symlink(&new, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        for name in self.documents.borrow().keys() {
            let link = root.join(format!("{name}.yaml"));
            if !link.is_symlink() {
                symlink(format!("..data/{name}.yaml"), link).unwrap();
            }
        }
        for entry in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_symlink() && !entry.exists() {
                fs::remove_file(entry).unwrap();
            }
        }
        let _ = fs::remove_dir_all(root.join(old));
    }
}

impl Subject for Mounted {
    fn source(&self) -> Box<dyn Source> {
        Box::new(Files::new([self.folder.path().to_owned()]))
    }
    fn put(&self, name: &str, value: &str) {
        self.documents.borrow_mut().insert(name.into(), manifest(name, value));
        self.swap();
    }
    fn delete(&self, name: &str) {
        self.documents.borrow_mut().remove(name);
        self.swap();
    }
    fn spoil(&self, name: &str) -> bool {
        self.documents.borrow_mut().insert(name.into(), "kind: [\n".into());
        self.swap();
        true
    }
}

#[tokio::test]
async fn files_replaced_by_rename_conform() {
    conformance::check(&OnDisk::new(rename_over)).await;
}

#[tokio::test]
async fn files_written_in_place_conform() {
    conformance::check(&OnDisk::new(write_in_place)).await;
}

#[tokio::test]
async fn files_written_by_editors_conform() {
    conformance::check(&OnDisk::new(with_backup)).await;
}

#[tokio::test]
async fn one_file_of_many_documents_conforms() {
    let subject = OneFile { folder: tempfile::tempdir().unwrap(), documents: RefCell::default() };
    subject.write();
    conformance::check(&subject).await;
}

#[tokio::test]
async fn a_mounted_config_map_conforms() {
    let subject =
        Mounted { folder: tempfile::tempdir().unwrap(), documents: RefCell::default(), version: RefCell::default() };
    conformance::check(&subject).await;
}

#[tokio::test]
async fn what_the_kernel_does_not_tell_conforms() {
    /// Without watches, as on a network file system.
    struct Unwatched(OnDisk);
    impl Subject for Unwatched {
        fn source(&self) -> Box<dyn Source> {
            let mut files = Files::new([self.0.folder.path().to_owned()]).rescan(Duration::from_millis(10));
            if let State::Idle(core) = &mut files.state {
                core.followed = false;
            }
            Box::new(files)
        }
        fn put(&self, name: &str, value: &str) {
            self.0.put(name, value);
        }
        fn delete(&self, name: &str) {
            self.0.delete(name);
        }
        fn spoil(&self, name: &str) -> bool {
            self.0.spoil(name)
        }
    }
    conformance::check(&Unwatched(OnDisk::new(rename_over))).await;
}

async fn follow(folder: &Path) -> (Files, Seen) {
    let mut source = Files::new([folder.to_owned()]);
    let mut seen = Seen::default();
    seen.until(&mut source, "the initial sync", |seen| seen.synced).await;
    (source, seen)
}

#[tokio::test]
async fn a_rename_touches_no_object() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.yaml"), manifest("a", "1")).unwrap();
    let (mut source, mut seen) = follow(folder.path()).await;
    let is_at = |seen: &Seen, file: &str| {
        seen.objects[&key("a")].1.as_ref().is_some_and(|location| location.file.ends_with(file))
    };
    fs::rename(at("a.yaml"), at("b.yaml")).unwrap();
    seen.until(&mut source, "the new place", |seen| is_at(seen, "/b.yaml")).await;
    fs::create_dir(at("sub")).unwrap();
    fs::rename(at("b.yaml"), at("sub/c.yaml")).unwrap();
    seen.until(&mut source, "the new folder", |seen| is_at(seen, "/sub/c.yaml")).await;
    fs::rename(at("sub"), at("other")).unwrap();
    seen.until(&mut source, "the renamed folder", |seen| is_at(seen, "/other/c.yaml")).await;
    assert_eq!(seen.history[&key("a")], ["1", "1", "1", "1"], "never deleted");
    fs::remove_dir_all(at("other")).unwrap();
    seen.until(&mut source, "the end", |seen| seen.objects.is_empty()).await;
}

#[tokio::test]
async fn a_folder_that_was_away_for_a_moment_is_followed_on() {
    let folder = tempfile::tempdir().unwrap();
    let (here, away) = (folder.path().join("x"), folder.path().join("w"));
    fs::create_dir_all(here.join("y")).unwrap();
    fs::write(here.join("y/a.yaml"), manifest("a", "0")).unwrap();
    let mut source = Files::new([folder.path().to_owned()]).rescan(Duration::from_secs(3600));
    let mut seen = Seen::default();
    seen.until(&mut source, "the initial sync", |seen| seen.synced).await;
    for value in 1..20 {
        let value = value.to_string();
        // Back under its name, and the same folder, before anybody could look.
        fs::rename(&here, &away).unwrap();
        fs::rename(&away, &here).unwrap();
        // Let it look, which finds nothing new.
        let _ = tokio::time::timeout(Duration::from_millis(20), source.next()).await;
        fs::write(here.join("y/a.yaml"), manifest("a", &value)).unwrap();
        seen.until(&mut source, "an edit in it", |seen| seen.value("a") == Some(&value)).await;
    }
}

#[tokio::test]
async fn of_two_definitions_the_later_counts_until_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("1.yaml"), manifest("a", "first")).unwrap();
    let (mut source, mut seen) = follow(folder.path()).await;
    fs::write(at("2.yaml"), manifest("a", "second")).unwrap();
    seen.until(&mut source, "the other definition", |seen| seen.value("a") == Some("second")).await;
    seen.until(&mut source, "the report", |seen| !seen.problems.is_empty()).await;
    let (part, problems) = seen.problems.first_key_value().unwrap();
    assert!(part.ends_with("1.yaml") && problems[0].code == "DuplicateObject", "{problems:?}");
    assert!(problems[0].to_string().contains("2.yaml:1"), "{}", problems[0]);
    fs::remove_file(at("2.yaml")).unwrap();
    seen.until(&mut source, "the first definition", |seen| seen.value("a") == Some("first")).await;
    seen.until(&mut source, "the end of the report", |seen| seen.problems.is_empty()).await;
    assert_eq!(seen.history[&key("a")], ["first", "second", "first"]);
}

#[tokio::test]
async fn a_file_that_is_being_written_waits_for_its_end() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.yaml");
    let text = |value: &str| format!("{}---\n{}", manifest("a", value), manifest("b", value));
    fs::write(&path, text("1")).unwrap();
    let (mut source, mut seen) = follow(folder.path()).await;

    let new = text("2");
    let (head, tail) = new.split_at(new.find("---").unwrap() + 20);
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(head.as_bytes()).unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), source.next()).await;
    assert!(early.is_err(), "half a file says nothing: {early:?}");
    file.write_all(tail.as_bytes()).unwrap();
    drop(file);
    seen.until(&mut source, "the whole file", |seen| seen.value("b") == Some("2")).await;
    assert_eq!(seen.history[&key("b")], ["1", "2"], "never deleted");
    assert!(seen.problems.is_empty(), "never reported");
}

#[tokio::test]
async fn links_to_files_and_folders_elsewhere_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("target.txt"), manifest("a", "1")).unwrap();
    fs::create_dir(elsewhere.path().join("sub")).unwrap();
    fs::write(elsewhere.path().join("sub/b.yaml"), manifest("b", "1")).unwrap();
    symlink(elsewhere.path().join("target.txt"), folder.path().join("a.yaml")).unwrap();
    symlink(elsewhere.path().join("sub"), folder.path().join("linked")).unwrap();
    // A link upwards must not be walked round and round.
    symlink(folder.path(), folder.path().join("up")).unwrap();
    let (mut source, mut seen) = follow(folder.path()).await;
    assert_eq!((seen.value("a"), seen.value("b")), (Some("1"), Some("1")));
    let start = Instant::now();
    fs::write(elsewhere.path().join("target.txt"), manifest("a", "2")).unwrap();
    fs::write(elsewhere.path().join("sub/b.yaml"), manifest("b", "2")).unwrap();
    seen.until(&mut source, "both edits", |seen| seen.value("a") == Some("2") && seen.value("b") == Some("2")).await;
    assert!(start.elapsed() < Duration::from_secs(4), "by the kernel, not by the rescan");
}

#[tokio::test]
async fn what_is_not_a_file_of_ours_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.yaml"), manifest("a", "1")).unwrap();
    fs::write(at(".a.yaml"), manifest("hidden", "1")).unwrap();
    fs::write(at("a.yaml.bak"), manifest("backup", "1")).unwrap();
    fs::create_dir(at(".git")).unwrap();
    fs::write(at(".git/a.yaml"), manifest("git", "1")).unwrap();
    fs::create_dir(at("folder.yaml")).unwrap();
    fs::write(at("folder.yaml/b.json"), r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b"}}"#).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(at("pipe.yaml")).status();
    assert!(pipe.is_ok_and(|status| status.success()), "a pipe nobody writes to must not be waited for");
    let (_, seen) = follow(folder.path()).await;
    assert_eq!(seen.objects.keys().cloned().collect::<Vec<_>>(), [key("a"), key("b")]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_reached_keeps_what_it_said() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("config");
    let (mut source, mut seen) = follow(&folder).await;
    let problem = &seen.problems.first_key_value().expect("a missing folder is reported").1[0];
    assert_eq!((problem.severity, problem.code.as_ref()), (Severity::Error, "UnreadableFile"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), manifest("a", "1")).unwrap();
    seen.until(&mut source, "the folder that came", |seen| seen.value("a") == Some("1")).await;
    seen.until(&mut source, "the end of the report", |seen| seen.problems.is_empty()).await;
    fs::rename(&folder, above.path().join("gone")).unwrap();
    seen.until(&mut source, "the report", |seen| !seen.problems.is_empty()).await;
    fs::rename(above.path().join("gone"), &folder).unwrap();
    fs::write(folder.join("a.yaml"), manifest("a", "2")).unwrap();
    seen.until(&mut source, "the folder that came back", |seen| seen.value("a") == Some("2")).await;
    assert_eq!(seen.history[&key("a")], ["1", "2"], "never deleted");
}

#[tokio::test]
async fn an_edit_is_told_in_milliseconds() {
    let subject = OnDisk::new(rename_over);
    for i in 0..200 {
        subject.put(&format!("n{i}"), "0");
    }
    let (mut source, mut seen) = follow(subject.folder.path()).await;
    let mut times: Vec<Duration> = Vec::new();
    for value in 1..30 {
        let value = value.to_string();
        let start = Instant::now();
        subject.put("n7", &value);
        seen.until(&mut source, "the edit", |seen| seen.value("n7") == Some(&value)).await;
        times.push(start.elapsed());
    }
    // A busy machine makes some of them slow; a fixed wait on the way would make all of them slow.
    assert!(times.iter().min().is_some_and(|best| *best < Duration::from_millis(20)), "{times:?}");
}

#[tokio::test]
async fn dropping_a_wait_loses_nothing() {
    let subject = OnDisk::new(rename_over);
    let (mut source, mut seen) = follow(subject.folder.path()).await;
    for value in 1..20 {
        subject.put("a", &value.to_string());
        // Polled a few times and dropped in whatever state it is.
        if let Ok(batch) = tokio::time::timeout(Duration::from_micros(200), source.next()).await {
            seen.hear(batch.unwrap());
        }
    }
    seen.until(&mut source, "the last edit", |seen| seen.value("a") == Some("19")).await;
}

/// Any history of a folder ends in what a fresh look at it finds, by the kernel's word alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_end_in_the_truth() {
    for seed in 1..=8_u64 {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let mut source = Files::new([root.clone()]).rescan(Duration::from_secs(3600));
        let mut seen = Seen::default();
        seen.until(&mut source, "the initial sync", |seen| seen.synced).await;
        let writer = std::thread::spawn(move || scribble(&root, seed));
        let truth = tokio::task::spawn_blocking(move || writer.join().unwrap()).await.unwrap();
        let settled = |seen: &Seen| {
            let got: BTreeMap<String, String> = seen
                .objects
                .keys()
                .map(|key| (key.name.to_string(), seen.value(&key.name).unwrap().to_owned()))
                .collect();
            got == truth
        };
        seen.until(&mut source, &format!("the truth of history {seed}: {truth:?}"), settled).await;
        // And it stays so.
        while let Ok(batch) = tokio::time::timeout(Duration::from_millis(50), source.next()).await {
            seen.hear(batch.unwrap());
        }
        assert!(settled(&seen), "history {seed}: {:?} is not {truth:?}", seen.history);
    }
}

/// Does things to a folder and returns which objects it has in the end, with their values. Each file has its own object.
fn scribble(root: &Path, seed: u64) -> BTreeMap<String, String> {
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let folders = ["", "x", "x/y", "z"];
    for step in 0..150 {
        let folder = root.join(folders[random(4) as usize]);
        let name = format!("f{}", random(6));
        let path = folder.join(format!("{name}.yaml"));
        // The object is named after its place, so that no two files define the same one.
        let object = path.strip_prefix(root).unwrap().display().to_string().replace(['/', '.'], "-");
        let text = manifest(&object, &step.to_string());
        let _ = match random(10) {
            0..=2 => fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &text)),
            3..=4 if folder.is_dir() => {
                let draft = folder.join("draft.tmp");
                fs::write(&draft, &text).and_then(|()| fs::rename(draft, &path))
            }
            5 if path.exists() => {
                use std::io::Write;
                fs::File::create(&path).and_then(|mut file| {
                    file.write_all(&text.as_bytes()[..20])?;
                    std::thread::sleep(Duration::from_micros(random(3000)));
                    file.write_all(&text.as_bytes()[20..])
                })
            }
            6 => fs::remove_file(&path),
            7 => fs::remove_dir_all(root.join(folders[1 + random(3) as usize])),
            8 => fs::rename(root.join("x"), root.join("w")).and_then(|()| fs::rename(root.join("w"), root.join("x"))),
            9 => fs::rename(&path, path.with_extension("off"))
                .and_then(|()| fs::rename(path.with_extension("off"), &path)),
            _ => Ok(()),
        };
        if random(3) == 0 {
            std::thread::sleep(Duration::from_micros(random(4000)));
        }
    }
    let mut seen = Seen::default();
    seen.hear(read([root.to_owned()]));
    seen.objects.keys().map(|key| (key.name.to_string(), seen.value(&key.name).unwrap().to_owned())).collect()
}
