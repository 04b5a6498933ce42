//! What the annotations of a pod may say. A wrong one fails the pod at once: a proxy that intercepts other traffic than
//! was meant is worse than none.

use std::net::IpAddr;

use super::pod::Pod;
use super::{InjectError, quantity};

type Check = fn(&str) -> Result<(), String>;

/// Annotation, the name of the value that it overrides (as Istio's messages have it), check.
const CHECKS: [(&str, &str, Check); 18] = [
    ("sidecar.istio.io/interceptionMode", "interceptionMode", interception_mode),
    ("status.sidecar.istio.io/port", "statusPort", port),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", "readinessInitialDelaySeconds", number),
    ("readiness.status.sidecar.istio.io/periodSeconds", "readinessPeriodSeconds", number),
    ("readiness.status.sidecar.istio.io/failureThreshold", "readinessFailureThreshold", number),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", "includeIPRanges", ranges_or_all),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "excludeIPRanges", ranges),
    ("traffic.sidecar.istio.io/includeInboundPorts", "includeInboundPorts", ports_or_all),
    ("traffic.sidecar.istio.io/excludeInboundPorts", "excludeInboundPorts", ports),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", "excludeOutboundPorts", ports),
    ("traffic.sidecar.istio.io/excludeInterfaces", "excludeInterfaces", interfaces),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", "kubevirtInterfaces", interfaces),
    ("istio.io/reroute-virtual-interfaces", "rerouteVirtualInterfaces", interfaces),
    ("prometheus.istio.io/merge-metrics", "enablePrometheusMerge", boolean),
    ("sidecar.istio.io/proxyCPU", "resources.requests.cpu", quantity),
    ("sidecar.istio.io/proxyMemory", "resources.requests.memory", quantity),
    ("sidecar.istio.io/proxyCPULimit", "resources.limits.cpu", quantity),
    ("sidecar.istio.io/proxyMemoryLimit", "resources.limits.memory", quantity),
];

/// Fails at the first annotation that doesn't say what it may.
pub(super) fn check(pod: &Pod) -> Result<(), InjectError> {
    for (name, parameter, check) in CHECKS {
        let Some(value) = pod.annotation(name) else { continue };
        check(value).map_err(|why| {
            let why = format!("{parameter} invalid: {why}");
            InjectError::Annotation { name, value: value.to_owned(), why }
        })?;
    }
    Ok(())
}

/// Go's `strconv.ParseBool`, which is how Istio reads switches in annotations.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn boolean(text: &str) -> Result<(), String> {
    parse_bool(text).map(drop).ok_or_else(|| "write true or false".to_owned())
}

fn interception_mode(text: &str) -> Result<(), String> {
    match text {
        "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
        _ => Err("write REDIRECT, TPROXY or NONE".to_owned()),
    }
}

fn number(text: &str) -> Result<(), String> {
    text.parse::<u32>().map(drop).map_err(|_| "write a whole number".to_owned())
}

fn port(text: &str) -> Result<(), String> {
    text.trim().parse::<u16>().map(drop).map_err(|_| format!("{text:?} is no port, write 0 to 65535"))
}

fn ports(text: &str) -> Result<(), String> {
    if text.trim().is_empty() { Ok(()) } else { text.split(',').try_for_each(port) }
}

fn ports_or_all(text: &str) -> Result<(), String> {
    if text == "*" { Ok(()) } else { ports(text) }
}

fn ranges(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { text.split(',').try_for_each(range) }
}

fn ranges_or_all(text: &str) -> Result<(), String> {
    if text == "*" { Ok(()) } else { ranges(text) }
}

fn range(text: &str) -> Result<(), String> {
    let parsed = text.split_once('/').and_then(|(address, bits)| {
        let most = if address.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
        (bits.parse::<u8>().ok()? <= most).then_some(())
    });
    parsed.ok_or_else(|| format!("{text:?} is no range of addresses, write one as 10.0.0.0/8"))
}

/// Names as Linux has them, at most 15 characters.
fn interfaces(text: &str) -> Result<(), String> {
    let well_named = |name: &str| {
        name.len() <= 15
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    match text.split(',').map(str::trim).find(|name| !text.is_empty() && !well_named(name)) {
        Some(name) => Err(format!("{name:?} is no name of an interface")),
        None => Ok(()),
    }
}

fn quantity(text: &str) -> Result<(), String> {
    quantity::canonical(text).map(drop).ok_or_else(|| "write a quantity such as 100m or 128Mi".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_annotations_may_say() {
        let cases: [(Check, &[&str], &[&str]); 9] = [
            (interception_mode, &["REDIRECT", "NONE"], &["redirect", ""]),
            (port, &["0", " 15020", "65535"], &["65536", "-1", "http", ""]),
            (ports, &["", "1,2", "1, 2"], &["1,", "*", "a"]),
            (ports_or_all, &["*", "80"], &["*,80", "bad"]),
            (ranges, &["", "10.0.0.0/8,::1/128"], &["*", "10.0.0.0", "10.0.0.0/33", "a/8"]),
            (ranges_or_all, &["*"], &["*,10.0.0.0/8"]),
            (interfaces, &["", "eth0, net1.2"], &["eth0,", "0eth", "sixteen-letters-", "a b"]),
            (quantity, &["1", "100m", "1.5Gi", "1e3", "-1"], &["", "m", "1x", "1 ", "1..2", "--1", "1\n"]),
            (boolean, &["true", "F", "1"], &["yes", ""]),
        ];
        for (check, good, bad) in cases {
            for text in good {
                assert_eq!(check(text), Ok(()), "{text}");
            }
            for text in bad {
                assert!(check(text).is_err(), "{text}");
            }
        }
    }
}
