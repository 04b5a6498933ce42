//! `meshctl explain`: why a request goes where it goes.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use mesh_xds::explain::{Request, Resources, explain, render};

use super::input::World;
use crate::cli::{self, Form, Verdict};

/// Why a request goes where it goes: listener, filter chain, route, cluster, and the object behind each step
#[derive(Args, Clone, Debug)]
pub(super) struct Explain {
    #[command(flatten)]
    world: World,
    /// The proxy, as JSON: type, id, ips, namespace, labels, metadata, ...
    #[arg(long, value_name = "FILE")]
    proxy: PathBuf,
    /// The request, as JSON: direction, address, port, protocol, host, path, method, headers, ...
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Short)]
    output: Form,
}

impl Explain {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let text = cli::read(&self.request)?;
        let request: Request = serde_json::from_str(&text).with_context(|| self.request.display().to_string())?;
        let view = self.world.seen_by(&self.proxy)?;
        let explanation = explain(&Resources::decode(&view.resources())?, &request);
        let value = serde_json::to_value(&explanation)?;
        Ok((self.output.render(&value, || render(&explanation)), view.verdict))
    }
}
