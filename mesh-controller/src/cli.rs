//! What the commands have in common: the flags that describe the mesh, the forms of output, and how a command ends.
//!
//! Standard output is for results and is the same for the same input; everything said to people goes to standard error.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use mesh_api::mesh::{MeshConfig, MeshNetworks};
use mesh_api::{Diagnostic, Name};
use mesh_xds::model::{Features, Settings};
use serde_json::Value;

use crate::source::files::Unreadable;
use crate::yaml;

/// The flags that describe the mesh as a whole, the same for all commands.
#[derive(Args, Clone, Debug, Default)]
pub struct MeshFlags {
    /// File with the settings of the mesh (MeshConfig, YAML)
    #[arg(long, value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,
    /// File with the networks of the mesh (MeshNetworks, YAML)
    #[arg(long, value_name = "FILE")]
    pub mesh_networks: Option<PathBuf>,
    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local")]
    pub domain: String,
    /// Namespace whose configuration is for the whole mesh; otherwise as MeshConfig says
    #[arg(long)]
    pub root_namespace: Option<String>,
    /// Trust domain of the identities; otherwise as MeshConfig says
    #[arg(long, env = "TRUST_DOMAIN")]
    pub trust_domain: Option<String>,
    /// Name of this cluster
    #[arg(long, default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Sets a control-plane feature by its istiod environment name; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub env: Vec<(String, String)>,
}

impl MeshFlags {
    /// The settings that the flags ask for, and what is wrong with the files that they name.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn settings(&self) -> Result<(Settings, Vec<Diagnostic>), Unreadable> {
        Ok(self.settings_of(&self.texts()?))
    }

    /// The texts of the files that the flags name.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn texts(&self) -> Result<MeshTexts, Unreadable> {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| Ok((name_of(path), read(path)?))).transpose();
        Ok(MeshTexts { mesh: text(&self.mesh_config)?, networks: text(&self.mesh_networks)? })
    }

    /// The settings that the flags and these texts ask for, and what is wrong with the texts.
    pub fn settings_of(&self, texts: &MeshTexts) -> (Settings, Vec<Diagnostic>) {
        let mut settings = Settings::default();
        let mut told = Vec::new();
        if let Some((name, text)) = &texts.mesh {
            let (mesh, problems) = MeshConfig::default().apply(name, text);
            told.extend(problems);
            settings.root_namespace = mesh.root_namespace.as_str().into();
            settings.mesh = Arc::new(mesh);
        }
        if let Some((name, text)) = &texts.networks {
            let (networks, problems) = MeshNetworks::from_yaml(text);
            told.extend(problems);
            if networks != MeshNetworks::default() {
                let unused = "networks are read but not used yet: endpoints of all networks count as reachable";
                told.push(Diagnostic::warning("UnsupportedField", format!("{name}: {unused}")));
            }
        }
        if let Some(namespace) = &self.root_namespace {
            settings.root_namespace = namespace.as_str().into();
        }
        if let Some(domain) = &self.trust_domain {
            Arc::make_mut(&mut settings.mesh).trust_domain.clone_from(domain);
        }
        settings.domain = self.domain.as_str().into();
        settings.cluster_id = self.cluster_id.as_str().into();
        settings.features = Features::new(self.env.iter().cloned().collect::<BTreeMap<_, _>>());
        (settings, told)
    }
}

/// The texts that describe the mesh, each with the name of where it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshTexts {
    /// MeshConfig as YAML.
    pub mesh: Option<(Name, String)>,
    /// MeshNetworks as YAML.
    pub networks: Option<(Name, String)>,
}

/// The text of a file that a flag names.
pub(crate) fn read(path: &Path) -> Result<String, Unreadable> {
    let result = if path.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(path) };
    result.map_err(|error| Unreadable { name: name_of(path), why: error.to_string() })
}

pub(crate) fn name_of(path: &Path) -> Name {
    Name::from(path.display().to_string())
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// The forms of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
    /// For people.
    Short,
}

impl Form {
    /// The result as text; `short` is called when that is the form.
    pub(crate) fn render(self, value: &Value, short: impl FnOnce() -> String) -> String {
        match self {
            Self::Json => format!("{value:#}\n"),
            Self::Yaml => yaml::to_string(value),
            Self::Short => short(),
        }
    }
}

/// How a command ends when it does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Exit code 0.
    Ok,
    /// Exit code 1: the answer is no.
    Negative,
    /// Exit code 2: some of the input could not be read; what could be was answered for.
    PartlyUnreadable,
}

/// Ends a command: its result to standard output, its failure to standard error.
pub(crate) fn end(result: anyhow::Result<(String, Verdict)>) -> ExitCode {
    match result.and_then(|(text, verdict)| {
        io::stdout().write_all(text.as_bytes())?;
        io::stdout().flush()?;
        Ok(verdict)
    }) {
        Ok(Verdict::Ok) => ExitCode::SUCCESS,
        Ok(Verdict::Negative) => ExitCode::from(1),
        Ok(Verdict::PartlyUnreadable) => ExitCode::from(2),
        // The reader has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Says something to people.
pub(crate) fn complain(what: impl std::fmt::Display) {
    // Nobody is left to be told when standard error is gone.
    let _ = writeln!(io::stderr(), "{what}");
}

/// Usage errors and requests for help, as clap words them.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}
