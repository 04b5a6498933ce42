//! Sidecars.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::{FieldPath, Name, ObjectRef, networking};

use super::destination_rule::connection_pool;
use super::{Lowered, Told, created};
use crate::model::service::labels;
use crate::model::{EgressListener, HostSelector, InNamespace, Port, Protocol, Settings, Sidecar, TargetPort};
use crate::snapshot::Row;

/// Lowers a Sidecar.
pub(crate) fn sidecar(object: &networking::Sidecar, settings: &Settings) -> Lowered {
    let source = ObjectRef::new(
        "Sidecar",
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    );
    let mut told = Told::about(&source);
    let spec = &object.spec;
    let egress = spec.egress.iter().enumerate().filter_map(|(i, l)| egress(i, l, &mut told)).collect();
    for (i, listener) in spec.ingress.iter().enumerate() {
        ingress(i, listener, settings, &mut told);
    }
    if let Some(pool) = &spec.inbound_connection_pool {
        connection_pool(pool, &FieldPath::new("spec.inboundConnectionPool"), &mut told);
    }
    let row = Sidecar {
        created: created(&object.metadata),
        selector: spec.workload_selector.as_ref().map(|s| labels(Some(&s.labels))).unwrap_or_default(),
        egress,
        spec: Arc::new(spec.clone()),
        source: source.clone(),
    };
    (vec![Row::Sidecar(InNamespace::from(&source), Arc::new(row))], told.diagnostics).into()
}

/// What of an ingress listener can't be done. Builders read the listener as written and leave the same things out.
fn ingress(i: usize, listener: &networking::IstioIngressListener, settings: &Settings, told: &mut Told<'_>) {
    let path = format!("spec.ingress[{i}]");
    let number = listener.port.number;
    if !(1..=65535).contains(&number) {
        told.error(
            "InvalidPort",
            format!("{path}.port.number"),
            format!("{number} is no port; nothing is served here"),
        );
    }
    let endpoint = listener.default_endpoint.as_str();
    if !endpoint.is_empty() && !endpoint.starts_with("unix://") {
        let address = endpoint.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map(|(host, _)| host);
        let address = address.map(|host| host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>());
        if !matches!(address, Some(Ok(_))) {
            told.error(
                "InvalidEndpoint",
                format!("{path}.defaultEndpoint"),
                format!("{endpoint:?} leads nowhere; write 127.0.0.1:port, 0.0.0.0:port or unix:///path"),
            );
        }
    }
    if listener.tls.is_some() && !settings.features.flag("ENABLE_TLS_ON_SIDECAR_INGRESS", false) {
        told.unsupported(format!("{path}.tls"), "TLS of a Sidecar is on only with ENABLE_TLS_ON_SIDECAR_INGRESS=true");
    }
    if let Some(pool) = &listener.connection_pool {
        connection_pool(pool, &FieldPath::new(format!("{path}.connectionPool")), told);
    }
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
