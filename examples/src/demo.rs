//! The demo: bookinfo on a mesh of real Envoys, from the manifests in this folder to requests through the ingress gateway,
//! and a live edit. It believes nothing: what the manifests ask for is computed from them, what happened is counted from
//! the replies, and only when both agree does it end well.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mesh_api::Object;
use mesh_api::mesh::MeshConfig;
use mesh_webhook::{Config, Injector};

use crate::nodelet::accounts::{self, Accounts};
use crate::nodelet::volumes::Sources;
use crate::nodelet::{self, Nodelet, plan};
use crate::{http, sandbox};

mod policy;
pub mod traffic;

use traffic::{Replies, Traffic};

/// What to do, as the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests to count.
    pub requests: usize,
    /// Leave the mesh running afterwards, until told to end.
    pub keep: bool,
    /// There is one user only in this box.
    pub one_user: bool,
    /// A folder for logs and for the configuration that is served and edited.
    pub folder: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
}

/// The ports of the control plane on the node: xDS in plaintext and over TLS.
const XDS_PORTS: [u16; 2] = [15010, 15012];
/// Where the control plane counts what proxies refused.
const METRICS: &str = "http://127.0.0.1:15014/metrics";
/// Weights may be off by this much, in points.
const TOLERANCE: f64 = 2.0;
/// Or by this many standard deviations, where few requests make that more: Envoy draws a lot for each request.
const DEVIATIONS: f64 = 4.0;
/// An edit must be followed within this.
const EDIT_LIMIT: Duration = Duration::from_millis(500);

/// The folder with the manifests.
pub fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bookinfo")
}

/// The settings of the mesh, for the control plane and the injector.
fn mesh_config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh.yaml")
}

/// The injector with the mesh's settings and sidecars as Kubernetes knows them.
///
/// # Errors
/// The settings cannot be read.
pub fn injector() -> Result<Injector, String> {
    let file = mesh_config();
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let (mesh, told) = MeshConfig::from_yaml(&text);
    let (mut config, problems) = Config::new(serde_json::Value::Null, mesh);
    if let Some(problem) = told.iter().chain(&problems).next() {
        return Err(problem.to_string());
    }
    config.native_sidecars = true;
    Ok(Injector::new(config))
}

fn edits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("edits")
}

/// The access policy that is shown.
fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policy")
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

/// The objects of a folder's manifests, in order of the files' names.
///
/// # Errors
/// A file that cannot be read, or anything wrong in one: the demo's own manifests are right.
pub fn objects(folder: &Path) -> Result<Vec<Object>, String> {
    let mut objects = Vec::new();
    for file in yaml_files(folder)? {
        let text = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let parsed = mesh_api::document::parse(&file.display().to_string().as_str().into(), &text);
        if let Some(diagnostic) = parsed.diagnostics().next() {
            return Err(format!("{}: {diagnostic:?}", file.display()));
        }
        objects.extend(parsed.objects().cloned());
    }
    Ok(objects)
}

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

/// Says what happens, with the time since the beginning.
#[derive(Clone, Copy)]
struct Progress(Instant);

impl Progress {
    fn say(self, text: &str) {
        eprintln!("[{:6.2}s] {text}", self.0.elapsed().as_secs_f64());
    }
}

/// Runs the demo inside its box, to its end or until told to end.
///
/// # Errors
/// What was not as the manifests ask, or could not be done.
pub async fn run(options: &Options) -> Result<(), String> {
    tokio::select! {
        done = mesh(options) => done,
        () = sandbox::told_to_end() => Err("interrupted; the kernel takes everything away with this process".into()),
    }
}

async fn mesh(options: &Options) -> Result<(), String> {
    let progress = Progress(Instant::now());
    let manifests = objects(&manifests())?;
    let plan = plan::plan(&manifests, &injector()?)?;
    let gateway = plan.pod_with("istio", "ingressgateway").ok_or("no Deployment is the ingress gateway")?.ip;
    let (config, authority) = (options.folder.join("config"), options.folder.join("ca"));
    let accounts = Accounts::new()?;
    let jwks = options.folder.join("jwks.json");
    serve_a_copy(&config)?;
    std::fs::write(&jwks, accounts.jwks()?).map_err(|error| format!("{}: {error}", jwks.display()))?;

    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let paths = sandbox::furnish(&[&program, &options.envoy], &plan.hosts())?;
    let [program, envoy] = paths.as_slice() else { return Err("the programs are not inside".into()) };
    let mut nodelet = Nodelet::new(
        plan,
        nodelet::Options {
            program: program.clone(),
            envoy: envoy.clone(),
            pods: Path::new(sandbox::INSIDE).join("pods"),
            logs: options.folder.join("logs"),
            config: config.clone(),
            one_user: options.one_user,
        },
    )?;
    progress.say(&format!("the node is up ({})", if options.one_user { "in a user namespace" } else { "as root" }));
    progress.say(&format!("meshd serves {}", config.display()));
    // Bound by IPv4 addresses, since not every kernel has IPv6.
    let [grpc, secure] = XDS_PORTS.map(|port| format!("0.0.0.0:{port}"));
    let path = |path: &Path| path.display().to_string();
    let (config_dir, ca_dir, jwks, mesh_config) = (path(&config), path(&authority), path(&jwks), path(&mesh_config()));
    nodelet.run(
        "meshd",
        &[
            ["meshd", "--config-dir", &config_dir].as_slice(),
            &["--mesh-config", &mesh_config, "--ca-dir", &ca_dir, "--jwks", &jwks, "--jwt-issuer", accounts::ISSUER],
            &["--grpc-addr", &grpc, "--secure-grpc-addr", &secure],
            &["--http-addr", "127.0.0.1:8080", "--monitoring-addr", "127.0.0.1:15014"],
        ]
        .concat(),
    )?;
    wait_for_meshd(&mut nodelet).await?;
    let roots = authority.join("root-cert.pem");
    let roots = std::fs::read_to_string(&roots).map_err(|error| format!("{}: {error}", roots.display()))?;
    let roots = BTreeMap::from([("root-cert.pem".to_owned(), roots)]);
    let config_maps = BTreeMap::from([("istio-ca-root-cert".to_owned(), roots)]);
    let sources = Sources { accounts: &accounts, config_maps: &config_maps };
    nodelet.run_pods(sources, Duration::from_secs(60), |text| progress.say(text)).await?;
    let traffic = Traffic::new(gateway);
    settle(&traffic, &mut nodelet).await?;
    progress.say("every part answers through the ingress gateway");

    let mut problems = Vec::new();
    let asked = asked_for(&manifests, "reviews")?;
    say(&format!("\n{} requests through the ingress gateway at http://{gateway}:8080/productpage", options.requests))?;
    let replies = traffic.send(options.requests, |done| progress.say(&format!("{done} requests"))).await;
    judge(&replies, &asked, &mut problems)?;
    nodelet.all_alive()?;

    let edited = edits();
    let asked = asked_for(&objects(&edited)?, "reviews")?;
    say(&format!("\nediting {} while requests run", config.join("reviews.yaml").display()))?;
    match follow(&traffic, &edited.join("reviews.yaml"), &config.join("reviews.yaml"), &asked).await? {
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
    let replies = traffic.send(options.requests, |done| progress.say(&format!("{done} requests"))).await;
    judge(&replies, &asked, &mut problems)?;
    nodelet.all_alive()?;
    policy::show(&mut nodelet, &config, &mut problems).await?;
    let (_, metrics) = http::get(METRICS).await?;
    let rejected = rejected(&String::from_utf8_lossy(&metrics));
    say(&format!("\n{rejected} of the control plane's responses were rejected by an Envoy"))?;
    if rejected > 0 {
        problems.push(format!("{rejected} responses were rejected by an Envoy; meshd.log says which and why"));
    }

    if options.keep {
        keep(gateway, &config, options.one_user)?;
        std::future::pending::<()>().await;
    }
    match problems.as_slice() {
        [] => say("\nThe mesh did what the manifests ask for."),
        problems => Err(format!("the mesh did not do what the manifests ask for:\n- {}", problems.join("\n- "))),
    }
}

/// Copies the manifests to where they may be edited.
fn serve_a_copy(config: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", config.display());
    if config.exists() {
        std::fs::remove_dir_all(config).map_err(failed)?;
    }
    std::fs::create_dir_all(config).map_err(failed)?;
    for file in yaml_files(&manifests())? {
        std::fs::copy(&file, config.join(file.file_name().unwrap_or_default())).map_err(failed)?;
    }
    Ok(())
}

async fn wait_for_meshd(nodelet: &mut Nodelet) -> Result<(), String> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        nodelet.all_alive()?;
        if let Ok((200, _)) = http::get("http://127.0.0.1:8080/ready").await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("meshd does not become ready; its log is meshd.log".into())
}

/// Waits until every Envoy knows every endpoint: a run of good replies, with each version among them that has a share.
async fn settle(traffic: &Traffic, nodelet: &mut Nodelet) -> Result<(), String> {
    let began = Instant::now();
    let mut replies = Replies::default();
    while began.elapsed() < Duration::from_secs(20) {
        nodelet.all_alive()?;
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

/// How many responses proxies refused, by the control plane's metrics.
fn rejected(metrics: &str) -> u64 {
    let samples = metrics.lines().filter(|line| line.starts_with("pilot_total_xds_rejects"));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
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
    let before = asked_for(&objects(&manifests())?, "reviews")?;
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

/// Says a result: these go to standard output, progress to standard error.
///
/// # Errors
/// Nobody listens.
pub fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_from_the_manifests() {
        let asked = |folder: PathBuf| asked_for(&objects(&folder).unwrap(), "reviews").unwrap();
        let of = |v1: f64, v2: f64, v3: f64| BTreeMap::from([("v1".into(), v1), ("v2".into(), v2), ("v3".into(), v3)]);
        assert_eq!(asked(manifests()), of(80.0, 20.0, 0.0));
        assert_eq!(asked(edits()), of(50.0, 0.0, 50.0));
        assert!(asked_for(&[], "reviews").is_err());
    }

    #[test]
    fn rejections_are_summed_over_types() {
        let metrics = "# TYPE pilot_total_xds_rejects counter\npilot_total_xds_rejects{type=\"rds\"} 2\n\
                       pilot_total_xds_rejects{type=\"lds\"} 1\npilot_xds_pushes{type=\"rds\"} 13\n";
        assert_eq!((rejected(metrics), rejected("")), (3, 0));
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
