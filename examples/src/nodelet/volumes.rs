//! The volumes of a pod as folders: what a kubelet puts into them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::accounts::Accounts;
use super::environment;
use super::plan::Pod;

/// What a pod's volumes are made of.
#[derive(Debug)]
pub struct Sources {
    /// Signs projected tokens.
    pub accounts: Accounts,
    /// ConfigMaps by name; these are in every namespace.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
}

/// Makes the volumes of a pod below `folder`: their paths by their names.
///
/// # Errors
/// A volume that a node like this cannot have, or a file that cannot be written.
pub fn make(pod: &Pod, folder: &Path, sources: &Sources) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut made = BTreeMap::new();
    for volume in pod.spec().volumes.iter().flatten() {
        let path = folder.join(&volume.name);
        let done = create(&path).and_then(|()| fill(pod, volume, &path, sources));
        done.map_err(|error| format!("volume {}: {error}", volume.name))?;
        made.insert(volume.name.clone(), path);
    }
    Ok(made)
}

/// A folder that every user may write, as an `emptyDir` is.
fn create(path: &Path) -> Result<(), String> {
    let made = std::fs::create_dir_all(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)));
    made.map_err(|error| error.to_string())
}

fn fill(pod: &Pod, volume: &Volume, path: &Path, sources: &Sources) -> Result<(), String> {
    if let Some(downward) = &volume.downward_api {
        return downward_files(pod, downward.items.iter().flatten(), path);
    }
    if let Some(config_map) = &volume.config_map {
        return config_map_files(config_map, path, sources);
    }
    if let Some(projected) = &volume.projected {
        return projected.sources.iter().flatten().try_for_each(|source| project(pod, source, path, sources));
    }
    let is_there = volume.empty_dir.is_some();
    let may_be_empty = volume.secret.as_ref().is_some_and(|secret| secret.optional == Some(true));
    // A volume that says nothing is an empty folder.
    let says_nothing = *volume == Volume { name: volume.name.clone(), ..Volume::default() };
    if is_there || may_be_empty || says_nothing { Ok(()) } else { Err("this node has no such volumes".into()) }
}

fn project(pod: &Pod, source: &VolumeProjection, path: &Path, sources: &Sources) -> Result<(), String> {
    if let Some(ServiceAccountTokenProjection { audience, expiration_seconds, path: file }) =
        &source.service_account_token
    {
        let life = Duration::from_secs(expiration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(3600));
        let account = pod.spec().service_account_name.as_deref().unwrap_or("default");
        let audience = audience.as_deref().unwrap_or("kubernetes");
        return write(path, file, &sources.accounts.token(pod.namespace(), account, audience, life)?);
    }
    match &source.downward_api {
        Some(downward) => downward_files(pod, downward.items.iter().flatten(), path),
        None => Err("this node projects tokens and the downward API only".into()),
    }
}

fn config_map_files(source: &ConfigMapVolumeSource, path: &Path, sources: &Sources) -> Result<(), String> {
    match sources.config_maps.get(&source.name) {
        Some(data) => data.iter().try_for_each(|(file, text)| write(path, file, text)),
        None if source.optional == Some(true) => Ok(()),
        None => Err(format!("there is no ConfigMap {}", source.name)),
    }
}

fn downward_files<'a>(
    pod: &Pod,
    items: impl Iterator<Item = &'a DownwardAPIVolumeFile>,
    path: &Path,
) -> Result<(), String> {
    for item in items {
        let field = item.field_ref.as_ref().map_or("", |field| &field.field_path);
        let metadata = &pod.manifest.metadata;
        let text = match field {
            "metadata.labels" => lines(metadata.labels.iter().flatten()),
            "metadata.annotations" => lines(metadata.annotations.iter().flatten()),
            field => environment::field(pod, field)?,
        };
        write(path, &item.path, &text)?;
    }
    Ok(())
}

fn lines<'a>(entries: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    entries.fold(String::new(), |mut text, (key, value)| {
        // A String takes all that is written.
        let _ = writeln!(text, "{key}={value:?}");
        text
    })
}

fn write(folder: &Path, file: &str, text: &str) -> Result<(), String> {
    std::fs::write(folder.join(file), text).map_err(|error| format!("{file}: {error}"))
}
