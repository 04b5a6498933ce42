//! `meshctl crds`: the definitions of Istio's kinds and of IstioOperator, for `kubectl apply --server-side -f -`.

use clap::Args;

use mesh_api::yaml;

use crate::cli::Verdict;

/// The definitions of Istio's kinds and of IstioOperator (CRDs), made from our types, as YAML
#[derive(Args, Clone, Debug)]
pub(super) struct Crds {}

impl Crds {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let documents: Result<Vec<String>, serde_json::Error> = mesh_api::crds()
            .iter()
            .chain(&mesh_api::install::crds())
            .map(|crd| Ok(yaml::to_string(&serde_json::to_value(crd)?)))
            .collect();
        Ok((documents?.join("---\n"), Verdict::Ok))
    }
}
