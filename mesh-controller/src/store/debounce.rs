//! When to publish: at once after quiet, and not more often than useful in a storm.
//!
//! Time comes in as an argument, so every rule here is tested without waiting.

use std::time::Duration;

use tokio::time::Instant;

/// The two numbers of the debounce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// Changes that follow one another within this time belong to one burst (`PILOT_DEBOUNCE_AFTER`).
    pub after: Duration,
    /// The longest time that a change of an endless burst is held back (`PILOT_DEBOUNCE_MAX`).
    pub max: Duration,
}

impl Default for Debounce {
    fn default() -> Self {
        Self { after: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

/// Where in a burst we are. The first change after quiet is due at once; those that follow it within
/// [`Debounce::after`] are held back until it is quiet for that long, or [`Debounce::max`] has passed.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    knobs: Debounce,
    last_change: Option<Instant>,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    first: Instant,
    at_once: bool,
}

impl Burst {
    pub(crate) fn new(knobs: Debounce) -> Self {
        Self { knobs, ..Self::default() }
    }

    /// Something changed that is to be published.
    pub(crate) fn change(&mut self, now: Instant) {
        let quiet = self.last_change.is_none_or(|last| now.saturating_duration_since(last) >= self.knobs.after);
        self.last_change = Some(now);
        if self.held.is_none() {
            self.held = Some(Held { first: now, at_once: quiet });
        }
    }

    /// When what is held back is to be published; `None` when nothing is held back.
    pub(crate) fn due(&self) -> Option<Instant> {
        let held = self.held?;
        if held.at_once {
            return Some(held.first);
        }
        let quiet = self.last_change? + self.knobs.after;
        Some(quiet.min(held.first + self.knobs.max))
    }

    /// When the first change that is held back came.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.held.map(|held| held.first)
    }

    /// All that was held back has been published.
    pub(crate) fn published(&mut self) {
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds changes at the given milliseconds and returns when it published, ticking once a millisecond.
    fn published(after: u64, max: u64, changes: &[u64]) -> Vec<u64> {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut burst = Burst::new(Debounce { after: ms(after), max: ms(max) });
        let mut out = Vec::new();
        for t in 0..=changes.last().unwrap() + after + max + 1 {
            let now = start + ms(t);
            for _ in changes.iter().filter(|c| **c == t) {
                burst.change(now);
            }
            if burst.due().is_some_and(|due| due <= now) {
                out.push(t);
                burst.published();
            }
        }
        out
    }

    #[test]
    fn a_quiet_mesh_answers_at_once_and_a_burst_is_gathered() {
        for (what, changes, want) in [
            ("one change", vec![5], vec![5]),
            ("two far apart", vec![5, 105], vec![5, 105]),
            ("the second within the window waits for quiet", vec![5, 6], vec![5, 106]),
            ("each change of a burst prolongs it", vec![5, 50, 140, 230], vec![5, 330]),
            ("what comes before anybody could publish goes along", vec![5, 5], vec![5]),
            ("after a burst it is quiet again", vec![5, 50, 300], vec![5, 150, 300]),
            ("quiet is counted from the last change, not from the last publish", vec![0, 10, 111], vec![0, 110, 111]),
        ] {
            assert_eq!(published(100, 10_000, &changes), want, "{what}");
        }
    }

    #[test]
    fn an_endless_burst_is_published_every_max() {
        let changes: Vec<u64> = (0..1000).step_by(10).collect();
        assert_eq!(published(100, 300, &changes), [0, 310, 620, 930, 1090]);
    }

    #[test]
    fn zero_means_no_debounce() {
        assert_eq!(published(0, 0, &[1, 2, 3]), [1, 2, 3]);
    }
}
