//! Sidecars.

use std::sync::Arc;

use mesh_api::{Name, ObjectRef, networking};

use super::{Lowered, Told, created};
use crate::model::service::labels;
use crate::model::{EgressListener, HostSelector, InNamespace, Port, Protocol, Sidecar, TargetPort};
use crate::snapshot::Row;

/// Lowers a Sidecar.
pub(crate) fn sidecar(object: &networking::Sidecar) -> Lowered {
    let source = ObjectRef::new(
        "Sidecar",
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    );
    let mut told = Told::about(&source);
    let spec = &object.spec;
    let egress = spec.egress.iter().enumerate().filter_map(|(i, l)| egress(i, l, &mut told)).collect();
    let row = Sidecar {
        created: created(&object.metadata),
        selector: spec.workload_selector.as_ref().map(|s| labels(Some(&s.labels))).unwrap_or_default(),
        egress,
        spec: Arc::new(spec.clone()),
        source: source.clone(),
    };
    (vec![Row::Sidecar(InNamespace::from(&source), Arc::new(row))], told.diagnostics).into()
}

fn egress(i: usize, listener: &networking::IstioEgressListener, told: &mut Told<'_>) -> Option<EgressListener> {
    let path = format!("spec.egress[{i}]");
    let port = match &listener.port {
        None => None,
        Some(port) => match u16::try_from(port.number) {
            Ok(number) => Some(Port {
                number,
                name: port.name.as_str().into(),
                protocol: Protocol::parse(&port.protocol),
                target: TargetPort::Number(number),
            }),
            Err(_) => {
                told.error(
                    "InvalidPort",
                    format!("{path}.port.number"),
                    format!("port {} is not within 0..65535", port.number),
                );
                return None;
            }
        },
    };
    let mut hosts = Vec::new();
    for (j, host) in listener.hosts.iter().enumerate() {
        match HostSelector::parse(host) {
            Some(selector) => hosts.push(selector),
            None => told.error(
                "InvalidHost",
                format!("{path}.hosts[{j}]"),
                format!("{host:?} is not of the form namespace/host, e.g. ./*, */reviews.example.com"),
            ),
        }
    }
    Some(EgressListener {
        port,
        bind: Name::from(listener.bind.as_str()),
        no_capture: listener.capture_mode == networking::CaptureMode::None,
        hosts,
    })
}
