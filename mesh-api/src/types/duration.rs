//! Durations as Istio's users write them: Go's notation (`1h30m`, `1.5s`, `300ms`), exact to the nanosecond.
//!
//! Reading never rounds: digits finer than a nanosecond are cut off as Go does, and what does not fit is an error.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::message::Field;
use crate::document::at::{At, TypeError};

/// A span of time in nanoseconds, between about -292 and 292 years.
///
/// Written in protobuf JSON's form: seconds with 0, 3, 6 or 9 digits of fraction. Negative values can be written; that no
/// field has a use for them is for validation to say.
///
/// ```
/// use mesh_api::types::Duration;
/// let wait: Duration = "1m30.5s".parse()?;
/// assert_eq!(wait.to_string(), "90.500s");
/// assert_eq!(wait.to_std(), std::time::Duration::from_millis(90_500));
/// # Ok::<(), mesh_api::types::ParseDurationError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duration(i64);

/// The text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {text:?}, expected a number with a unit (h, m, s, ms, us, ns) such as 1.5s or 1h30m")]
pub struct ParseDurationError {
    text: String,
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// So many nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }
    /// So many seconds; the longest or shortest duration there is if that is too much.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }
    /// So many milliseconds; the longest or shortest duration there is if that is too much.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }
    /// The whole duration in nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }
    /// Whole seconds, cut towards zero: the `seconds` of a protobuf Duration.
    pub const fn seconds(self) -> i64 {
        self.0 / NANOS_PER_SECOND
    }
    /// What [`Self::seconds`] leaves, with the same sign: the `nanos` of a protobuf Duration.
    pub const fn subsec_nanos(self) -> i32 {
        (self.0 % NANOS_PER_SECOND) as i32
    }
    /// True for a duration of nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
    /// True below zero.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
    /// As the standard library's duration; a negative one is zero there.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<std::time::Duration> for Duration {
    /// The longest duration there is if `duration` is longer.
    fn from(duration: std::time::Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).ok_or_else(|| ParseDurationError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    loop {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_length = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_length)?;
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(i128::from(whole) * nanos)?;
        // Below the fifteenth digit not even an hour has a nanosecond left.
        let mut place = nanos;
        let mut parts: i128 = 0;
        let mut scale: i128 = 1;
        for digit in fraction.bytes().take(15) {
            parts = parts * 10 + i128::from(digit - b'0');
            scale *= 10;
        }
        place *= parts;
        total = total.checked_add(place / scale)?;
        if total > i128::from(i64::MAX) + 1 {
            return None;
        }
        rest = after;
        if rest.is_empty() {
            return i64::try_from(if negative { -total } else { total }).ok();
        }
    }
}

/// Splits off the leading ASCII digits.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

impl fmt::Display for Duration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let all = self.0.unsigned_abs();
        let (seconds, nanos) = (all / 1_000_000_000, all % 1_000_000_000);
        match nanos {
            0 => write!(formatter, "{sign}{seconds}s"),
            n if n % 1_000_000 == 0 => write!(formatter, "{sign}{seconds}.{:03}s", n / 1_000_000),
            n if n % 1_000 == 0 => write!(formatter, "{sign}{seconds}.{:06}s", n / 1_000),
            n => write!(formatter, "{sign}{seconds}.{n:09}s"),
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Duration;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a duration such as \"1.5s\" or \"1h30m\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Field for Duration {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        at.text()?.parse().map_err(TypeError::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

#[cfg(test)]
mod tests {
    use super::Duration;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("-0", 0),
            ("5s", 5_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1h15m30.918273645s", 4_530_918_273_645),
            ("300ms", 300_000_000),
            ("-1.5s", -1_500_000_000),
            ("+2us", 2_000),
            ("2µs", 2_000),
            ("0.000000000001h", 3),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(text.parse(), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "1d",
            "1 s",
            "1s ",
            "1S",
            "1e3s",
            "9223372036854775808ns",
            "3000000h",
            "1s2",
            "é",
        ] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(error.to_string().contains("expected a number with a unit"), "{text}: {error}");
        }
    }

    #[test]
    fn writes_protobuf_json() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "0.000000001s"),
            (1_500_000_000, "1.500s"),
            (-1_000, "-0.000001s"),
            (5_400_000_000_000, "5400s"),
            (i64::MIN, "-9223372036.854775808s"),
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(duration.to_string(), text);
            assert_eq!(text.parse(), Ok(duration));
            assert_eq!((duration.seconds() as i128) * 1_000_000_000 + duration.subsec_nanos() as i128, nanos as i128);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(nanos: i64) {
            let duration = Duration::from_nanos(nanos);
            proptest::prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.hmsnuµ]{0,24}|.{0,12}") {
            let _ = text.parse::<Duration>();
        }
    }
}
