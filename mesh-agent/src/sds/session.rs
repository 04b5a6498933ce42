//! What one client of secrets is subscribed to, what it has, and so what it is due.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tracing::warn;

use crate::secrets::{Secret, is_served};

/// More names than any Envoy subscribes to on one stream.
const MOST_NAMES: usize = 1024;

/// A secret to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is.
    pub secret: Secret,
}

/// One stream.
#[derive(Debug, Default)]
pub struct Session {
    /// What the client has, by name.
    names: BTreeMap<String, Option<Had>>,
    sent: u64,
}

/// What a client has of a secret.
#[derive(Debug)]
struct Had {
    version: String,
    /// Of the response that brought it; 0: it is from an earlier stream.
    nonce: u64,
    accepted: bool,
}

impl Session {
    /// The names that it is subscribed to.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// What it is subscribed to and hasn't got.
    pub fn due(&self, get: &dyn Fn(&str) -> Option<Secret>) -> Vec<Due> {
        let due = |(name, had): (&String, &Option<Had>)| {
            let secret = get(name)?;
            let version = secret.version();
            (had.as_ref().map(|had| &had.version) != Some(&version)).then(|| Due {
                name: name.clone(),
                version,
                secret,
            })
        };
        self.names.iter().filter_map(due).collect()
    }

    /// Notes what is sent, and returns the nonce to send it with.
    pub fn sent(&mut self, due: &[Due]) -> String {
        self.sent += 1;
        for due in due {
            if let Some(had) = self.names.get_mut(&due.name) {
                *had = Some(Had { version: due.version.clone(), nonce: self.sent, accepted: false });
            }
        }
        self.sent.to_string()
    }

    /// The version in which the client has accepted what it was sent last under this name, if it has; `None` when it is not
    /// subscribed to it.
    pub fn accepted(&self, name: &str) -> Option<Option<&str>> {
        let had = self.names.get(name)?.as_ref();
        Some(had.filter(|had| had.accepted).map(|had| had.version.as_str()))
    }

    /// The client has taken a response, or refused it.
    fn answered(&mut self, nonce: &str, accepted: bool) {
        let Ok(nonce) = nonce.parse::<u64>() else { return };
        for had in self.names.values_mut().flatten().filter(|had| had.nonce == nonce) {
            had.accepted = accepted;
        }
    }

    fn subscribe(&mut self, name: &str, has: Option<String>) {
        if self.names.contains_key(name) {
            return;
        }
        if self.names.len() >= MOST_NAMES {
            warn!(name, "a client asks for more than {MOST_NAMES} secrets; this one is left out");
            return;
        }
        if !is_served(name) {
            warn!(name, "a client waits for a secret that comes from the control plane, not from here");
        }
        let had = has.map(|version| Had { version, nonce: 0, accepted: true });
        self.names.insert(name.to_owned(), had);
    }
}

/// A request of either protocol.
pub(super) trait Ask {
    /// Takes its subscriptions over.
    fn apply(&self, session: &mut Session);
}

impl Ask for DiscoveryRequest {
    /// Names all that the client wants from now on.
    fn apply(&self, session: &mut Session) {
        if let Some(error) = &self.error_detail {
            warn!(names = ?self.resource_names, error = error.message, "Envoy refuses a secret");
        }
        session.answered(&self.response_nonce, self.error_detail.is_none());
        let is_stale = !self.response_nonce.is_empty() && self.response_nonce != session.sent.to_string();
        if is_stale {
            return;
        }
        session.names.retain(|name, _| self.resource_names.contains(name));
        self.resource_names.iter().for_each(|name| session.subscribe(name, None));
    }
}

impl Ask for DeltaDiscoveryRequest {
    /// Names what changes. The first says as well what the client has from an earlier stream.
    fn apply(&self, session: &mut Session) {
        if let Some(error) = &self.error_detail {
            warn!(error = error.message, "Envoy refuses a secret");
        }
        session.answered(&self.response_nonce, self.error_detail.is_none());
        for name in &self.resource_names_unsubscribe {
            session.names.remove(name);
        }
        for name in &self.resource_names_subscribe {
            session.subscribe(name, self.initial_resource_versions.get(name).cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn get(name: &str) -> Option<Secret> {
        (!name.starts_with("later")).then(|| Secret::Roots(name.to_owned().into()))
    }

    fn due(session: &mut Session, get: &dyn Fn(&str) -> Option<Secret>) -> Vec<String> {
        let due = session.due(get);
        session.sent(&due);
        due.into_iter().map(|due| due.name).collect()
    }

    #[test]
    fn a_stream_is_sent_what_it_names_once_and_again_when_it_changes() {
        let mut session = Session::default();
        let mut ask = DiscoveryRequest { resource_names: names(&["a", "b", "later"]), ..Default::default() };
        ask.apply(&mut session);
        assert_eq!(due(&mut session, &get), ["a", "b"]);
        ask.response_nonce = "1".into();
        ask.apply(&mut session);
        assert!(session.due(&get).is_empty(), "an ACK asks for nothing");
        assert_eq!(due(&mut session, &|_| Some(Secret::Roots("new".into()))), ["a", "b", "later"]);
        let stale = DiscoveryRequest { resource_names: vec![], response_nonce: "1".into(), ..Default::default() };
        stale.apply(&mut session);
        assert_eq!(session.names().count(), 3);
        let fewer =
            DiscoveryRequest { resource_names: names(&["b"]), response_nonce: "2".into(), ..Default::default() };
        fewer.apply(&mut session);
        assert_eq!(session.names().collect::<Vec<_>>(), ["b"]);
        ask.response_nonce = "2".into();
        ask.apply(&mut session);
        assert_eq!(due(&mut session, &get), ["a", "b"], "what was let go is sent anew");
    }

    #[test]
    fn a_delta_says_what_changes_and_what_it_has() {
        let mut session = Session::default();
        let version = get("a").unwrap().version();
        let first = DeltaDiscoveryRequest {
            resource_names_subscribe: names(&["a", "b", "c"]),
            initial_resource_versions: [("a".to_owned(), version), ("b".to_owned(), "old".to_owned())].into(),
            ..Default::default()
        };
        first.apply(&mut session);
        assert_eq!(due(&mut session, &get), ["b", "c"]);
        let second = DeltaDiscoveryRequest {
            resource_names_subscribe: names(&["d"]),
            resource_names_unsubscribe: names(&["a", "b"]),
            ..Default::default()
        };
        second.apply(&mut session);
        assert_eq!(due(&mut session, &get), ["d"]);
        assert_eq!(session.names().collect::<Vec<_>>(), ["c", "d"]);
    }

    #[test]
    fn nobody_makes_us_remember_names_without_end() {
        let mut session = Session::default();
        let many =
            DiscoveryRequest { resource_names: (0..5_000).map(|n| n.to_string()).collect(), ..Default::default() };
        many.apply(&mut session);
        assert_eq!(session.names().count(), MOST_NAMES);
    }
}
