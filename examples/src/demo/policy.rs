//! Access policy, shown: three callers of one service before and after a policy is put in place. Who may call is decided by
//! the certificate that the caller's proxy shows, not by its address.

use std::time::{Duration, Instant};

use super::mesh::Mesh;
use super::{manifests, say, yaml_files};
use crate::bookinfo::PORT;
use crate::http;
use crate::nodelet::Nodelet;

/// A policy must hold everywhere within this.
const LIMIT: Duration = Duration::from_secs(5);
const URL: &str = "http://ratings:9080/ratings/0";

/// What a caller got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    Status(u16),
    /// The connection came to nothing.
    Nothing,
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => f.pad(&status.to_string()),
            Self::Nothing => f.pad("no answer"),
        }
    }
}

/// Puts the policy in place and takes it back; what was not as it asks is added to `problems`.
///
/// # Errors
/// The policy cannot be written.
pub(super) async fn show(mesh: &Mesh, problems: &mut Vec<String>) -> Result<(), String> {
    let nodelet = &mesh.nodelet;
    say("\nwho may call ratings: reviews, productpage, and a client without a proxy")?;
    let open = [Got::Status(200); 3];
    compare("without a policy", open, within(nodelet, open).await, problems)?;
    let mut files = Vec::new();
    for file in yaml_files(&manifests("policy"))? {
        let to = mesh.config.join(file.file_name().unwrap_or_default());
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        crate::nodelet::replace(&to, &text).map_err(|error| format!("{}: {error}", to.display()))?;
        files.push(to);
    }
    let ruled = [Got::Status(200), Got::Status(403), Got::Nothing];
    compare("with examples/policy", ruled, within(nodelet, ruled).await, problems)?;
    for file in files {
        std::fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    compare("without it again", open, within(nodelet, open).await, problems)
}

fn compare(when: &str, want: [Got; 3], got: [Got; 3], problems: &mut Vec<String>) -> Result<(), String> {
    let [reviews, productpage, plain] = got;
    say(&format!("  {when:<22} reviews: {reviews:<10} productpage: {productpage:<10} plain client: {plain}"))?;
    if got != want {
        let [reviews, productpage, plain] = want;
        problems.push(format!("{when} the callers of ratings should get {reviews}, {productpage} and {plain}"));
    }
    Ok(())
}

/// What the callers get, asked again until it is as wanted or the time is over.
async fn within(nodelet: &Nodelet, want: [Got; 3]) -> [Got; 3] {
    let began = Instant::now();
    loop {
        let got = ask(nodelet).await;
        if got == want || began.elapsed() > LIMIT {
            return got;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ask(nodelet: &Nodelet) -> [Got; 3] {
    let from = |app: &'static str| async move {
        let Some(pod) = nodelet.plan().pod_with("app", app) else { return Got::Nothing };
        nodelet.request(pod, URL).await.map_or(Got::Nothing, Got::Status)
    };
    let plain = async {
        let Some(ratings) = nodelet.plan().pod_with("app", "ratings") else { return Got::Nothing };
        let url = format!("http://{}:{PORT}/ratings/0", ratings.ip);
        http::get(&url).await.map_or(Got::Nothing, |(status, _)| Got::Status(status))
    };
    let (reviews, productpage, plain) = tokio::join!(from("reviews"), from("productpage"), plain);
    [reviews, productpage, plain]
}
