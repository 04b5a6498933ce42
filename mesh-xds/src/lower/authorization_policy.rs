//! AuthorizationPolicies.
//!
//! A value that can't be read must never let a request pass that was not to pass. So it costs an ALLOW policy the whole
//! rule, which then lets less pass; of any other policy it costs the value alone, which then means more requests.

mod facts;

use std::sync::Arc;

use mesh_api::ObjectRef;
use mesh_api::security::{Action as WrittenAction, ActionDetail, AuthorizationPolicy as Written, Rule as WrittenRule};

use super::attachment::attachment;
use super::{Lowered, Told};
use crate::model::InNamespace;
use crate::model::authorization_policy::{Action, AuthorizationPolicy, Clause, Client, Operation, Rule};
use crate::model::settings::boolean;
use crate::snapshot::Row;
use facts::{Field, Read, Unreadable};

const DRY_RUN: &str = "istio.io/dry-run";

/// Lowers an AuthorizationPolicy.
pub(crate) fn lower(object: &Written) -> Lowered {
    let source = ObjectRef::new(
        "AuthorizationPolicy",
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    );
    let mut told = Told::about(&source);
    let spec = &object.spec;
    let attachment = attachment(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs, &mut told);
    let dry_run = dry_run(object, &mut told);
    let action = action(object, &mut told);
    if dry_run && matches!(action, Action::Custom(_)) {
        told.unsupported("metadata.annotations", "a CUSTOM policy cannot run dry, so it is left out");
        return (Vec::new(), told.diagnostics).into();
    }
    let mut reader = Reader { told, strict: action == Action::Allow };
    let mut rules: Vec<Rule> = Vec::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        rules.extend(reader.rule(index, rule).ok());
    }
    if spec.rules.is_empty() {
        rules.push(Rule { index: 0, from: Vec::new(), to: Vec::new() });
    }
    let told = reader.told.diagnostics;
    let row = AuthorizationPolicy { attachment, action, dry_run, rules, source: source.clone() };
    (vec![Row::AuthorizationPolicy(InNamespace::from(&source), Arc::new(row))], told).into()
}

fn dry_run(object: &Written, told: &mut Told<'_>) -> bool {
    let Some(text) = object.metadata.annotations.as_ref().and_then(|all| all.get(DRY_RUN)) else { return false };
    boolean(text).unwrap_or_else(|| {
        let message = format!("{DRY_RUN} is {text:?}, not true or false; the policy is in force");
        told.error("InvalidAnnotation", format!("metadata.annotations[{DRY_RUN}]"), message);
        false
    })
}

fn action(object: &Written, told: &mut Told<'_>) -> Action {
    let provider = match &object.spec.action_detail {
        Some(ActionDetail::Provider(provider)) => provider.name.as_str(),
        None => "",
    };
    match object.spec.action {
        WrittenAction::Allow => Action::Allow,
        WrittenAction::Deny => Action::Deny,
        WrittenAction::Audit => Action::Audit,
        WrittenAction::Custom => {
            if provider.is_empty() {
                told.error(
                    "NoProvider",
                    "spec.provider.name",
                    "CUSTOM needs one of the mesh's extensionProviders to decide; without one the requests are denied",
                );
            }
            Action::Custom(provider.into())
        }
    }
}

type Clauses<T> = Vec<Clause<T>>;

/// Reads rules and tells what can't be read.
struct Reader<'o> {
    told: Told<'o>,
    /// What can't be read costs the whole rule.
    strict: bool,
}

/// The rule has to be left out.
struct LeftOut;

impl Reader<'_> {
    fn rule(&mut self, index: usize, rule: &WrittenRule) -> Result<Rule, LeftOut> {
        let path = format!("spec.rules[{index}]");
        let (of_client, of_operation) = self.conditions(&path, rule)?;
        let namespace = self.told.object.namespace.clone();
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (i, written) in rule.from.iter().enumerate() {
            let fields = written.source.iter().flat_map(|source| facts::of_source(source, &namespace));
            from.push(self.clauses(&format!("{path}.from[{i}].source"), fields, &of_client)?);
        }
        for (i, written) in rule.to.iter().enumerate() {
            let fields = written.operation.iter().flat_map(facts::of_operation);
            to.push(self.clauses(&format!("{path}.to[{i}].operation"), fields, &of_operation)?);
        }
        if from.is_empty() {
            from.push(of_client);
        }
        if to.is_empty() {
            to.push(of_operation);
        }
        Ok(Rule { index, from, to })
    }

    /// What `when` asks of the client, and of the operation.
    fn conditions(&mut self, path: &str, rule: &WrittenRule) -> Result<(Clauses<Client>, Clauses<Operation>), LeftOut> {
        let (mut of_client, mut of_operation) = (Vec::new(), Vec::new());
        for (i, when) in rule.when.iter().enumerate() {
            let path = format!("{path}.when[{i}]");
            match facts::of_condition(when, &self.told.object.namespace) {
                Some(facts::Condition::Client(field)) => of_client.extend(self.clause(&path, &field)?),
                Some(facts::Condition::Operation(field)) => of_operation.extend(self.clause(&path, &field)?),
                None => {
                    let message = format!("there is no attribute {:?}; the rule is left out", when.key);
                    self.told.error("UnknownAttribute", format!("{path}.key"), message);
                    return Err(LeftOut);
                }
            }
        }
        Ok((of_client, of_operation))
    }

    fn clauses<'f, T: Clone>(
        &mut self,
        path: &str,
        fields: impl Iterator<Item = Field<'f, T>>,
        conditions: &Clauses<T>,
    ) -> Result<Clauses<T>, LeftOut> {
        let mut out = Vec::new();
        for field in fields {
            out.extend(self.clause(path, &field)?);
        }
        out.extend(conditions.iter().cloned());
        Ok(out)
    }

    /// `None` when nothing is asked.
    fn clause<T>(&mut self, path: &str, field: &Field<'_, T>) -> Result<Option<Clause<T>>, LeftOut> {
        let one_of = self.values(path, field.name, field.values, &field.read)?;
        let none_of = self.values(path, field.not_name, field.not_values, &field.read)?;
        Ok((!one_of.is_empty() || !none_of.is_empty()).then_some(Clause { one_of, none_of }))
    }

    fn values<T>(&mut self, path: &str, name: &str, values: &[String], read: &Read<'_, T>) -> Result<Vec<T>, LeftOut> {
        let mut out = Vec::new();
        for (i, value) in values.iter().enumerate() {
            let Unreadable(code, why) = match read(value) {
                Ok(fact) => {
                    out.push(fact);
                    continue;
                }
                Err(unreadable) => unreadable,
            };
            let cost = match self.strict {
                true => "the rule is left out and allows nothing",
                false => "it does not count, so the policy means more requests",
            };
            self.told.error(code, format!("{path}.{name}[{i}]"), format!("{why}; {cost}"));
            if self.strict {
                return Err(LeftOut);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
