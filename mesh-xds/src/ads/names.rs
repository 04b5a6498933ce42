//! What a client asked for by name: sorted, and shared with the resources that bear the names.
//!
//! An idle stream keeps this list for as long as it lives, so it costs seventeen bytes a name and not a map entry, and one
//! byte where the client asks for everything that there is. The marks say what is owed for a name; they must never say
//! more than the list, so both change together.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::Name;

use crate::resource::ResourceSet;

/// An answer is owed: the client subscribed, or waits for this name to finish warming.
pub(super) const DUE: u8 = 1;
/// Part of the response that is not acknowledged yet.
pub(super) const IN_FLIGHT: u8 = 2;
/// Part of a rejected response: the client may or may not have taken it.
pub(super) const UNSURE: u8 = 4;

/// Subscribed names in order, each with its marks.
#[derive(Default)]
pub(super) struct Names {
    names: Arc<[Name]>,
    marks: Vec<u8>,
    due: usize,
    unsure: usize,
}

impl Names {
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
    /// How many names wait for an answer.
    pub(super) fn due(&self) -> usize {
        self.due
    }
    pub(super) fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.names.iter()
    }
    /// The names with any of `marks`, in order.
    pub(super) fn marked(&self, marks: u8) -> impl Iterator<Item = &Name> {
        let wanted = match marks {
            DUE => self.due > 0,
            UNSURE => self.unsure > 0,
            _ => true,
        };
        let all = self.names.iter().zip(self.marks.iter());
        all.take(if wanted { usize::MAX } else { 0 }).filter(move |(_, m)| **m & marks != 0).map(|(n, _)| n)
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.names.binary_search_by(|n| n.as_str().cmp(name))
    }

    /// Marks a subscribed name; false when it is not subscribed.
    pub(super) fn mark(&mut self, name: &str, marks: u8) -> bool {
        let Ok(at) = self.find(name) else { return false };
        if let Some(m) = self.marks.get_mut(at) {
            let new = marks & !*m;
            *m |= marks;
            self.due += usize::from(new & DUE != 0);
            self.unsure += usize::from(new & UNSURE != 0);
        }
        true
    }

    /// Subscribes. Names that were there already become due again: the protocol promises an answer to each.
    pub(super) fn subscribe<'a>(&mut self, wanted: impl Iterator<Item = &'a str>, known: &ResourceSet) {
        let mut wanted: Vec<&str> = wanted.collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut out = Draft::with_capacity(self.len() + wanted.len());
        let mut old = self.names.iter().cloned().zip(self.marks.iter().copied()).peekable();
        let mut intern = Interner::new(known);
        for name in wanted {
            while let Some((n, m)) = old.next_if(|(n, _)| n.as_str() < name) {
                out.push(n, m);
            }
            match old.next_if(|(n, _)| n.as_str() == name) {
                Some((n, m)) => out.push(n, m | DUE),
                None => out.push(intern.name(name), DUE),
            }
        }
        for (n, m) in old {
            out.push(n, m);
        }
        *self = out.finish(known);
    }

    /// Makes the list equal to `wanted`: new names are due, the others keep their marks.
    pub(super) fn replace<'a>(&mut self, wanted: impl Iterator<Item = &'a str>, known: &ResourceSet) {
        let mut wanted: Vec<&str> = wanted.collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut out = Draft::with_capacity(wanted.len());
        let mut old = self.names.iter().cloned().zip(self.marks.iter().copied()).peekable();
        let mut intern = Interner::new(known);
        for name in wanted {
            while old.next_if(|(n, _)| n.as_str() < name).is_some() {}
            match old.next_if(|(n, _)| n.as_str() == name) {
                Some((n, m)) => out.push(n, m),
                None => out.push(intern.name(name), DUE),
            }
        }
        *self = out.finish(known);
    }

    /// Unsubscribes, and returns the names that were there.
    pub(super) fn unsubscribe<'a>(&mut self, gone: impl Iterator<Item = &'a str>) -> Vec<Name> {
        let gone: BTreeSet<&str> = gone.collect();
        let mut kept = Draft::with_capacity(self.len());
        let mut removed = Vec::new();
        for (name, mark) in self.names.iter().zip(&self.marks) {
            if gone.contains(name.as_str()) {
                removed.push(name.clone());
            } else {
                kept.push(name.clone(), *mark);
            }
        }
        if !removed.is_empty() {
            *self = kept.finish(&ResourceSet::default());
        }
        removed
    }

    /// Clears `DUE` where `held` says that the client has the right version already.
    pub(super) fn settle(&mut self, mut held: impl FnMut(&Name) -> bool) {
        for (n, m) in self.names.iter().zip(self.marks.iter_mut()) {
            if *m & DUE != 0 && held(n) {
                *m &= !DUE;
            }
        }
        self.count();
    }

    /// All that was due is on its way.
    pub(super) fn sent(&mut self) {
        for m in &mut self.marks {
            if *m & (DUE | UNSURE) != 0 {
                *m = (*m & !DUE) | IN_FLIGHT;
            }
        }
        self.count();
    }

    /// The response was accepted.
    pub(super) fn accepted(&mut self) {
        for m in &mut self.marks {
            *m &= DUE;
        }
        self.count();
    }

    /// The response was rejected.
    pub(super) fn rejected(&mut self) {
        for m in &mut self.marks {
            if *m & IN_FLIGHT != 0 {
                *m = (*m & !IN_FLIGHT) | UNSURE;
            }
        }
        self.count();
    }

    fn count(&mut self) {
        self.due = self.marks.iter().filter(|m| **m & DUE != 0).count();
        self.unsure = self.marks.iter().filter(|m| **m & UNSURE != 0).count();
    }
}

/// Names in the making.
struct Draft {
    names: Vec<Name>,
    marks: Vec<u8>,
}

impl Draft {
    fn with_capacity(n: usize) -> Self {
        Self { names: Vec::with_capacity(n), marks: Vec::with_capacity(n) }
    }

    fn push(&mut self, name: Name, mark: u8) {
        self.names.push(name);
        self.marks.push(mark);
    }

    fn finish(mut self, known: &ResourceSet) -> Names {
        let everything = self.names.len() == known.len() && *self.names == *known.names();
        let names = if everything { known.names() } else { self.names.into() };
        self.marks.shrink_to_fit();
        let mut out = Names { names, marks: self.marks, due: 0, unsure: 0 };
        out.count();
        out
    }
}

/// Gives names that some resource bears in that resource's allocation. Must be asked in order.
struct Interner<'a> {
    rest: std::iter::Peekable<std::slice::Iter<'a, std::sync::Arc<crate::Resource>>>,
}

impl<'a> Interner<'a> {
    fn new(known: &'a ResourceSet) -> Self {
        Self { rest: known.as_slice().iter().peekable() }
    }
    fn name(&mut self, name: &str) -> Name {
        while self.rest.next_if(|r| r.name().as_str() < name).is_some() {}
        match self.rest.peek() {
            Some(r) if r.name().as_str() == name => r.name().clone(),
            _ => Name::from(name),
        }
    }
}
