//! Which of several replicas acts: the one that holds a Lease. Serving needs no leader, writing to the apiserver does.
//!
//! The rules are client-go's, so that both may stand for one Lease: whoever holds it renews it; the others count, by
//! their own clocks, from when they last saw it change. A holder that could not renew stops acting before anybody else may
//! begin.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::retry::Retry;

/// How a Lease is kept. The defaults are client-go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How long a Lease that nobody renews is respected.
    pub duration: Duration,
    /// How long its holder acts without having renewed it; must be shorter.
    pub deadline: Duration,
    /// How often it is renewed, and looked at by the others.
    pub period: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), deadline: Duration::from_secs(10), period: Duration::from_secs(2) }
    }
}

/// A candidate for a Lease.
pub struct Candidate {
    leases: Api<Lease>,
    name: String,
    rules: Rules,
    period: Duration,
    leads: watch::Sender<bool>,
}

impl Candidate {
    /// A candidate of this identity, which no other may have, for a Lease that need not exist yet.
    pub fn new(client: Client, namespace: &str, lease: &str, identity: impl Into<String>, options: Options) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: lease.to_owned(),
            rules: Rules { identity: identity.into(), options, seen: None, renewed: None },
            period: options.period,
            leads: watch::Sender::new(false),
        }
    }

    /// True while this candidate leads.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Stands until `shutdown`, then gives the Lease back, so that nobody has to wait for its end.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut retry = Retry::new(format!("Lease {}", self.name));
        let stand = async {
            loop {
                match self.stand().await {
                    Ok(()) => retry.worked(),
                    Err(error) => retry.tell(&error),
                }
                let leads = self.rules.leads(Instant::now());
                self.leads.send_if_modified(|old| {
                    let differs = *old != leads;
                    if differs {
                        tracing::info!("{} the Lease {}", if leads { "holds" } else { "does not hold" }, self.name);
                        *old = leads;
                    }
                    differs
                });
                tokio::time::sleep(self.period).await;
            }
        };
        tokio::select! {
            () = stand => {}
            () = shutdown => {}
        }
        let led = self.leads.send_replace(false);
        if led && let Err(error) = self.give_back().await {
            tracing::warn!("the Lease {} could not be given back: {error}", self.name);
        }
    }

    /// Looks at the Lease, and takes or renews it where the rules allow. What another wrote meanwhile wins.
    async fn stand(&mut self) -> Result<(), Error> {
        let limit = self.rules.patience(Instant::now());
        let turn = async {
            let lease = self.leases.get_opt(&self.name).await?;
            let Some(spec) = self.rules.next(lease.as_ref().and_then(|lease| lease.spec.as_ref()), Instant::now())
            else {
                return Ok(());
            };
            let asked = Instant::now();
            let written = self.write(lease, spec).await;
            match written {
                Ok(lease) => {
                    self.rules.wrote(lease.spec.unwrap_or_default(), asked);
                    Ok(())
                }
                Err(Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(()),
                Err(error) => Err(error),
            }
        };
        tokio::time::timeout(limit, turn).await.unwrap_or(Ok(()))
    }

    async fn write(&self, lease: Option<Lease>, spec: LeaseSpec) -> Result<Lease, Error> {
        match lease {
            Some(old) => {
                let new = Lease { spec: Some(spec), ..old };
                self.leases.replace(&self.name, &PostParams::default(), &new).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                self.leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
            }
        }
    }

    async fn give_back(&self) -> Result<(), Error> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_ref() == Some(&self.rules.identity) {
            let free = LeaseSpec { holder_identity: Some(String::new()), lease_duration_seconds: Some(1), ..spec };
            self.write(Some(lease), free).await?;
        }
        Ok(())
    }
}

/// The rules, without an apiserver.
struct Rules {
    identity: String,
    options: Options,
    /// The Lease as it was last seen, and since when.
    seen: Option<(LeaseSpec, Instant)>,
    /// When this candidate asked for what it has last been given.
    renewed: Option<Instant>,
}

impl Rules {
    /// What to write, if this candidate holds the Lease or may take it.
    fn next(&mut self, lease: Option<&LeaseSpec>, now: Instant) -> Option<LeaseSpec> {
        let Some(lease) = lease else {
            return Some(self.claim(&LeaseSpec::default()));
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != lease) {
            self.seen = Some((lease.clone(), now));
        }
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity {
            let renewed = LeaseSpec { renew_time: Some(MicroTime(Timestamp::now())), ..self.claim(lease) };
            return Some(LeaseSpec {
                acquire_time: lease.acquire_time.clone(),
                lease_transitions: lease.lease_transitions,
                ..renewed
            });
        }
        self.renewed = None;
        let theirs = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let theirs = theirs.map_or(self.options.duration, Duration::from_secs);
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let free = holder.is_empty() || now.saturating_duration_since(since) >= theirs;
        free.then(|| self.claim(lease))
    }

    /// The Lease as taken from whoever had it.
    fn claim(&self, lease: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.options.duration.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(lease.lease_transitions.map_or(0, |transitions| transitions + 1)),
            ..lease.clone()
        }
    }

    /// The apiserver took what was asked for at this time.
    fn wrote(&mut self, lease: LeaseSpec, asked: Instant) {
        self.seen = Some((lease, asked));
        self.renewed = Some(asked);
    }

    /// How long a turn may take: a holder must know in time that it could not renew.
    fn patience(&self, now: Instant) -> Duration {
        let deadline = self.options.deadline;
        let left = self.renewed.map(|renewed| (renewed + deadline).saturating_duration_since(now));
        left.filter(|left| !left.is_zero()).unwrap_or(deadline)
    }

    fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|renewed| now.saturating_duration_since(renewed) < self.options.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(identity: &str) -> Rules {
        Rules { identity: identity.to_owned(), options: Options::default(), seen: None, renewed: None }
    }

    #[test]
    fn one_leads_until_it_has_not_renewed_for_long_enough() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut a, mut b) = (rules("a"), rules("b"));
        let taken = a.next(None, at(0)).expect("nobody has it");
        a.wrote(taken.clone(), at(0));
        assert!(a.leads(at(9)));
        assert!(b.next(Some(&taken), at(1)).is_none(), "another has it");
        let renewed = a.next(Some(&taken), at(2)).expect("the holder renews");
        assert_eq!((&renewed.acquire_time, renewed.lease_transitions), (&taken.acquire_time, Some(0)));
        a.wrote(renewed.clone(), at(2));
        assert!(b.next(Some(&renewed), at(3)).is_none());
        assert!(!a.leads(at(12)), "the holder stops before anybody begins");
        assert!(b.next(Some(&renewed), at(17)).is_none(), "14 seconds after it was last seen to change");
        let taken = b.next(Some(&renewed), at(18)).expect("nobody renews it");
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(1)));
        b.wrote(taken.clone(), at(18));
        assert!(a.next(Some(&taken), at(19)).is_none() && !a.leads(at(19)), "the old holder sees that it lost");
    }

    #[test]
    fn a_lease_that_was_given_back_is_free_at_once() {
        let free = LeaseSpec { holder_identity: Some(String::new()), ..LeaseSpec::default() };
        assert!(rules("a").next(Some(&free), Instant::now()).is_some());
    }
}
