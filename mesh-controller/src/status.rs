//! The status of Istio's objects: what is wrong with each is said where its owner looks for it.
//!
//! The findings of the command line, of the webhook and of the log come here as `validationMessages`, and in words as the
//! condition `PassedAnalysis`. What must be written is a function of the findings and of what the objects say now ([`changes`]);
//! a [`Writer`] asks for it and writes, in one replica, if `PILOT_ENABLE_ANALYSIS` wants it.
//!
//! An object with which nothing is wrong gets no status, and one that is mended loses what was written. Conditions of others stay.

mod writer;

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mesh_api::types::{AnalysisMessageBase, AnalysisMessageLevel, AnalysisMessageType, IstioCondition, IstioStatus};
use mesh_api::{Diagnostic, Object, ObjectRef, Severity, Validate};
use mesh_xds::conflicts::conflicts;

pub use writer::{MANAGER, Writer};

use crate::store::{Problems, Published};

/// The condition that is ours.
pub const CONDITION: &str = "PassedAnalysis";

/// What is told of one object at most; what is worst comes first.
const MAX_TOLD: usize = 32;

/// What is wrong, by object.
pub type Findings = BTreeMap<ObjectRef, Vec<Diagnostic>>;

/// What is to be written of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The object.
    pub object: ObjectRef,
    /// All that its status is to have from us; what we wrote before and is not in it goes.
    pub status: IstioStatus,
}

/// What is wrong with Istio's objects: with each by itself, with what it means to the mesh, and with it beside its neighbours.
pub fn findings(state: &Published, problems: &Problems) -> Findings {
    let mut all: BTreeMap<&ObjectRef, Vec<Diagnostic>> = BTreeMap::new();
    for (key, object) in &state.objects {
        if observed(object).is_some() {
            let told = object.validate().into_iter().chain(conflicts(&state.snapshot, object));
            all.insert(key, told.collect());
        }
    }
    for problem in problems.iter() {
        if let Some(told) = problem.object.as_ref().and_then(|object| all.get_mut(object)) {
            told.push(problem.clone());
        }
    }
    let found = all.into_iter().filter(|(_, told)| !told.is_empty());
    found.map(|(key, told)| (key.clone(), worst_first(told))).collect()
}

/// Each once, whoever found it.
fn worst_first(mut told: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut known = BTreeSet::new();
    told.retain(|problem| known.insert((problem.code.clone(), problem.path.clone(), problem.message.clone())));
    told.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.path.cmp(&b.path)));
    told.truncate(MAX_TOLD);
    told
}

/// What must be written for the objects to say what was found. `recent` is what was written and may not have been heard of
/// yet: it counts in place of what an object says.
pub fn changes(
    findings: &Findings,
    objects: &OrdMap<ObjectRef, Object>,
    recent: &BTreeMap<ObjectRef, IstioStatus>,
    now: &Time,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, object) in objects {
        let Some(said) = observed(object) else { continue };
        let said = recent.get(key).cloned().unwrap_or(said);
        let told = findings.get(key).map(Vec::as_slice).unwrap_or_default();
        let generation = object.metadata().generation.unwrap_or_default();
        changes.extend(next(&said, generation, told, now).map(|status| Change { object: key.clone(), status }));
    }
    changes
}

/// What an object's status is to have from us, unless it has it.
fn next(said: &IstioStatus, generation: i64, told: &[Diagnostic], now: &Time) -> Option<IstioStatus> {
    let own = said.conditions.iter().find(|condition| condition.r#type == CONDITION);
    let mut conditions: Vec<_> =
        said.conditions.iter().filter(|condition| condition.r#type != CONDITION).cloned().collect();
    if told.is_empty() {
        return own.map(|_| IstioStatus { conditions, ..IstioStatus::default() });
    }
    let passed = told.iter().all(|problem| problem.severity == Severity::Info);
    let status = if passed { "True" } else { "False" };
    let since = own.filter(|own| own.status == status).and_then(|own| own.last_transition_time.clone());
    conditions.push(IstioCondition {
        r#type: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: if passed { "Informed" } else { "ProblemsFound" }.to_owned(),
        message: told.iter().map(sentence).collect::<Vec<_>>().join("\n"),
        last_transition_time: since.or_else(|| Some(now.clone())),
        observed_generation: generation,
        ..IstioCondition::default()
    });
    let wanted = IstioStatus {
        conditions,
        validation_messages: told.iter().map(message).collect(),
        observed_generation: generation,
    };
    (wanted != *said).then_some(wanted)
}

/// Without the object's name, which its reader knows.
fn sentence(problem: &Diagnostic) -> String {
    let path = problem.path.as_str();
    let space = if path.is_empty() { "" } else { ": " };
    format!("{} {path}{space}{}", problem.code, problem.message)
}

fn message(problem: &Diagnostic) -> AnalysisMessageBase {
    let code = problem.code.clone().into_owned();
    AnalysisMessageBase {
        r#type: Some(AnalysisMessageType { name: code.clone(), code }),
        level: match problem.severity {
            Severity::Error => AnalysisMessageLevel::Error,
            Severity::Warning => AnalysisMessageLevel::Warning,
            Severity::Info => AnalysisMessageLevel::Info,
        },
        documentation_url: String::new(),
    }
}

/// What an object of one of Istio's kinds says of itself; none for other kinds.
fn observed(object: &Object) -> Option<IstioStatus> {
    macro_rules! of {
        ($($kind:ident)+) => {
            match object {
                $(Object::$kind(object) => object.status.as_ref().map(|status| IstioStatus {
                    conditions: status.conditions.clone(),
                    validation_messages: status.validation_messages.clone(),
                    observed_generation: status.observed_generation,
                }),)+
                _ => return None,
            }
        };
    }
    let said = of!(
        AuthorizationPolicy DestinationRule EnvoyFilter Gateway PeerAuthentication ProxyConfig RequestAuthentication
        ServiceEntry Sidecar Telemetry TrafficExtension VirtualService WasmPlugin WorkloadEntry WorkloadGroup
    );
    Some(said.unwrap_or_default())
}

#[cfg(test)]
mod tests;
