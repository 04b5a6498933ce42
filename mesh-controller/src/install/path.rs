//! Paths of overlays: `spec.template.spec.containers.[name:discovery].args.[:--domain]`. The grammar is that of Istio's
//! operator: fields are separated by dots (`\.` is a dot within a name), items of lists are chosen within brackets.

use serde_json::{Map, Value};

/// A step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    /// The item at this place; one that isn't there is added.
    At(i64),
    /// The item of which a field has this value.
    With(String, String),
    /// The item that is this text, or else the first that has it within: `[:text]`, or `[text]`.
    Is(String),
}

/// Sets the value at a path, or removes what is there if it is null. Mappings on the way are made.
pub(crate) fn write(root: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let steps = parse(path);
    let Some((last, way)) = steps.split_last() else { return Err("the path is empty".to_owned()) };
    let mut at = root;
    for (index, step) in way.iter().enumerate() {
        let list_next = matches!(steps.get(index + 1), Some(Step::At(_) | Step::With(..) | Step::Is(_)));
        at = enter(at, step, list_next)?;
    }
    finish(at, last, value)
}

fn parse(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in split(path) {
        // `args[0]` is `args.[0]`.
        let (name, selector) = match part.find('[') {
            Some(at) if part.ends_with(']') => {
                let (name, selector) = part.split_at(at);
                (name, selector.get(1..selector.len() - 1))
            }
            _ => (part.as_str(), None),
        };
        if !name.is_empty() {
            steps.push(Step::Field(name.to_owned()));
        }
        if let Some(selector) = selector {
            steps.push(match selector.split_once(':') {
                Some(("", value)) => Step::Is(value.to_owned()),
                Some((key, value)) => Step::With(key.to_owned(), value.to_owned()),
                None => selector.parse().map_or_else(|_| Step::Is(selector.to_owned()), Step::At),
            });
        }
    }
    steps
}

/// The parts between dots, but for those dots that are escaped or within brackets.
fn split(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut escaped, mut depth) = (false, 0usize);
    for c in path.chars() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '.' if !escaped && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            if escaped && c != '.' {
                part.push('\\');
            }
            part.push(c);
        }
        escaped = false;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn enter<'a>(at: &'a mut Value, step: &Step, list_next: bool) -> Result<&'a mut Value, String> {
    let empty = || if list_next { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
    match step {
        Step::Field(name) => {
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
            let fields = at.as_object_mut().ok_or_else(|| format!("{name}: what is there has no fields"))?;
            Ok(fields.entry(name.as_str()).or_insert_with(empty))
        }
        choice => {
            let items = at.as_array_mut().ok_or_else(|| format!("{}: what is there is no list", show(choice)))?;
            let place = find(items, choice).ok_or_else(|| format!("{}: no such item", show(choice)))?;
            if place == items.len() {
                items.push(empty());
            }
            items.get_mut(place).ok_or_else(|| format!("{}: no such item", show(choice)))
        }
    }
}

fn finish(at: &mut Value, step: &Step, value: Value) -> Result<(), String> {
    match step {
        Step::Field(name) => {
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
            let fields = at.as_object_mut().ok_or_else(|| format!("{name}: what is there has no fields"))?;
            if value.is_null() {
                fields.remove(name);
            } else {
                fields.insert(name.clone(), value);
            }
        }
        choice => {
            let items = at.as_array_mut().ok_or_else(|| format!("{}: what is there is no list", show(choice)))?;
            let place = find(items, choice).ok_or_else(|| format!("{}: no such item", show(choice)))?;
            match (items.get_mut(place), value.is_null()) {
                (Some(_), true) => drop(items.remove(place)),
                (Some(item), false) => *item = value,
                (None, true) => {}
                (None, false) => items.push(value),
            }
        }
    }
    Ok(())
}

/// The place of an item; the list's length stands for one that is to be added.
fn find(items: &[Value], choice: &Step) -> Option<usize> {
    match choice {
        Step::Field(_) => None,
        Step::At(place) => Some(usize::try_from(*place).unwrap_or(items.len()).min(items.len())),
        Step::With(key, value) => items
            .iter()
            .position(|item| item.get(key).is_some_and(|found| plain(found) == *value))
            // Texts may have a colon within.
            .or_else(|| items.iter().position(|item| item.as_str() == Some(&format!("{key}:{value}")))),
        Step::Is(value) => {
            let position =
                |holds: &dyn Fn(String) -> bool| items.iter().position(|i| !i.is_object() && holds(plain(i)));
            position(&|item| item == *value).or_else(|| position(&|item| item.contains(value.as_str())))
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn show(step: &Step) -> String {
    match step {
        Step::Field(name) => name.clone(),
        Step::At(place) => format!("[{place}]"),
        Step::With(key, value) => format!("[{key}:{value}]"),
        Step::Is(value) => format!("[:{value}]"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_paths_reach() {
        let object = json!({"m": {"a.b": 1}, "l": [{"name": "x", "v": 1}, {"name": "y"}], "args": ["--a=1", "--b"]});
        for (path, value, want) in [
            ("m.a\\.b", json!(2), json!({"m": {"a.b": 2}})),
            ("m.new.deep", json!("v"), json!({"m": {"a.b": 1, "new": {"deep": "v"}}})),
            ("m.a\\.b", Value::Null, json!({"m": {}})),
            ("l.[name:x].v", json!(5), json!({"l": [{"name": "x", "v": 5}, {"name": "y"}]})),
            ("l[name:y]", Value::Null, json!({"l": [{"name": "x", "v": 1}]})),
            ("l.[1].v", json!(7), json!({"l": [{"name": "x", "v": 1}, {"name": "y", "v": 7}]})),
            ("args.[:--b]", json!("--c"), json!({"args": ["--a=1", "--c"]})),
            ("args.[--b]", json!("--c"), json!({"args": ["--a=1", "--c"]})),
            ("args.[:--a]", Value::Null, json!({"args": ["--b"]})),
            ("args.[-1]", json!("--d"), json!({"args": ["--a=1", "--b", "--d"]})),
            ("m.list.[0].x", json!(1), json!({"m": {"a.b": 1, "list": [{"x": 1}]}})),
        ] {
            let mut got = object.clone();
            write(&mut got, path, value).unwrap();
            for (key, want) in want.as_object().unwrap() {
                assert_eq!(got[key], *want, "{path}");
            }
        }
        for (path, why) in [
            ("l.[name:z].v", "no such item"),
            ("m.[0]", "no list"),
            ("args.x", "no fields"),
            ("l.[x]", "no such item"),
            ("", "empty"),
        ] {
            let error = write(&mut object.clone(), path, json!(1)).unwrap_err();
            assert!(error.contains(why), "{path}: {error}");
        }
    }
}
