//! PeerAuthentications.

use std::sync::Arc;

use mesh_api::ObjectRef;
use mesh_api::security::{MutualTlsMode, PeerAuthentication as Written};

use super::{Lowered, Told, created};
use crate::model::InNamespace;
use crate::model::peer_authentication::{MtlsMode, PeerAuthentication};
use crate::model::service::labels;
use crate::snapshot::Row;

/// Lowers a PeerAuthentication.
pub(crate) fn lower(object: &Written) -> Lowered {
    let source = ObjectRef::new(
        "PeerAuthentication",
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    );
    let mut told = Told::about(&source);
    let spec = &object.spec;
    let selector = spec.selector.as_ref().map(|s| labels(Some(&s.match_labels))).unwrap_or_default();
    if selector.is_empty() && spec.port_level_mtls.as_ref().is_some_and(|ports| !ports.is_empty()) {
        told.error(
            "IgnoredField",
            "spec.portLevelMtls",
            "counts only in a policy that selects workloads; add a selector, or a policy of its own for those workloads",
        );
    }
    let mut ports = std::collections::BTreeMap::new();
    for (port, mtls) in spec.port_level_mtls.iter().flatten() {
        match u16::try_from(*port) {
            Ok(number) if number > 0 => {
                ports.insert(number, mode(mtls.mode));
            }
            _ => told.error("InvalidPort", format!("spec.portLevelMtls[{port}]"), format!("{port} is no port")),
        }
    }
    let row = PeerAuthentication {
        created: created(&object.metadata),
        selector,
        mode: spec.mtls.as_ref().and_then(|mtls| mode(mtls.mode)),
        ports,
        source: source.clone(),
    };
    (vec![Row::PeerAuthentication(InNamespace::from(&source), Arc::new(row))], told.diagnostics).into()
}

fn mode(written: MutualTlsMode) -> Option<MtlsMode> {
    match written {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(MtlsMode::Disable),
        MutualTlsMode::Permissive => Some(MtlsMode::Permissive),
        MutualTlsMode::Strict => Some(MtlsMode::Strict),
    }
}
