//! How endpoints are chosen: hashing, localities, warming up.

use std::collections::{BTreeMap, HashSet};

use crate::networking::{
    ConsistentHashLb, Failover, HashAlgorithm, HashKey, HttpCookie, LbPolicy, LoadBalancerSettings,
    LocalityLoadBalancerSetting, OutlierDetection, WarmupConfiguration, ZoneAwareLoadBalancerSetting,
};
use crate::validate::at::{At, Check};
use crate::validate::numbers::duration;

/// The labels that tell where a workload runs.
const TOPOLOGY: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

pub(super) fn check(at: &At<'_>, settings: Option<&LoadBalancerSettings>, outlier: Option<&OutlierDetection>) {
    let Some(settings) = settings else { return };
    let at = at.field("loadBalancer");
    if let Some(LbPolicy::ConsistentHash(hash)) = &settings.lb_policy {
        consistent_hash(&at.field("consistentHash"), hash);
    }
    if settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some() {
        at.error(
            "ConflictingFields",
            "only one of localityLbSetting and zoneAwareLbSetting can be set; remove the other",
        );
    }
    locality(&at, settings.locality_lb_setting.as_ref(), outlier.is_some());
    zone_aware(&at, settings.zone_aware_lb_setting.as_ref(), outlier.is_some());
    if let Some(written) = &settings.warmup {
        warmup(&at.field("warmup"), written);
    }
}

fn consistent_hash(at: &At<'_>, hash: &ConsistentHashLb) {
    if let Some(HashKey::HttpCookie(written)) = &hash.hash_key {
        cookie(&at.field("httpCookie"), written);
    }
    if hash.minimum_ring_size != 0 {
        let at = at.field("minimumRingSize");
        at.warning(
            "DeprecatedField",
            "consistent hash MinimumRingSize is deprecated, use ConsistentHashLB's RingHash configuration instead",
        );
        if hash.hash_algorithm.is_some() {
            at.error("ConflictingFields", "only one of MinimumRingSize or Maglev/Ringhash can be specified; remove it");
        }
    }
    if let Some(HashAlgorithm::Maglev(table)) = &hash.hash_algorithm {
        at.field("maglev").field("tableSize").check("InvalidNumber", maglev_table(table.table_size));
    }
}

fn cookie(at: &At<'_>, cookie: &HttpCookie) {
    if cookie.name.is_empty() {
        at.field("name").error("MissingName", "name required for HttpCookie; add it");
    }
    let mut names = HashSet::new();
    for (index, attribute) in cookie.attributes.iter().enumerate() {
        let list = at.field("attributes");
        let at = list.index(index);
        if attribute.name.is_empty() {
            at.field("name").error("MissingName", "cookie attribute name cannot be empty; add it");
        } else if !names.insert(attribute.name.as_str()) {
            let message = format!("duplicate cookie attribute name: {}; keep one of them", attribute.name);
            at.field("name").error("DuplicateValue", message);
        }
    }
}

fn maglev_table(size: u64) -> Check {
    const LIMIT: u64 = 5_000_011;
    match size {
        0 => Err("tableSize must be set for maglev; write a prime number such as 65537".to_owned()),
        LIMIT.. => Err(format!("tableSize must be less than {LIMIT} for maglev, not {size}")),
        _ if !is_prime(size) => Err(format!("tableSize must be a prime number for maglev; {size} is none, 65537 is")),
        _ => Ok(()),
    }
}

/// As Envoy sees it: 1 counts as prime.
fn is_prime(number: u64) -> bool {
    let odd_factors = (3..).step_by(2).take_while(|factor| factor * factor <= number);
    number < 4 || (number % 2 == 1 && odd_factors.into_iter().all(|factor| !number.is_multiple_of(factor)))
}

fn warmup(at: &At<'_>, warmup: &WarmupConfiguration) {
    if warmup.duration.is_none() {
        at.field("duration").error("MissingDuration", "duration is required; add it");
    }
    duration(at, "duration", warmup.duration);
    if let Some(percent) = warmup.minimum_percent.filter(|percent| *percent > 100.0) {
        let message = format!("minimumPercent value should be less than or equal to 100, not {percent}");
        at.field("minimumPercent").error("InvalidPercentage", message);
    }
    if let Some(aggression) = warmup.aggression.filter(|aggression| *aggression <= 0.0) {
        at.field("aggression").error("InvalidNumber", format!("aggression should be greater than 0, not {aggression}"));
    }
}

/// The field `localityLbSetting`.
pub(in crate::validate) fn locality(at: &At<'_>, setting: Option<&LocalityLoadBalancerSetting>, has_outlier: bool) {
    let Some(setting) = setting else { return };
    let at = at.field("localityLbSetting");
    if !setting.distribute.is_empty() && !setting.failover.is_empty() {
        return at.error(
            "ConflictingFields",
            "can not simultaneously specify 'distribute' and 'failover'; remove one of them",
        );
    }
    if !setting.failover.is_empty()
        && let Some(label) = setting.failover_priority.iter().find(|label| TOPOLOGY.contains(&label.as_str()))
    {
        let message = format!(
            "can not simultaneously set 'failover' and topology label '{label}' in 'failover_priority'; remove the label"
        );
        return at.field("failoverPriority").error("ConflictingFields", message);
    }
    let mut weighed = true;
    at.each("distribute", &setting.distribute, |at, share| {
        let result = weights(&share.to);
        weighed &= result.is_ok();
        at.field("to").check("InvalidWeight", result);
        at.field("to").check("InvalidLocality", localities(share.to.keys()));
    });
    if weighed {
        at.field("distribute").check("InvalidLocality", localities(setting.distribute.iter().map(|share| &share.from)));
    }
    needs_outlier(&at, &setting.failover, &setting.failover_priority, has_outlier);
    failover(&at, &setting.failover);
}

/// The field `zoneAwareLbSetting`.
pub(in crate::validate) fn zone_aware(at: &At<'_>, setting: Option<&ZoneAwareLoadBalancerSetting>, has_outlier: bool) {
    let Some(setting) = setting else { return };
    let at = at.field("zoneAwareLbSetting");
    at.each("failoverPriority", &setting.failover_priority, |at, label| {
        if TOPOLOGY.contains(&label.as_str()) {
            let message = format!(
                "'failover_priority' for zone aware lb must not use topology label '{label}'; region- and zone-level routing are handled automatically"
            );
            at.error("InvalidLabel", message);
        }
    });
    needs_outlier(&at, &setting.failover, &setting.failover_priority, has_outlier);
    failover(&at, &setting.failover);
}

fn needs_outlier(at: &At<'_>, failover: &[Failover], priority: &[String], has_outlier: bool) {
    let fails_over = !failover.is_empty() || !priority.is_empty();
    if fails_over && !has_outlier {
        at.warning(
            "MissingOutlierDetection",
            "outlier detection policy must be provided for failover; add outlierDetection",
        );
    }
}

fn failover(at: &At<'_>, list: &[Failover]) {
    at.each("failover", list, |at, failover| {
        let either = |c: char| failover.from.contains(c) || failover.to.contains(c);
        for (wrong, message) in [
            (failover.from == failover.to, "failover settings must specify different regions"),
            (
                either('/'),
                "failover only specifies a region: zone and subzone are not part of it; remove what follows the /",
            ),
            (either('*'), "failover region should not contain '*' wildcard; name the region"),
        ] {
            at.refuse(wrong, "InvalidLocality", message);
        }
    });
}

fn weights(shares: &BTreeMap<String, u32>) -> Check {
    if let Some((locality, weight)) = shares.iter().find(|(_, weight)| !(1..=100).contains(*weight)) {
        return Err(format!("locality weight must be in range [1, 100]; {locality} has {weight}"));
    }
    match shares.values().map(|weight| u64::from(*weight)).sum() {
        100 => Ok(()),
        total => Err(format!("total locality weight {total} != 100")),
    }
}

/// Localities `region/zone/subzone`, of which the last part may be `*` or missing, must not overlap.
fn localities<'a>(localities: impl Iterator<Item = &'a String>) -> Check {
    /// What is known below a region, or a zone: all of it, or some parts.
    #[derive(Default)]
    struct Part<'a>(BTreeMap<&'a str, Part<'a>>);
    let mut known = Part::default();
    for locality in localities {
        let stars = locality.matches('*').count();
        if stars > 1 || (stars == 1 && !locality.ends_with('*')) {
            return Err(format!("locality {locality} wildcard '*' number can not exceed 1 and must be in the end"));
        }
        let mut part = &mut known;
        let mut names = locality.splitn(3, '/').peekable();
        while let Some(name) = names.next() {
            if name.is_empty() {
                return Err(format!("locality {locality} must not contain empty region/zone/subzone info"));
            }
            // An earlier locality ends here: it stands for all below.
            if part.0.contains_key("*") || (names.peek().is_none() && part.0.contains_key(name)) {
                return Err(format!("locality {locality} overlap with previous specified ones; remove one of them"));
            }
            part = part.0.entry(name).or_default();
        }
        part.0.insert("*", Part::default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{is_prime, localities};
    use crate::networking::DestinationRule;
    use crate::validate::testing::check;

    fn with(balancer: Value) -> Value {
        json!({"host": "a", "trafficPolicy": {"loadBalancer": balancer, "outlierDetection": {}}})
    }

    #[test]
    fn hashing() {
        let hash = |hash: Value| with(json!({"consistentHash": hash}));
        check::<DestinationRule>(&[
            (with(json!({"simple": "RANDOM"})), &[]),
            (
                hash(
                    json!({"httpCookie": {"name": "user", "ttl": "0s", "attributes": [{"name": "a"}, {"name": "b"}]}}),
                ),
                &[],
            ),
            (
                hash(json!({"httpCookie": {"attributes": [{}, {"name": "b"}, {"name": "b"}]}})),
                &[
                    "name required for HttpCookie",
                    "cookie attribute name cannot be empty",
                    "duplicate cookie attribute name: b",
                ],
            ),
            (
                hash(json!({"minimumRingSize": 5})),
                &["W spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize"],
            ),
            (
                hash(json!({"minimumRingSize": 5, "ringHash": {}})),
                &["W ", "E spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize"],
            ),
            (hash(json!({"maglev": {"tableSize": 65537}})), &[]),
            (hash(json!({"maglev": {}})), &["tableSize must be set"]),
            (hash(json!({"maglev": {"tableSize": 5_000_011}})), &["tableSize must be less than 5000011"]),
            (hash(json!({"maglev": {"tableSize": 10}})), &["tableSize must be a prime number"]),
            (with(json!({"warmup": {"duration": "1s", "minimumPercent": 100, "aggression": 0.5}})), &[]),
            (
                with(json!({"warmup": {"minimumPercent": 101, "aggression": 0}})),
                &["duration is required", "minimumPercent", "aggression"],
            ),
        ]);
        let primes: Vec<u64> = (2..30).filter(|n| is_prime(*n)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
    }

    #[test]
    fn where_endpoints_are() {
        let locality = |locality: Value| with(json!({"localityLbSetting": locality}));
        let zone = |zone: Value| with(json!({"zoneAwareLbSetting": zone}));
        let share = |to: Value| locality(json!({"distribute": [{"from": "a/b", "to": to}]}));
        check::<DestinationRule>(&[
            (share(json!({"a/b": 80, "a/c/*": 20})), &[]),
            (share(json!({"a/b": 80})), &["distribute[0].to: total locality weight 80 != 100"]),
            (share(json!({"a/b": 0, "a/c": 100})), &["locality weight must be in range [1, 100]; a/b has 0"]),
            (share(json!({"a/*": 50, "a/b": 50})), &["distribute[0].to: locality a/b overlap"]),
            (
                locality(json!({"distribute": [{"from": "a", "to": {"b": 100}}, {"from": "a/b", "to": {"b": 100}}]})),
                &["distribute: locality a/b overlap"],
            ),
            (
                locality(
                    json!({"distribute": [{"from": "a", "to": {"b": 100}}], "failover": [{"from": "a", "to": "b"}]}),
                ),
                &["'distribute' and 'failover'"],
            ),
            (
                locality(
                    json!({"failover": [{"from": "a", "to": "b"}], "failoverPriority": ["topology.istio.io/subzone"]}),
                ),
                &["topology label"],
            ),
            (
                locality(json!({"failover": [{"from": "a", "to": "a"}, {"from": "a/b", "to": "*"}]})),
                &["different regions", "only specifies a region", "wildcard"],
            ),
            (zone(json!({"failover": [{"from": "a", "to": "b"}], "failoverPriority": ["x"]})), &[]),
            (
                zone(json!({"failoverPriority": ["topology.kubernetes.io/zone"]})),
                &["failoverPriority[0]: 'failover_priority' for zone aware"],
            ),
            (
                with(json!({"zoneAwareLbSetting": {}, "localityLbSetting": {}})),
                &["only one of localityLbSetting and zoneAwareLbSetting"],
            ),
            (
                json!({"host": "a", "trafficPolicy": {"loadBalancer": {"localityLbSetting": {"failoverPriority": ["x"]}}}}),
                &["W spec.trafficPolicy.loadBalancer.localityLbSetting: outlier detection policy must be provided"],
            ),
        ]);
    }

    #[test]
    fn overlaps() {
        for (list, fits) in [
            (&["a/b/c", "a/b/d", "a/c", "b/*"] as &[&str], true),
            (&["*"], true),
            (&["*", "a"], false),
            (&["a", "a"], false),
            (&["a/b", "a/b/c"], false),
            (&["a/b/c", "a/b"], false),
            (&["a/b/*", "a/b/c"], false),
            (&["a/b/c", "a/b/c"], false),
            (&["a/*", "a/b"], false),
            (&["a/*/c"], false),
            (&["a//c"], false),
            (&[""], false),
        ] {
            let list: Vec<String> = list.iter().map(|l| (*l).to_owned()).collect();
            assert_eq!(localities(list.iter()).is_ok(), fits, "{list:?}");
        }
    }
}
