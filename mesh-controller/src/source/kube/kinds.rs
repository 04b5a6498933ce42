//! Which kinds are watched, and how much of each: what the model has no use for is not asked for.

use kube::api::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use mesh_api::Kind;
use mesh_api::object::KINDS;

/// Controllers of pods and their accounts: a pod says itself what the mesh wants to know of them.
const UNUSED: [&str; 7] = ["ServiceAccount", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"];

/// Groups that every apiserver serves, in the one version that we read.
const BUILT_IN: [&str; 3] = ["", "discovery.k8s.io", "networking.k8s.io"];

/// Pages of a list. A page is what is held at once of a kind's objects as text.
const PAGE: u32 = 200;

/// One kind, and what of it is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    pub(super) kind: &'static Kind,
    /// Only labels and annotations count.
    pub(super) metadata_only: bool,
    fields: Option<&'static str>,
    labels: Option<&'static str>,
}

/// All kinds that are watched.
pub(super) fn all() -> impl Iterator<Item = Watched> {
    KINDS.iter().filter(|kind| !UNUSED.contains(&kind.name)).map(Watched::new)
}

impl Watched {
    fn new(kind: &'static Kind) -> Self {
        let mut watched = Self { kind, metadata_only: false, fields: None, labels: None };
        match kind.name {
            "Namespace" => watched.metadata_only = true,
            // A pod that has ended serves nobody.
            "Pod" => watched.fields = Some("status.phase!=Failed,status.phase!=Succeeded"),
            "Secret" => {
                watched.fields = Some(
                    "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
                     type!=kubernetes.io/dockerconfigjson,type!=bootstrap.kubernetes.io/token",
                );
            }
            // Those that Kubernetes made itself have EndpointSlices, which say the same and more.
            "Endpoints" => watched.labels = Some("endpoints.kubernetes.io/managed-by!=endpoint-controller"),
            _ => {}
        }
        watched
    }

    /// Where the apiserver has the kind, if it does without a definition.
    pub(super) fn built_in(&self) -> Option<ApiResource> {
        let version = self.kind.versions.first().filter(|_| BUILT_IN.contains(&self.kind.group))?;
        Some(ApiResource::from_gvk(&GroupVersionKind::gvk(self.kind.group, version, self.kind.kind)))
    }

    /// How it is asked for: in pages, for a list that arrives as a stream may begin anew without kube saying so
    /// (4.2), and an object that was deleted between the two beginnings would stay in force.
    pub(super) fn config(&self) -> watcher::Config {
        let mut config = watcher::Config::default().page_size(PAGE);
        config.field_selector = self.fields.map(str::to_owned);
        config.label_selector = self.labels.map(str::to_owned);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_kinds_are_found_by_their_plurals_and_the_others_by_definition() {
        let found: Vec<String> = all().filter_map(|watched| watched.built_in()).map(|r| r.plural).collect();
        let want = "namespaces nodes services endpoints pods secrets configmaps endpointslices ingresses";
        assert_eq!(found.join(" "), want);
        for custom in all().filter(|watched| watched.built_in().is_none()) {
            assert!(custom.kind.group.contains('.'), "{} is defined by a CustomResourceDefinition", custom.kind.name);
        }
    }
}
