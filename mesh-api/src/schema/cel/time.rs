//! Moments and spans of time: their parts, and texts whose format makes them one.

use jiff::civil::Weekday;
use jiff::tz::{Offset, TimeZone};

use super::{Fault, Value};
use crate::schema::formats;
use crate::types::Duration;

/// The value of a text that a schema gives a format.
pub(super) fn formatted<'a>(text: &'a str, format: Option<&str>) -> Result<Value<'a>, Fault> {
    let invalid = |what: &str| Fault::new(format!("Invalid {what} formatted string {text}"));
    match format {
        Some("duration") => text.parse::<Duration>().map(Value::Duration).map_err(|_| invalid("duration")),
        Some("date") => format!("{text}T00:00:00Z").parse().map(Value::Timestamp).map_err(|_| invalid("date")),
        Some("date-time") => text.parse().map(Value::Timestamp).map_err(|_| invalid("date-time")),
        Some("byte") => {
            formats::decode_base64(text).map(|bytes| Value::Bytes(bytes.into())).ok_or_else(|| invalid("byte"))
        }
        _ => Ok(Value::text(text)),
    }
}

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Fault>> {
    let part = match args {
        [Value::Duration(span)] => of_span(function, *span)?,
        [Value::Timestamp(time)] => of_moment(function, &time.to_zoned(TimeZone::UTC))?,
        [Value::Timestamp(time), Value::String(zone)] => {
            let Some(offset) = offset(zone) else {
                return Some(Err(Fault::new(format!("unknown time zone {zone}"))));
            };
            of_moment(function, &time.to_zoned(offset.to_time_zone()))?
        }
        _ => return None,
    };
    Some(Ok(Value::Int(part)))
}

fn of_span(function: &str, span: Duration) -> Option<i64> {
    Some(match function {
        "getHours" => span.seconds() / 3600,
        "getMinutes" => span.seconds() / 60,
        "getSeconds" => span.seconds(),
        "getMilliseconds" => span.as_nanos() / 1_000_000,
        _ => return None,
    })
}

fn of_moment(function: &str, time: &jiff::Zoned) -> Option<i64> {
    Some(match function {
        "getFullYear" => time.year().into(),
        "getMonth" => i64::from(time.month()) - 1,
        "getDate" => time.day().into(),
        "getDayOfMonth" => i64::from(time.day()) - 1,
        "getDayOfYear" => i64::from(time.day_of_year()) - 1,
        "getDayOfWeek" => i64::from(time.weekday().since(Weekday::Sunday)),
        "getHours" => time.hour().into(),
        "getMinutes" => time.minute().into(),
        "getSeconds" => time.second().into(),
        "getMilliseconds" => time.millisecond().into(),
        _ => return None,
    })
}

/// `UTC` or a distance from it such as `-08:00`.
fn offset(zone: &str) -> Option<Offset> {
    if zone == "UTC" {
        return Some(Offset::UTC);
    }
    let (sign, rest) = match zone.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, zone.strip_prefix('+').unwrap_or(zone)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}
