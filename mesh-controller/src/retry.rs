//! What to do when the apiserver does not answer as it should: say it once, and ask again, ever more slowly.

use std::fmt::Display;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// An apiserver that comes back is heard of within this time.
const LONGEST: Duration = Duration::from_secs(5);

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
