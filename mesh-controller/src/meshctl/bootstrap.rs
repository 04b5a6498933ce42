//! `meshctl bootstrap`: the Envoy bootstrap that mesh-agent would write.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use mesh_xds::bootstrap::for_description;
use serde_json::Value;

use crate::cli::{self, Form, Verdict};

/// The Envoy bootstrap that mesh-agent would write
#[derive(Args, Clone, Debug)]
pub(super) struct Bootstrap {
    /// The proxy, as JSON: type, id, ips, namespace, labels, metadata, ...
    #[arg(long, value_name = "FILE")]
    proxy: PathBuf,
    /// Where the control plane is, instead of what metadata.PROXY_CONFIG says
    #[arg(long, value_name = "HOST:PORT")]
    discovery_address: Option<String>,
    /// The form of the output
    #[arg(short, long, value_parser = ["json", "yaml"], default_value = "json")]
    output: String,
}

impl Bootstrap {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let text = cli::read(&self.proxy)?;
        let proxy: Value = serde_json::from_str(&text).with_context(|| self.proxy.display().to_string())?;
        let bootstrap = for_description(&proxy, self.discovery_address.as_deref())
            .with_context(|| self.proxy.display().to_string())?;
        let form = if self.output == "yaml" { Form::Yaml } else { Form::Json };
        Ok((form.render(&bootstrap, String::new), Verdict::Ok))
    }
}
