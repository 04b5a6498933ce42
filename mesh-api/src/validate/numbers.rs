//! Durations, percentages and status codes.

use super::at::{At, Check};
use crate::networking::Percent;
use crate::types::Duration;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// A duration that is used as such: whole milliseconds, at least one.
pub(super) fn duration(at: &At<'_>, field: &str, duration: Option<Duration>) {
    if let Some(duration) = duration {
        at.field(field).check("InvalidDuration", whole_millis(duration));
    }
}

/// Whole milliseconds, at least one.
pub(super) fn whole_millis(duration: Duration) -> Check {
    if duration.as_nanos() < NANOS_PER_MILLI {
        return Err(format!("duration {duration} must be greater than 1ms"));
    }
    millis_precision(duration)
}

/// Nothing finer than a millisecond.
pub(super) fn millis_precision(duration: Duration) -> Check {
    if duration.as_nanos() % NANOS_PER_MILLI == 0 {
        Ok(())
    } else {
        Err(format!("only durations to ms precision are supported; round {duration}"))
    }
}

/// A whole percentage.
pub(super) fn percent(value: i32) -> Check {
    if (0..=100).contains(&value) { Ok(()) } else { Err(format!("percentage {value} is not in range 0..100")) }
}

/// A percentage of requests, as fine as Envoy counts.
pub(super) fn fraction(at: &At<'_>, field: &str, percentage: Option<&Percent>) {
    if let Some(Percent { value }) = percentage
        && (!(0.0..=100.0).contains(value) || (*value > 0.0 && *value < 0.0001))
    {
        at.field(field)
            .field("value")
            .error("InvalidPercentage", format!("percentage {value} is neither 0.0, nor in range [0.0001, 100.0]"));
    }
}

/// A percentage from 0 to 100.
pub(super) fn share(at: &At<'_>, field: &str, percentage: Option<&Percent>) {
    if let Some(Percent { value }) = percentage {
        let bound = match value {
            v if *v > 100.0 => "max value of 100",
            v if *v < 0.0 => "min value of 0",
            _ => return,
        };
        at.field(field)
            .field("value")
            .error("InvalidPercentage", format!("{field} must have a {bound} (it has {value})"));
    }
}

/// A status that an answer can have.
pub(super) fn http_status(status: i64) -> Check {
    if (200..=600).contains(&status) { Ok(()) } else { Err(format!("HTTP status {status} is not in range 200-599")) }
}

/// True for a status that HTTP gives a name to.
pub(super) fn is_named_status(status: u32) -> bool {
    matches!(
        status,
        100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451 | 500..=508 | 510 | 511
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, fits, fine) in [
            ("1ms", true, true),
            ("1.5s", true, true),
            ("0s", false, true),
            ("-1s", false, true),
            ("1.5ms", false, false),
        ] {
            let duration = text.parse().unwrap();
            assert_eq!(whole_millis(duration).is_ok(), fits, "{text}");
            assert_eq!(millis_precision(duration).is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn statuses() {
        for (status, answers, named) in
            [(0, false, false), (200, true, true), (306, true, false), (503, true, true), (601, false, false)]
        {
            assert_eq!(http_status(status.into()).is_ok(), answers, "{status}");
            assert_eq!(is_named_status(status), named, "{status}");
        }
    }
}
