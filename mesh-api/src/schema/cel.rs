//! The Common Expression Language as the rules of a CRD use it: an expression is read once and evaluated on the values of
//! an object, each seen through its schema.
//!
//! Values are not copied into the language: a list or map of the object is looked into when an expression asks for it, so
//! that a rule costs what it reads. Evaluation is bounded: each step costs, and a budget ends what would take too long.
//!
//! Left out: types are not checked before evaluation (an apiserver does that when it accepts the CRD), the libraries `authz`
//! and `jsonpatch`, which rules of CRDs have no use for, and names of time zones.

mod addresses;
mod ast;
mod collections;
mod core;
mod eval;
mod formats;
mod operators;
mod parse;
mod quantity;
mod semver;
mod text;
mod time;
mod token;
pub(super) mod url;
mod value;

pub(crate) use eval::Budget;
pub(crate) use value::Value;

use ast::Expr;

/// An expression that was read.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    root: Expr,
    /// Whether it looks at the object's former state.
    pub(crate) uses_old_self: bool,
}

/// Why an expression has no value, in the words of cel-go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Fault(pub(crate) String);

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
    fn cancelled() -> Self {
        Self::new("operation cancelled: actual cost limit exceeded")
    }
    /// True when the text is no expression, whatever its functions and constants are.
    pub(crate) fn is_syntax(&self) -> bool {
        self.0.starts_with("Syntax error") || self.0.starts_with("expression recursion limit")
    }
    /// True when the budget is used up: nothing more is evaluated.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.starts_with("operation cancelled")
    }
    fn no_overload() -> Self {
        Self::new("no such overload")
    }
}

impl Program {
    /// Reads an expression over the variables `self` and `oldSelf`.
    ///
    /// # Errors
    /// Where the text is no expression, or one that is too deep.
    pub(crate) fn compile(text: &str) -> Result<Self, Fault> {
        let root = parse::parse(text)?;
        Ok(Self { uses_old_self: root.mentions("oldSelf"), root })
    }

    /// The value of the expression for an object.
    ///
    /// # Errors
    /// Where there is no value: a field that is absent, operands that do not fit, a budget that is used up.
    pub(crate) fn evaluate<'a>(&'a self, this: Value<'a>, budget: &Budget) -> Result<Value<'a>, Fault> {
        eval::evaluate(&self.root, this, budget)
    }
}

#[cfg(test)]
mod tests;
