//! How long to wait before the next attempt: twice as long each time, up to a bound, and never the same for two pods, so that
//! a control plane that comes back is not met by all of them at once.

use std::time::Duration;

/// Waits between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with `first` and never waits longer than `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next wait: between half of the bound of this attempt and all of it. `random` is from 0 to 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(self.most);
        wait
    }

    /// After a success: the next failure is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_bound_and_starts_anew() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(100), millis(700));
        let waits: Vec<_> = [1.0, 1.0, 0.0, 1.0, 1.0].map(|random| backoff.next(random)).into();
        assert_eq!(waits, [100, 200, 200, 700, 700].map(millis));
        backoff.reset();
        assert_eq!(backoff.next(0.5), millis(75));
    }
}
