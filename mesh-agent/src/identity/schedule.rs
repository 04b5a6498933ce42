//! When a certificate is renewed: while a part of its life is still left, so that a control plane that is away for hours
//! costs nobody a connection; and not at the same moment for pods that started together.

use std::time::{Duration, SystemTime};

/// The least time between two requests, and before a certificate ends.
const AT_LEAST: Duration = Duration::from_secs(1);

/// When to renew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The part of the life that is left when renewal begins (`SECRET_GRACE_PERIOD_RATIO`).
    pub grace: f64,
    /// How much earlier or later, as a part of the life (`SECRET_GRACE_PERIOD_RATIO_JITTER`).
    pub jitter: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { grace: 0.5, jitter: 0.01 }
    }
}

impl Schedule {
    /// When a certificate is due that was asked for at one time and counts until another: its own beginning says little, since
    /// authorities date it back for the sake of slow clocks. Never within a second, whatever the clocks say. `random` is from
    /// -1 to 1.
    pub fn renew_at(&self, asked: SystemTime, not_after: SystemTime, random: f64) -> SystemTime {
        let life = not_after.duration_since(asked).unwrap_or_default();
        let left = (self.grace + self.jitter * random.clamp(-1.0, 1.0)).clamp(0.0, 1.0);
        // Even who asks for no grace needs some time to ask.
        let wait = life.mul_f64(1.0 - left).min(life.saturating_sub(AT_LEAST));
        asked + wait.max(AT_LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_life_give_or_take() {
        let born = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let of = |schedule: Schedule, life: u64, random: f64| {
            let due = schedule.renew_at(born, born + Duration::from_secs(life), random);
            due.duration_since(born).unwrap().as_secs_f64()
        };
        let usual = Schedule::default();
        assert_eq!(of(usual, 86_400, 0.0), 43_200.0);
        assert_eq!(of(usual, 86_400, 1.0), 43_200.0 - 864.0);
        assert_eq!(of(usual, 86_400, -7.0), 43_200.0 + 864.0, "bounded");
        assert_eq!(of(usual, 60, 0.0), 30.0);
        assert_eq!(of(Schedule { grace: 0.0, jitter: 0.0 }, 60, 0.0), 59.0, "never at its very end");
        assert_eq!(of(Schedule { grace: 7.0, jitter: 0.5 }, 60, 1.0), 1.0, "never at once");
        assert_eq!(of(usual, 0, 0.0), 1.0);
        let over = usual.renew_at(born, born - Duration::from_secs(5), 0.0);
        assert_eq!(over, born + Duration::from_secs(1), "a clock that is ahead makes nobody ask without end");
    }
}
