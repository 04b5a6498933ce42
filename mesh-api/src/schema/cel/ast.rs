//! What an expression says, as a tree. Macros are taken apart while it is read: no function here takes an expression.

use regex::Regex;

use super::Value;

/// An expression, and how deep it is.
#[derive(Debug, Clone)]
pub(super) struct Expr {
    pub(super) kind: Kind,
    pub(super) depth: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Literal(Value<'static>),
    Variable(String),
    /// A field; with `test`, whether it is there; with `optional`, none where it isn't.
    Select {
        of: Box<Expr>,
        field: String,
        mode: Access,
    },
    Index {
        of: Box<Expr>,
        at: Box<Expr>,
        mode: Access,
    },
    /// A function; the object of a method is its first argument.
    Call {
        function: String,
        args: Vec<Expr>,
    },
    /// `matches` with an expression that is known.
    Matches {
        text: Box<Expr>,
        pattern: Regex,
    },
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary {
        operator: Operator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Choose {
        condition: Box<Expr>,
        yes: Box<Expr>,
        no: Box<Expr>,
    },
    /// Elements, each with whether it is left out where it is an empty optional.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// A walk over a list or map.
    Each(Box<Each>),
    /// `optMap` and `optFlatMap`.
    IfPresent {
        of: Box<Expr>,
        name: String,
        body: Box<Expr>,
        flat: bool,
    },
}

/// How a field or element is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It must be there.
    Get,
    /// Whether it is there.
    Has,
    /// It may be there.
    Optional,
}

/// Operators of two operands whose both sides are always evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A walk over the elements of a list or the entries of a map.
#[derive(Debug, Clone)]
pub(super) struct Each {
    pub(super) over: Expr,
    /// The element of a list or key of a map; with `second`, the index or key.
    pub(super) first: String,
    /// The value beside the index or key.
    pub(super) second: Option<String>,
    pub(super) fold: Fold,
    /// Elements for which this isn't true are passed over.
    pub(super) filter: Option<Expr>,
    pub(super) body: Expr,
}

/// What a walk makes of the values of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    All,
    Exists,
    ExistsOne,
    List,
    Map,
    MapEntries,
    /// The elements themselves, ordered by the values.
    SortBy,
}

impl Expr {
    pub(super) fn new(kind: Kind) -> Self {
        let mut expr = Self { kind, depth: 1 };
        let mut deepest = 0;
        expr.children(&mut |child| deepest = deepest.max(child.depth));
        expr.depth += deepest;
        expr
    }

    /// Calls `see` for each expression directly within.
    pub(super) fn children<'e>(&'e self, see: &mut impl FnMut(&'e Expr)) {
        match &self.kind {
            Kind::Literal(_) | Kind::Variable(_) => {}
            Kind::Select { of, .. } | Kind::Not(of) | Kind::Negate(of) | Kind::Matches { text: of, .. } => see(of),
            Kind::Index { of, at, .. } => [of, at].into_iter().for_each(|child| see(child)),
            Kind::Binary { left, right, .. } => [left, right].into_iter().for_each(|child| see(child)),
            Kind::Choose { condition, yes, no } => [condition, yes, no].into_iter().for_each(|child| see(child)),
            Kind::Call { args, .. } | Kind::All(args) | Kind::Any(args) => args.iter().for_each(see),
            Kind::List(items) => items.iter().for_each(|(item, _)| see(item)),
            Kind::Map(entries) => entries.iter().for_each(|(key, value, _)| {
                see(key);
                see(value);
            }),
            Kind::Each(each) => {
                see(&each.over);
                each.filter.iter().for_each(&mut *see);
                see(&each.body);
            }
            Kind::IfPresent { of, body, .. } => [of, body].into_iter().for_each(|child| see(child)),
        }
    }

    /// True when the variable occurs, wherever that is.
    pub(super) fn mentions(&self, name: &str) -> bool {
        if matches!(&self.kind, Kind::Variable(variable) if variable == name) {
            return true;
        }
        let mut found = false;
        self.children(&mut |child| found = found || child.mentions(name));
        found
    }
}
