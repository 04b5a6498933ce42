//! What the shows under load have in common: a server, a client whose connections are renewed all the time, and what must
//! hold in the end. No request may have failed, and no handshake, not even one that was tried again.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Child;

use super::load::Report;
use super::mesh::{self, Mesh};
use super::say;
use crate::nodelet::plan::Pod;

/// Where the load goes.
const URL: &str = "http://echo:8001/";
/// What Envoys count of handshakes that failed.
const FAILED: [&str; 4] =
    ["ssl.connection_error", "ssl.fail_verify_error", "ssl.fail_verify_san", "ssl.fail_verify_no_cert"];

/// A load that runs, in a process of its own.
#[derive(Debug)]
pub(super) struct Load {
    child: Child,
    rate: f64,
}

/// Starts the server and the client and, once they reach each other, the load. Pods called `late` are left for later.
///
/// # Errors
/// What the kernel or a tool refused, or a pod that was not ready in time.
pub(super) async fn start(mesh: &mut Mesh, rate: f64) -> Result<Load, String> {
    mesh.start_pods_where(|pod| !pod.name().starts_with("late")).await?;
    let client = pod(mesh, "client-0")?;
    let reached = async {
        while mesh.nodelet.request(client, URL).await != Ok(200) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let reached = tokio::time::timeout(mesh::PATIENCE, reached).await;
    reached.map_err(|_| "the client does not reach the server".to_owned())?;
    let mut command = mesh.nodelet.within(client);
    command.args(["load", "--rate", &rate.to_string(), URL]).process_group(0).kill_on_drop(true);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    Ok(Load { child: child.map_err(|error| format!("the load cannot be started: {error}"))?, rate })
}

/// Whether a pod reaches the server; if not, that is a problem.
///
/// # Errors
/// There is no such pod.
pub(super) async fn reaches(mesh: &Mesh, name: &str, problems: &mut Vec<String>) -> Result<(), String> {
    match mesh.nodelet.request(pod(mesh, name)?, URL).await {
        Ok(200) => {}
        other => problems.push(format!("pod {name} is ready, but does not reach the server: {other:?}")),
    }
    Ok(())
}

/// Stops the load, says what came of it, and adds what was wrong to `problems`. So many certificates must have been shown
/// by the client's proxy at least.
///
/// # Errors
/// A process ended by itself, or an Envoy does not say what it counted.
pub(super) async fn end(
    mesh: &mut Mesh,
    load: Load,
    certificates: usize,
    problems: &mut Vec<String>,
) -> Result<(), String> {
    let Load { mut child, rate } = load;
    // It ends with its standard input, after the last answer.
    drop(child.stdin.take());
    let done = child.wait_with_output().await.map_err(|error| format!("the load: {error}"))?;
    let report = serde_json::from_slice(&done.stdout);
    let report = report.map_err(|error| format!("the load ended ({}): {error}", done.status))?;
    mesh.all_alive()?;
    judge(&report, rate, certificates, problems)?;
    let failed = failed_handshakes(mesh).await?;
    say(&format!("  handshakes    {failed:>8}  failed, by all Envoys"))?;
    if failed > 0 {
        problems.push(format!("{failed} handshakes failed"));
    }
    mesh.judge_rejections(problems).await
}

fn pod<'a>(mesh: &'a Mesh, name: &str) -> Result<&'a Pod, String> {
    let mut pods = mesh.nodelet.plan().pods.iter();
    pods.find(|pod| pod.name() == name).ok_or_else(|| format!("there is no pod {name}"))
}

/// Says what came of a load, and adds what was wrong with it to `problems`: any failure at all, a rate that was not held, or
/// fewer certificates than there should have been.
///
/// # Errors
/// Nobody listens.
fn judge(report: &Report, rate: f64, certificates: usize, problems: &mut Vec<String>) -> Result<(), String> {
    let Report { sent, failed, slowest: (slowest, at), seconds, .. } = report;
    say(&format!(
        "\n  requests      {sent:>8}  in {seconds:.1} s, {:.0} a second\n  failed        {failed:>8}\n  certificates  {:>8}  \
         shown by the client's proxy\n  slowest       {slowest:>8.0}  ms, after {at:.1} s",
        report.rate(),
        report.certificates.len()
    ))?;
    if *failed > 0 || *sent == 0 {
        let told: Vec<String> = report.failures.iter().map(|(at, why)| format!("after {at:.1} s: {why}")).collect();
        problems.push(format!("{failed} of {sent} requests failed: {}", told.join("; ")));
    }
    if report.rate() < 0.95 * rate {
        problems.push(format!("only {:.0} requests a second were sent; {rate} are asked for", report.rate()));
    }
    if report.certificates.len() < certificates {
        let seen = report.certificates.len();
        problems.push(format!("{seen} certificates were shown; there should have been {certificates} at least"));
    }
    Ok(())
}

/// How many handshakes have failed, as the Envoys of client and server count them.
async fn failed_handshakes(mesh: &Mesh) -> Result<u64, String> {
    let mut failed = 0;
    for name in ["client-0", "echo-0"] {
        let arguments = ["mesh-agent", "request", "GET", "stats?filter=ssl"];
        let done = mesh.nodelet.within(pod(mesh, name)?).args(arguments).output().await;
        let stats = String::from_utf8_lossy(&done.map_err(|error| error.to_string())?.stdout).into_owned();
        failed += counted(&stats).ok_or_else(|| format!("the Envoy of {name} counts no handshakes: {stats}"))?;
    }
    Ok(failed)
}

/// The sum of failed handshakes in Envoy's statistics; `None` where none is counted at all.
fn counted(stats: &str) -> Option<u64> {
    let counts = stats.lines().filter_map(|line| line.split_once(": "));
    let counts = counts.filter(|(name, _)| FAILED.iter().any(|failed| name.ends_with(failed)));
    counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).reduce(|sum, count| sum + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_failure_is_a_problem() {
        let problems = |sent, failed, certificates: &[&str]| {
            let certificates = certificates.iter().map(|hash| (*hash).to_owned()).collect();
            let mut problems = Vec::new();
            let report = Report { sent, failed, certificates, seconds: 10.0, ..Report::default() };
            judge(&report, 100.0, 2, &mut problems).unwrap();
            problems.len()
        };
        assert_eq!(problems(1000, 0, &["a", "b"]), 0);
        assert_eq!(problems(1000, 1, &["a", "b"]), 1);
        assert_eq!(problems(900, 0, &["a", "b"]), 1);
        assert_eq!(problems(1000, 0, &["a"]), 1);
        assert_eq!(problems(0, 0, &[]), 3);
    }

    #[test]
    fn failed_handshakes_are_summed() {
        let stats =
            "cluster.a.ssl.fail_verify_error: 2\nlistener.b.ssl.connection_error: 1\ncluster.a.ssl.handshake: 7\n";
        assert_eq!((counted(stats), counted("cluster.a.ssl.handshake: 7"), counted("")), (Some(3), None, None));
    }
}
