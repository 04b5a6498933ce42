//! Kubernetes Services.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mesh_api::{Name, ObjectRef};

use super::{Lowered, Told, created};
use crate::model::service::labels;
use crate::model::{Port, Protocol, Registry, Resolution, Service, ServiceId, Settings, TargetPort, Visibility};
use crate::snapshot::Row;

/// A Service is one row; its endpoints come from slices.
pub(crate) fn service(object: &core::Service, settings: &Settings) -> Lowered {
    let metadata = &object.metadata;
    let source = ObjectRef::new(
        "Service",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let mut told = Told::about(&source);
    let spec = object.spec.clone().unwrap_or_default();
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|a| a.get(key)).map(String::as_str);

    let mut addresses: Vec<Name> = spec.cluster_ips.iter().flatten().map(|ip| Name::from(ip.as_str())).collect();
    if addresses.is_empty() {
        addresses.extend(spec.cluster_ip.as_deref().map(Name::from));
    }
    // A manifest from a folder may not say its address yet: that is no headless service.
    let headless = spec.cluster_ip.as_deref() == Some("None") || addresses.first().is_some_and(|ip| *ip == "None");
    addresses.retain(|ip| !ip.is_empty() && *ip != "None");
    let external_name = spec.external_name.as_deref().filter(|_| spec.type_.as_deref() == Some("ExternalName"));
    let resolution = match external_name {
        Some(name) => Resolution::Alias(name.trim_end_matches('.').into()),
        None if headless => Resolution::Passthrough,
        None => Resolution::ClientSideLb,
    };

    let mut ports: Vec<Port> = Vec::new();
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let path = |field: &str| format!("spec.ports[{i}].{field}");
        let Some(number) = u16::try_from(port.port).ok().filter(|n| *n > 0) else {
            told.error("InvalidPort", path("port"), format!("port {} is not within 1..65535", port.port));
            continue;
        };
        let name: Name = port.name.as_deref().unwrap_or_default().into();
        let protocol = Protocol::of_port(number, &name, port.protocol.as_deref(), port.app_protocol.as_deref());
        let target = match &port.target_port {
            None => TargetPort::Number(number),
            Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::Int(n)) => match u16::try_from(*n) {
                Ok(n) => TargetPort::Number(n),
                Err(_) => {
                    told.error("InvalidPort", path("targetPort"), format!("target port {n} is not within 1..65535"));
                    continue;
                }
            },
            Some(IntOrString::String(s)) => match s.parse() {
                Ok(n) => TargetPort::Number(n),
                Err(_) => TargetPort::Named(s.as_str().into()),
            },
        };
        ports.push(Port { number, name, protocol, target });
    }

    let export_to: Vec<&str> =
        annotation("networking.istio.io/exportTo").into_iter().flat_map(|v| v.split(',')).map(str::trim).collect();
    let hostname = settings.service_host(&source.name, &source.namespace);
    let row = Service {
        hostname: hostname.clone(),
        namespace: source.namespace.clone(),
        name: source.name.clone(),
        registry: Registry::Kubernetes,
        created: created(metadata),
        addresses,
        ports,
        mesh_external: matches!(resolution, Resolution::Alias(_)),
        resolution,
        export_to: Visibility::parse(&export_to, &source.namespace),
        selector: labels(spec.selector.as_ref()),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        traffic_distribution: spec
            .traffic_distribution
            .as_deref()
            .or_else(|| annotation("networking.istio.io/traffic-distribution"))
            .map(Name::from),
        subject_alt_names: listed(annotation("alpha.istio.io/canonical-serviceaccounts")),
        service_accounts: listed(annotation("alpha.istio.io/kubernetes-serviceaccounts")),
        labels: labels(metadata.labels.as_ref()),
        source: source.clone(),
    };
    let id = ServiceId { key: row.key(), source: source.clone() };
    (vec![Row::Service(id, Arc::new(row))], told.diagnostics).into()
}

/// What an annotation lists, separated by commas.
fn listed(annotation: Option<&str>) -> Vec<Name> {
    let entries = annotation.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    entries.filter(|entry| !entry.is_empty()).map(Name::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_service_that_says_none_is_headless() {
        let resolution = |spec: &str| {
            let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {spec}\n");
            let parsed = mesh_api::document::parse(&"a.yaml".into(), &text);
            let Some(mesh_api::Object::Service(object)) = parsed.objects().next() else { panic!("{parsed:?}") };
            match service(object, &Settings::default()).rows.into_iter().next() {
                Some(Row::Service(_, row)) => row.resolution.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(resolution("{clusterIP: None, ports: [{port: 80}]}"), Resolution::Passthrough);
        assert_eq!(resolution("{clusterIP: 10.0.0.1, ports: [{port: 80}]}"), Resolution::ClientSideLb);
        // As in a manifest that no apiserver has seen.
        assert_eq!(resolution("{ports: [{port: 80}]}"), Resolution::ClientSideLb);
    }
}
