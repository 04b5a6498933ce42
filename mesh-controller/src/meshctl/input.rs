//! The world that a command looks at: manifests and mesh settings become a snapshot, as in the server.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use mesh_api::{Diagnostic, Severity};
use mesh_xds::{Builder, Change, Proxy, ResourceSet, Snapshot, TypeUrl};

use crate::cli::{self, MeshFlags, Verdict};
use crate::source::{Event, files};

/// Where the manifests and the settings come from.
#[derive(Args, Clone, Debug)]
pub(super) struct World {
    /// Manifests: a file, a folder (searched for *.yaml, *.yml, *.json) or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    mesh: MeshFlags,
}

/// A world, and the proxy that looks at it.
pub(super) struct View {
    snapshot: Snapshot,
    proxy: Arc<Proxy>,
    builder: Builder,
    /// Good, unless some document could not be read at all.
    pub(super) verdict: Verdict,
}

impl World {
    /// Reads everything. What is wrong with the manifests is said on standard error.
    pub(super) fn seen_by(&self, proxy: &Path) -> anyhow::Result<View> {
        let text = cli::read(proxy)?;
        let proxy = Arc::new(Proxy::from_json(&text).with_context(|| proxy.display().to_string())?);
        let (settings, mut told) = self.mesh.settings()?;
        let mut changes = Vec::new();
        let mut locations = HashMap::new();
        for event in files::read(self.files.iter().cloned()) {
            match event {
                Event::Upsert { object, location } => {
                    locations.insert(object.object_ref(), location);
                    changes.push(Change::Upsert(object));
                }
                Event::Problems { problems, .. } => told.extend(problems),
                Event::Delete(_) | Event::Synced => {}
            }
        }
        let snapshot = Snapshot::new(settings).apply(changes);
        let builder = Builder::default();
        let between = builder.problems(&snapshot).into_iter().chain(builder.problems_of(&snapshot, &proxy));
        told.extend(snapshot.diagnostics().cloned().chain(between).map(|mut problem| {
            if problem.location.is_none() {
                problem.location = problem.object.as_ref().and_then(|object| locations.get(object).cloned().flatten());
            }
            problem
        }));
        for problem in &told {
            cli::complain(format_args!("{}: {problem}", severity(problem)));
        }
        let verdict = if told.iter().any(is_unreadable) { Verdict::PartlyUnreadable } else { Verdict::Ok };
        Ok(View { snapshot, proxy, builder, verdict })
    }
}

impl View {
    /// All that the proxy should have, by type.
    pub(super) fn resources(&self) -> Vec<(TypeUrl, ResourceSet)> {
        TypeUrl::ALL.into_iter().map(|kind| (kind, self.builder.build(&self.snapshot, &self.proxy, kind))).collect()
    }
}

fn severity(problem: &Diagnostic) -> &'static str {
    match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

/// True for text that says nothing that could be understood, as opposed to objects with mistakes in them.
fn is_unreadable(problem: &Diagnostic) -> bool {
    problem.severity == Severity::Error
        && matches!(problem.code.as_ref(), "UnreadableFile" | "InvalidYAML" | "DuplicateKey" | "DocumentTooLarge")
}
