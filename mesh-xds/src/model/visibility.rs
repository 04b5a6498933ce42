//! `exportTo`: who may see an object.

use std::collections::BTreeSet;

use mesh_api::Name;

/// Who may see an object, rule 8 of Istio's semantics: `*` voids all other entries, `~` wins over everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Visibility {
    /// Not said: the mesh-wide default of the kind applies.
    #[default]
    Default,
    /// `*`.
    Public,
    /// `~`.
    Nobody,
    /// These namespaces; `.` is resolved to the object's own.
    Namespaces(BTreeSet<Name>),
}

impl Visibility {
    /// Reads an `exportTo` list of an object in `namespace`.
    pub fn parse<S: AsRef<str>>(export_to: &[S], namespace: &Name) -> Self {
        if export_to.is_empty() {
            return Self::Default;
        }
        if export_to.iter().any(|e| e.as_ref() == "~") {
            return Self::Nobody;
        }
        if export_to.iter().any(|e| e.as_ref() == "*") {
            return Self::Public;
        }
        let own = |e: &str| if e == "." { namespace.clone() } else { Name::from(e) };
        Self::Namespaces(export_to.iter().map(|e| own(e.as_ref())).collect())
    }

    /// This visibility, or for [`Visibility::Default`] the mesh-wide list read for the object's namespace
    /// (an empty list means `*`).
    pub fn or_default(&self, mesh_default: &[String], namespace: &Name) -> Self {
        match self {
            Self::Default => match Self::parse(mesh_default, namespace) {
                Self::Default => Self::Public,
                said => said,
            },
            said => said.clone(),
        }
    }

    /// True when a proxy of that namespace may see the object. [`Visibility::Default`] counts as public.
    pub fn allows(&self, namespace: &str) -> bool {
        match self {
            Self::Default | Self::Public => true,
            Self::Nobody => false,
            Self::Namespaces(list) => list.contains(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_voids_others_and_tilde_wins() {
        let own = Name::from("own");
        for (list, own_sees, other_sees) in [
            (&["*", "x"][..], true, true),
            (&["~", "*"], false, false),
            (&["."], true, false),
            (&["other"], false, true),
            (&[], true, true),
        ] {
            let v = Visibility::parse(list, &own).or_default(&[], &own);
            assert_eq!((v.allows("own"), v.allows("other")), (own_sees, other_sees), "{list:?}");
        }
        assert!(!Visibility::Default.or_default(&[".".to_owned()], &own).allows("other"));
    }
}
