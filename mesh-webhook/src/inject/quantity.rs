//! Kubernetes' quantities: a number and a suffix, such as `100m`, `1.5Gi` or `1e3`. The apiserver and Istio write each value in
//! one way, whoever wrote it how.

use serde_json::{Map, Value};

use super::pod::Container;

/// Powers of ten by their suffixes.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
/// Powers of 1024, from the first on.
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// What is smaller than a billionth is rounded up.
const BILLION: i128 = 1_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Decimal,
    Exponent,
    Binary,
}

/// The quantity as Kubernetes writes it; none where the text is no quantity that we can hold.
pub(super) fn canonical(text: &str) -> Option<String> {
    let (billionths, form) = parse(text)?;
    let whole = billionths % BILLION == 0;
    if form == Form::Binary && whole && billionths.abs() >= 1024 * BILLION {
        let (number, steps) = without_factor(billionths / BILLION, 1024, BINARY.len());
        return Some(format!("{number}{}", steps.checked_sub(1).and_then(|at| BINARY.get(at)).unwrap_or(&"")));
    }
    let (number, steps) = without_factor(billionths, 1000, DECIMAL.len() - 1);
    let (suffix, power) = DECIMAL.get(if billionths == 0 { 3 } else { steps })?;
    Some(match form {
        Form::Exponent if *power != 0 => format!("{number}e{power}"),
        _ => format!("{number}{suffix}"),
    })
}

/// The value in billionths, and the form it was written in.
fn parse(text: &str) -> Option<(i128, Form)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let decimal = DECIMAL.iter().find(|(known, _)| *known == suffix).map(|(_, power)| (*power, 0, Form::Decimal));
    let binary = || {
        let at = BINARY.iter().position(|known| *known == suffix)?;
        Some((0, u32::try_from(at + 1).ok()?, Form::Binary))
    };
    let exponent = || Some((suffix.strip_prefix(['e', 'E'])?.parse::<i8>().ok()?.into(), 0, Form::Exponent));
    let (power, binary_power, form) = decimal.or_else(binary).or_else(exponent)?;
    let digits = digits.checked_mul(1024_i128.checked_pow(binary_power)?)?;
    let power = power + 9 - i32::try_from(fraction.len()).ok()?;
    let factor = 10_i128.checked_pow(power.unsigned_abs())?;
    let value =
        if power >= 0 { digits.checked_mul(factor)? } else { digits / factor + i128::from(digits % factor != 0) };
    Some((if text.starts_with('-') { -value } else { value }, form))
}

/// The number with the factor taken out as often as it is in it, at most `most` times, and how often that was.
fn without_factor(mut number: i128, factor: i128, most: usize) -> (i128, usize) {
    let mut steps = 0;
    while steps < most && number != 0 && number % factor == 0 {
        number /= factor;
        steps += 1;
    }
    (number, steps)
}

/// Writes the quantities of a container's resources as Kubernetes does.
pub(super) fn normalize(container: &mut Container) {
    let Some(Value::Object(resources)) = container.get_mut("resources") else { return };
    for part in ["limits", "requests"] {
        resources.get_mut(part).and_then(Value::as_object_mut).into_iter().for_each(normalize_all);
    }
}

fn normalize_all(quantities: &mut Map<String, Value>) {
    for quantity in quantities.values_mut() {
        let canonical = match &*quantity {
            Value::String(text) => canonical(text),
            Value::Number(number) => canonical(&number.to_string()),
            _ => None,
        };
        if let Some(text) = canonical {
            *quantity = Value::String(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubernetes_writes_them() {
        for (text, want) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".1", "100m"),
            ("1.", "1"),
            ("2000", "2k"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
            ("0.1Gi", "107374182400m"),
            ("1e3", "1e3"),
            ("1000e0", "1e3"),
            ("12E", "12E"),
            ("-1000m", "-1"),
            ("+1", "1"),
            ("0.0000000001", "1n"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(want), "{text}");
        }
        for text in [
            "",
            ".",
            "m",
            "1x",
            "1 ",
            "1..2",
            "1.2.3",
            "--1",
            "1\n",
            "1e",
            "1eX",
            "9999999999999999999999999999999999999999",
        ] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
