//! A steady load over mTLS while certificates come and go: each lives for a short time only, and connections are renewed all
//! the time, so that every certificate is used. Not one request may fail, and not one handshake.

use std::time::Duration;

use clap::Args;

use super::mesh::Mesh;
use super::{Place, Progress, duration, loaded, verdict};

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

/// Shows it.
///
/// # Errors
/// A request that failed, or what could not be done.
pub(super) async fn show(place: &Place, options: &Options, progress: Progress) -> Result<(), String> {
    let Options { cert_ttl, rate, time } = options;
    let lives = format!("{}s", cert_ttl.as_secs());
    let mut mesh = Mesh::start(place, "load", &[("SECRET_TTL", lives)], progress).await?;
    let load = loaded::start(&mut mesh, *rate).await?;
    progress.say(&format!("{rate} requests a second for {time:?}; certificates live {cert_ttl:?}"));
    tokio::time::sleep(*time).await;
    let mut problems = Vec::new();
    // Renewed at half of their life, there are twice as many; a slow machine may miss one.
    let certificates = time.as_secs() / cert_ttl.as_secs().max(1);
    let certificates = usize::try_from(certificates).unwrap_or(usize::MAX);
    loaded::end(&mut mesh, load, certificates, &mut problems).await?;
    verdict("Certificates came and went, and no request failed.", &problems)
}
