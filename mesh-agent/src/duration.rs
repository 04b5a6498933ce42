//! Durations as users write them: protobuf's `45s` and `0.5s`, Go's `1m30s` and `250ms`. One reader for both, because
//! ProxyConfig uses the first and the environment the second. Negative durations mean nothing here and are refused.

use std::time::Duration;

/// Reads a duration; `None` where the text is none.
///
/// ```
/// use mesh_agent::duration::parse;
/// assert_eq!(parse("1m30s").unwrap().as_secs(), 90);
/// assert_eq!(parse("0.5s").unwrap().as_millis(), 500);
/// assert!(parse("5").is_none());
/// ```
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| c != '.' && !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len()));
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (!text.is_empty()).then_some(())?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Writes a duration as protobuf's JSON does: seconds with a fraction only where there is one.
pub fn format(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// For serde's `with`: a field of the protobuf JSON form.
pub(crate) mod proto {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&super::format(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(input)?;
        super::parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no duration; write it like 45s")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_spellings_and_refuses_the_rest() {
        for (text, millis) in
            [("0", 0), ("0s", 0), ("45s", 45_000), ("1h0m5s", 3_605_000), ("250ms", 250), ("1.5m", 90_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "-5s", "s", "5x", "5s6", "1..2s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(format(Duration::from_millis(1500)), "1.5s");
        assert_eq!(format(Duration::from_secs(45)), "45s");
    }
}
