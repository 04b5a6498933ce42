//! What one client wants of one type, and what it has.
//!
//! What it has is one shared [`ResourceSet`], the one last sent, not a map of its own: the difference to a newer set is a
//! walk over two sorted lists that mostly hold the same pointers. `sent` is exact for every name that is neither due nor
//! unsure; whatever is sent without passing through [`Watch::plan`] breaks that.

use std::cmp::Ordering;
use std::sync::Arc;

use mesh_api::Name;

use super::names::{DUE, IN_FLIGHT, Names, UNSURE};
use super::{Body, Face, Nack};
use crate::resource::{Resource, ResourceSet, TypeUrl};

/// The one response that waits for its ACK.
pub(super) struct Flight {
    pub(super) sent_at: u64,
    /// It brings names that the client didn't have: what refers to them waits.
    pub(super) adds: bool,
    /// What the client had before, for wildcard subscriptions.
    before: ResourceSet,
    /// Names that it answers beyond the difference.
    answered: Vec<Name>,
}

pub(super) struct Watch {
    pub(super) ty: TypeUrl,
    pub(super) wildcard: bool,
    /// Some request named resources: from then on an empty list asks for nothing, not for everything.
    pub(super) named: bool,
    pub(super) names: Names,
    /// Of the names in the last request (state of the world).
    pub(super) names_hash: u64,
    pub(super) sent: ResourceSet,
    /// A response is owed even if it is empty.
    pub(super) owed: bool,
    /// The resources may have changed since `sent`.
    pub(super) dirty: bool,
    /// Something was taken away that the client still has.
    pub(super) held_back: bool,
    pub(super) flight: Option<Flight>,
    /// Names to answer beyond `names`.
    pub(super) extra: Vec<Name>,
    /// Names that a reconnected client has and we don't.
    pub(super) gone: Vec<Name>,
    /// Names of rejected responses, for wildcard subscriptions.
    unsure: Vec<Name>,
    pub(super) sent_nonce: u64,
    pub(super) sent_version: u64,
    pub(super) acked_nonce: u64,
    pub(super) acked_version: u64,
    pub(super) nack: Option<Box<Nack>>,
}

/// What to send now. `send` false: nothing, and `next` is still what the client has.
pub(super) struct Plan {
    pub(super) send: bool,
    pub(super) next: ResourceSet,
    pub(super) adds: bool,
    pub(super) held_back: bool,
    pub(super) body: Body,
    pub(super) removed: Vec<Name>,
    /// The names whose resources differ from what the client had, removed ones not among them.
    pub(super) changed: Vec<Name>,
}

impl Watch {
    pub(super) fn new(ty: TypeUrl) -> Self {
        Self {
            ty,
            wildcard: false,
            named: false,
            names: Names::default(),
            names_hash: 0,
            sent: ResourceSet::default(),
            owed: false,
            dirty: true,
            held_back: false,
            flight: None,
            extra: Vec::new(),
            gone: Vec::new(),
            unsure: Vec::new(),
            sent_nonce: 0,
            sent_version: 0,
            acked_nonce: 0,
            acked_version: 0,
            nack: None,
        }
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// An answer to some name is owed.
    pub(super) fn due(&self) -> bool {
        self.owed || self.names.due() > 0 || !self.extra.is_empty()
    }

    /// Turns the wildcard on or off. What the client has without it is what it named.
    pub(super) fn set_wildcard(&mut self, on: bool) {
        if on == self.wildcard {
            return;
        }
        self.wildcard = on;
        self.dirty = true;
        self.owed = on;
        if on {
            let had = self.sent.iter().filter(|r| self.names.contains(r.name())).cloned().collect();
            self.sent = ResourceSet::new(had);
        } else {
            self.gone = Vec::new();
            self.extra = Vec::new();
            for name in std::mem::take(&mut self.unsure) {
                self.names.mark(&name, UNSURE);
            }
        }
    }

    /// Answers `name` again, for a client that waits for it.
    pub(super) fn force(&mut self, name: &Name) {
        if !self.names.mark(name, DUE) && self.wildcard {
            self.extra.push(name.clone());
        }
    }

    /// In state-of-the-world, clusters and listeners are always sent whole; the other types are sent as they change.
    fn is_whole(&self, face: Face) -> bool {
        face == Face::Sotw && self.ty.is_wildcard()
    }

    /// A removal can be said, and may be: Envoy keeps an extension until no listener refers to it, and forgets it then.
    fn says_removals(&self, face: Face) -> bool {
        self.ty != TypeUrl::ExtensionConfig && (face == Face::Delta || self.ty.is_wildcard())
    }

    /// What must be sent so that the client has `new`. Without `removals` nothing that it has is taken away.
    pub(super) fn plan(&self, face: Face, new: &ResourceSet, removals: bool) -> Plan {
        let mut updates: Vec<Arc<Resource>> = Vec::new();
        let mut removed: Vec<Name> = Vec::new();
        let mut kept: Vec<Arc<Resource>> = Vec::new();
        let mut changed: Vec<Name> = Vec::new();
        let mut adds = false;
        walk(&self.sent, new, |old, new| match (old, new) {
            (old, Some(r)) if self.wants(r.name()) => {
                adds |= old.is_none();
                changed.push(r.name().clone());
                updates.push(r.clone());
            }
            (Some(r), None) if self.says_removals(face) && self.wants(r.name()) => {
                if removals {
                    removed.push(r.name().clone());
                } else {
                    kept.push(r.clone());
                }
            }
            _ => {}
        });
        let mut held_back = !kept.is_empty();
        let next = if kept.is_empty() {
            new.clone()
        } else {
            kept.extend(new.iter().cloned());
            ResourceSet::new(kept)
        };
        for name in self.gone.iter().filter(|n| next.get(n).is_none()) {
            if removals {
                removed.push(name.clone());
            } else {
                held_back = true;
            }
        }
        if !self.gone.is_empty() {
            removed.sort_unstable();
            removed.dedup();
        }
        if self.ty == TypeUrl::Cluster {
            changed.extend(self.names.marked(DUE).cloned());
        }
        adds |= self.due();
        let send = self.due() || !updates.is_empty() || !removed.is_empty();
        if !send {
            return Plan { send, next, adds, held_back, body: Body::Part(updates), removed, changed };
        }
        let body = if self.is_whole(face) {
            if self.wildcard {
                Body::Whole(next.clone())
            } else {
                Body::Part(next.iter().filter(|r| self.names.contains(r.name())).cloned().collect())
            }
        } else {
            let news = updates.len();
            let absent = removed.len();
            if self.names.due() > news_worth_a_join(&next) {
                join(self.names.marked(DUE | UNSURE), &next, &mut updates, &mut removed);
            } else {
                lookup(self.names.marked(DUE | UNSURE), &next, &mut updates, &mut removed);
            }
            lookup(self.extra.iter().chain(&self.unsure), &next, &mut updates, &mut removed);
            if updates.len() > news {
                updates.sort_unstable_by(|a, b| a.name().cmp(b.name()));
                updates.dedup_by(|a, b| a.name() == b.name());
            }
            if removed.len() > absent {
                removed.sort_unstable();
                removed.dedup();
            }
            if !self.says_removals(face) {
                removed.clear();
            }
            whole_or_part(updates, &next)
        };
        Plan { send, next, adds, held_back, body, removed, changed }
    }

    /// Takes over what [`Watch::plan`] found. With `nonce` it was sent.
    pub(super) fn apply(&mut self, plan: &Plan, nonce: Option<u64>, now: u64, removals: bool) {
        self.dirty = false;
        self.owed = false;
        self.held_back = plan.held_back;
        let before = std::mem::replace(&mut self.sent, plan.next.clone());
        let mut gone = std::mem::take(&mut self.gone);
        // What is there after all was sent with its new content.
        gone.retain(|name| plan.next.get(name).is_none());
        if !removals {
            self.gone = std::mem::take(&mut gone);
        }
        let Some(nonce) = nonce else { return };
        self.extra.extend(gone);
        for name in plan.changed.iter().chain(&plan.removed) {
            self.names.mark(name, IN_FLIGHT);
        }
        self.names.sent();
        self.flight = Some(Flight {
            sent_at: now,
            adds: plan.adds,
            before: if self.wildcard { before } else { ResourceSet::default() },
            answered: std::mem::take(&mut self.extra),
        });
        self.sent_nonce = nonce;
        self.sent_version = plan.next.version();
    }

    /// The client took the outstanding response.
    pub(super) fn accept(&mut self) {
        self.flight = None;
        self.nack = None;
        self.names.accepted();
        self.unsure = Vec::new();
        self.acked_nonce = self.sent_nonce;
        self.acked_version = self.sent_version;
    }

    /// The client refused the outstanding response. It is not sent again as it is; once anything of the type changes,
    /// all that was in it is sent along, since the client may have taken a part or nothing.
    pub(super) fn reject(&mut self, nack: Nack) {
        self.names.rejected();
        if let Some(flight) = self.flight.take()
            && self.wildcard
        {
            let unsure = &mut self.unsure;
            walk(&flight.before, &self.sent, |old, new| {
                unsure.extend(new.or(old).map(|r| r.name().clone()));
            });
            unsure.extend(flight.answered);
            unsure.sort_unstable();
            unsure.dedup();
        }
        self.nack = Some(Box::new(nack));
    }
}

/// From how many due names on two sorted lists are walked together instead of searched name by name.
fn news_worth_a_join(set: &ResourceSet) -> usize {
    set.len() / 8
}

fn whole_or_part(list: Vec<Arc<Resource>>, set: &ResourceSet) -> Body {
    if list.len() == set.len() { Body::Whole(set.clone()) } else { Body::Part(list) }
}

fn lookup<'a>(
    names: impl Iterator<Item = &'a Name>,
    set: &ResourceSet,
    found: &mut Vec<Arc<Resource>>,
    missing: &mut Vec<Name>,
) {
    for name in names {
        match set.get(name) {
            Some(r) => found.push(r.clone()),
            None => missing.push(name.clone()),
        }
    }
}

fn join<'a>(
    names: impl Iterator<Item = &'a Name>,
    set: &ResourceSet,
    found: &mut Vec<Arc<Resource>>,
    missing: &mut Vec<Name>,
) {
    let mut rest = set.iter().peekable();
    for name in names {
        while rest.next_if(|r| r.name() < name).is_some() {}
        match rest.next_if(|r| r.name() == name) {
            Some(r) => found.push(r.clone()),
            None => missing.push(name.clone()),
        }
    }
}

/// Calls `each` with (old, new) for every name whose resource differs; equal pointers cost one comparison.
pub(super) fn walk(
    old: &ResourceSet,
    new: &ResourceSet,
    mut each: impl FnMut(Option<&Arc<Resource>>, Option<&Arc<Resource>>),
) {
    if std::ptr::eq(old.as_slice(), new.as_slice()) {
        return;
    }
    let (mut a, mut b) = (old.iter().peekable(), new.iter().peekable());
    loop {
        match (a.peek(), b.peek()) {
            (None, None) => return,
            (Some(x), Some(y)) if Arc::ptr_eq(x, y) => {
                a.next();
                b.next();
            }
            (Some(x), Some(y)) => match x.name().cmp(y.name()) {
                Ordering::Equal => {
                    if x != y {
                        each(Some(x), Some(y));
                    }
                    a.next();
                    b.next();
                }
                Ordering::Less => each(a.next(), None),
                Ordering::Greater => each(None, b.next()),
            },
            (Some(_), None) => each(a.next(), None),
            (None, Some(_)) => each(None, b.next()),
        }
    }
}
