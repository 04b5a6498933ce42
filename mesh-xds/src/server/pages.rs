//! What people and istioctl look at: `/ready`, `/metrics` and `/debug/…`, in istiod's words.
//!
//! Pages are built from the newest snapshot and the sessions, on request only. Private keys never leave through here.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{DataSource, Node, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use http::{Method, Response, StatusCode, Uri, header};
use prost::Message;
use serde_json::{Map, Value, json};

use super::clients::Connection;
use super::{Backend, Peer, Shared};
use crate::ads::TypeStatus;
use crate::json;
use crate::resource::{Resource, TypeUrl, version_text};

/// The pages and what they show.
const PAGES: [(&str, &str); 9] = [
    ("adsz", "Status and debug interface for ADS"),
    ("cachez", "Info about the internal XDS caches"),
    ("config_dump", "ConfigDump in the form of the Envoy admin config dump API for passed in proxyID"),
    ("configz", "Debug support for config"),
    ("connections", "Info about the connected XDS clients"),
    ("edsz", "Status and debug interface for EDS"),
    ("list", "List all supported debug commands in json"),
    ("registryz", "Debug support for registry"),
    ("syncz", "Synchronization status of all Envoys connected to this Pilot instance"),
];

const NOT_CONNECTED: &str = "Proxy not connected to this Pilot instance. It may be connected to another instance.\n";

pub(super) fn respond<B: Backend>(shared: &Shared<B>, method: &Method, uri: &Uri, peer: &Peer) -> Response<String> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed here\n");
    }
    match uri.path() {
        "/ready" if shared.backend.is_ready() => text(StatusCode::OK, ""),
        "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "not all sources are read yet\n"),
        "/version" => text(StatusCode::OK, &shared.options.version),
        "/metrics" => {
            if let Some(counts) = shared.backend.counts(&shared.backend.snapshots().borrow().clone()) {
                shared.metrics.counts(counts);
            }
            let mut response = Response::new(shared.metrics.encode());
            let kind = http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        path if path == "/debug" || path.starts_with("/debug/") => {
            let local = peer.address.is_none_or(|a| a.ip().to_canonical().is_loopback());
            if !local && !shared.options.remote_debug {
                return text(StatusCode::UNAUTHORIZED, "debug pages are for the local host\n");
            }
            let page = path.trim_start_matches("/debug").trim_matches('/');
            let query = uri.query().unwrap_or_default();
            shared.at_newest(&mut shared.backend.snapshots(), |snapshot, _| debug(shared, snapshot, page, query))
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn debug<B: Backend>(shared: &Shared<B>, snapshot: &B::Snapshot, page: &str, query: &str) -> Response<String> {
    let parameter = |name: &str| {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(n, _)| *n == name).map(|(_, value)| percent_decoded(value))
    };
    let proxy_id = parameter("proxyID").filter(|id| !id.is_empty());
    let connection = proxy_id.as_deref().map(|id| shared.clients.find(id));
    let value = match page {
        "" => return index(),
        "list" => json!(PAGES.iter().map(|(name, _)| *name).filter(|n| *n != "list").collect::<Vec<_>>()),
        "cachez" => shared.backend.cachez(),
        "configz" => shared.backend.configz(snapshot),
        "registryz" => shared.backend.registryz(snapshot),
        "syncz" => {
            let namespace = parameter("namespace").unwrap_or_default();
            let all = shared.clients.list();
            let shown = all.iter().filter(|c| namespace.is_empty() || Who::of(&c.node()).namespace == namespace);
            Value::Array(shown.map(sync_status).collect())
        }
        "connections" | "adsz" => {
            let shown = match connection {
                Some(None) => return text(StatusCode::NOT_FOUND, NOT_CONNECTED),
                Some(Some(one)) => vec![one],
                None => shared.clients.list(),
            };
            let clients: Vec<Value> = shown.iter().map(|c| ads_client(c, page == "adsz")).collect();
            let mut out = Map::from_iter([("totalClients".to_owned(), json!(shown.len()))]);
            if !clients.is_empty() {
                out.insert("clients".into(), Value::Array(clients));
            }
            Value::Object(out)
        }
        "config_dump" | "edsz" => match connection {
            None => return text(StatusCode::BAD_REQUEST, "You must provide a proxyID in the query string\n"),
            Some(None) => return text(StatusCode::NOT_FOUND, NOT_CONNECTED),
            Some(Some(connection)) => {
                let types = if page == "edsz" { Some("eds".to_owned()) } else { parameter("types") };
                let dump = ConfigDump { shared, snapshot, connection: &connection };
                let dump = match types.filter(|t| !t.is_empty()) {
                    Some(types) => dump.of_types(&types),
                    None => dump.full(parameter("include_eds").is_some()),
                };
                match dump {
                    Ok(value) => value,
                    Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
                }
            }
        },
        _ => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    let body = match parameter("pretty") {
        Some(_) => serde_json::to_string_pretty(&value),
        None => serde_json::to_string(&value),
    };
    match body {
        Ok(body) => with_type(StatusCode::OK, body, "application/json"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn index() -> Response<String> {
    let rows: String = PAGES
        .iter()
        .map(|(name, help)| format!("<tr><td><a href='/debug/{name}'>{name}</a></td><td>{help}</td></tr>\n"))
        .collect();
    let body = format!("<html><head><title>Debug Console</title></head><body><table>\n{rows}</table></body></html>\n");
    with_type(StatusCode::OK, body, "text/html; charset=utf-8")
}

/// What a node says of itself, by Istio's keys.
struct Who {
    id: String,
    kind: String,
    namespace: String,
    cluster: String,
    version: String,
}

impl Who {
    fn of(node: &Node) -> Self {
        let mut parts = node.id.split('~');
        let kind = parts.next().unwrap_or_default().to_owned();
        let id = parts.nth(1).unwrap_or(&node.id).to_owned();
        let of_id = id.rsplit_once('.').map_or("", |(_, ns)| ns).to_owned();
        let namespace = Some(metadata(node, "NAMESPACE")).filter(|ns| !ns.is_empty()).unwrap_or(of_id);
        Self { id, kind, namespace, cluster: metadata(node, "CLUSTER_ID"), version: metadata(node, "ISTIO_VERSION") }
    }
}

fn metadata(node: &Node, key: &str) -> String {
    use envoy_types::pb::google::protobuf::value::Kind;
    match node.metadata.as_ref().and_then(|m| m.fields.get(key)).and_then(|v| v.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn nonce(nonce: u64) -> String {
    if nonce == 0 { String::new() } else { nonce.to_string() }
}

fn time(at: std::time::SystemTime) -> String {
    prost_types::Timestamp::from(at).to_string()
}

fn sync_status<C>(connection: &Arc<Connection<C>>) -> Value {
    let who = Who::of(&connection.node());
    let mut out = Map::new();
    let mut put = |key: &str, value: String| {
        if !value.is_empty() {
            out.insert(key.to_owned(), Value::String(value));
        }
    };
    put("cluster_id", who.cluster);
    put("proxy", who.id);
    put("proxy_type", who.kind);
    put("istio_version", who.version);
    let mut resources = Map::new();
    for ty in TypeUrl::ALL {
        let Some(status) = connection.status(ty) else { continue };
        let key = match ty {
            TypeUrl::Cluster => Some("cluster"),
            TypeUrl::Listener => Some("listener"),
            TypeUrl::Route => Some("route"),
            TypeUrl::Endpoint => Some("endpoint"),
            TypeUrl::ExtensionConfig => Some("extensionconfig"),
            TypeUrl::Secret | TypeUrl::NameTable | TypeUrl::ProxyConfig => None,
        };
        if let Some(key) = key {
            put(&format!("{key}_sent"), nonce(status.sent_nonce));
            put(&format!("{key}_acked"), nonce(status.acked_nonce));
        }
        resources.insert(ty.as_str().to_owned(), resource_status(connection, ty, &status));
    }
    if !resources.is_empty() {
        out.insert("resources".into(), Value::Object(resources));
    }
    Value::Object(out)
}

fn resource_status<C>(connection: &Connection<C>, ty: TypeUrl, status: &TypeStatus) -> Value {
    let mut out = Map::new();
    for (key, of) in [("sent", status.sent_nonce), ("acked", status.acked_nonce)] {
        if of > 0 {
            out.insert(key.into(), json!(nonce(of)));
        }
    }
    if let Some(at) = connection.sent_at(ty) {
        out.insert("sentTime".into(), json!(time(at)));
    }
    if let Some(nack) = &status.nack {
        out.insert("lastError".into(), json!(nack.message));
    }
    Value::Object(out)
}

fn ads_client<C>(connection: &Arc<Connection<C>>, full: bool) -> Value {
    let address = connection.peer().address.map(|a| a.to_string()).unwrap_or_default();
    let mut out = Map::from_iter([
        ("connectionId".to_owned(), json!(connection.id())),
        ("connectedAt".to_owned(), json!(time(connection.since()))),
        ("address".to_owned(), json!(address)),
    ]);
    if !full {
        return Value::Object(out);
    }
    let node = connection.node();
    if let Some(metadata) = &node.metadata
        && let Ok(mut value) = json::to_json("google.protobuf.Struct", &metadata.encode_to_vec())
    {
        if let Some(labels) = value.get_mut("LABELS").map(Value::take) {
            out.insert("labels".into(), labels);
        }
        out.insert("metadata".into(), value);
    }
    if let Some(locality) = &node.locality
        && let Ok(value) = json::to_json("envoy.config.core.v3.Locality", &locality.encode_to_vec())
    {
        out.insert("locality".into(), value);
    }
    let watched = TypeUrl::ALL.into_iter().filter(|ty| connection.status(*ty).is_some());
    let watches = watched.map(|ty| (ty.as_str().to_owned(), json!(connection.subscriptions(ty))));
    out.insert("watches".into(), Value::Object(watches.collect()));
    Value::Object(out)
}

/// What a client should have at the newest snapshot, in the form of Envoy's admin page.
struct ConfigDump<'a, B: Backend> {
    shared: &'a Shared<B>,
    snapshot: &'a B::Snapshot,
    connection: &'a Connection<B::Client>,
}

impl<B: Backend> ConfigDump<'_, B> {
    /// The resources of a type that the client asks for, each with its name, `@type` among its fields.
    fn resources(&self, ty: TypeUrl) -> Result<Vec<(String, Value)>, json::Error> {
        let Some(status) = self.connection.status(ty) else { return Ok(Vec::new()) };
        let names = self.connection.subscriptions(ty);
        let set = self.shared.backend.resources(self.snapshot, self.connection.client(), ty);
        let wanted = |r: &&Arc<Resource>| status.wildcard || names.binary_search(r.name()).is_ok();
        set.iter().filter(wanted).map(|r| Ok((r.name().to_string(), any(ty, r)?))).collect()
    }

    fn of_types(&self, types: &str) -> Result<Value, json::Error> {
        let mut configs = Vec::new();
        for ty in TypeUrl::ALL.into_iter().filter(|ty| types.split(',').any(|t| t == ty.short() || t == ty.as_str())) {
            configs.extend(self.resources(ty)?.into_iter().map(|(_, value)| value));
        }
        Ok(json!({ "configs": configs }))
    }

    fn full(&self, endpoints: bool) -> Result<Value, json::Error> {
        let version = |ty| version_text(self.connection.status(ty).unwrap_or_default().sent_version);
        let list = |ty: TypeUrl, field: &str| -> Result<Vec<Value>, json::Error> {
            let version = version(ty);
            let one = |(name, value): (String, Value)| match ty {
                TypeUrl::Listener => {
                    json!({ "name": name, "activeState": { "versionInfo": version, "listener": value } })
                }
                TypeUrl::Secret => json!({ "name": name, "versionInfo": version, field: value }),
                _ => json!({ "versionInfo": version, field: value }),
            };
            Ok(self.resources(ty)?.into_iter().map(one).collect())
        };
        let mut configs = vec![
            json!({ "@type": admin("BootstrapConfigDump") }),
            json!({
                "@type": admin("ClustersConfigDump"),
                "versionInfo": version(TypeUrl::Cluster),
                "dynamicActiveClusters": list(TypeUrl::Cluster, "cluster")?,
            }),
        ];
        if endpoints {
            configs.push(json!({
                "@type": admin("EndpointsConfigDump"),
                "dynamicEndpointConfigs": list(TypeUrl::Endpoint, "endpointConfig")?,
            }));
        }
        configs.extend([
            json!({
                "@type": admin("ListenersConfigDump"),
                "versionInfo": version(TypeUrl::Listener),
                "dynamicListeners": list(TypeUrl::Listener, "listener")?,
            }),
            json!({ "@type": admin("ScopedRoutesConfigDump") }),
            json!({
                "@type": admin("RoutesConfigDump"),
                "dynamicRouteConfigs": list(TypeUrl::Route, "routeConfig")?,
            }),
            json!({
                "@type": admin("SecretsConfigDump"),
                "dynamicActiveSecrets": list(TypeUrl::Secret, "secret")?,
            }),
            json!({
                "@type": admin("EcdsConfigDump"),
                "ecdsFilters": list(TypeUrl::ExtensionConfig, "ecdsFilter")?,
            }),
        ]);
        Ok(json!({ "configs": configs }))
    }
}

fn admin(name: &str) -> String {
    format!("type.googleapis.com/envoy.admin.v3.{name}")
}

fn any(ty: TypeUrl, resource: &Resource) -> Result<Value, json::Error> {
    let bytes = match ty {
        TypeUrl::Secret => redacted(resource).into(),
        _ => resource.value(),
    };
    let mut fields = Map::from_iter([("@type".to_owned(), json!(ty.as_str()))]);
    if let Value::Object(more) = json::to_json(ty.as_str(), &bytes)? {
        fields.extend(more);
    }
    Ok(Value::Object(fields))
}

/// A secret without what is secret about it. What can't be read is not shown at all.
fn redacted(resource: &Resource) -> Vec<u8> {
    let mut out = resource.decode::<Secret>().unwrap_or_default();
    let hidden =
        || DataSource { specifier: Some(Specifier::InlineBytes(b"[redacted]".to_vec())), ..DataSource::default() };
    match &mut out.r#type {
        Some(secret::Type::TlsCertificate(certificate)) => {
            for key in [&mut certificate.private_key, &mut certificate.pkcs12, &mut certificate.password] {
                if key.is_some() {
                    *key = Some(hidden());
                }
            }
        }
        Some(secret::Type::ValidationContext(_)) | None => {}
        Some(_) => out.r#type = None,
    }
    out.encode_to_vec()
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let digits = (ahead.next().and_then(hex), ahead.next().and_then(hex));
        match (byte, digits) {
            (b'%', (Some(high), Some(low))) => {
                out.push(high << 4 | low);
                rest = ahead;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

fn text(status: StatusCode, body: &str) -> Response<String> {
    with_type(status, body.to_owned(), "text/plain; charset=utf-8")
}

fn with_type(status: StatusCode, body: String, kind: &'static str) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{GenericSecret, TlsCertificate};

    #[test]
    fn private_keys_are_not_shown() {
        let key = DataSource { specifier: Some(Specifier::InlineString("KEY".into())), ..DataSource::default() };
        let chain = DataSource { specifier: Some(Specifier::InlineString("CHAIN".into())), ..DataSource::default() };
        let certificate = TlsCertificate {
            certificate_chain: Some(chain),
            private_key: Some(key.clone()),
            ..TlsCertificate::default()
        };
        let generic = GenericSecret { secret: Some(key), ..GenericSecret::default() };
        for (kind, chain) in
            [(secret::Type::TlsCertificate(certificate), true), (secret::Type::GenericSecret(generic), false)]
        {
            let secret = Secret { name: "s".into(), r#type: Some(kind) };
            let shown = any(TypeUrl::Secret, &Resource::encode("s", &secret)).unwrap().to_string();
            assert!(!shown.contains("KEY"), "{shown}");
            assert_eq!(shown.contains("CHAIN"), chain, "{shown}");
        }
        let broken = Resource::from_value("s".into(), TypeUrl::Secret.as_str(), b"\xffKEY");
        assert_eq!(any(TypeUrl::Secret, &broken).unwrap(), json!({ "@type": TypeUrl::Secret.as_str() }));
    }

    #[test]
    fn query_values_are_decoded() {
        let table = [("a%7Eb+c", "a~b c"), ("%", "%"), ("%7", "%7"), ("%zz", "%zz"), ("", "")];
        for (from, to) in table {
            assert_eq!(percent_decoded(from), to);
        }
    }
}
