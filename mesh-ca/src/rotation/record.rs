//! What is kept of an authority, so that whoever is killed goes on: its key and certificates, and during a rotation those of
//! the one to come and where the rotation stands.
//!
//! The owner of an authority says what it should be by changing a Secret or a folder, and may do so at any time, also while
//! nobody is looking. So the record holds a copy of what is in force: only with the old key can a new root be introduced
//! without a failed handshake. [`Record::said`] decides what a change asks for, [`Record::step`] what time and observation
//! allow. Both are pure; the record they return is written first and acted upon afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Observed, Phase, Rotation, Side, Timing};
use crate::authority::{Authority, Lifetimes};
use crate::bundle::{self, BundleError};
use crate::certificate::Certificate;
use crate::key::KeyError;

/// The entries of an authority, in istiod's layout. Its `Debug` form shows no key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Kept(BTreeMap<String, String>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Kept {
    fn of(authority: &Authority) -> Result<Self, KeyError> {
        let entries = authority.entries()?.into_iter();
        Ok(Self(entries.map(|(name, text)| (name.to_owned(), text)).collect()))
    }

    fn read(&self, lifetimes: Lifetimes, now: SystemTime) -> Result<Authority, BundleError> {
        let entries = self.0.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
        bundle::plugged_in(&entries, lifetimes, now)
    }

    fn roots(&self) -> Result<Vec<Certificate>, BundleError> {
        let pem = self.0.get(bundle::ROOT_CERT).map(String::as_bytes).unwrap_or_default();
        let wrong = |error: crate::certificate::CertificateError| BundleError {
            entry: bundle::ROOT_CERT,
            message: error.to_string(),
        };
        Certificate::all_from_pem(pem).map_err(wrong)
    }

    /// Whether two are of the same certificates. One key may be written in more than one way, and revocation lists are
    /// written anew every few days.
    fn is(&self, other: &Self) -> bool {
        self.certificates().eq(other.certificates())
    }

    fn certificates(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter().filter(|(name, _)| *name != bundle::CA_KEY && *name != bundle::CA_CRL)
    }

    fn take_lists(&mut self, newer: &Self) {
        match newer.0.get(bundle::CA_CRL) {
            Some(lists) => self.0.insert(bundle::CA_CRL.to_owned(), lists.clone()),
            None => self.0.remove(bundle::CA_CRL),
        };
    }
}

/// The authority that a rotation leads to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Next {
    authority: Kept,
    rotation: Rotation,
}

/// An authority as it is kept, and its rotation if there is one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// In force, and during a rotation the one of before.
    old: Kept,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Next>,
}

impl Record {
    /// Of an authority that is in force.
    ///
    /// # Errors
    /// When its key cannot be written.
    pub fn new(authority: &Authority) -> Result<Self, KeyError> {
        Ok(Self { old: Kept::of(authority)?, next: None })
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// As text, to be kept as secret as the keys that it holds.
    ///
    /// # Errors
    /// Never; the library says so.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// The rotation that is under way, or the last if it was given up.
    pub fn rotation(&self) -> Option<&Rotation> {
        self.next.as_ref().map(|next| &next.rotation)
    }

    /// Where it stands, in a word: `stable` while there is no rotation.
    pub fn word(&self) -> &'static str {
        self.rotation().map_or("stable", |rotation| rotation.phase.word())
    }

    /// What follows when the owner says that this should be the authority.
    ///
    /// Whoever is trusted by all and trusts all is taken at once, such as a new intermediate of the same root. Any other begins a
    /// rotation. The authority of before, said again, gives the rotation up; what was given up is not begun again until
    /// something else was said. Anything else has to wait until the rotation is over, but for new revocation lists: they are
    /// taken at any time.
    ///
    /// # Errors
    /// When a key cannot be written.
    pub fn said(
        &self,
        authority: &Authority,
        timing: &Timing,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Self, KeyError> {
        let said = Kept::of(authority)?;
        let known = self.with_lists_of(&said);
        Ok(match &known.next {
            Some(next) if said.is(&next.authority) => known.clone(),
            Some(next) if !next.rotation.is_over() && said.is(&known.old) => {
                let rotation = next.rotation.abort("the authority of before was put back", timing, seconds(now));
                known.with(rotation)
            }
            Some(next) if !next.rotation.is_over() => known.clone(),
            None if said.is(&known.old) => known.clone(),
            _ if said.is(&known.old) || !known.needs_rotation(authority, lifetimes, now) => {
                Self { old: said, next: None }
            }
            _ => Self {
                old: known.old.clone(),
                next: Some(Next { authority: said, rotation: Rotation::begin(seconds(now)) }),
            },
        })
    }

    /// The same with the lists that one of its authorities has now.
    fn with_lists_of(&self, said: &Kept) -> Self {
        let mut record = self.clone();
        let next = record.next.as_mut().map(|next| &mut next.authority);
        for kept in std::iter::once(&mut record.old).chain(next) {
            if said.is(kept) {
                kept.take_lists(said);
            }
        }
        record
    }

    /// True while what the owner says is not looked at.
    pub fn is_busy_with_another(&self, authority: &Authority) -> bool {
        let Ok(said) = Kept::of(authority) else { return false };
        let busy = |next: &Next| !next.rotation.is_over() && !said.is(&next.authority) && !said.is(&self.old);
        self.next.as_ref().is_some_and(busy)
    }

    /// An authority that cannot sign any more needs no careful end.
    fn needs_rotation(&self, new: &Authority, lifetimes: Lifetimes, now: SystemTime) -> bool {
        let Ok(old) = self.old.read(lifetimes, now) else { return false };
        let is_kept = |root: &Certificate| new.roots().iter().any(|other| other.is_same_authority(root));
        !bundle::is_trusted_by(new, old.roots(), now) || !old.roots().iter().all(is_kept)
    }

    /// The record after this one: by what the owner [says](Self::said) and, where that is nothing new, by what was observed
    /// of this record ([`step`](Self::step)).
    ///
    /// # Errors
    /// When a key cannot be written.
    pub fn moved(
        &self,
        authority: &Authority,
        observed: &Observed,
        timing: &Timing,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Self, KeyError> {
        let said = self.said(authority, timing, lifetimes, now)?;
        Ok(if said == *self { self.step(observed, timing, now) } else { said })
    }

    /// The record after this one, by what is observed and the time.
    #[must_use]
    pub fn step(&self, observed: &Observed, timing: &Timing, now: SystemTime) -> Self {
        let Some(next) = &self.next else { return self.clone() };
        self.with(next.rotation.step(observed, timing, seconds(now)))
    }

    /// The same with the rotation in this state.
    fn with(&self, rotation: Rotation) -> Self {
        match &self.next {
            Some(next) if rotation.phase == Phase::Done => Self { old: next.authority.clone(), next: None },
            Some(next) => {
                Self { old: self.old.clone(), next: Some(Next { authority: next.authority.clone(), rotation }) }
            }
            None => self.clone(),
        }
    }

    /// The authority to act by.
    ///
    /// # Errors
    /// When the one that signs cannot sign any more, or the record was written by somebody else.
    pub fn authority(&self, lifetimes: Lifetimes, now: SystemTime) -> Result<Authority, BundleError> {
        let Some(Next { authority: new, rotation }) = &self.next else { return self.old.read(lifetimes, now) };
        let (issuer, other) = match rotation.issuer() {
            Side::Old => (&self.old, new),
            Side::New => (new, &self.old),
        };
        let authority = issuer.read(lifetimes, now)?;
        if rotation.trusted().len() < 2 {
            return Ok(authority);
        }
        let lists = other.0.get(bundle::CA_CRL).map(String::as_str);
        Ok(authority.also_trusting(&other.roots()?).also_checking(lists))
    }

    /// The authority that the owner said last, as far as it was taken up.
    ///
    /// # Errors
    /// As for [`authority`](Self::authority).
    pub fn wanted(&self, lifetimes: Lifetimes, now: SystemTime) -> Result<Authority, BundleError> {
        let next = self.next.as_ref().filter(|next| !next.rotation.is_over());
        next.map_or(&self.old, |next| &next.authority).read(lifetimes, now)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Behind;
    use super::*;
    use crate::RootOptions;

    const TIMING: Timing = Timing {
        settle: Duration::from_secs(10),
        patience: Duration::from_secs(200),
        longest: Duration::from_secs(60),
    };

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn root() -> Authority {
        Authority::self_signed(&RootOptions::default(), Lifetimes::default(), at(0)).unwrap()
    }

    fn said(record: &Record, authority: &Authority, seconds: u64) -> Record {
        record.said(authority, &TIMING, Lifetimes::default(), at(seconds)).unwrap()
    }

    /// Who signs, and how many are trusted.
    fn acts(record: &Record) -> (Certificate, usize) {
        let authority = record.authority(Lifetimes::default(), at(20)).unwrap();
        (authority.certificate().clone(), authority.roots().len())
    }

    fn seen() -> Observed {
        Observed { published: true, ..Observed::default() }
    }

    #[test]
    fn a_new_root_is_led_in_from_phase_to_phase_and_survives_being_written() {
        let (old, new) = (root(), root());
        let mut record = said(&Record::new(&old).unwrap(), &old, 0);
        assert_eq!((record.word(), acts(&record)), ("stable", (old.certificate().clone(), 1)));
        record = said(&record, &new, 0);
        let mut went = vec![];
        for second in [0, 9, 10, 11, 79, 80, 81] {
            let text = record.to_json().unwrap();
            record = said(&Record::from_json(&text).unwrap(), &new, second).step(&seen(), &TIMING, at(second));
            let (issuer, trusted) = acts(&record);
            went.push((record.word(), issuer == *new.certificate(), trusted));
        }
        let draining = ("draining", true, 2);
        let want = [("distributing", false, 2), ("distributing", false, 2), draining, draining, draining];
        assert_eq!(went[..5], want);
        assert_eq!(went[5..], [("retiring", true, 1), ("stable", true, 1)]);
        assert_eq!(record, Record::new(&new).unwrap());
    }

    #[test]
    fn the_old_put_back_gives_up_and_what_was_given_up_does_not_begin_again() {
        let (old, new, third) = (root(), root(), root());
        let begun = said(&Record::new(&old).unwrap(), &new, 0);
        assert!(begun.is_busy_with_another(&third) && said(&begun, &third, 1) == begun, "one after the other");
        let aborted = said(&begun, &old, 1);
        assert_eq!((aborted.word(), acts(&aborted)), ("aborted", (old.certificate().clone(), 1)));
        assert!(aborted.rotation().unwrap().reason.as_ref().unwrap().contains("put back"));
        assert_eq!(said(&aborted, &old, 2), Record::new(&old).unwrap());

        let behind = vec![Behind { proxy: "sleep.default".into(), since: 0 }];
        let unseen = begun.step(&Observed { behind, ..seen() }, &TIMING, at(200));
        assert_eq!(unseen.word(), "aborted");
        assert_eq!(said(&unseen, &new, 201), unseen, "the same is still there");
        assert_eq!(said(&unseen, &third, 202).word(), "distributing");
        assert_eq!(said(&unseen, &third, 202).wanted(Lifetimes::default(), at(1)).unwrap().roots(), third.roots());
        assert_eq!(said(&said(&unseen, &old, 202), &new, 203).word(), "distributing", "mended and begun again");

        let draining = begun.step(&seen(), &TIMING, at(10));
        assert_eq!(said(&draining, &old, 11).word(), "returning");
    }

    #[test]
    fn who_is_trusted_by_all_and_trusts_all_is_taken_at_once() {
        let (old, new) = (root(), root());
        let record = Record::new(&old).unwrap();
        let key = crate::PrivateKey::from_pem(old.key().to_pem().unwrap().as_bytes()).unwrap();
        let renewed = Authority::with_root_key(key, &RootOptions::default(), Lifetimes::default(), at(1)).unwrap();
        assert_eq!(said(&record, &renewed, 2).word(), "stable", "a new certificate of the same key");
        let both = root().also_trusting(old.roots());
        assert_eq!(said(&record, &both, 2).word(), "distributing", "nobody trusts it yet");
        let trusting = said(&record, &root_again(&old).also_trusting(new.roots()), 2);
        assert_eq!((trusting.word(), acts(&trusting).1), ("stable", 2), "trusts one more");
        assert_eq!(said(&trusting, &root_again(&old), 3).word(), "distributing", "trusts one less, and that carefully");
        // Nothing that it signed is valid any more.
        let (late, over) = (at(11 * 365 * 86_400), Lifetimes::default());
        let fresh = Authority::self_signed(&RootOptions::default(), over, late).unwrap();
        assert_eq!(record.said(&fresh, &TIMING, over, late).unwrap().word(), "stable");
    }

    #[test]
    fn new_lists_are_taken_at_any_time() {
        let (old, new) = (root(), root());
        let listing = |of: &Authority| {
            let key = crate::PrivateKey::from_pem(of.key().to_pem().unwrap().as_bytes()).unwrap();
            let (certificate, roots) = (of.certificate().clone(), of.roots().to_vec());
            Authority::new(key, certificate, &[], roots, Some("a".to_owned()), Lifetimes::default())
        };
        let lists = |kept: &Kept| kept.0.get(bundle::CA_CRL).cloned();
        let stable = Record::new(&old).unwrap();
        assert_eq!(lists(&said(&stable, &listing(&old), 1).old).as_deref(), Some("a"));

        let begun = said(&stable, &new, 1);
        assert!(!begun.is_busy_with_another(&listing(&new)));
        let listed = said(&begun, &listing(&new), 2);
        assert_eq!((listed.word(), lists(&listed.old)), ("distributing", None));
        assert_eq!(lists(&listed.next.as_ref().unwrap().authority).as_deref(), Some("a"));
        assert_eq!(said(&listed, &new, 3), begun, "none is a change, too");

        let aborted = said(&begun, &listing(&old), 2);
        assert_eq!((aborted.word(), lists(&aborted.old).as_deref()), ("aborted", Some("a")));
        assert_eq!(said(&aborted, &listing(&new), 3).word(), "aborted", "what was given up is no other by a list");
    }

    #[test]
    fn lists_of_both_are_checked_or_none() {
        let lists = |authority: &Authority| authority.crl_pem().map(|lists| lists.to_string());
        let neither = root().also_checking(None);
        assert_eq!(lists(&neither), None);
        let one = neither.also_checking(Some("a"));
        assert_eq!(lists(&one).as_deref(), Some(""), "the lists of one alone");
        assert_eq!(lists(&one.also_checking(Some("a"))).as_deref(), Some("\na"));
    }

    fn root_again(authority: &Authority) -> Authority {
        Record::new(authority).unwrap().authority(Lifetimes::default(), at(1)).unwrap()
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?}", Record::new(&root()).unwrap());
        assert!(shown.contains("ca-key.pem") && !shown.contains("PRIVATE"), "{shown}");
    }
}
