//! A new root with a new key, without one failed handshake.
//!
//! The order is everything: first all trust both roots, then the new one signs, then what the old one signed runs out, and
//! only then the old one is forgotten. At every moment, whatever a peer presents was signed by a root that all others trust.
//!
//! [`Rotation`] is that order as a state that is kept beside the keys, in one Secret. A step is a function of the state, of
//! what is observed, and of the time: whoever is killed at any point reads the state and goes on. Two rules make that safe:
//! the state is written before anybody acts on it, and both keys are in the Secret before the first state is. [`Record`] is
//! what is written: the state with the two authorities.
//!
//! A proxy shows its trust by acknowledging the bundle that it was sent. One that never asks for bundles, such as Istio's own
//! agent, learns of a root with its next certificate: it is given the time of the longest certificate, and no longer.
//!
//! ```
//! use mesh_ca::rotation::{Observed, Phase, Rotation, Side, Timing};
//! let timing = Timing::default();
//! let begun = Rotation::begin(1_800_000_000);
//! assert_eq!((begun.issuer(), begun.trusted()), (Side::Old, &[Side::Old, Side::New][..]));
//! // Nobody is behind, but the time to settle is not over.
//! let all = Observed { published: true, ..Observed::default() };
//! assert_eq!(begun.step(&all, &timing, 1_800_000_001), begun);
//! let next = begun.step(&all, &timing, 1_800_000_000 + timing.settle.as_secs());
//! assert!(matches!(next.phase, Phase::Draining { .. }) && next.issuer() == Side::New);
//! ```

mod record;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use record::Record;

/// One of the two authorities.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Side {
    /// The one of before.
    Old,
    /// The one to come.
    New,
}

/// Where a rotation stands. Times are Unix seconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "phase")]
#[non_exhaustive]
pub enum Phase {
    /// The old root signs; both are handed out. Ends when all trust both.
    Distributing,
    /// The new root signs; both are trusted. Ends when nothing that the old one signed is valid any more.
    Draining {
        /// Until when something of the old root may live.
        until: u64,
    },
    /// The old root is taken back from whoever still trusts it.
    Retiring,
    /// Only the new root is left; its entries take the place of the old one's.
    Done,
    /// Given up after the switch: the old root signs again, both are trusted until nothing of the new one is valid any more.
    Returning {
        /// Until when something of the new root may live.
        until: u64,
    },
    /// Given up: only the old root is left.
    Aborted,
}

impl Phase {
    /// The phase in a word, for logs, metrics and people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Distributing => "distributing",
            Self::Draining { .. } => "draining",
            Self::Retiring => "retiring",
            Self::Done => "done",
            Self::Returning { .. } => "returning",
            Self::Aborted => "aborted",
        }
    }
}

/// A rotation under way, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Rotation {
    /// Where it stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// Since when, in Unix seconds.
    pub since: u64,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the control plane sees of the trust of this phase.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// Since when it is looked at without a break, in Unix seconds: whoever has just begun to look does not see those who are
    /// still on their way back.
    pub since: u64,
    /// Every namespace's ConfigMap has it, so that whoever starts now begins with it.
    pub published: bool,
    /// The connected proxies that ask for bundles of trust and have not acknowledged this one.
    pub behind: Vec<Behind>,
    /// The connected proxies that never ask for bundles.
    pub silent: Vec<String>,
}

/// A proxy that has not acknowledged what all should trust.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Behind {
    /// Its name.
    pub proxy: String,
    /// Since when it is connected, in Unix seconds.
    pub since: u64,
}

/// How long things take.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Timing {
    /// How long all must have trusted both roots before the switch: those who are not connected at this moment read the
    /// ConfigMap, and kubelets pass that on within a minute or two.
    pub settle: Duration,
    /// How long to wait for a proxy that does not acknowledge before giving up.
    pub patience: Duration,
    /// The longest lifetime of a workload's certificate. Proxies that never acknowledge have another one by then, and with it
    /// the trust.
    pub longest: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { settle: Duration::from_secs(300), patience: 24 * hour, longest: 24 * hour }
    }
}

impl Rotation {
    /// The first state. Write it together with the new authority's key and certificate.
    pub fn begin(now: u64) -> Self {
        Self { phase: Phase::Distributing, since: now, reason: None }
    }

    /// Who signs.
    pub fn issuer(&self) -> Side {
        match self.phase {
            Phase::Distributing | Phase::Returning { .. } | Phase::Aborted => Side::Old,
            Phase::Draining { .. } | Phase::Retiring | Phase::Done => Side::New,
        }
    }

    /// Whom all are to trust.
    pub fn trusted(&self) -> &'static [Side] {
        match self.phase {
            Phase::Distributing | Phase::Draining { .. } | Phase::Returning { .. } => &[Side::Old, Side::New],
            Phase::Retiring | Phase::Done => &[Side::New],
            Phase::Aborted => &[Side::Old],
        }
    }

    /// True when nothing is left to wait for.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done | Phase::Aborted)
    }

    /// The state after this one; the same while there is something to wait for.
    #[must_use]
    pub fn step(&self, observed: &Observed, timing: &Timing, now: u64) -> Self {
        let waited = Duration::from_secs(now.saturating_sub(self.since));
        let seen = observed.published && observed.behind.is_empty();
        let renewed = observed.silent.is_empty() || waited >= timing.longest;
        let settled = now.saturating_sub(self.since.max(observed.since)) >= timing.settle.as_secs();
        match self.phase {
            Phase::Distributing if seen && renewed && settled => {
                self.to(Phase::Draining { until: runs_out(timing, now) }, now)
            }
            Phase::Distributing => match self.not_seen(observed, timing, now) {
                Some(reason) => self.abort(&reason, timing, now),
                None => self.clone(),
            },
            Phase::Draining { until } if now >= until => self.to(Phase::Retiring, now),
            // Whoever trusts the old root longer harms nobody.
            Phase::Retiring if seen || waited >= timing.patience => self.to(Phase::Done, now),
            Phase::Returning { until } if now >= until => self.to(Phase::Aborted, now),
            _ => self.clone(),
        }
    }

    /// Gives up, which is possible until the old root is being taken back. What the new root has signed stays valid.
    #[must_use]
    pub fn abort(&self, reason: &str, timing: &Timing, now: u64) -> Self {
        let phase = match self.phase {
            // The new root has signed nothing.
            Phase::Distributing => Phase::Aborted,
            Phase::Draining { .. } => Phase::Returning { until: runs_out(timing, now) },
            _ => return self.clone(),
        };
        Self { reason: Some(reason.to_owned()), ..self.to(phase, now) }
    }

    /// Why nothing more is waited for, if so.
    fn not_seen(&self, observed: &Observed, timing: &Timing, now: u64) -> Option<String> {
        const NAMED: usize = 5;
        let is_late = |since: u64| now.saturating_sub(since.max(self.since)) >= timing.patience.as_secs();
        if !observed.published && is_late(self.since) {
            let text = "the new root is not in every namespace's ConfigMap istio-ca-root-cert; check meshd's log";
            return Some(text.to_owned());
        }
        let late: Vec<&str> =
            observed.behind.iter().filter(|behind| is_late(behind.since)).map(|behind| &*behind.proxy).collect();
        let (count, more) = (late.len(), if late.len() > NAMED { ", …" } else { "" });
        let named = late.get(..NAMED.min(count)).unwrap_or_default().join(", ");
        let text = format!(
            "{count} proxies have not acknowledged the new root ({named}{more}); restart them, put the old authority back, and begin again"
        );
        (count > 0).then_some(text)
    }

    fn to(&self, phase: Phase, now: u64) -> Self {
        Self { phase, since: now, reason: self.reason.clone() }
    }
}

/// When nothing is left of what is signed until now; another replica may learn of the switch a little later.
fn runs_out(timing: &Timing, now: u64) -> u64 {
    now.saturating_add((timing.longest + timing.settle).as_secs())
}

#[cfg(test)]
mod tests;
