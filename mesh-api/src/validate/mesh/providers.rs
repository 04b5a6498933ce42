//! Extension providers. A broken one harms only those who name it, so all of this is warnings, as in Istio.

use std::collections::HashSet;

use crate::mesh::{EnvoyExternalAuthorizationHttpProvider, ExtensionProvider, Provider};
use crate::validate::at::{At, Check};
use crate::validate::hosts::HostsOf;
use crate::validate::{hosts, net, numbers};

pub(super) fn check(at: &At<'_>, providers: &[ExtensionProvider]) {
    let mut names = HashSet::new();
    for (index, written) in providers.iter().enumerate() {
        let list = at.field("extensionProviders");
        let at = list.index(index);
        if written.name.is_empty() {
            warn(&at, "name", Err("empty extension provider name; add it".to_owned()));
        } else if !names.insert(written.name.as_str()) {
            warn(&at, "name", Err(format!("duplicate extension provider name {}; rename one of them", written.name)));
        }
        match &written.provider {
            Some(kind) => provider(&at, kind),
            None => {
                at.warning("InvalidProvider", "unsupported provider: none is given; add one such as envoyExtAuthzGrpc")
            }
        }
    }
}

fn warn(at: &At<'_>, field: &str, result: Check) {
    if let Err(message) = result {
        at.field(field).warning("InvalidProvider", message);
    }
}

fn provider(at: &At<'_>, provider: &Provider) {
    let (field, address) = match provider {
        Provider::EnvoyExtAuthzHttp(p) => ("envoyExtAuthzHttp", Some((&p.service, p.port))),
        Provider::EnvoyExtAuthzGrpc(p) => ("envoyExtAuthzGrpc", Some((&p.service, p.port))),
        Provider::Zipkin(p) => ("zipkin", Some((&p.service, p.port))),
        Provider::Lightstep(p) => ("lightstep", Some((&p.service, p.port))),
        Provider::Datadog(p) => ("datadog", Some((&p.service, p.port))),
        Provider::Opencensus(p) => ("opencensus", Some((&p.service, p.port))),
        Provider::Skywalking(p) => ("skywalking", Some((&p.service, p.port))),
        Provider::Opentelemetry(p) => ("opentelemetry", Some((&p.service, p.port))),
        Provider::EnvoyHttpAls(p) => ("envoyHttpAls", Some((&p.service, p.port))),
        Provider::EnvoyTcpAls(p) => ("envoyTcpAls", Some((&p.service, p.port))),
        Provider::EnvoyOtelAls(p) => ("envoyOtelAls", Some((&p.service, p.port))),
        Provider::Sds(p) => ("sds", Some((&p.service, p.port))),
        Provider::Stackdriver(_) | Provider::Prometheus(_) | Provider::EnvoyFileAccessLog(_) => ("", None),
    };
    let at = at.field(field);
    if let Some((name, port)) = address {
        warn(&at, "port", net::port(port));
        warn(&at, "service", service(name));
    }
    match provider {
        Provider::EnvoyExtAuthzHttp(p) => ext_authz_http(&at, p),
        Provider::EnvoyExtAuthzGrpc(p) => warn(&at, "statusOnError", status_on_error(&p.status_on_error)),
        Provider::Lightstep(p) if p.access_token.is_empty() => {
            warn(&at, "accessToken", Err("access token is required; add it".to_owned()));
        }
        Provider::Opentelemetry(p) if p.grpc.is_some() && p.http.is_some() => {
            let message = "OpenTelemetryTracingProvider cannot specify both grpc and http; remove one of them";
            at.warning("InvalidProvider", message);
        }
        _ => {}
    }
}

/// `[namespace/]host`, the host a DNS name or, without a namespace, an IP address.
fn service(text: &str) -> Check {
    if text.is_empty() {
        Err("service must not be empty; write [namespace/]host".to_owned())
    } else if text.contains('/') {
        hosts::scoped_host(text, HostsOf::Sidecar)
    } else if net::is_ip(text) {
        Ok(())
    } else {
        hosts::fqdn(text).map_err(|why| format!("invalid service fmt {text}: {why}"))
    }
}

fn status_on_error(text: &str) -> Check {
    if text.is_empty() || text == "0" || text.parse().is_ok_and(numbers::is_named_status) {
        Ok(())
    } else {
        Err(format!("invalid statusOnError value {text}; write an HTTP status such as 403"))
    }
}

fn ext_authz_http(at: &At<'_>, provider: &EnvoyExternalAuthorizationHttpProvider) {
    warn(at, "statusOnError", status_on_error(&provider.status_on_error));
    let prefix = provider.path_prefix.as_str();
    if !prefix.is_empty() && !prefix.starts_with('/') {
        warn(at, "pathPrefix", Err(format!("pathPrefix should begin with `/` but found {prefix:?}")));
    }
}

#[cfg(test)]
mod tests {
    use crate::mesh::MeshConfig;
    use crate::validate::testing::problems;

    #[test]
    fn providers() {
        for (provider, expected) in [
            ("{name: a, prometheus: {}}", ""),
            ("{name: a}", "W extensionProviders[3]: unsupported provider"),
            ("{prometheus: {}}", "W extensionProviders[3].name: empty extension provider name"),
            ("{name: a, zipkin: {service: ns/foo.com, port: 9411}}", ""),
            ("{name: a, zipkin: {service: 1.2.3.4, port: 9411}}", ""),
            ("{name: a, zipkin: {port: 9411}}", "W extensionProviders[3].zipkin.service: service must not be empty"),
            ("{name: a, datadog: {service: a_b, port: 0}}", "W extensionProviders[3].datadog.port: port number 0"),
            ("{name: a, lightstep: {service: foo, port: 1}}", "W extensionProviders[3].lightstep.accessToken"),
            (
                "{name: a, opentelemetry: {service: foo, port: 1, grpc: {}, http: {path: /}}}",
                "W extensionProviders[3].opentelemetry: OpenTelemetryTracingProvider",
            ),
            (
                "{name: a, envoyExtAuthzHttp: {service: foo, port: 1, statusOnError: '999'}}",
                "W extensionProviders[3].envoyExtAuthzHttp.statusOnError",
            ),
            (
                "{name: a, envoyExtAuthzHttp: {service: foo, port: 1, pathPrefix: a}}",
                "W extensionProviders[3].envoyExtAuthzHttp.pathPrefix",
            ),
            ("{name: a, envoyExtAuthzGrpc: {service: foo, port: 1, statusOnError: '403'}}", ""),
        ] {
            let (mesh, told) = MeshConfig::from_yaml(&format!("extensionProviders: [{provider}]"));
            assert!(told.is_empty(), "{provider}: {told:?}");
            let found = problems(&mesh).join("\n");
            assert!(found.starts_with(expected) && found.is_empty() == expected.is_empty(), "{provider}: {found}");
        }
    }
}
