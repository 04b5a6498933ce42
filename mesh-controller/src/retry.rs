//! What to do when the apiserver does not answer as it should: say it once, and ask again, ever more slowly.

use std::fmt::Display;
use std::time::Duration;

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(100);
/// An apiserver that comes back is heard of within this time.
const LONGEST: Duration = Duration::from_secs(5);

/// How long a watch of kube's is left alone after a failure, in place of kube's own 30 seconds. All watches of a
/// `Controller` wait together after each failure of one: they get a [short](Self::SHORT) pause, or the last of a dozen
/// would be heard of minutes after an apiserver has come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause(Duration);

impl Pause {
    /// For many watches that wait together.
    pub(crate) const SHORT: Self = Self(Duration::from_millis(250));
    /// For a watch by itself.
    pub(crate) const LONG: Self = Self(LONGEST);
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0)
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {}
}

/// The failures of one thing that is tried for ever.
#[derive(Debug)]
pub(crate) struct Retry {
    what: String,
    said: String,
    delay: Duration,
}

impl Retry {
    /// `what` is what people are told it is about.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), said: String::new(), delay: FIRST }
    }

    /// It has failed: returns when it should be tried again.
    pub(crate) async fn failed(&mut self, why: &impl Display) {
        self.tell(why);
        tokio::time::sleep(self.delay).await;
        self.delay = (self.delay * 2).min(LONGEST);
    }

    /// It has failed, and it is known when it is tried again.
    pub(crate) fn tell(&mut self, why: &impl Display) {
        let why = why.to_string();
        if self.said != why {
            tracing::warn!("{}: {why}; what is known stays in force, and it is tried again", self.what);
            self.said = why;
        }
    }

    /// It has worked.
    pub(crate) fn worked(&mut self) {
        if !self.said.is_empty() {
            tracing::info!("{}: works again", self.what);
            self.said.clear();
        }
        self.delay = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_longer_each_time_up_to_a_limit_and_begins_anew_after_success() {
        let mut retry = Retry::new("it");
        let mut waits = Vec::new();
        for attempt in 0..9 {
            if attempt == 8 {
                retry.worked();
            }
            let start = Instant::now();
            retry.failed(&"no").await;
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 100]);
    }
}
