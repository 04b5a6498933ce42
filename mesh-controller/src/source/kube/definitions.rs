//! Which of our kinds the cluster defines by now, and in which version.
//!
//! The CustomResourceDefinitions are asked, not the discovery documents: an apiserver that starts serves discovery before it
//! knows its own definitions, and a kind that is missing there for a second would lose all its objects. Definitions
//! are read without their schemas, which are most of their bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use kube::Client;
use kube::api::{Api, ApiResource, GroupVersionKind, Object};
use kube::core::ResourceExt;
use kube::runtime::watcher::{self, Event, watcher};
use mesh_api::Kind;
use serde::Deserialize;
use tokio::sync::watch;

use crate::retry::Retry;

/// Definitions come with their schemas, so a page of them is large.
const PAGE: u32 = 20;

type Definition = Object<Spec, Status>;

#[derive(Clone, Debug, Deserialize)]
struct Spec {
    group: String,
    names: Names,
    versions: Vec<Version>,
}

#[derive(Clone, Debug, Deserialize)]
struct Names {
    kind: String,
    plural: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Version {
    name: String,
    served: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    name: String,
    status: String,
}

/// Where the cluster has those of our kinds that are defined, by the kind's name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Served(BTreeMap<&'static str, ApiResource>);

/// What is known of the definitions: nothing yet, or all.
pub(super) type Known = Option<Arc<Served>>;

impl Served {
    /// Where the cluster has a kind; none while it has not.
    pub(super) fn resource(&self, kind: &Kind) -> Option<ApiResource> {
        self.0.get(kind.name).cloned()
    }

    fn of<'a>(definitions: impl IntoIterator<Item = &'a Definition>) -> Self {
        Self(definitions.into_iter().filter_map(resource).collect())
    }
}

/// Where the cluster has the kind of a definition, if it is ours: in the version that we like best.
fn resource(definition: &Definition) -> Option<(&'static str, ApiResource)> {
    let Spec { group, names, versions } = &definition.spec;
    let kind = Kind::find(group, &names.kind)?;
    let conditions = definition.status.iter().flat_map(|status| &status.conditions);
    let established = conditions.into_iter().any(|c| c.name == "Established" && c.status == "True");
    if !established {
        return None;
    }
    let served = |version: &&&str| versions.iter().any(|v| v.served && v.name == **version);
    let Some(version) = kind.versions.iter().find(served) else {
        let known = kind.versions.join(", ");
        tracing::warn!("{}: serves none of the versions that are read ({known})", definition.name_any());
        return None;
    };
    let kind_of = GroupVersionKind::gvk(group, version, &names.kind);
    Some((kind.name, ApiResource::from_gvk_with_plural(&kind_of, &names.plural)))
}

/// Follows the definitions for ever.
pub(super) async fn follow(client: Client, served: watch::Sender<Known>) {
    let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<Definition> = Api::all_with(client, &ApiResource::from_gvk(&gvk));
    let mut events = watcher(api, watcher::Config::default().page_size(PAGE)).boxed();
    let mut retry = Retry::new("CustomResourceDefinition");
    let mut known = BTreeMap::new();
    let mut listed = BTreeMap::new();
    let publish = |known: &BTreeMap<String, Definition>| {
        let new = Some(Arc::new(Served::of(known.values())));
        served.send_if_modified(|old| {
            let differs = *old != new;
            *old = new;
            differs
        });
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(definition)) => keep(&mut listed, definition),
            Ok(Event::InitDone) => {
                retry.worked();
                known = std::mem::take(&mut listed);
                publish(&known);
            }
            Ok(Event::Apply(definition)) => {
                keep(&mut known, definition);
                publish(&known);
            }
            Ok(Event::Delete(definition)) => {
                known.remove(&definition.name_any());
                publish(&known);
            }
            Err(error) => retry.failed(&error).await,
        }
    }
}

/// Keeps a definition if it is of a kind of ours.
fn keep(definitions: &mut BTreeMap<String, Definition>, definition: Definition) {
    if Kind::find(&definition.spec.group, &definition.spec.names.kind).is_some() {
        definitions.insert(definition.name_any(), definition);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(group: &str, kind: &str, versions: &[(&str, bool)], established: bool) -> Definition {
        let plural = format!("{}s", kind.to_lowercase());
        let versions: Vec<_> =
            versions.iter().map(|(name, served)| json!({"name": name, "served": served, "schema": {}})).collect();
        let established = if established { "True" } else { "False" };
        serde_json::from_value(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "names": {"kind": kind, "plural": plural}, "versions": versions},
            "status": {"conditions": [{"type": "Established", "status": established}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_version_that_we_like_best_among_those_served() {
        let istio = "networking.istio.io";
        for (what, versions, established, want) in [
            ("the newest", vec![("v1alpha3", true), ("v1", true)], true, Some("networking.istio.io/v1")),
            ("an older server", vec![("v1alpha3", true), ("v1beta1", true)], true, Some("networking.istio.io/v1beta1")),
            ("not served", vec![("v1", false), ("v1alpha3", true)], true, Some("networking.istio.io/v1alpha3")),
            ("none that we read", vec![("v2", true)], true, None),
            ("not yet", vec![("v1", true)], false, None),
        ] {
            let definition = definition(istio, "VirtualService", &versions, established);
            let served = Served::of([&definition]);
            let found = served.resource(Kind::find(istio, "VirtualService").unwrap());
            assert_eq!(found.map(|r| r.api_version).as_deref(), want, "{what}");
        }
    }

    #[test]
    fn kinds_of_one_name_are_told_apart_by_their_group() {
        let gateway = definition("gateway.networking.k8s.io", "Gateway", &[("v1", true)], true);
        let served = Served::of([&gateway]);
        assert!(served.resource(Kind::find("gateway.networking.k8s.io", "Gateway").unwrap()).is_some());
        assert!(served.resource(Kind::find("networking.istio.io", "Gateway").unwrap()).is_none());
    }
}
