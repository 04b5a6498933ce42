//! Secrets and ConfigMaps, as far as TLS can use them. All others are no rows: most of a cluster's Secrets are nobody's
//! business here.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use super::{Lowered, kube_meta::ObjectMeta};
use crate::model::InNamespace;
use crate::model::secret::TlsSecret;
use crate::snapshot::Row;

/// Types of Secrets that hold other things than certificates and may be large or many.
const OTHERS: [&str; 4] = [
    "helm.sh/release.v1",
    "kubernetes.io/service-account-token",
    "kubernetes.io/dockerconfigjson",
    "bootstrap.kubernetes.io/token",
];

fn key(metadata: &ObjectMeta) -> InNamespace {
    InNamespace::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// `tls.crt, tls.key, ca.crt` of a TLS Secret, or `cert, key, cacert` of a generic one; the latter count where both are.
pub(crate) fn secret(object: &core::Secret) -> Lowered {
    if object.type_.as_deref().is_some_and(|t| OTHERS.contains(&t)) {
        return Lowered::default();
    }
    let part = |name: &str| -> Vec<u8> {
        let written = object.string_data.as_ref().and_then(|d| d.get(name)).map(|t| t.clone().into_bytes());
        written.or_else(|| object.data.as_ref().and_then(|d| d.get(name)).map(|b| b.0.clone())).unwrap_or_default()
    };
    let generic = !part("cert").is_empty() && !part("key").is_empty();
    let (chain, private, staple) = if generic {
        (part("cert"), part("key"), Vec::new())
    } else {
        (part("tls.crt"), part("tls.key"), part("tls.ocsp-staple"))
    };
    let generic_ca = part("cacert");
    let (authorities, revoked) =
        if generic_ca.is_empty() { (part("ca.crt"), part("ca.crl")) } else { (generic_ca, part("crl")) };
    let row = TlsSecret { chain, key: private, staple, authorities, revoked };
    if !row.has_certificate() && row.authorities.is_empty() {
        return Lowered::default();
    }
    (vec![Row::Secret(key(&object.metadata), Arc::new(row))], Vec::new()).into()
}

/// The authorities of a ConfigMap, `cacert` or `ca.crt`.
pub(crate) fn config_map(object: &core::ConfigMap) -> Lowered {
    let part = |name: &str| object.data.as_ref().and_then(|d| d.get(name)).map(|t| t.clone().into_bytes());
    let nonempty = |name: &str| part(name).filter(|t| !t.is_empty());
    let (authorities, revoked) = match (nonempty("cacert"), nonempty("ca.crt")) {
        (Some(ca), _) => (ca, part("crl")),
        (None, Some(ca)) => (ca, part("ca.crl")),
        (None, None) => return Lowered::default(),
    };
    let row = TlsSecret { authorities, revoked: revoked.unwrap_or_default(), ..TlsSecret::default() };
    (vec![Row::CaConfigMap(key(&object.metadata), Arc::new(row))], Vec::new()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::objects;
    use mesh_api::object::Object;

    fn lowered(data: &str) -> Option<TlsSecret> {
        let yaml = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {data}");
        let Lowered { rows, .. } = match objects(&yaml).as_slice() {
            [Object::Secret(o)] => secret(o),
            other => panic!("{other:?}"),
        };
        rows.into_iter().find_map(|row| match row {
            Row::Secret(_, secret) => Some((*secret).clone()),
            _ => None,
        })
    }

    #[test]
    fn both_kinds_of_keys_are_read() {
        let tls = lowered("{tls.crt: c, tls.key: k, ca.crt: a}").unwrap();
        assert_eq!((tls.chain, tls.key, tls.authorities), (b"c".to_vec(), b"k".to_vec(), b"a".to_vec()));
        let generic = lowered("{cert: c, key: k, tls.crt: x, tls.key: z, cacert: a}").unwrap();
        assert_eq!((generic.chain, generic.authorities), (b"c".to_vec(), b"a".to_vec()));
        let ca = lowered("{ca.crt: a}").unwrap();
        assert!(!ca.has_certificate());
        assert_eq!(lowered("{password: p, tls.crt: only}"), None);
        assert!(!format!("{:?}", lowered("{cert: c, key: geheim}")).contains("geheim"));
    }
}
