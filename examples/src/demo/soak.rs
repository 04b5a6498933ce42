//! A steady load over mTLS while certificates come and go: each lives for a short time only, and connections are renewed all
//! the time, so that every certificate is used. Not one request may fail.

use std::time::Duration;

use clap::Args;

use super::load::{self, Load};
use super::mesh::{self, Mesh};
use super::{Place, Progress, duration, verdict};

/// What the user asks for.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How long a certificate lives; it is renewed at half of that
    #[arg(long, value_parser = duration, default_value = "60s")]
    cert_ttl: Duration,
    /// Requests a second
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// For how long
    #[arg(long = "for", value_parser = duration, default_value = "5m")]
    time: Duration,
}

/// Where the load goes.
pub const URL: &str = "http://echo:8001/";

/// Shows it.
///
/// # Errors
/// A request that failed, or what could not be done.
pub(super) async fn show(place: &Place, options: &Options, progress: Progress) -> Result<(), String> {
    let Options { cert_ttl, rate, time } = options;
    let lives = format!("{}s", cert_ttl.as_secs());
    let mut mesh = Mesh::start(place, "load", &[("SECRET_TTL", lives)], progress).await?;
    mesh.start_pods_where(|pod| !pod.name().starts_with("late")).await?;
    let client = mesh.nodelet.plan().pod_with("app", "client").ok_or("there is no client")?;
    settle(&mesh).await?;
    progress.say(&format!("{rate} requests a second for {time:?}; certificates live {cert_ttl:?}"));
    let load = Load::start(&mesh.nodelet, client, URL, *rate)?;
    tokio::time::sleep(*time).await;
    let report = load.stop().await?;
    mesh.all_alive()?;

    let mut problems = Vec::new();
    // Renewed at half of their life, there are twice as many; a slow machine may miss one.
    let certificates = time.as_secs() / cert_ttl.as_secs().max(1);
    load::judge(&report, *rate, usize::try_from(certificates).unwrap_or(usize::MAX), &mut problems)?;
    mesh::judge_rejections(&mut problems).await?;
    verdict("Certificates came and went, and no request failed.", &problems)
}

/// Waits until the client reaches the server.
pub(super) async fn settle(mesh: &Mesh) -> Result<(), String> {
    let client = mesh.nodelet.plan().pod_with("app", "client").ok_or("there is no client")?;
    let reached = async {
        while mesh.nodelet.request(client, URL).await != Ok(200) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(mesh::PATIENCE, reached).await.map_err(|_| "the client does not reach the server".to_owned())
}
