//! What replicas tell the one that leads of their proxies' trust: an entry for each in one ConfigMap, which its owner applies.
//! People read there as well where a rotation stands, in the entry `status`.
//!
//! Clocks are not compared: a replica counts while its entry goes on changing. One that starts reports within a step, and the
//! phases last longer than that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use mesh_ca::rotation::{Behind, Observed, Record};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::rotation::{status, unix, waits};
use super::ROTATION;

/// How often a report is renewed.
const PERIOD: Duration = Duration::from_secs(5);
/// A replica that has said nothing new for this long is gone, and its proxies are with others.
const GONE: Duration = Duration::from_secs(30);
/// How many proxies a replica names of a kind: a ConfigMap holds 1 MiB. Whoever is connected for longest is late first.
const NAMED: usize = 200;
/// The entry for people.
const STATUS: &str = "status";

/// What one replica sees of its proxies, the first [`NAMED`] of each kind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Report {
    /// Of the phase that began then.
    since: u64,
    behind: Vec<Behind>,
    silent: Vec<String>,
}

/// A report with what makes it differ from the one before.
#[derive(Serialize, Deserialize)]
struct Stamped {
    at: u64,
    #[serde(flatten)]
    report: Report,
}

/// The reports of all replicas, as one of them sees them.
pub(super) struct Reports {
    config_maps: Api<ConfigMap>,
    replica: String,
    told: Option<(Report, Instant)>,
    /// Since when this replica leads, in Unix seconds.
    led: Option<u64>,
    heard: BTreeMap<String, (String, Instant)>,
    /// What people were told.
    status: String,
}

impl Reports {
    pub(super) fn new(client: Client, namespace: &str, replica: &str) -> Self {
        let config_maps = Api::namespaced(client, namespace);
        let (heard, status) = (BTreeMap::new(), String::new());
        Self { config_maps, replica: replica.to_owned(), told: None, led: None, heard, status }
    }

    /// Tells what this replica sees, while a rotation waits for that, and returns what all see, if this one `leads`.
    pub(super) async fn exchange(&mut self, record: &Record, own: Observed, leads: bool) -> Result<Observed, Error> {
        let since = record.rotation().map_or(0, |rotation| rotation.since);
        let Observed { mut behind, mut silent, .. } = own;
        behind.sort_by_key(|proxy| proxy.since);
        behind.truncate(NAMED);
        silent.truncate(NAMED);
        let report = Report { since, behind, silent };
        if !leads {
            self.led = None;
            let is_told = self.told.as_ref().is_some_and(|(told, at)| *told == report && at.elapsed() < PERIOD);
            if waits(record) && !is_told {
                let at = unix(SystemTime::now());
                let text = serde_json::to_string(&Stamped { at, report: report.clone() }).unwrap_or_default();
                self.apply(&self.replica, &self.replica, &text).await?;
                self.told = Some((report, Instant::now()));
            }
            return Ok(Observed::default());
        }
        let map = if waits(record) { self.config_maps.get_opt(ROTATION).await? } else { None };
        self.hear(map.and_then(|map| map.data).unwrap_or_default(), Instant::now());
        let led = *self.led.get_or_insert_with(|| unix(SystemTime::now()));
        let (behind, silent) = (report.behind, report.silent);
        let mut all = Observed { since: own.since.max(led), published: true, behind, silent };
        for (replica, (text, heard)) in &self.heard {
            let Ok(Stamped { report, .. }) = serde_json::from_str(text) else { continue };
            if heard.elapsed() >= GONE {
                continue;
            }
            if report.since == since {
                all.behind.extend(report.behind);
                all.silent.extend(report.silent);
            } else {
                // It has not begun to look.
                all.behind.push(Behind { proxy: format!("replica {replica}"), since });
            }
        }
        Ok(all)
    }

    /// Tells people where the rotation stands; nothing in a cluster that never had one.
    pub(super) async fn tell(&mut self, record: &Record, observed: &Observed) -> Result<(), Error> {
        let text = format!("{:#}", status(record, observed));
        if self.status == text {
            return Ok(());
        }
        let is_news = record.rotation().is_some() || self.config_maps.get_opt(ROTATION).await?.is_some();
        if is_news {
            self.apply(STATUS, "status", &text).await?;
        }
        self.status = text;
        Ok(())
    }

    /// Notes which of the others' entries have changed.
    fn hear(&mut self, entries: BTreeMap<String, String>, now: Instant) {
        self.heard.retain(|replica, _| entries.contains_key(replica));
        for (replica, text) in entries {
            if replica == STATUS || replica == self.replica {
                continue;
            }
            match self.heard.get_mut(&replica) {
                Some((heard, _)) if *heard == text => {}
                _ => drop(self.heard.insert(replica, (text, now))),
            }
        }
    }

    /// Makes an entry ours. Each has an owner of its own, so that nobody takes away another's.
    async fn apply(&self, entry: &str, owner: &str, text: &str) -> Result<(), Error> {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ROTATION}, "data": {entry: text},
        });
        let owner = PatchParams::apply(&format!("meshd-{owner}")).force();
        self.config_maps.patch(ROTATION, &owner, &Patch::Apply(&map)).await.map(|_| ())
    }
}
