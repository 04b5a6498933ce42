//! OpenShift, where a namespace has its own users and groups: containers that ask for no user get the first of them, and the
//! proxy, which must be told from the application by its user, gets the last.

use std::collections::BTreeMap;

use super::pod::{Container, PROXY, Pod, name};

/// The annotation of a namespace with its users, `first/count` or `first-last`.
const USERS: &str = "openshift.io/sa.scc.uid-range";
/// The one with its groups, such ranges joined by commas; without it they are as the users.
const GROUPS: &str = "openshift.io/sa.scc.supplemental-groups";

/// The user and the group of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) user: u32,
    pub(super) group: u32,
}

impl Default for Ids {
    /// Istio's; the interception rules know the proxy by them.
    fn default() -> Self {
        Self { user: 1337, group: 1337 }
    }
}

/// The proxies' users and groups in the namespaces of an OpenShift.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenShift {
    ids: BTreeMap<String, Ids>,
}

impl OpenShift {
    /// Namespaces by name, each with its annotations.
    pub fn new<'a>(namespaces: impl IntoIterator<Item = (&'a str, &'a BTreeMap<String, String>)>) -> Self {
        let of = |annotations: &BTreeMap<String, String>| {
            let users = annotations.get(USERS).filter(|users| !users.is_empty());
            let groups = annotations.get(GROUPS).or(users);
            let default = Ids::default();
            Ids {
                user: users.and_then(|users| last(users)).unwrap_or(default.user),
                group: groups.and_then(|groups| last(groups.split(',').next()?)).unwrap_or(default.group),
            }
        };
        let ids = namespaces.into_iter().map(|(namespace, annotations)| (namespace.to_owned(), of(annotations)));
        Self { ids: ids.filter(|(_, ids)| *ids != Ids::default()).collect() }
    }

    pub(super) fn ids(&self, namespace: &str) -> Ids {
        self.ids.get(namespace).copied().unwrap_or_default()
    }
}

/// The last of a range.
fn last(range: &str) -> Option<u32> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    match range.split_once('/') {
        Some((first, count)) => number(first)?.checked_add(number(count)?.checked_sub(1)?),
        None => range.split_once('-').and_then(|(first, last)| number(first).and(number(last))),
    }
}

/// Forgets the user and group that the pod says of the proxy, if its application has the same user: then both are
/// what OpenShift gave all containers, and the proxy would be taken for the application.
pub(super) fn forget_assigned_user(pod: &mut Pod) {
    const SETUP: [&str; 3] = [PROXY, "istio-init", "istio-validation"];
    let user = |container: &Container| container.get("securityContext")?.get("runAsUser").cloned();
    let mut applications =
        pod.init_containers.iter().chain(&pod.containers).filter(|container| !SETUP.contains(&name(container)));
    let proxy = pod.container(PROXY).and_then(user);
    if proxy.is_none() || !applications.any(|container| user(container) == proxy) {
        return;
    }
    let context = pod.container_mut(PROXY).and_then(|proxy| proxy.get_mut("securityContext")?.as_object_mut());
    if let Some(context) = context {
        context.remove("runAsUser");
        context.remove("runAsGroup");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_of_namespaces() {
        let ids = |annotations: &[(&str, &str)]| {
            let annotations =
                annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let ids = OpenShift::new([("shop", &annotations)]).ids("shop");
            (ids.user, ids.group)
        };
        let users = (USERS, "1000620000/10000");
        for (annotations, want) in [
            (&[users, (GROUPS, "7-9,1/2")][..], (1_000_629_999, 9)),
            (&[users], (1_000_629_999, 1_000_629_999)),
            (&[(GROUPS, "1000/1")], (1337, 1000)),
            (&[(USERS, "")], (1337, 1337)),
            (&[(USERS, "a/b"), (GROUPS, "")], (1337, 1337)),
            (&[(USERS, "4294967295/9")], (1337, 1337)),
            (&[], (1337, 1337)),
        ] {
            assert_eq!(ids(annotations), want, "{annotations:?}");
        }
        assert_eq!(OpenShift::default().ids("elsewhere"), Ids::default());
    }

    #[test]
    fn only_a_user_of_its_own_stays() {
        let context = |app: u32, proxy: u32| {
            let container =
                |name: &str, user: u32| json!({"name": name, "securityContext": {"runAsUser": user, "runAsGroup": 5}});
            let pod = json!({"spec": {"containers": [container("app", app), container(PROXY, proxy)]}});
            let mut pod = Pod::read(pod).unwrap();
            forget_assigned_user(&mut pod);
            json!(pod.container(PROXY).unwrap()["securityContext"])
        };
        assert_eq!(context(1_000_620_000, 1_000_620_000), json!({}));
        assert_eq!(context(1_000_620_000, 7), json!({"runAsUser": 7, "runAsGroup": 5}));
    }
}
