//! The trust domains that count as one: the mesh's own and its aliases. Whoever names one of them means them all.

use mesh_api::mesh::MeshConfig;

/// What old policies call the mesh's trust domain, whatever it is.
const LOCAL: &str = "cluster.local";

/// The mesh's trust domain first, then its aliases.
pub(super) struct TrustDomains(Vec<String>);

impl TrustDomains {
    pub(super) fn new(mesh: &MeshConfig) -> Self {
        Self(std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases).cloned().collect())
    }

    /// The principals that `trust-domain/ns/namespace/sa/account` means.
    pub(super) fn principals(&self, written: &str) -> Vec<String> {
        let as_written = || vec![written.to_owned()];
        let Some((domain, rest)) = written.split_once('/') else { return as_written() };
        // Anything else than five parts names no trust domain, and `*` means any.
        if written.split('/').count() != 5 || domain == "*" || !(domain == LOCAL || self.knows(domain)) {
            return as_written();
        }
        let mut out: Vec<String> = Vec::new();
        for own in &self.0 {
            // `*-domain` already means those that end so.
            let ends_so = domain.strip_prefix('*').is_some_and(|end| own.ends_with(end));
            let principal = if ends_so { written.to_owned() } else { format!("{own}/{rest}") };
            if !out.contains(&principal) {
                out.push(principal);
            }
        }
        out
    }

    /// The trust domains that one means.
    pub(super) fn domains(&self, written: &str) -> Vec<String> {
        if self.0.iter().any(|own| own == written) { self.0.clone() } else { vec![written.to_owned()] }
    }

    /// True when a domain is ours, with `*` on either side.
    fn knows(&self, domain: &str) -> bool {
        let covers = |pattern: &str, text: &str| {
            pattern.strip_suffix('*').is_some_and(|start| text.starts_with(start))
                || pattern.strip_prefix('*').is_some_and(|end| text.ends_with(end))
        };
        self.0.iter().any(|own| own == domain || own == "*" || covers(own, domain) || covers(domain, own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_means_the_domain_and_all_aliases() {
        let domains = TrustDomains(["new-td", "old-td", "other"].map(str::to_owned).into());
        let means = |written: &str| domains.principals(written).join(" ");
        assert_eq!(means("old-td/ns/a/sa/b"), "new-td/ns/a/sa/b old-td/ns/a/sa/b other/ns/a/sa/b");
        assert_eq!(means("cluster.local/ns/a/sa/b"), "new-td/ns/a/sa/b old-td/ns/a/sa/b other/ns/a/sa/b");
        assert_eq!(means("*-td/ns/a/sa/b"), "*-td/ns/a/sa/b other/ns/a/sa/b");
        for kept in ["*/ns/a/sa/b", "unknown/ns/a/sa/b", "old-td/sa/b", "*", "*b"] {
            assert_eq!(means(kept), kept);
        }
        assert_eq!(domains.domains("old-td").len(), 3);
        assert_eq!(domains.domains("*-td"), ["*-td"]);
    }
}
