//! What things are called. A name is parsed once, at the edge, into a shared `Arc<str>`; from there on it is cloned by
//! counting, compared by content and never parsed again.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A shared, immutable name: namespaces, object names, port names, label keys and values.
///
/// Sixteen bytes, cheap to clone, ordered and hashed by content.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// True for the empty name, which many Istio fields use for "not said".
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// True when both are the same allocation: a quick way to "equal".
    pub fn same(a: &Self, b: &Self) -> bool {
        Arc::ptr_eq(&a.0, &b.0)
    }
}

impl<T: Into<Arc<str>>> From<T> for Name {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host as Istio's configuration names it: a DNS name in lower case, or a wildcard: `*`, `*.example.com`.
///
/// ```
/// use mesh_api::Hostname;
/// let wild: Hostname = "*.Example.com".into();
/// assert!(wild.matches(&"api.example.com".into()));
/// assert!(wild.more_specific_than(&"*".into()));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(from = "String")]
pub struct Hostname(Name);

impl Hostname {
    /// The host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The shared name behind the host.
    pub fn name(&self) -> &Name {
        &self.0
    }
    /// True for `*` and `*.something`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }
    /// True when some concrete host could be meant by both: Istio's `host.Name.Matches`.
    pub fn matches(&self, other: &Hostname) -> bool {
        match (self.0.strip_prefix('*'), other.0.strip_prefix('*')) {
            (None, None) => self == other,
            (Some(a), None) => other.as_str().ends_with(a),
            (None, Some(b)) => self.as_str().ends_with(b),
            (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        }
    }
    /// True when every host that `other` means is also meant by `self`: Istio's `other.SubsetOf(self)`.
    pub fn covers(&self, other: &Hostname) -> bool {
        match (self.0.strip_prefix('*'), other.0.strip_prefix('*')) {
            (None, None) => self == other,
            (Some(a), None) => other.as_str().ends_with(a),
            (None, Some(_)) => false,
            (Some(a), Some(b)) => b.ends_with(a),
        }
    }
    /// Order of Istio's "most specific host first": exact before wildcard, longer before shorter.
    pub fn more_specific_than(&self, other: &Hostname) -> bool {
        match (self.is_wildcard(), other.is_wildcard()) {
            (false, true) => true,
            (true, false) => false,
            _ => self.0.len() > other.0.len(),
        }
    }
}

impl<T: AsRef<str>> From<T> for Hostname {
    fn from(text: T) -> Self {
        let text = text.as_ref();
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Self(Name::from(text.to_ascii_lowercase()))
        } else {
            Self(Name::from(text))
        }
    }
}

impl From<Hostname> for Name {
    fn from(host: Hostname) -> Self {
        host.0
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which object: the Kubernetes kind (`VirtualService`), its namespace (empty for cluster-scoped ones) and its name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The kind as the user writes it, e.g. `VirtualService`.
    pub kind: Name,
    /// Empty for cluster-scoped kinds.
    pub namespace: Name,
    /// `metadata.name`.
    pub name: Name,
}

impl ObjectRef {
    /// Names an object.
    pub fn new(kind: impl Into<Name>, namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A workload's identity: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
///
/// ```
/// let id: mesh_api::names::SpiffeId = "spiffe://cluster.local/ns/foo/sa/bar".parse().unwrap();
/// assert_eq!(id.namespace, "foo");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SpiffeId {
    /// The trust domain, e.g. `cluster.local`.
    pub trust_domain: Name,
    /// The namespace of the service account.
    pub namespace: Name,
    /// The Kubernetes service account.
    pub service_account: Name,
}

/// Why a text is no identity of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a workload identity; it should read spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
pub struct NotASpiffeId(String);

impl FromStr for SpiffeId {
    type Err = NotASpiffeId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotASpiffeId(text.to_owned());
        let mut parts = text.strip_prefix("spiffe://").ok_or_else(wrong)?.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(td), Some("ns"), Some(ns), Some("sa"), Some(sa), None)
                if !td.is_empty() && !ns.is_empty() && !sa.is_empty() =>
            {
                Ok(Self { trust_domain: td.into(), namespace: ns.into(), service_account: sa.into() })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_as_istio_says() {
        for (a, b, matches, covers) in [
            ("*", "foo.com", true, true),
            ("*.com", "foo.com", true, true),
            ("*.com", "*.foo.com", true, true),
            ("*.foo.com", "*.com", true, false),
            ("foo.com", "foo.com", true, true),
            ("foo.com", "*.com", true, false),
            ("foo.com", "bar.com", false, false),
            ("*.foo.com", "foo.com", false, false),
        ] {
            let (a, b) = (Hostname::from(a), Hostname::from(b));
            assert_eq!(a.matches(&b), matches, "{a} matches {b}");
            assert_eq!(a.covers(&b), covers, "{a} covers {b}");
        }
    }

    #[test]
    fn identities_round_trip_and_refuse_others() {
        let text = "spiffe://td/ns/a/sa/b";
        assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        for bad in ["", "spiffe://td", "http://td/ns/a/sa/b", "spiffe://td/ns/a/sa/b/c", "spiffe:///ns/a/sa/b"] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }
}
