//! Bookinfo: requests through the ingress gateway, shared among versions as the manifests ask, a live edit of that, and an
//! access policy.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use mesh_api::Object;

use super::mesh::Mesh;
use super::traffic::{Replies, Traffic};
use super::{Place, Progress, manifests, objects, policy, say, verdict};
use crate::nodelet;

/// What the user asks for.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How many requests are sent and counted
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Leave the mesh running afterwards, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// A tenth of the requests
    #[arg(long)]
    quick: bool,
}

/// Weights may be off by this much, in points.
const TOLERANCE: f64 = 2.0;
/// Or by this many standard deviations, where few requests make that more: Envoy draws a lot for each request.
const DEVIATIONS: f64 = 4.0;
/// An edit must be followed within this.
const EDIT_LIMIT: Duration = Duration::from_millis(500);

/// The share of each version that a folder's manifests ask for at a host, in percent.
///
/// # Errors
/// They ask for nothing there.
pub fn asked_for(objects: &[Object], host: &str) -> Result<BTreeMap<String, f64>, String> {
    let mut versions = BTreeMap::new();
    for object in objects {
        if let Object::DestinationRule(rule) = object
            && rule.spec.host == host
        {
            for subset in &rule.spec.subsets {
                if let Some(version) = subset.labels.get("version") {
                    versions.insert(subset.name.clone(), version.clone());
                }
            }
        }
    }
    let mut shares: BTreeMap<String, f64> = versions.values().map(|version| (version.clone(), 0.0)).collect();
    for object in objects {
        if let Object::VirtualService(service) = object
            && service.spec.hosts.iter().any(|h| h == host)
        {
            let routes = service.spec.http.iter().flat_map(|rule| &rule.route);
            for route in routes {
                let subset = route.destination.subset.as_str();
                if let Some(share) = versions.get(subset).and_then(|version| shares.get_mut(version)) {
                    *share += f64::from(route.weight);
                }
            }
        }
    }
    match shares.values().sum::<f64>() {
        total if total > 0.0 => {
            Ok(shares.into_iter().map(|(version, share)| (version, share / total * 100.0)).collect())
        }
        _ => Err(format!("no VirtualService in the manifests weighs versions of {host}")),
    }
}

/// Shows it.
///
/// # Errors
/// What was not as the manifests ask, or could not be done.
pub(super) async fn show(place: &Place, options: &Options, progress: Progress) -> Result<(), String> {
    let requests = if options.quick { options.requests / 10 } else { options.requests };
    let mut mesh = Mesh::start(place, "bookinfo", &[], progress).await?;
    mesh.start_pods().await?;
    let gateway =
        mesh.nodelet.plan().pod_with("istio", "ingressgateway").ok_or("no Deployment is the ingress gateway")?.ip;
    let traffic = Traffic::new(gateway);
    settle(&traffic, &mut mesh).await?;
    progress.say("every part answers through the ingress gateway");

    let mut problems = Vec::new();
    let asked = asked_for(&objects(&manifests("bookinfo"))?, "reviews")?;
    say(&format!("\n{requests} requests through the ingress gateway at http://{gateway}:8080/productpage"))?;
    let replies = traffic.send(requests, |done| progress.say(&format!("{done} requests"))).await;
    judge(&replies, &asked, &mut problems)?;
    mesh.all_alive()?;

    let edited = manifests("edits");
    let asked = asked_for(&objects(&edited)?, "reviews")?;
    say(&format!("\nediting {} while requests run", mesh.config.join("reviews.yaml").display()))?;
    match follow(&traffic, &edited.join("reviews.yaml"), &mesh.config.join("reviews.yaml"), &asked).await? {
        (after, failures) if after < EDIT_LIMIT && failures == 0 => {
            say(&format!("the first request that follows the edit came back {} ms after it", after.as_millis()))?;
        }
        (after, failures) => {
            let text =
                format!("the edit was followed after {} ms, {failures} requests failed meanwhile", after.as_millis());
            say(&text)?;
            problems.push(format!("{text}; at most {} ms and no failure are asked for", EDIT_LIMIT.as_millis()));
        }
    }
    let replies = traffic.send(requests, |done| progress.say(&format!("{done} requests"))).await;
    judge(&replies, &asked, &mut problems)?;
    mesh.all_alive()?;
    policy::show(&mesh, &mut problems).await?;
    mesh.judge_rejections(&mut problems).await?;

    if options.keep {
        keep(gateway, &mesh.config, place.one_user)?;
        std::future::pending::<()>().await;
    }
    verdict("The mesh did what the manifests ask for.", &problems)
}

/// Waits until requests reach every part: a run of good replies.
async fn settle(traffic: &Traffic, mesh: &mut Mesh) -> Result<(), String> {
    let began = Instant::now();
    let mut replies = Replies::default();
    while began.elapsed() < Duration::from_secs(20) {
        mesh.all_alive()?;
        replies = traffic.send(40, |_| {}).await;
        if replies.failures == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("no good replies through the ingress gateway: {}", replies.examples.join("; ")))
}

/// Compares what came with what was asked for, and shows it.
fn judge(replies: &Replies, asked: &BTreeMap<String, f64>, problems: &mut Vec<String>) -> Result<(), String> {
    let good: usize = replies.versions.values().sum();
    if good == 0 {
        problems.push("no request had a good reply".to_owned());
    }
    for version in asked.keys().chain(replies.versions.keys().filter(|version| !asked.contains_key(*version))) {
        let count = replies.versions.get(version).copied().unwrap_or_default();
        // Counts are far below 2^52.
        let share = if good == 0 { 0.0 } else { count as f64 / good as f64 * 100.0 };
        let want = asked.get(version).copied().unwrap_or_default();
        let bar = "█".repeat((share / 2.5).round() as usize);
        say(&format!(
            "  reviews {version}  {count:>7}  {share:5.1} %  (asked: {want:3.0} % ± {:.1})  {bar}",
            tolerance(want, good)
        ))?;
        if (share - want).abs() > tolerance(want, good) || (want == 0.0 && count > 0) {
            problems.push(format!("reviews {version} got {share:.1} % of the requests; {want:.0} % are asked for"));
        }
    }
    let seconds = replies.took.as_secs_f64().max(1e-9);
    say(&format!(
        "  failures    {:>7}  in {seconds:.1} s, {:.0} requests a second",
        replies.failures,
        good as f64 / seconds
    ))?;
    if replies.failures > 0 {
        problems.push(format!("{} requests failed: {}", replies.failures, replies.examples.join("; ")));
    }
    Ok(())
}

/// How far from a share of `want` percent that of `count` requests may be, in points.
fn tolerance(want: f64, count: usize) -> f64 {
    let share = want / 100.0;
    let deviation = (share * (1.0 - share) / count.max(1) as f64).sqrt() * 100.0;
    TOLERANCE.max(DEVIATIONS * deviation)
}

/// Puts the edit in place and returns when the first reply follows it: one from a version that had no share before.
async fn follow(
    traffic: &Traffic,
    from: &Path,
    to: &Path,
    asked: &BTreeMap<String, f64>,
) -> Result<(Duration, usize), String> {
    let before = asked_for(&objects(&manifests("bookinfo"))?, "reviews")?;
    let new =
        asked.iter().find(|(version, share)| **share > 0.0 && before.get(*version).is_none_or(|share| *share == 0.0));
    let (new, _) = new.ok_or("the edit gives a share to no new version")?;
    let text = std::fs::read_to_string(from).map_err(|error| format!("{}: {error}", from.display()))?;
    traffic
        .until(new, Duration::from_secs(10), || {
            nodelet::replace(to, &text).map_err(|error| format!("{}: {error}", to.display()))
        })
        .await
}

fn keep(gateway: Ipv4Addr, config: &Path, one_user: bool) -> Result<(), String> {
    let enter = if one_user { "nsenter --user --preserve-credentials --net" } else { "sudo nsenter --net" };
    // Inside, this is process 1; from outside it is the newest with its command line.
    say(&format!(
        "\nThe mesh keeps running until Ctrl-C. Edit {}, and from another terminal:\n  \
         {enter} --target $(pgrep -nf 'demo inside') curl -s http://{gateway}:8080/productpage",
        config.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_from_the_manifests() {
        let asked = |folder: &str| asked_for(&objects(&manifests(folder)).unwrap(), "reviews").unwrap();
        let of = |v1: f64, v2: f64, v3: f64| BTreeMap::from([("v1".into(), v1), ("v2".into(), v2), ("v3".into(), v3)]);
        assert_eq!(asked("bookinfo"), of(80.0, 20.0, 0.0));
        assert_eq!(asked("edits"), of(50.0, 0.0, 50.0));
        assert!(asked_for(&[], "reviews").is_err());
    }

    #[test]
    fn only_what_is_asked_for_passes() {
        let asked = BTreeMap::from([("v1".to_owned(), 80.0), ("v2".to_owned(), 20.0), ("v3".to_owned(), 0.0)]);
        let problems = |v1, v2, v3, failures| {
            let versions = [("v1", v1), ("v2", v2), ("v3", v3)].map(|(v, n)| (v.to_owned(), n)).into();
            let mut problems = Vec::new();
            judge(&Replies { versions, failures, ..Default::default() }, &asked, &mut problems).unwrap();
            problems.len()
        };
        assert_eq!(problems(8_000, 2_000, 0, 0), 0);
        assert_eq!(problems(8_150, 1_850, 0, 0), 0);
        assert_eq!(problems(8_250, 1_750, 0, 0), 2);
        assert_eq!(problems(770, 230, 0, 0), 0, "a thousand may well be three points off");
        assert_eq!(problems(740, 260, 0, 0), 2);
        assert_eq!(problems(8_000, 1_999, 1, 0), 1, "a version without a share gets nothing at all");
        assert_eq!(problems(8_000, 2_000, 0, 1), 1);
        assert!(problems(0, 0, 0, 0) > 0);
    }
}
