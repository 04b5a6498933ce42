//! `meshctl operator`: the operator as a process of a cluster.

use std::net::SocketAddr;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::install::{Reach, block_on};
use crate::ControlPlane;
use crate::cli::Verdict;
use crate::meshd::{address, log_to_stderr, replica};
use crate::operator::{self, Options};

/// Keeps installations as their IstioOperators ask for, until it is told to end
#[derive(Args, Clone, Debug)]
pub(super) struct Operator {
    #[command(flatten)]
    reach: Reach,
    /// Namespace of the Lease that one replica holds
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    namespace: String,
    /// The name of this replica
    #[arg(long, env = "POD_NAME", default_value_t = replica())]
    pod_name: String,
    /// Where /ready is served
    #[arg(long, default_value = ":8080", value_parser = address, value_name = "[HOST]:PORT")]
    http_addr: SocketAddr,
    /// Where /metrics is served
    #[arg(long, default_value = ":15014", value_parser = address, value_name = "[HOST]:PORT")]
    monitoring_addr: SocketAddr,
}

impl Operator {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        log_to_stderr();
        block_on(async {
            let options = Options::new(&self.namespace, &self.pod_name);
            let operator = operator::Operator::new(self.reach.client().await?, options);
            // A control plane without anything to serve has the pages that are wanted.
            let pages =
                ControlPlane::builder().serve_http(self.http_addr).serve_metrics(self.monitoring_addr).bind().await?;
            pages.metrics().register(|registry| operator.metrics().register(registry));
            let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let end = CancellationToken::new();
            let until_told = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                end.cancel();
                Ok(())
            };
            let operate = async {
                operator.run(end.cancelled()).await;
                Ok(())
            };
            tokio::try_join!(until_told, operate, pages.run_until(end.cancelled()))?;
            Ok((String::new(), Verdict::Ok))
        })
    }
}
