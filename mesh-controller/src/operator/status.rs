//! What an IstioOperator's status says: a function of the plan, of what became of it, and of what is there.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use mesh_api::Diagnostic;
use mesh_api::install::{ComponentStatus, IstioOperatorStatus};
use serde_json::Value;

use super::changes::{COMPONENT, Key, Owner};
use crate::install::{Part, Plan, text};

/// What became of an attempt to make the cluster as it should be.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What failed, by the part: the object, and why.
    pub failed: BTreeMap<String, Vec<String>>,
    /// Objects that belong to another.
    pub foreign: Vec<(Key, Owner)>,
}

/// The status of an IstioOperator whose plan was carried out so.
///
/// `objects` are the objects of the plan as they are now; `old` is the status that it has, for the times at which
/// conditions changed.
pub fn status(
    plan: &Plan,
    outcome: &Outcome,
    objects: &[Value],
    old: &IstioOperatorStatus,
    generation: i64,
    now: &Time,
) -> IstioOperatorStatus {
    let of_part = |part: &Part| {
        let known = old.component_status.get(part.component).map_or(&[][..], |status| &status.conditions);
        (part.component.to_owned(), component(part, outcome, objects, &Stamp { known, generation, now }))
    };
    let components: BTreeMap<String, ComponentStatus> = plan.parts.iter().map(of_part).collect();
    let parts_that_are = |word: &str| {
        let parts = components.iter().filter(|(_, status)| status.status == word).map(|(name, _)| name.as_str());
        parts.collect::<Vec<_>>().join(", ")
    };
    let (failed, waiting) = (parts_that_are("ERROR"), parts_that_are("RECONCILING"));
    let unsupported = joined(plan.told.iter().map(problem));
    let mut not_ours = joined(outcome.foreign.iter().map(|(key, owner)| format!("{key} belongs to {owner}")));
    if !failed.is_empty() {
        not_ours.clone_from(&failed);
    }
    let status = match word(!failed.is_empty(), !waiting.is_empty()) {
        "HEALTHY" if !unsupported.is_empty() => "ACTION_REQUIRED",
        word => word,
    };
    let message = [&failed, &unsupported, &waiting].into_iter().find(|message| !message.is_empty());
    let at = Stamp { known: &old.conditions, generation, now };
    let all_run = waiting.is_empty() && failed.is_empty();
    IstioOperatorStatus {
        status: status.to_owned(),
        message: message.cloned().unwrap_or_default(),
        observed_generation: generation,
        conditions: vec![
            at.condition("Supported", unsupported.is_empty(), ("AllFields", "UnsupportedFields"), &unsupported),
            at.condition("Reconciled", failed.is_empty(), ("Applied", "ApplyFailed"), &not_ours),
            at.condition("Ready", all_run, ("Available", "Unavailable"), &waiting),
        ],
        component_status: components,
    }
}

fn component(part: &Part, outcome: &Outcome, objects: &[Value], at: &Stamp<'_>) -> ComponentStatus {
    let labelled = |object: &&Value| {
        object.pointer("/metadata/labels").and_then(|labels| labels.get(COMPONENT)?.as_str()) == Some(part.component)
    };
    let waiting = objects.iter().filter(labelled).filter(|object| !is_available(object)).map(Key::of);
    let waiting = joined(waiting.map(|key| format!("{key} is not available")));
    let error = joined(outcome.failed.get(part.component).into_iter().flatten().cloned());
    ComponentStatus {
        status: word(!error.is_empty(), !waiting.is_empty()).to_owned(),
        version: part.chart.version(),
        conditions: vec![
            at.condition("Reconciled", error.is_empty(), ("Applied", "ApplyFailed"), &error),
            at.condition("Ready", waiting.is_empty(), ("Available", "Unavailable"), &waiting),
        ],
        error,
    }
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("; ")
}

/// The status of an IstioOperator that can't be carried out. What is installed stays, so what was known of it does.
pub fn refused(problem: &str, old: &IstioOperatorStatus, generation: i64, now: &Time) -> IstioOperatorStatus {
    let at = Stamp { known: &old.conditions, generation, now };
    let refused = at.condition("Reconciled", false, ("Applied", "Refused"), problem);
    IstioOperatorStatus {
        status: "ERROR".to_owned(),
        message: problem.to_owned(),
        observed_generation: generation,
        conditions: vec![refused],
        component_status: old.component_status.clone(),
    }
}

/// What a plan's problem says in a status.
pub fn problem(told: &Diagnostic) -> String {
    format!("{}: {}", told.path, told.message)
}

fn word(failed: bool, waiting: bool) -> &'static str {
    match (failed, waiting) {
        (true, _) => "ERROR",
        (false, true) => "RECONCILING",
        (false, false) => "HEALTHY",
    }
}

/// Whether a Deployment has all its pods; other objects only have to be there.
pub fn is_available(object: &Value) -> bool {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    text(object, "/kind") != "Deployment"
        || number("/status/observedGeneration") >= number("/metadata/generation")
            && number("/status/updatedReplicas").unwrap_or(0) >= number("/spec/replicas").unwrap_or(1)
            && number("/status/availableReplicas").unwrap_or(0) >= number("/spec/replicas").unwrap_or(1)
}

/// When, and of what, conditions are said.
struct Stamp<'a> {
    known: &'a [Condition],
    generation: i64,
    now: &'a Time,
}

impl Stamp<'_> {
    /// A condition; one that did not change keeps the time at which it last did.
    fn condition(&self, name: &str, holds: bool, (yes, no): (&str, &str), message: &str) -> Condition {
        let status = if holds { "True" } else { "False" };
        let same = self.known.iter().find(|known| known.type_ == name && known.status == status);
        Condition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: if holds { yes } else { no }.to_owned(),
            message: message.to_owned(),
            observed_generation: Some(self.generation),
            last_transition_time: same.map_or(self.now, |same| &same.last_transition_time).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn plan(spec: Value) -> Plan {
        let mut plan = Plan::of(&json!({"metadata": {"name": "mesh"}, "spec": spec})).unwrap();
        plan.render().unwrap();
        plan
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn deployment(available: i64) -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "istiod", "namespace": "istio-system", "generation": 2,
                                                  "labels": {COMPONENT: "Pilot"}},
               "spec": {"replicas": 2},
               "status": {"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": available}})
    }

    #[test]
    fn the_worst_part_decides() {
        let failed = |part: &str| Outcome {
            failed: [(part.to_owned(), vec!["Service x: no".to_owned()])].into_iter().collect(),
            ..Outcome::default()
        };
        let unsupported = json!({"profile": "minimal", "nothing": 1});
        for (spec, outcome, available, want) in [
            (json!({"profile": "minimal"}), Outcome::default(), 2, ["HEALTHY", "True", "True", "True"]),
            (json!({"profile": "minimal"}), Outcome::default(), 1, ["RECONCILING", "True", "True", "False"]),
            (json!({"profile": "minimal"}), failed("Base"), 2, ["ERROR", "True", "False", "False"]),
            (unsupported, Outcome::default(), 2, ["ACTION_REQUIRED", "False", "True", "True"]),
        ] {
            let objects = [deployment(available)];
            let status = status(&plan(spec.clone()), &outcome, &objects, &Default::default(), 7, &at(1));
            let mut got = vec![status.status.as_str()];
            got.extend(status.conditions.iter().map(|condition| condition.status.as_str()));
            assert_eq!(got, want, "{spec} {outcome:?}");
            assert_eq!(status.observed_generation, 7);
            assert!(status.status == "HEALTHY" || !status.message.is_empty());
        }
    }

    #[test]
    fn what_did_not_change_keeps_its_time_and_so_the_status() {
        let plan = plan(json!({"profile": "minimal"}));
        let say = |available, old: &_, second| {
            status(&plan, &Outcome::default(), &[deployment(available)], old, 1, &at(second))
        };
        let first = say(1, &IstioOperatorStatus::default(), 1);
        assert_eq!(say(1, &first, 2), first);
        let later = say(2, &first, 3);
        let times = |status: &IstioOperatorStatus| -> Vec<_> {
            status.conditions.iter().map(|condition| condition.last_transition_time.0.as_second()).collect()
        };
        assert_eq!(times(&later), [1, 1, 3], "only Ready changed");
    }

    #[test]
    fn a_refused_plan_keeps_what_is_known_of_the_parts() {
        let old =
            status(&plan(json!({"profile": "minimal"})), &Outcome::default(), &[], &Default::default(), 1, &at(1));
        let new = refused("spec.profile: no such", &old, 2, &at(2));
        assert_eq!((new.status.as_str(), new.message.as_str()), ("ERROR", "spec.profile: no such"));
        assert_eq!(new.component_status, old.component_status);
    }
}
