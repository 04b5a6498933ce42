//! Weights and priorities between localities: which endpoints a caller reaches first, and where the rest of its traffic
//! goes. Pure functions over endpoints, for EDS and for names that Envoy resolves alike.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use mesh_api::Name;

use crate::model::destination_rule::{Distribute, LocalityLb, LocalitySettings};
use crate::model::{Endpoint, Labels, Locality};

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
const NETWORK: &str = "topology.istio.io/network";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Endpoints of one locality and priority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Where they run.
    pub locality: Locality,
    /// 0 is used first.
    pub priority: u32,
    /// The share of the group among those of its priority.
    pub weight: u32,
    /// Indices into the list of endpoints.
    pub endpoints: Vec<usize>,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Where it runs.
    pub locality: &'a Locality,
    /// Its labels.
    pub labels: &'a Labels,
    /// Its network.
    pub network: &'a str,
    /// Its node.
    pub node: &'a str,
}

/// What counts between localities: the rule, else the service's traffic distribution, else the mesh.
pub fn effective_locality(
    mesh: Option<&LocalityLb>,
    rule: Option<&LocalityLb>,
    traffic_distribution: Option<&str>,
) -> Option<LocalityLb> {
    if let Some(rule) = rule {
        return Some(rule.clone());
    }
    let labels: &[&str] = match traffic_distribution {
        Some("PreferClose" | "PreferSameZone") => &[NETWORK, REGION, ZONE],
        Some("PreferSameNode") => &[NETWORK, REGION, ZONE, SUBZONE, HOSTNAME],
        _ => return mesh.cloned(),
    };
    Some(LocalityLb::Locality(LocalitySettings {
        failover_priority: labels.iter().map(|label| Name::from(*label)).collect(),
        force: true,
        ..LocalitySettings::default()
    }))
}

/// True when endpoints get priorities: without outlier detection nothing would ever fall back to a lower one.
pub fn needs_failover(locality: &LocalityLb, outlier_detection: bool) -> bool {
    match locality {
        LocalityLb::Off => false,
        LocalityLb::Locality(settings) => settings.distribute.is_empty() && (settings.force || outlier_detection),
        LocalityLb::ZoneAware(zone) => zone.enabled,
    }
}

/// Gives groups (one per locality, weighted by their endpoints) priorities and weights as the caller shall see them.
/// Groups that get no traffic are left out; a group may be split by priority.
pub fn prioritize<E: Borrow<Endpoint>>(
    endpoints: &[E],
    groups: Vec<Group>,
    settings: &LocalityLb,
    caller: &Caller<'_>,
    outlier_detection: bool,
) -> Vec<Group> {
    match settings {
        LocalityLb::Off => groups,
        LocalityLb::Locality(settings) if !settings.distribute.is_empty() => {
            distribute(groups, caller.locality, &settings.distribute)
        }
        LocalityLb::Locality(locality) if needs_failover(settings, outlier_detection) => {
            let by_labels = !locality.failover_priority.is_empty();
            let groups = by_label(endpoints, groups, caller, &locality.failover_priority);
            if by_labels && locality.failover.is_empty() {
                return groups;
            }
            rank(groups, |group| by_distance(caller.locality, &group.locality, &locality.failover), 5)
        }
        LocalityLb::Locality(_) => groups,
        LocalityLb::ZoneAware(zone) if zone.enabled => {
            let groups = by_label(endpoints, groups, caller, &zone.failover_priority);
            rank(groups, |group| by_region(caller.locality, &group.locality, &zone.failover), 3)
        }
        LocalityLb::ZoneAware(_) => groups,
    }
}

/// Splits each group by how far its endpoints agree with the caller in a list of labels.
fn by_label<E: Borrow<Endpoint>>(
    endpoints: &[E],
    groups: Vec<Group>,
    caller: &Caller<'_>,
    labels: &[Name],
) -> Vec<Group> {
    if labels.is_empty() || caller.labels.is_empty() && caller.locality.is_empty() {
        return groups;
    }
    let wanted: Vec<(&str, &str)> = labels
        .iter()
        .map(|label| match label.split_once('=') {
            Some((key, value)) => (key, value),
            None => (label.as_str(), caller_label(caller, label)),
        })
        .collect();
    let mut out = Vec::new();
    for group in groups {
        let mut parts: BTreeMap<u32, (u32, Vec<usize>)> = BTreeMap::new();
        for index in group.endpoints {
            let Some(endpoint) = endpoints.get(index).map(E::borrow) else { continue };
            let part = parts.entry(label_priority(endpoint, &wanted)).or_default();
            part.0 += endpoint.weight.max(1);
            part.1.push(index);
        }
        for (priority, (weight, endpoints)) in parts {
            out.push(Group { locality: group.locality.clone(), priority, weight, endpoints });
        }
    }
    compact(&mut out);
    out
}

fn label_priority(endpoint: &Endpoint, wanted: &[(&str, &str)]) -> u32 {
    let lowest = wanted.len() as u32;
    let mut other_network = 0;
    for (i, (key, value)) in wanted.iter().enumerate() {
        if endpoint_label(endpoint, key) == *value {
            continue;
        }
        // Another network comes after everything that is in this one, but is ordered like it.
        if i == 0 && *key == NETWORK {
            other_network = lowest;
            continue;
        }
        return other_network + lowest - i as u32;
    }
    other_network
}

fn caller_label<'a>(caller: &Caller<'a>, key: &str) -> &'a str {
    match (caller.labels.get(key), key) {
        (Some(value), _) => value,
        (None, REGION) => &caller.locality.region,
        (None, ZONE) => &caller.locality.zone,
        (None, SUBZONE) => &caller.locality.subzone,
        (None, NETWORK) => caller.network,
        (None, HOSTNAME) => caller.node,
        _ => "",
    }
}

fn endpoint_label<'a>(endpoint: &'a Endpoint, key: &str) -> &'a str {
    match (endpoint.labels.get(key), key) {
        (Some(value), _) => value,
        (None, REGION) => &endpoint.locality.region,
        (None, ZONE) => &endpoint.locality.zone,
        (None, SUBZONE) => &endpoint.locality.subzone,
        (None, NETWORK) => &endpoint.network,
        (None, HOSTNAME) => &endpoint.node,
        _ => "",
    }
}

/// 0: the same subzone, 1: the same zone, 2: the same region, 3: elsewhere, 4: elsewhere and not where the region fails
/// over to.
fn by_distance(caller: &Locality, endpoint: &Locality, failover: &[(Name, Name)]) -> u32 {
    if caller.region == endpoint.region {
        return match (caller.zone == endpoint.zone, caller.subzone == endpoint.subzone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
    }
    match failover.iter().find(|(from, _)| *from == caller.region) {
        Some((_, to)) if *to != endpoint.region => 4,
        _ => 3,
    }
}

fn by_region(caller: &Locality, endpoint: &Locality, failover: &[(Name, Name)]) -> u32 {
    if caller.region == endpoint.region {
        return 0;
    }
    match failover.iter().find(|(from, _)| *from == caller.region) {
        Some((_, to)) if *to == endpoint.region => 1,
        _ => 2,
    }
}

/// Refines the priorities that groups have by another order of so many steps.
fn rank(mut groups: Vec<Group>, order: impl Fn(&Group) -> u32, steps: u32) -> Vec<Group> {
    for group in &mut groups {
        group.priority = group.priority * steps + order(group);
    }
    compact(&mut groups);
    groups
}

/// The data plane accepts no gaps between priorities.
fn compact(groups: &mut [Group]) {
    let mut used: Vec<u32> = groups.iter().map(|g| g.priority).collect();
    used.sort_unstable();
    used.dedup();
    for group in groups {
        group.priority = used.iter().position(|p| *p == group.priority).unwrap_or(0) as u32;
    }
}

/// Weights by the first entry that speaks of the caller's locality; without one nothing changes.
fn distribute(groups: Vec<Group>, caller: &Locality, entries: &[Distribute]) -> Vec<Group> {
    let Some(entry) = entries.iter().find(|d| locality_matches(caller, &d.from)) else { return groups };
    let mut left: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    let mut out: Vec<(usize, Group)> = Vec::new();
    for (to, weight) in &entry.to {
        let matched: Vec<(usize, Group)> = left
            .iter_mut()
            .enumerate()
            .filter(|(_, g)| g.as_ref().is_some_and(|g| locality_matches(&g.locality, to)))
            .filter_map(|(i, g)| Some((i, g.take()?)))
            .collect();
        let total: u64 = matched.iter().map(|(_, g)| u64::from(g.weight.max(1))).sum();
        for (i, mut group) in matched {
            // A wildcard may mean several localities: they share its weight by what they weigh themselves.
            let share = u64::from(group.weight.max(1)) * u64::from(*weight);
            group.weight = u32::try_from(share.div_ceil(total.max(1))).unwrap_or(u32::MAX);
            if group.weight > 0 {
                out.push((i, group));
            }
        }
    }
    out.sort_by_key(|(i, _)| *i);
    out.into_iter().map(|(_, group)| group).collect()
}

/// `region/zone/subzone`, where `*` and what is left out at the end mean anything.
fn locality_matches(locality: &Locality, pattern: &str) -> bool {
    let mut parts = pattern.split('/');
    let region = parts.next().unwrap_or_default();
    let mut inner = |value: &Name| match parts.next() {
        None | Some("" | "*") => true,
        Some(part) => *value == *part,
    };
    let (zone, subzone) = (inner(&locality.zone), inner(&locality.subzone));
    (region == "*" || locality.region == *region) && zone && subzone
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::destination_rule::ZoneAware;

    fn endpoint(locality: &str, labels: &[(&str, &str)]) -> Endpoint {
        Endpoint {
            address: "1.1.1.1".into(),
            port: 80,
            service_port: "http".into(),
            labels: Arc::new(labels.iter().map(|(k, v)| (Name::from(*k), Name::from(*v))).collect()),
            locality: Locality::parse(locality),
            namespace: "ns".into(),
            ..Endpoint::default()
        }
    }

    fn groups(endpoints: &[Endpoint]) -> Vec<Group> {
        let group = |(i, e): (usize, &Endpoint)| Group {
            locality: e.locality.clone(),
            priority: 0,
            weight: 1,
            endpoints: vec![i],
        };
        endpoints.iter().enumerate().map(group).collect()
    }

    fn run(settings: &LocalityLb, localities: &[&str], outlier: bool) -> Vec<(String, u32, u32)> {
        let endpoints: Vec<_> = localities.iter().map(|l| endpoint(l, &[])).collect();
        let (locality, labels) = (Locality::parse("r1/z1/s1"), Labels::new());
        let caller = Caller { locality: &locality, labels: &labels, network: "", node: "" };
        prioritize(&endpoints, groups(&endpoints), settings, &caller, outlier)
            .into_iter()
            .map(|g| (g.locality.to_string(), g.priority, g.weight))
            .collect()
    }

    fn failover(to: &[(&str, &str)]) -> LocalityLb {
        let failover = to.iter().map(|(a, b)| (Name::from(*a), Name::from(*b))).collect();
        LocalityLb::Locality(LocalitySettings { failover, ..LocalitySettings::default() })
    }

    const WORLD: &[&str] = &["r1/z1/s1", "r1/z1/s2", "r1/z2/s1", "r2/z1/s1", "r3/z1/s1"];

    fn priorities(found: Vec<(String, u32, u32)>) -> Vec<u32> {
        found.into_iter().map(|(_, priority, _)| priority).collect()
    }

    #[test]
    fn failover_goes_by_distance_and_needs_outlier_detection() {
        assert_eq!(priorities(run(&failover(&[]), WORLD, true)), [0, 1, 2, 3, 3]);
        assert_eq!(priorities(run(&failover(&[]), WORLD, false)), [0, 0, 0, 0, 0]);
        assert_eq!(priorities(run(&failover(&[("r1", "r3")]), WORLD, true)), [0, 1, 2, 4, 3]);
        assert_eq!(priorities(run(&LocalityLb::Off, WORLD, true)), [0, 0, 0, 0, 0]);
        assert_eq!(priorities(run(&failover(&[]), &["r2/z1/s1", "r1/z2/s2"], true)), [1, 0], "no gaps");
    }

    #[test]
    fn zone_awareness_keeps_a_region_together() {
        let zone = |enabled| {
            LocalityLb::ZoneAware(ZoneAware {
                enabled,
                failover: vec![("r1".into(), "r3".into())],
                ..ZoneAware::default()
            })
        };
        assert_eq!(priorities(run(&zone(true), WORLD, false)), [0, 0, 0, 2, 1]);
        assert_eq!(priorities(run(&zone(false), WORLD, true)), [0, 0, 0, 0, 0]);
    }

    #[test]
    fn distribution_weighs_and_drops() {
        let to = |to: &[(&str, u32)]| {
            LocalityLb::Locality(LocalitySettings {
                distribute: vec![Distribute {
                    from: "r1/z1/*".into(),
                    to: to.iter().map(|(k, v)| (Name::from(*k), *v)).collect(),
                }],
                ..LocalitySettings::default()
            })
        };
        let found = run(&to(&[("r1/z1/*", 80), ("r2/*", 20)]), WORLD, false);
        let want = [("r1/z1/s1", 40), ("r1/z1/s2", 40), ("r2/z1/s1", 20)];
        assert_eq!(found.len(), want.len());
        for ((locality, priority, weight), (l, w)) in found.iter().zip(want) {
            assert_eq!((locality.as_str(), *priority, *weight), (l, 0, w));
        }
        let elsewhere = LocalityLb::Locality(LocalitySettings {
            distribute: vec![Distribute { from: "r9/*".into(), to: [("r1/*".into(), 100)].into() }],
            ..LocalitySettings::default()
        });
        assert_eq!(run(&elsewhere, WORLD, false).len(), WORLD.len(), "another caller's entry changes nothing");
    }

    #[test]
    fn labels_order_before_distance() {
        let endpoints = [
            endpoint("r1/z1/s1", &[("version", "v2")]),
            endpoint("r1/z1/s1", &[("version", "v1")]),
            endpoint("r2/z1/s1", &[("version", "v1")]),
        ];
        let locality = Locality::parse("r1/z1/s1");
        let labels: Labels = [("version".into(), "v1".into())].into();
        let caller = Caller { locality: &locality, labels: &labels, network: "", node: "" };
        let settings = |priority: &[&str]| {
            LocalityLb::Locality(LocalitySettings {
                failover_priority: priority.iter().map(|l| Name::from(*l)).collect(),
                ..LocalitySettings::default()
            })
        };
        let of = |priority: &[&str]| {
            let mut found: Vec<(usize, u32)> =
                prioritize(&endpoints, groups(&endpoints), &settings(priority), &caller, true)
                    .into_iter()
                    .flat_map(|g| g.endpoints.into_iter().map(move |e| (e, g.priority)))
                    .collect();
            found.sort_unstable();
            found.into_iter().map(|(_, p)| p).collect::<Vec<_>>()
        };
        assert_eq!(of(&["version", REGION]), [2, 0, 1]);
        assert_eq!(of(&[REGION, "version"]), [1, 0, 2]);
        assert_eq!(of(&["version=v2"]), [0, 1, 1]);
    }

    #[test]
    fn services_may_ask_for_closeness() {
        let close = effective_locality(None, None, Some("PreferClose")).unwrap();
        assert!(needs_failover(&close, false));
        assert_eq!(priorities(run(&close, WORLD, false)), [0, 0, 1, 2, 2]);
        let mesh = failover(&[]);
        assert_eq!(effective_locality(Some(&mesh), None, None), Some(mesh.clone()));
        assert_eq!(effective_locality(Some(&mesh), Some(&LocalityLb::Off), Some("PreferClose")), Some(LocalityLb::Off));
    }
}
