//! Numbers as Go writes them, for messages that read like an apiserver's.

/// The shortest text that reads back as this number, with an exponent where Go has one.
pub(super) fn shortest(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return match number {
            0.0 => "0".to_owned(),
            f64::INFINITY => "+Inf".to_owned(),
            f64::NEG_INFINITY => "-Inf".to_owned(),
            _ => "NaN".to_owned(),
        };
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => number.to_string(),
    }
}
