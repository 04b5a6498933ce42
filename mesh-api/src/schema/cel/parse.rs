//! From words to a tree, by the grammar of the language; macros become walks and tests on the way.

use regex::Regex;

use super::ast::{Access, Each, Expr, Fold, Kind, Operator};
use super::token::{Token, syntax, tokens};
use super::{Fault, Value, eval};

/// Deeper expressions are refused, as by cel-go.
const MAX_DEPTH: usize = 250;

/// Functions whose name has a dot: their first word is no variable.
const QUALIFIED: &[&str] = &[
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "optional.of",
    "optional.ofNonZeroValue",
    "optional.none",
    "lists.range",
    "strings.quote",
    "ip.isCanonical",
    "format.named",
    "format.dns1123Label",
    "format.dns1123Subdomain",
    "format.dns1035Label",
    "format.qualifiedName",
    "format.dns1123LabelPrefix",
    "format.dns1123SubdomainPrefix",
    "format.dns1035LabelPrefix",
    "format.labelValue",
    "format.uri",
    "format.uuid",
    "format.byte",
    "format.date",
    "format.datetime",
];

/// The operators of one rank, the weakest rank first.
const RANKS: &[&[(&str, Operator)]] = &[
    &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<", Operator::Less),
        ("<=", Operator::LessOrEqual),
        (">", Operator::Greater),
        (">=", Operator::GreaterOrEqual),
        ("in", Operator::In),
    ],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)],
];

pub(super) fn parse(text: &str) -> Result<Expr, Fault> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable(), nesting: 0 };
    let expr = parser.expression()?;
    match parser.tokens.next() {
        None => Ok(expr),
        Some(token) => Err(syntax(&format!("unexpected {token:?}"))),
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    nesting: usize,
}

type Parsed = Result<Expr, Fault>;

impl Parser {
    fn take(&mut self, symbol: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Symbol(s) if *s == symbol)).is_some()
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.take(symbol) { Ok(()) } else { Err(syntax(&format!("expected '{symbol}'"))) }
    }

    fn name(&mut self) -> Result<String, Fault> {
        match self.tokens.next() {
            Some(Token::Name(name)) => Ok(name),
            Some(Token::Symbol("in")) => Ok("in".to_owned()),
            _ => Err(syntax("expected a name")),
        }
    }

    fn expression(&mut self) -> Parsed {
        self.nesting += 1;
        // Each level of brackets passes through some ten functions here.
        if self.nesting > MAX_DEPTH / 4 {
            return Err(too_deep());
        }
        let condition = self.any()?;
        let expr = if self.take("?") {
            let yes = self.any()?;
            self.expect(":")?;
            let no = self.expression()?;
            make(Kind::Choose { condition: Box::new(condition), yes: Box::new(yes), no: Box::new(no) })
        } else {
            Ok(condition)
        };
        self.nesting -= 1;
        expr
    }

    fn any(&mut self) -> Parsed {
        let first = self.all()?;
        let mut alternatives = vec![first];
        while self.take("||") {
            alternatives.push(self.all()?);
        }
        alone_or(alternatives, Kind::Any)
    }

    fn all(&mut self) -> Parsed {
        let first = self.binary(0)?;
        let mut conditions = vec![first];
        while self.take("&&") {
            conditions.push(self.binary(0)?);
        }
        alone_or(conditions, Kind::All)
    }

    fn binary(&mut self, rank: usize) -> Parsed {
        let Some(operators) = RANKS.get(rank) else { return self.unary() };
        let mut left = self.binary(rank + 1)?;
        while let Some((_, operator)) = operators.iter().find(|(symbol, _)| self.take(symbol)) {
            let right = self.binary(rank + 1)?;
            left = make(Kind::Binary { operator: *operator, left: Box::new(left), right: Box::new(right) })?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let mut operators: Vec<fn(Box<Expr>) -> Kind> = Vec::new();
        loop {
            if self.take("!") {
                operators.push(Kind::Not);
            } else if self.take("-") {
                operators.push(Kind::Negate);
            } else {
                break;
            }
        }
        let operand = self.member()?;
        operators.into_iter().rev().try_fold(operand, |operand, operator| make(operator(Box::new(operand))))
    }

    fn member(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        loop {
            if self.take(".") {
                let mode = if self.take("?") { Access::Optional } else { Access::Get };
                let field = self.name()?;
                expr = if mode == Access::Get && self.take("(") {
                    let args = self.list(")")?;
                    method(expr, &field, args)?
                } else {
                    make(Kind::Select { of: Box::new(expr), field, mode })?
                };
            } else if self.take("[") {
                let mode = if self.take("?") { Access::Optional } else { Access::Get };
                let at = self.expression()?;
                self.expect("]")?;
                expr = make(Kind::Index { of: Box::new(expr), at: Box::new(at), mode })?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        if self.take("(") {
            let expr = self.expression()?;
            self.expect(")")?;
            return Ok(expr);
        }
        if self.take("[") {
            return self.list_literal();
        }
        if self.take("{") {
            return self.map_literal();
        }
        self.take(".");
        match self.tokens.next() {
            Some(Token::Literal(value)) => make(Kind::Literal(value)),
            Some(Token::Name(name)) if self.take("(") => {
                let args = self.list(")")?;
                if name == "has" { has(args) } else { call(&name, args) }
            }
            Some(Token::Name(name)) => make(Kind::Variable(name)),
            Some(Token::Symbol(symbol)) => Err(syntax(&format!("unexpected '{symbol}'"))),
            None => Err(syntax("the expression ends too early")),
        }
    }

    /// Expressions between commas, up to the closing bracket; a comma may come last.
    fn list(&mut self, close: &str) -> Result<Vec<Expr>, Fault> {
        let mut out = Vec::new();
        while !self.take(close) {
            out.push(self.expression()?);
            if !self.take(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(out)
    }

    fn list_literal(&mut self) -> Parsed {
        let mut items = Vec::new();
        while !self.take("]") {
            let optional = self.take("?");
            items.push((self.expression()?, optional));
            if !self.take(",") {
                self.expect("]")?;
                break;
            }
        }
        make(Kind::List(items))
    }

    fn map_literal(&mut self) -> Parsed {
        let mut entries = Vec::new();
        while !self.take("}") {
            let optional = self.take("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        make(Kind::Map(entries))
    }
}

fn too_deep() -> Fault {
    Fault::new(format!("expression recursion limit exceeded: {MAX_DEPTH}"))
}

fn make(kind: Kind) -> Parsed {
    let expr = Expr::new(kind);
    if expr.depth > MAX_DEPTH { Err(too_deep()) } else { Ok(expr) }
}

fn alone_or(mut parts: Vec<Expr>, kind: fn(Vec<Expr>) -> Kind) -> Parsed {
    match parts.pop() {
        Some(only) if parts.is_empty() => Ok(only),
        last => {
            parts.extend(last);
            make(kind(parts))
        }
    }
}

fn has(args: Vec<Expr>) -> Parsed {
    match <[Expr; 1]>::try_from(args) {
        Ok([Expr { kind: Kind::Select { of, field, mode: Access::Get }, .. }]) => {
            make(Kind::Select { of, field, mode: Access::Has })
        }
        _ => Err(syntax("invalid argument to has() macro")),
    }
}

/// A function; one of known arguments is its value.
fn call(function: &str, args: Vec<Expr>) -> Parsed {
    let known: Option<Vec<Value<'static>>> = args
        .iter()
        .map(|arg| match &arg.kind {
            Kind::Literal(value) => Some(value.clone()),
            _ => None,
        })
        .collect();
    if let Some(known) = known
        && let Ok(value) = eval::call(function, &known)
    {
        return make(Kind::Literal(value));
    }
    if function == "matches"
        && let [text, Expr { kind: Kind::Literal(Value::String(pattern)), .. }] = args.as_slice()
    {
        let pattern = Regex::new(pattern).map_err(|_| Fault::new(format!("invalid matches argument: {pattern}")))?;
        return make(Kind::Matches { text: Box::new(text.clone()), pattern });
    }
    make(Kind::Call { function: function.to_owned(), args })
}

fn method(target: Expr, name: &str, args: Vec<Expr>) -> Parsed {
    if let Kind::Variable(namespace) = &target.kind {
        let qualified = format!("{namespace}.{name}");
        if QUALIFIED.contains(&qualified.as_str()) {
            return call(&qualified, args);
        }
    }
    let args = match walk(target, name, args)? {
        Ok(expr) => return Ok(expr),
        Err(args) => args,
    };
    call(name, args)
}

fn wrong_number(name: &str) -> Fault {
    Fault::new(format!("wrong number of arguments to {name}"))
}

/// The walk that a macro stands for; the arguments back, with the target before them, where it is none.
fn walk(target: Expr, name: &str, args: Vec<Expr>) -> Result<Result<Expr, Vec<Expr>>, Fault> {
    let variable = |expr: &Expr| match &expr.kind {
        Kind::Variable(name) => Ok(name.clone()),
        _ => Err(syntax("argument must be a simple name")),
    };
    let each = |fold, first: &Expr, second: Option<&Expr>, filter: Option<Expr>, body: Expr| {
        let (first, second) = (variable(first)?, second.map(variable).transpose()?);
        make(Kind::Each(Box::new(Each { over: target.clone(), first, second, fold, filter, body })))
    };
    let fold = match name {
        "all" => Fold::All,
        "exists" => Fold::Exists,
        "exists_one" | "existsOne" => Fold::ExistsOne,
        "map" | "filter" | "transformList" => Fold::List,
        "transformMap" => Fold::Map,
        "transformMapEntry" => Fold::MapEntries,
        "sortBy" => Fold::SortBy,
        "optMap" | "optFlatMap" => {
            let [first, body] = <[Expr; 2]>::try_from(args).map_err(|_| wrong_number(name))?;
            let (name, flat) = (variable(&first)?, name == "optFlatMap");
            return make(Kind::IfPresent { of: Box::new(target), name, body: Box::new(body), flat }).map(Ok);
        }
        _ => return Ok(Err(std::iter::once(target).chain(args).collect())),
    };
    let expr = match (name, args.as_slice()) {
        ("filter", [v, condition]) => each(fold, v, None, Some(condition.clone()), v.clone()),
        ("map", [v, filter, body]) => each(fold, v, None, Some(filter.clone()), body.clone()),
        ("all" | "exists" | "exists_one" | "existsOne" | "map" | "sortBy", [v, body]) => {
            each(fold, v, None, None, body.clone())
        }
        ("all" | "exists" | "existsOne" | "transformList" | "transformMap" | "transformMapEntry", [i, v, body]) => {
            each(fold, i, Some(v), None, body.clone())
        }
        ("transformList" | "transformMap" | "transformMapEntry", [i, v, filter, body]) => {
            each(fold, i, Some(v), Some(filter.clone()), body.clone())
        }
        _ => Err(wrong_number(name)),
    };
    expr.map(Ok)
}
