//! Kubernetes Ingresses. A path or certificate that can't be used is left out and named; the others stay in force.

use std::sync::Arc;

use k8s_openapi::api::networking::v1 as networking;
use mesh_api::{Diagnostic, Hostname, Name, ObjectRef};

use super::{Lowered, Told, created};
use crate::model::InNamespace;
use crate::model::ingress::{Ingress, IngressClass, IngressPath, IngressPort, IngressRule, IngressTls};
use crate::model::virtual_service::TextMatch;
use crate::snapshot::Row;

const CLASS: &str = "kubernetes.io/ingress.class";

/// Lowers an Ingress.
pub(crate) fn ingress(object: &networking::Ingress) -> Lowered {
    let (row, diagnostics) = lower(object);
    let key = InNamespace::new(row.namespace.clone(), row.name.clone());
    (vec![Row::Ingress(key, Arc::new(row))], diagnostics).into()
}

fn lower(object: &networking::Ingress) -> (Ingress, Vec<Diagnostic>) {
    let metadata = &object.metadata;
    let source = ObjectRef::new(
        "Ingress",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let mut told = Told::about(&source);
    let spec = object.spec.clone().unwrap_or_default();
    let class = match (metadata.annotations.as_ref().and_then(|a| a.get(CLASS)), &spec.ingress_class_name) {
        (Some(class), _) => IngressClass::Annotation(class.as_str().into()),
        (None, Some(class)) => IngressClass::Named(class.as_str().into()),
        (None, None) => IngressClass::Unsaid,
    };
    if spec.default_backend.is_some() {
        told.unsupported("spec.defaultBackend", "it would take the requests of every other host, in Istio neither");
    }
    let mut rules = Vec::new();
    for (i, rule) in spec.rules.iter().flatten().enumerate() {
        let host = rule.host.as_deref().filter(|h| !h.is_empty()).unwrap_or("*");
        let mut paths = Vec::new();
        for (j, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
            paths.extend(lower_path(path, &format!("spec.rules[{i}].http.paths[{j}]"), &mut told));
        }
        rules.push(IngressRule { host: host.into(), paths });
    }
    let mut tls = Vec::new();
    for (index, written) in spec.tls.iter().flatten().enumerate() {
        let secret = written.secret_name.as_deref().unwrap_or_default();
        if secret.is_empty() {
            told.error(
                "NoCertificate",
                format!("spec.tls[{index}].secretName"),
                "without a Secret there is no TLS; it is left out",
            );
            continue;
        }
        let mut hosts: Vec<Hostname> = written.hosts.iter().flatten().map(Hostname::from).collect();
        if hosts.is_empty() {
            hosts.push("*".into());
        }
        tls.push(IngressTls { index, hosts, secret: secret.into() });
    }
    let row = Ingress {
        created: created(metadata),
        class,
        rules,
        tls,
        namespace: source.namespace.clone(),
        name: source.name.clone(),
    };
    (row, told.diagnostics)
}

fn lower_path(written: &networking::HTTPIngressPath, path: &str, told: &mut Told<'_>) -> Option<IngressPath> {
    let Some(service) = &written.backend.service else {
        told.error(
            "NoDestination",
            format!("{path}.backend"),
            "only a service can be the backend; the path is left out",
        );
        return None;
    };
    let port = match &service.port {
        Some(port) => match (port.number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0), &port.name) {
            (Some(number), _) => Some(IngressPort::Number(number)),
            (None, Some(name)) if !name.is_empty() => Some(IngressPort::Named(name.as_str().into())),
            (None, _) => None,
        },
        None => None,
    };
    let Some(port) = port else {
        let message = "the backend has neither a port number within 1..65535 nor a port name; the path is left out";
        told.error("InvalidPort", format!("{path}.backend.service.port"), message);
        return None;
    };
    let text = written.path.as_deref().unwrap_or_default();
    let matched = match written.path_type.as_str() {
        "Exact" => Some(TextMatch::Exact(text.into())),
        "Prefix" => Some(TextMatch::Prefix(text.into())),
        _ => by_wildcard(text),
    };
    Some(IngressPath { path: matched, service: service.name.as_str().into(), port })
}

/// `ImplementationSpecific`: Istio's older notation, in which `.*` or `/*` at the end makes a prefix.
fn by_wildcard(text: &str) -> Option<TextMatch> {
    if matches!(text, "" | "*" | "/*" | ".*") {
        return None;
    }
    let prefix = text.strip_suffix(".*").or_else(|| text.strip_suffix("/*"));
    Some(prefix.map_or_else(|| TextMatch::Exact(Name::from(text)), |prefix| TextMatch::Prefix(prefix.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::objects;
    use mesh_api::object::Object;

    #[test]
    fn paths_and_certificates_that_cannot_be_used_are_named() {
        let yaml = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i, namespace: ns}\nspec:\n  \
            defaultBackend: {service: {name: a, port: {number: 80}}}\n  tls: [{hosts: [a.com]}, {secretName: s}]\n  rules:\n  \
            - http:\n      paths:\n      - {path: /a, pathType: Exact, backend: {service: {name: a, port: {number: 80}}}}\n      \
            - {path: /b, pathType: Prefix, backend: {service: {name: b, port: {name: http}}}}\n      \
            - {path: /c/*, pathType: ImplementationSpecific, backend: {service: {name: c, port: {number: 80}}}}\n      \
            - {path: /d, pathType: Exact, backend: {service: {name: d}}}\n";
        let (row, told) = match objects(yaml).as_slice() {
            [Object::Ingress(o)] => lower(o),
            other => panic!("{other:?}"),
        };
        let paths: Vec<_> = told.iter().map(|d| d.path.to_string()).collect();
        assert_eq!(
            paths,
            ["spec.defaultBackend", "spec.rules[0].http.paths[3].backend.service.port", "spec.tls[0].secretName"]
        );
        assert_eq!(row.rules[0].host, Hostname::from("*"));
        let matches: Vec<_> = row.rules[0].paths.iter().map(|p| p.path.clone().unwrap()).collect();
        assert_eq!(
            matches,
            [TextMatch::Exact("/a".into()), TextMatch::Prefix("/b".into()), TextMatch::Prefix("/c".into())]
        );
        assert_eq!(row.tls, [IngressTls { index: 1, hosts: vec!["*".into()], secret: "s".into() }]);
    }
}
