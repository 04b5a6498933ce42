//! Feature `json` needs to know the Envoy messages by name: a descriptor set.
//!
//! envoy-types packs one in its package but does not export it, and it is not ours to commit. So this script finds the
//! package that cargo chose, keeps the files that we can meet, without their comments and options, and writes them to
//! `OUT_DIR`. It must work for whoever depends on this crate, so it looks where cargo puts packages: beside us (registry or
//! vendored), where `cargo metadata` says, and in the registry of `CARGO_HOME`. It never goes to the network, and
//! without the feature it does nothing.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "how a build script talks to cargo")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Where the set is inside the package.
const SET: &str = "src/generated/types.bin";
/// Names the package directory by hand, for builds that keep packages elsewhere.
const BY_HAND: &str = "ENVOY_TYPES_DIR";

/// The set keeps the files that begin so, and all that these import.
const ROOTS: &[&str] = &[
    "envoy/admin/v3/",
    "envoy/config/",
    "envoy/extensions/",
    "envoy/service/accesslog/",
    "envoy/service/auth/",
    "envoy/service/cluster/",
    "envoy/service/discovery/",
    "envoy/service/endpoint/",
    "envoy/service/extension/",
    "envoy/service/ext_proc/",
    "envoy/service/listener/",
    "envoy/service/load_stats/",
    "envoy/service/metrics/",
    "envoy/service/rate_limit_quota/",
    "envoy/service/ratelimit/",
    "envoy/service/route/",
    "envoy/service/runtime/",
    "envoy/service/secret/",
    "envoy/service/status/",
    "envoy/type/",
    "google/protobuf/",
    "xds/",
    "udpa/",
];

/// Families that no mesh configuration meets.
const LEFT_OUT: &[&str] = &[
    "dubbo_proxy",
    "thrift",
    "generic_proxy",
    "mongo_proxy",
    "zookeeper_proxy",
    "redis",
    "dynamic_modules",
    "reverse_tunnel",
    "reverse_connection",
    "ai_protocol_manager",
    "ai_filters",
    "mcp",
    "a2a",
    "geoip",
    "file_system",
    "/s2a/",
    "/alts/",
    "watchdog",
];

/// Imports that only declare options, which we drop.
const OPTIONS_ONLY: &[&str] = &[
    "validate/validate.proto",
    "envoy/annotations/",
    "udpa/annotations/",
    "xds/annotations/",
    "google/api/annotations.proto",
    "google/api/http.proto",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={BY_HAND}");
    if env::var_os("CARGO_FEATURE_JSON").is_none() {
        return;
    }
    if let Err(why) = run() {
        println!("cargo::error=mesh-xds, feature json: {why}");
    }
}

fn run() -> Result<(), String> {
    let set = find()?.join(SET);
    println!("cargo::rerun-if-changed={}", set.display());
    let bytes = fs::read(&set).map_err(|e| format!("cannot read {}: {e}; {}", set.display(), hint()))?;
    let all = FileDescriptorSet::decode(bytes.as_slice())
        .map_err(|e| format!("{} is not a descriptor set: {e}; {}", set.display(), hint()))?;
    let out = var("OUT_DIR")?.join("envoy.bin");
    fs::write(&out, prune(all).encode_to_vec()).map_err(|e| format!("cannot write {}: {e}", out.display()))
}

fn var(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("cargo did not set {name}; build with cargo"))
}

fn hint() -> String {
    format!("set {BY_HAND} to the directory of the package envoy-types 0.7 (the one with its Cargo.toml)")
}

/// The directory of the package envoy-types.
fn find() -> Result<PathBuf, String> {
    if let Some(dir) = env::var_os(BY_HAND).map(PathBuf::from) {
        return match dir.join(SET).is_file() {
            true => Ok(dir),
            false => Err(format!("{BY_HAND} is {}, which has no {SET}; {}", dir.display(), hint())),
        };
    }
    let here = var("CARGO_MANIFEST_DIR")?;
    // The build folder lies in the workspace that is built, unless someone moved it; our own folder does when we are a member.
    let workspaces: Vec<PathBuf> = [var("OUT_DIR")?, here.clone()].iter().filter_map(|p| workspace(p)).collect();
    let locked = workspaces.iter().find_map(|dir| locked_version(&dir.join("Cargo.lock")));
    for dir in &workspaces {
        println!("cargo::rerun-if-changed={}", dir.join("Cargo.lock").display());
    }

    if let Some(beside) = here.parent().and_then(|dir| choose(packages_in(dir), locked.as_deref())) {
        return Ok(beside);
    }
    if let Some(told) = workspaces.iter().find_map(|dir| ask_cargo(dir)) {
        return Ok(told);
    }
    let sources = cargo_home().map(|home| subdirectories(&home.join("registry/src"))).unwrap_or_default();
    let found = sources.iter().flat_map(|dir| packages_in(dir)).collect();
    choose(found, locked.as_deref()).ok_or_else(|| format!("the package envoy-types 0.7 was not found; {}", hint()))
}

/// The nearest directory upwards with a Cargo.lock.
fn workspace(from: &Path) -> Option<PathBuf> {
    from.ancestors().find(|dir| dir.join("Cargo.lock").is_file()).map(Path::to_path_buf)
}

/// The version of envoy-types that a Cargo.lock names.
fn locked_version(lock: &Path) -> Option<String> {
    let text = fs::read_to_string(lock).ok()?;
    let mut lines = text.lines().skip_while(|line| line.trim() != "name = \"envoy-types\"");
    let version = lines.nth(1)?.trim().strip_prefix("version = \"")?.strip_suffix('"')?;
    Some(version.to_owned())
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.is_dir()).collect()
}

/// Directories named `envoy-types` (vendored) or `envoy-types-0.7.N` that have a descriptor set, with their versions.
fn packages_in(dir: &Path) -> Vec<(String, PathBuf)> {
    let named = subdirectories(dir).into_iter().filter_map(|path| {
        let version = path.file_name()?.to_str()?.strip_prefix("envoy-types")?.trim_start_matches('-').to_owned();
        (version.is_empty() || version.starts_with("0.7.")).then_some((version, path))
    });
    named.filter(|(_, path)| path.join(SET).is_file()).collect()
}

/// The locked version, else the newest.
fn choose(mut found: Vec<(String, PathBuf)>, locked: Option<&str>) -> Option<PathBuf> {
    let patch = |version: &str| version.rsplit('.').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    found.sort_by_key(|(version, path)| (Some(version.as_str()) == locked, patch(version), path.clone()));
    found.pop().map(|(_, path)| path)
}

/// The directory that cargo itself would use in this workspace.
fn ask_cargo(workspace: &Path) -> Option<PathBuf> {
    let out = Command::new(env::var_os("CARGO")?)
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .current_dir(workspace)
        .output()
        .ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    // One field of one package: `"manifest_path":"…/envoy-types-0.7.7/Cargo.toml"`. Reading it so spares a JSON parser.
    let manifests = text.split("\"manifest_path\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let dirs =
        manifests.map(|path| path.replace("\\\\", "\\")).filter_map(|p| Some(Path::new(&p).parent()?.to_owned()));
    let mut ours = dirs.filter(|dir| {
        let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with("envoy-types") && dir.join(SET).is_file()
    });
    ours.next()
}

fn cargo_home() -> Option<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Some(home.into());
    }
    let home = env::var_os("HOME").or_else(|| env::var_os("USERPROFILE"))?;
    Some(PathBuf::from(home).join(".cargo"))
}

fn prune(all: FileDescriptorSet) -> FileDescriptorSet {
    let mut files: BTreeMap<String, FileDescriptorProto> =
        all.file.into_iter().map(|f| (f.name().to_owned(), slim(f))).collect();
    let is_root = |name: &str| {
        ROOTS.iter().any(|r| name.starts_with(r))
            && !LEFT_OUT.iter().chain(OPTIONS_ONLY).any(|part| name.contains(part))
    };
    let mut wanted: Vec<String> = files.keys().filter(|name| is_root(name)).cloned().collect();
    let mut kept = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if kept.insert(name.clone()) {
            wanted.extend(files.get(&name).iter().flat_map(|f| f.dependency.iter().cloned()));
        }
    }
    files.retain(|name, _| kept.contains(name));
    FileDescriptorSet { file: files.into_values().collect() }
}

/// Without comments and options. What decoding itself drops are options of Envoy's own (validation rules, annotations).
fn slim(mut file: FileDescriptorProto) -> FileDescriptorProto {
    file.source_code_info = None;
    file.options = None;
    let needed = |path: &&String| !OPTIONS_ONLY.iter().any(|o| path.starts_with(o));
    // Public imports are named by index.
    let public: Vec<String> =
        file.public_dependency.iter().filter_map(|i| file.dependency.get(*i as usize).cloned()).collect();
    file.dependency = file.dependency.iter().filter(needed).cloned().collect();
    file.public_dependency =
        (0i32..).zip(&file.dependency).filter(|(_, path)| public.contains(path)).map(|(i, _)| i).collect();
    file.weak_dependency.clear();
    file.message_type.iter_mut().for_each(slim_message);
    for method in file.service.iter_mut().flat_map(|s| s.method.iter_mut()) {
        method.options = None;
    }
    file
}

fn slim_message(message: &mut DescriptorProto) {
    // `map_entry` and `packed` say how bytes are laid out; they are the only options that JSON needs.
    message.options = message.options.take().filter(|o| o.map_entry());
    for field in &mut message.field {
        field.options = field.options.take().filter(|o| o.packed.is_some());
    }
    message.nested_type.iter_mut().for_each(slim_message);
}
