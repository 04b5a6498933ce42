//! `meshctl install` and `meshctl uninstall`: what the operator does for an IstioOperator, done once for one in a file.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use super::manifest::Wanted;
use crate::cli::{Verdict, complain};
use crate::install::Plan;
use crate::operator::changes::{Changes, Key};
use crate::operator::status::{Outcome, is_available};
use crate::operator::{Cluster, Owner, changes, desired};

/// How long between two looks at whether pods run.
const LOOK: Duration = Duration::from_secs(1);

/// Which cluster.
#[derive(Args, Clone, Debug)]
pub(super) struct Reach {
    /// How to reach the cluster; otherwise as KUBECONFIG says, or as a pod of it
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of that file
    #[arg(long)]
    context: Option<String>,
}

impl Reach {
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await?,
            None if self.context.is_some() => kube::Config::from_kubeconfig(&options).await?,
            None => kube::Config::infer().await.context("no cluster is configured; name its --kubeconfig")?,
        };
        Ok(Client::try_from(config)?)
    }
}

/// Installs what an IstioOperator asks for, and removes what it no longer does
#[derive(Args, Clone, Debug)]
pub(super) struct Install {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    reach: Reach,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Don't wait until the pods run
    #[arg(long)]
    skip_wait: bool,
    /// How many seconds to wait for them
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    readiness_timeout: u64,
}

/// Removes what was installed; the definitions of Istio's kinds stay, and with them all that is configured
#[derive(Args, Clone, Debug)]
pub(super) struct Uninstall {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    reach: Reach,
    /// Remove the objects of all installations
    #[arg(long)]
    purge: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Install {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let mut plan = self.wanted.plan()?;
        let rendered = plan.render().context("the charts do not take these values")?;
        plan.told.iter().for_each(complain);
        let objects = desired(&plan, rendered);
        block_on(async {
            let cluster = Cluster::new(self.reach.client().await?);
            let changes = changes(&objects, &cluster.observe().await?, &Owner::of_plan(&plan));
            for (key, owner) in &changes.foreign {
                complain(format_args!("{key} belongs to {owner}, and stays as it is"));
            }
            let outcome = carry_out(&cluster, &changes, self.dry_run).await;
            match outcome.failed.is_empty() {
                true if self.dry_run || self.skip_wait => Ok(verdict(true)),
                true => self.wait(&cluster, &plan).await,
                false => Ok(verdict(false)),
            }
        })
    }

    async fn wait(&self, cluster: &Cluster, plan: &Plan) -> anyhow::Result<(String, Verdict)> {
        let (start, limit) = (Instant::now(), Duration::from_secs(self.readiness_timeout));
        let mut said = Vec::new();
        loop {
            let owner = Owner::of_plan(plan);
            let observed = cluster.observe().await?;
            let own = observed.iter().filter(|object| Owner::of(object).as_ref() == Some(&owner));
            let waiting: Vec<Key> = own.filter(|object| !is_available(object)).map(Key::of).collect();
            if waiting.is_empty() {
                complain("all that was installed runs");
                return Ok(verdict(true));
            }
            if waiting != said {
                complain(format_args!("waiting for {}", list(&waiting)));
                said.clone_from(&waiting);
            }
            if start.elapsed() > limit {
                complain(format_args!("after {} s, not available: {}", limit.as_secs(), list(&waiting)));
                return Ok(verdict(false));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Uninstall {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let operator = self.wanted.operator()?;
        let named = |field: &str| operator.pointer(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let owner = Owner { name: named("/metadata/name"), namespace: named("/metadata/namespace") };
        block_on(async {
            let cluster = Cluster::new(self.reach.client().await?);
            let observed = cluster.observe().await?;
            let mut owners: Vec<Owner> = observed.iter().filter_map(Owner::of).collect();
            owners.sort_by_key(ToString::to_string);
            owners.dedup();
            if !self.purge {
                let there: Vec<String> = owners.iter().map(ToString::to_string).collect();
                owners.retain(|other| *other == owner);
                if owners.is_empty() {
                    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
                    bail!("nothing is installed of {owner}; installed are: {there}");
                }
            }
            let mut failed = false;
            for owner in &owners {
                let outcome = carry_out(&cluster, &changes(&[], &observed, owner), self.dry_run).await;
                failed |= !outcome.failed.is_empty();
            }
            Ok(verdict(!failed))
        })
    }
}

/// Makes the changes, and says each.
async fn carry_out(cluster: &Cluster, changes: &Changes, dry_run: bool) -> Outcome {
    if dry_run {
        changes.apply.iter().for_each(|object| complain(format_args!("would apply {}", Key::of(object))));
        changes.delete.iter().for_each(|object| complain(format_args!("would delete {}", Key::of(object))));
        return Outcome::default();
    }
    if changes.is_empty() {
        complain("nothing has to change");
    }
    cluster.carry_out(changes, |done| complain(done)).await
}

fn verdict(well: bool) -> (String, Verdict) {
    (String::new(), if well { Verdict::Ok } else { Verdict::Negative })
}

fn list(keys: &[Key]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Runs a command that talks to a cluster.
pub(super) fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}
