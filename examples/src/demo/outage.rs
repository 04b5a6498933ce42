//! A steady load while the control plane is away: it is killed, again and again, and comes back after a while. What runs goes
//! on without it; a pod that starts meanwhile waits, and becomes ready once it is back.

use std::time::{Duration, Instant};

use clap::Args;

use super::mesh::{self, Mesh};
use super::{Place, Progress, duration, loaded, say, verdict};

/// What the user asks for.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How long the control plane is away
    #[arg(long, value_parser = duration, default_value = "2m")]
    down: Duration,
    /// How often that happens: twice at most, as each time another pod starts
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    times: u8,
    /// Requests a second
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
}

/// The load goes on for so long before, between and after.
const PAUSE: Duration = Duration::from_secs(2);

/// Shows it.
///
/// # Errors
/// A request that failed, a pod that was ready too early or not at all, or what could not be done.
pub(super) async fn show(place: &Place, options: &Options, progress: Progress) -> Result<(), String> {
    let mut mesh = Mesh::start(place, "load", &[], progress).await?;
    let load = loaded::start(&mut mesh, options.rate).await?;
    progress.say(&format!("{} requests a second", options.rate));
    let mut problems = Vec::new();
    for late in (0..options.times).map(|time| format!("late-{time}")) {
        tokio::time::sleep(PAUSE).await;
        outage(&mut mesh, &late, options.down, progress, &mut problems).await?;
    }
    tokio::time::sleep(PAUSE).await;
    loaded::end(&mut mesh, load, 1, &mut problems).await?;
    verdict("The control plane was away and nobody noticed, but those who waited for it.", &problems)
}

/// Kills the control plane, starts a pod, and starts the control plane again.
async fn outage(
    mesh: &mut Mesh,
    late: &str,
    down: Duration,
    progress: Progress,
    problems: &mut Vec<String>,
) -> Result<(), String> {
    let Mesh { nodelet, meshd, sources, .. } = mesh;
    progress.say(&format!("meshd is killed, for {down:?}"));
    meshd.kill().await?;
    let running = {
        let patience = down + mesh::PATIENCE;
        let starting = nodelet.start(|pod| pod.name() == late, sources, patience, |text| progress.say(text));
        let mut starting = std::pin::pin!(starting);
        let early = tokio::time::timeout(down, &mut starting).await;
        progress.say("meshd is started again");
        meshd.restart(nodelet).await?;
        let back = Instant::now();
        match early {
            Ok(ended) => {
                problems.push(format!("pod {late} was ready without a control plane"));
                ended?
            }
            Err(_) => {
                let running = starting.await?;
                let after = back.elapsed().as_secs_f64();
                say(&format!("  pod {late}, started meanwhile, was ready {after:.1} s after meshd"))?;
                running
            }
        }
    };
    nodelet.add(running)?;
    loaded::reaches(mesh, late, problems).await
}
