//! The functions of templates: Istio's own, and of sprig's those that say the same for the same pod (no clock, no chance,
//! no files). Where Istio and sprig share a name, Istio's is meant.
//!
//! In Go an absent field of a struct is its type's zero value; here it is nil. So nil counts as empty text, as an empty
//! list and as an empty map, and equals every zero value.

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use gotmpl::{FuncMap, TemplateError, Value};
use mesh_api::mesh::ProxyConfig;
use mesh_api::yaml;
use serde_json::Value as Json;

use super::super::config::parse_yaml;
use super::{from_json, proxy_config_json, to_json};

type Function = fn(&Args<'_>) -> Result<Value, String>;

/// All functions by name.
pub(super) fn all() -> FuncMap {
    FUNCTIONS
        .iter()
        .map(|&(name, function)| {
            let call: gotmpl::ValueFunc = Arc::new(move |args: &[Value]| {
                function(&Args(args)).map_err(|why| TemplateError::Exec(format!("{name}: {why}")))
            });
            (name.to_owned(), call)
        })
        .collect()
}

const FUNCTIONS: &[(&str, Function)] = &[
    // In place of Go's own.
    ("eq", |a| Ok(Value::Bool(a.rest(1).iter().any(|other| equal(a.get(0), other))))),
    ("ne", |a| Ok(Value::Bool(!equal(a.get(0), a.get(1))))),
    ("index", index),
    // Istio's.
    ("annotation", annotation),
    ("appendMultusNetwork", |a| text(append_network(&a.text(0), &a.text(1)))),
    ("applicationPorts", |a| text(container_ports(a.get(0), |name| name != "istio-proxy"))),
    ("contains", |a| Ok(Value::Bool(a.text(1).contains(&*a.text(0))))),
    ("directory", |a| text(a.text(0).rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/")))),
    // The control plane's own environment is none of a pod's business: always the default.
    ("env", |a| Ok(a.get(1).clone())),
    ("excludeInboundPort", |a| text(exclude_port(a.text(0).trim(), &a.text(1)))),
    ("excludeInterfaces", |a| text(a.text(0))),
    ("formatDuration", |a| text(a.text(0))),
    ("fromJSON", from_json_text),
    ("includeInboundPorts", |a| text(container_ports(a.get(0), |_| true))),
    ("indent", |a| text(indent(a, true)?)),
    ("isset", |a| Ok(Value::Bool(a.get(0).field(&a.text(1)).is_some()))),
    ("kubevirtInterfaces", |a| text(a.text(0))),
    ("mergeMaps", merge_maps),
    ("omitNil", |a| Ok(without_nil(a.get(0)))),
    ("otelResourceAttributes", |a| text(super::super::otel::attributes(&a.0.iter().map(to_json).collect::<Vec<_>>()))),
    ("protoToJSON", |a| text(without_defaults(to_json(a.get(0))))),
    ("strdict", dict),
    ("structToJSON", |a| text(to_json(a.get(0)).to_string())),
    ("toJSON", |a| text(if a.is_nil(0) { "{}".to_owned() } else { to_json(a.get(0)).to_string() })),
    ("toJsonMap", |a| text(to_json(&merge_maps(a)?).to_string())),
    ("toLower", |a| text(a.text(0).to_lowercase())),
    ("toYaml", |a| text(yaml::to_string(&to_json(a.get(0))))),
    ("valueOrDefault", |a| Ok(if a.text(0).is_empty() { a.get(1).clone() } else { a.get(0).clone() })),
    // Sprig's: defaults and logic.
    ("default", |a| Ok(if a.get(1).is_truthy() { a.get(1).clone() } else { a.get(0).clone() })),
    ("empty", |a| Ok(Value::Bool(!a.get(0).is_truthy()))),
    ("coalesce", |a| Ok(a.0.iter().find(|value| value.is_truthy()).cloned().unwrap_or(Value::Nil))),
    ("ternary", |a| Ok(if a.get(2).is_truthy() { a.get(0).clone() } else { a.get(1).clone() })),
    ("fail", |a| Err(a.text(0))),
    ("required", |a| if a.text(1).is_empty() { Err(a.text(0)) } else { Ok(a.get(1).clone()) }),
    ("kindIs", |a| Ok(Value::Bool(kind(a.get(1)) == a.text(0)))),
    ("kindOf", |a| text(kind(a.get(0)).to_owned())),
    // Text.
    ("quote", |a| text(joined(a, |text| Json::from(text).to_string()))),
    ("squote", |a| text(joined(a, |text| format!("'{text}'")))),
    ("cat", |a| text(joined(a, str::to_owned))),
    ("trim", |a| text(a.text(0).trim().to_owned())),
    ("trimAll", |a| text(a.text(1).trim_matches(|c| a.text(0).contains(c)).to_owned())),
    ("trimPrefix", |a| text(a.text(1).strip_prefix(&*a.text(0)).unwrap_or(&a.text(1)).to_owned())),
    ("trimSuffix", |a| text(a.text(1).strip_suffix(&*a.text(0)).unwrap_or(&a.text(1)).to_owned())),
    ("trunc", |a| Ok(trunc(a.int(0)?, &a.text(1)))),
    ("upper", |a| text(a.text(0).to_uppercase())),
    ("lower", |a| text(a.text(0).to_lowercase())),
    ("nospace", |a| text(a.text(0).split_whitespace().collect())),
    ("replace", |a| text(a.text(2).replace(&*a.text(0), &a.text(1)))),
    ("repeat", repeat),
    ("hasPrefix", |a| Ok(Value::Bool(a.text(1).starts_with(&*a.text(0))))),
    ("hasSuffix", |a| Ok(Value::Bool(a.text(1).ends_with(&*a.text(0))))),
    ("nindent", |a| text(format!("\n{}", indent(a, false)?))),
    ("join", |a| text(a.list(1).iter().map(display).collect::<Vec<_>>().join(&a.text(0)))),
    ("splitList", |a| Ok(Value::List(a.text(1).split(&*a.text(0)).map(|part| Value::String(part.into())).collect()))),
    ("toString", |a| text(a.text(0))),
    ("b64enc", |a| text(BASE64_STANDARD.encode(a.text(0)))),
    ("b64dec", b64dec),
    ("toJson", |a| text(to_json(a.get(0)).to_string())),
    ("toPrettyJson", |a| text(format!("{:#}", to_json(a.get(0))))),
    ("fromJson", from_json_text),
    ("fromYaml", |a| parse_yaml("fromYaml", &a.text(0)).map(|value| from_json(&value))),
    // Numbers.
    ("int", |a| a.int(0).map(Value::Int)),
    ("int64", |a| a.int(0).map(Value::Int)),
    ("atoi", |a| a.int(0).map(Value::Int)),
    ("add", |a| fold(a, i64::checked_add)),
    ("sub", |a| fold(a, i64::checked_sub)),
    ("mul", |a| fold(a, i64::checked_mul)),
    ("div", |a| fold(a, i64::checked_div)),
    ("mod", |a| fold(a, i64::checked_rem)),
    ("max", |a| fold(a, |x, y| Some(x.max(y)))),
    ("min", |a| fold(a, |x, y| Some(x.min(y)))),
    // Lists and maps. Nothing is changed in place: `set` and `unset` give the changed map.
    ("list", |a| Ok(Value::List(a.0.into()))),
    ("append", |a| Ok(Value::List(a.list(0).iter().chain(a.rest(1)).cloned().collect()))),
    ("prepend", |a| Ok(Value::List(a.rest(1).iter().chain(a.list(0)).cloned().collect()))),
    ("concat", |a| Ok(Value::List((0..a.0.len()).flat_map(|i| a.list(i)).cloned().collect()))),
    ("first", |a| Ok(a.list(0).first().cloned().unwrap_or(Value::Nil))),
    ("last", |a| Ok(a.list(0).last().cloned().unwrap_or(Value::Nil))),
    ("rest", |a| Ok(Value::List(a.list(0).iter().skip(1).cloned().collect()))),
    ("has", |a| Ok(Value::Bool(a.list(1).iter().any(|item| equal(item, a.get(0)))))),
    ("dict", dict),
    ("get", |a| Ok(a.get(0).field(&a.text(1)).cloned().unwrap_or_else(|| Value::String("".into())))),
    ("hasKey", |a| Ok(Value::Bool(a.get(0).field(&a.text(1)).is_some()))),
    ("keys", |a| Ok(Value::List(a.entries(0).map(|(key, _)| Value::String(key.clone())).collect()))),
    ("values", |a| Ok(Value::List(a.entries(0).map(|(_, value)| value.clone()).collect()))),
    ("set", |a| Ok(map(a.entries(0).map(clone).chain([(a.text(1).into(), a.get(2).clone())])))),
    ("unset", |a| Ok(map(a.entries(0).filter(|(key, _)| ***key != *a.text(1)).map(clone)))),
    ("mergeOverwrite", merge_overwrite),
    ("pick", |a| Ok(map(a.entries(0).filter(|(key, _)| a.names(key)).map(clone)))),
    ("omit", |a| Ok(map(a.entries(0).filter(|(key, _)| !a.names(key)).map(clone)))),
];

/// The arguments of a call; one that is missing is nil.
struct Args<'a>(&'a [Value]);

impl<'a> Args<'a> {
    fn get(&self, at: usize) -> &'a Value {
        self.0.get(at).unwrap_or(&Value::Nil)
    }

    fn rest(&self, from: usize) -> &'a [Value] {
        self.0.get(from..).unwrap_or_default()
    }

    fn is_nil(&self, at: usize) -> bool {
        matches!(self.get(at), Value::Nil)
    }

    fn text(&self, at: usize) -> String {
        display(self.get(at))
    }

    fn int(&self, at: usize) -> Result<i64, String> {
        match self.get(at) {
            Value::Nil => Ok(0),
            #[allow(clippy::cast_possible_truncation, reason = "so converts Go")]
            Value::Float(number) => Ok(*number as i64),
            value => {
                value.as_int().or_else(|| display(value).parse().ok()).ok_or_else(|| format!("{value} is no number"))
            }
        }
    }

    fn list(&self, at: usize) -> &'a [Value] {
        match self.get(at) {
            Value::List(items) => items,
            _ => &[],
        }
    }

    fn entries(&self, at: usize) -> impl Iterator<Item = (&'a Arc<str>, &'a Value)> + use<'a> {
        match self.get(at) {
            Value::Map(fields) => Some(fields.iter()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// Whether a key is among the arguments after the first.
    fn names(&self, key: &str) -> bool {
        self.rest(1).iter().any(|name| display(name) == key)
    }
}

fn text(text: String) -> Result<Value, String> {
    Ok(Value::String(text.into()))
}

fn display(value: &Value) -> String {
    match value {
        Value::Nil => String::new(),
        Value::String(text) => text.to_string(),
        other => other.to_string(),
    }
}

fn clone((key, value): (&Arc<str>, &Value)) -> (Arc<str>, Value) {
    (key.clone(), value.clone())
}

fn map(entries: impl IntoIterator<Item = (Arc<str>, Value)>) -> Value {
    Value::Map(Arc::new(entries.into_iter().collect()))
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Nil, other) | (other, Value::Nil) => !other.is_truthy(),
        (a, b) => match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    }
}

fn index(a: &Args<'_>) -> Result<Value, String> {
    a.rest(1).iter().try_fold(a.get(0).clone(), |value, key| match &value {
        Value::Nil => Ok(Value::Nil),
        Value::Map(_) => Ok(value.field(&display(key)).cloned().unwrap_or(Value::Nil)),
        other => other.index(key).map_err(|error| error.to_string()),
    })
}

fn annotation(a: &Args<'_>) -> Result<Value, String> {
    let found = a.get(0).field("annotations").and_then(|annotations| annotations.field(&a.text(1)));
    text(found.map_or_else(|| a.text(2), display))
}

fn from_json_text(a: &Args<'_>) -> Result<Value, String> {
    serde_json::from_str::<Json>(&a.text(0)).map(|value| from_json(&value)).map_err(|error| error.to_string())
}

fn merge_maps(a: &Args<'_>) -> Result<Value, String> {
    Ok(map((0..a.0.len()).flat_map(|at| a.entries(at)).map(clone)))
}

/// Mappings laid over one another at every depth.
fn merge_overwrite(a: &Args<'_>) -> Result<Value, String> {
    fn lay(base: &Value, over: &Value) -> Value {
        match (base, over) {
            (Value::Map(base), Value::Map(over)) => {
                let mut laid = (**base).clone();
                for (key, value) in over.iter() {
                    let value = laid.get(key).map_or_else(|| value.clone(), |old| lay(old, value));
                    laid.insert(key.clone(), value);
                }
                Value::Map(Arc::new(laid))
            }
            (base, Value::Nil) => base.clone(),
            (_, over) => over.clone(),
        }
    }
    Ok(a.rest(1).iter().fold(a.get(0).clone(), |base, over| lay(&base, over)))
}

fn dict(a: &Args<'_>) -> Result<Value, String> {
    Ok(map(a.0.chunks(2).map(|pair| {
        let pair = Args(pair);
        (pair.text(0).into(), if pair.is_nil(1) { Value::String("".into()) } else { pair.get(1).clone() })
    })))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Uint(_) => "uint",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
        Value::Function(_) => "func",
    }
}

fn joined(a: &Args<'_>, each: impl Fn(&str) -> String) -> String {
    a.0.iter()
        .filter(|value| !matches!(value, Value::Nil))
        .map(|value| each(&display(value)))
        .collect::<Vec<_>>()
        .join(" ")
}

fn trunc(length: i64, text: &str) -> Value {
    let count = usize::try_from(length.unsigned_abs()).unwrap_or(usize::MAX);
    let all = text.chars().count();
    let part: String = match length {
        0.. => text.chars().take(count).collect(),
        _ => text.chars().skip(all.saturating_sub(count)).collect(),
    };
    Value::String(part.into())
}

fn repeat(a: &Args<'_>) -> Result<Value, String> {
    let (count, what) = (usize::try_from(a.int(0)?).unwrap_or(0), a.text(1));
    // A template must not fill the memory.
    if count.saturating_mul(what.len()) > 1 << 20 {
        Err("more than 1 MiB of text".to_owned())
    } else {
        text(what.repeat(count))
    }
}

fn b64dec(a: &Args<'_>) -> Result<Value, String> {
    let bytes = BASE64_STANDARD.decode(a.text(0)).map_err(|error| error.to_string())?;
    text(String::from_utf8(bytes).map_err(|error| error.to_string())?)
}

fn fold(a: &Args<'_>, step: fn(i64, i64) -> Option<i64>) -> Result<Value, String> {
    let first = a.int(0)?;
    (1..a.0.len())
        .try_fold(first, |sum, at| step(sum, a.int(at)?).ok_or_else(|| "no such number".to_owned()))
        .map(Value::Int)
}

/// Indents all lines; in Istio's `indent` the first stands where the action stands.
fn indent(a: &Args<'_>, but_the_first: bool) -> Result<String, String> {
    let width = usize::try_from(a.int(0)?.clamp(0, 256)).unwrap_or(0);
    let mut out = String::new();
    for (at, line) in a.text(1).split('\n').enumerate() {
        if at > 0 {
            out.push('\n');
        }
        if at > 0 || !but_the_first {
            out.extend(std::iter::repeat_n(' ', width));
        }
        out.push_str(line);
    }
    Ok(out)
}

/// The TCP ports of containers, joined by commas.
fn container_ports(containers: &Value, wanted: impl Fn(&str) -> bool) -> String {
    let Value::List(containers) = containers else { return String::new() };
    let field = |value: &Value, key: &str| value.field(key).map(display).unwrap_or_default();
    let mut ports = Vec::new();
    for container in containers.iter().filter(|container| wanted(&field(container, "name"))) {
        if let Some(Value::List(declared)) = container.field("ports") {
            let tcp = declared.iter().filter(|port| !matches!(field(port, "protocol").as_str(), "UDP" | "SCTP"));
            ports.extend(tcp.map(|port| field(port, "containerPort")));
        }
    }
    ports.join(",")
}

/// Adds a port to a list of ports that are left alone; 0 and none are no port.
fn exclude_port(port: &str, excluded: &str) -> String {
    if matches!(port, "" | "0") || excluded.split(',').any(|other| other == port) {
        return excluded.to_owned();
    }
    let others = excluded.split(',').map(str::trim).filter(|other| !other.is_empty());
    others.chain([port]).collect::<Vec<_>>().join(",")
}

/// Adds a network to what Multus is told, as names or as JSON, unless it is there.
fn append_network(told: &str, network: &str) -> String {
    if told.is_empty() {
        return network.to_owned();
    }
    let Some(end) = told.rfind(']') else {
        let known = told.split(',').any(|other| other.trim() == network);
        return if known { told.to_owned() } else { format!("{told}, {network}") };
    };
    let Ok(networks) = serde_json::from_str::<Vec<Json>>(told) else { return told.to_owned() };
    let (namespace, name) = network.split_once('/').unwrap_or(("", network));
    let said = |other: &Json, key: &str| other.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
    if networks.iter().any(|other| said(other, "name") == name && said(other, "namespace") == namespace) {
        return told.to_owned();
    }
    let namespace = if namespace.is_empty() { String::new() } else { format!(", \"namespace\": \"{namespace}\"") };
    let entry = format!("{{\"name\": \"{name}\"{namespace}}}");
    let (head, tail) = told.split_at(end);
    let comma = if networks.is_empty() { "" } else { ", " };
    format!("{head}{comma}{entry}{tail}")
}

/// Without what is nil at any depth, and without what is empty for that reason.
fn without_nil(value: &Value) -> Value {
    fn kept(value: &Value) -> Option<Value> {
        let (new, shrunk) = match value {
            Value::Nil => return None,
            Value::Map(fields) => {
                let new = map(fields.iter().filter_map(|(key, value)| Some((key.clone(), kept(value)?))));
                let shrunk = new.is_empty() == Some(true) && !fields.is_empty();
                (new, shrunk)
            }
            Value::List(items) => {
                let new = Value::List(items.iter().filter_map(kept).collect());
                let shrunk = new.is_empty() == Some(true) && !items.is_empty();
                (new, shrunk)
            }
            other => (other.clone(), false),
        };
        (!shrunk).then_some(new)
    }
    kept(value).unwrap_or(Value::Nil)
}

/// A ProxyConfig without what every proxy assumes anyway, which keeps pods small.
fn without_defaults(mut value: Json) -> String {
    static DEFAULTS: LazyLock<Json> = LazyLock::new(|| proxy_config_json(&ProxyConfig::default()));
    if let Json::Object(fields) = &mut value {
        fields.retain(|key, value| DEFAULTS.get(key) != Some(value));
    }
    if value.is_null() { "{}".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use gotmpl::tmap;

    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let data = tmap! {
            "m" => tmap! { "a" => "1", "b" => Value::Nil },
            "l" => vec!["x".to_owned(), "y".to_owned()],
            "e" => "",
            "nested" => tmap! { "limits" => tmap! { "cpu" => Value::Nil }, "size" => 5i64 },
        };
        gotmpl::Template::new("t")
            .funcs(all())
            .parse(template)
            .and_then(|template| template.execute_to_string(&data))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_go_with_sprig_would_print() {
        for (template, want) in [
            (r#"{{ .e | default "d" }}{{ .none | default "d" }}{{ .m.a | default "d" }}"#, "dd1"),
            (r#"{{ eq .none "" }} {{ eq .none "a" }} {{ ne .none "false" }} {{ eq 1 2 1 }}"#, "true false true true"),
            (r#"{{ index .m "a" }}{{ index .l 1 }}{{ if index .none "a" }}!{{ end }}"#, "1y"),
            (r#"{{ isset .m "b" }} {{ isset .none "b" }}"#, "true false"),
            (r#"{{ "a\"b" | quote }} {{ squote "a" 1 }}"#, r#""a\"b" 'a' '1'"#),
            (r#"{{ "abcdef" | trunc 3 }} {{ "abc" | trunc -2 }} {{ "-_a-" | trimAll "-_" }}"#, "abc bc a"),
            (r#"{{ contains "/" "a/b" }} {{ join "," .l }} {{ append .l "z" | len }}"#, "true x,y 3"),
            (r#"{{ valueOrDefault .none "v" }}{{ valueOrDefault .e "w" }}{{ valueOrDefault 0 "x" }}"#, "vw0"),
            ("{{ toYaml .nested | indent 2 }}|", "limits:\n    cpu: null\n  size: 5\n  |"),
            ("{{ toYaml (omitNil .nested) | trim }}", "size: 5"),
            (r#"{{ nindent 2 "a\nb" }}"#, "\n  a\n  b"),
            (
                r#"{{ excludeInboundPort 15020 "1,2" }} {{ excludeInboundPort 0 "1" }} {{ excludeInboundPort "1" "1" }}"#,
                "1,2,15020 1 1",
            ),
            (
                r#"{{ appendMultusNetwork "" "d/n" }} {{ appendMultusNetwork "a" "d/n" }} {{ appendMultusNetwork "a, d/n" "d/n" }}"#,
                "d/n a, d/n a, d/n",
            ),
            (
                r#"{{ appendMultusNetwork "[{\"name\":\"a\"}]" "d/n" }}"#,
                r#"[{"name":"a"}, {"name": "n", "namespace": "d"}]"#,
            ),
            (r#"{{ range $k, $v := fromJSON "{\"a\":{\"b\":1}}" }}{{ $k }}={{ $v.b }}{{ end }}"#, "a=1"),
            (r#"{{ directory "/a/b/c.pem" }}"#, "/a/b/"),
            (r#"{{ add 1 2 "3" }} {{ sub 3 1 }} {{ int "7" }} {{ max 1 5 2 }}"#, "6 2 7 5"),
            (
                r#"{{ $d := dict "k" "v" }}{{ $d = set $d "l" "w" }}{{ toJson $d }} {{ hasKey $d "l" }} {{ (omit $d "k") | toJson }}"#,
                r#"{"k":"v","l":"w"} true {"l":"w"}"#,
            ),
            (
                r#"{{ mergeOverwrite (fromJson "{\"a\":{\"b\":1,\"c\":2}}") (dict "a" (dict "b" 3)) | toJson }}"#,
                r#"{"a":{"b":3,"c":2}}"#,
            ),
            (r#"{{ "aGk=" | b64dec }} {{ b64enc "hi" }} {{ ternary "y" "n" false }}"#, "hi aGk= n"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(want), "{template}");
        }
    }

    #[test]
    fn what_goes_wrong_is_told() {
        for (template, why) in [
            (r#"{{ fail "no" }}"#, "no"),
            (r#"{{ fromJSON "{" }}"#, "EOF"),
            ("{{ div 1 0 }}", "no such number"),
            (r#"{{ repeat 9999999 "abc" }}"#, "MiB"),
            ("{{ .l.x }}", "can't evaluate"),
            ("{{ nothing }}", "nothing"),
        ] {
            assert!(render(template).is_err_and(|error| error.contains(why)), "{template}: {:?}", render(template));
        }
    }
}
