//! The environment variables of the process as a value. They are read once, at the edge; below it nobody asks the
//! process again, so that a test (or the nodelet) can say what a pod's environment is.

use std::collections::BTreeMap;

/// Environment variables by name. An empty variable counts as absent, as pilot-agent has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variable's value, unless absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The variable's value even where it is empty, for the few that mean something by it.
    pub fn get_even_empty(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A switch in Go's spelling (`1`, `t`, `true`, ...); absent or unreadable is `default`.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.get(name).and_then(parse_bool).unwrap_or(default)
    }

    /// Every variable whose name begins with `prefix`, in order of name, with the prefix cut off.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(variables: T) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_absent_and_prefixes_are_cut() {
        let env = Environment::from_iter([("ISTIO_META_A", "1"), ("ISTIO_META_B", ""), ("POD_NAME", ""), ("ON", "T")]);
        assert_eq!(env.get("POD_NAME"), None);
        assert!(env.flag("ON", false));
        assert!(env.flag("ABSENT", true));
        assert_eq!(env.with_prefix("ISTIO_META_").collect::<Vec<_>>(), [("A", "1"), ("B", "")]);
    }
}
