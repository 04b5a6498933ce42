//! Which workloads a policy is for: those with some labels, or those behind a Gateway that it is attached to.

use mesh_api::Name;

use super::{Labels, Settings, selects};

/// The label by which a workload says which Gateway of the Gateway API it is an instance of.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The workloads that a policy of a namespace is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attachment {
    /// Those with these labels; no labels: all of the namespace, or of the mesh in the root namespace.
    Selected(Labels),
    /// Those of the Gateways with these names in the policy's own namespace.
    Gateways(Vec<Name>),
}

impl Attachment {
    /// The labels that decide.
    pub fn keys(&self) -> impl Iterator<Item = Name> + '_ {
        let selected = match self {
            Self::Selected(labels) => Some(labels.keys().cloned()),
            Self::Gateways(_) => None,
        };
        // An instance of a Gateway may be told by that alone, whatever the policy looks at.
        selected.into_iter().flatten().chain(std::iter::once(Name::from(GATEWAY_NAME)))
    }

    /// True when a policy of `namespace` is for the workload. That it is of the workload's namespace or of the root
    /// namespace the caller has seen to.
    pub fn includes(&self, namespace: &Name, workload: (&Name, &Labels), settings: &Settings) -> bool {
        let (of, labels) = workload;
        match (self, labels.get(GATEWAY_NAME)) {
            (Self::Selected(selector), None) => selects(selector, labels),
            (Self::Selected(selector), Some(_)) => {
                settings.features.flag("ENABLE_SELECTOR_BASED_K8S_GATEWAY_POLICY", true) && selects(selector, labels)
            }
            (Self::Gateways(_), None) => false,
            (Self::Gateways(names), Some(gateway)) => namespace == of && names.contains(gateway),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Features;

    #[test]
    fn a_target_means_the_gateway_of_the_same_namespace() {
        let settings = Settings::default();
        let [own, other] = ["own", "other"].map(Name::from);
        let app: Labels = [("app".into(), "a".into())].into();
        let instance: Labels = [("app".into(), "a".into()), (GATEWAY_NAME.into(), "gw".into())].into();
        let target = Attachment::Gateways(vec!["gw".into()]);
        let selector = Attachment::Selected(app.clone());
        for (attachment, namespace, labels, want) in [
            (&selector, &own, &app, true),
            (&selector, &own, &Labels::new(), false),
            (&selector, &own, &instance, true),
            (&target, &own, &app, false),
            (&target, &own, &instance, true),
            (&target, &other, &instance, false),
        ] {
            assert_eq!(attachment.includes(namespace, (&own, labels), &settings), want, "{attachment:?} {labels:?}");
        }
        let features = Features::new([("ENABLE_SELECTOR_BASED_K8S_GATEWAY_POLICY".into(), "false".into())].into());
        let strict = Settings { features, ..Settings::default() };
        assert!(!selector.includes(&own, (&own, &instance), &strict));
        assert!(selector.includes(&own, (&own, &app), &strict));
    }
}
