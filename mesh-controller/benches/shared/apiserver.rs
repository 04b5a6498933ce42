//! What a control plane needs of an apiserver, over plain HTTP: lists in pages, watches that have nothing to tell, and what
//! is written comes back when it is asked for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::manifests::Objects;

/// The version of everything: nothing changes.
const VERSION: &str = "1000000";

struct Apiserver {
    objects: Objects,
    /// What clients wrote, by its path.
    written: Mutex<BTreeMap<String, Value>>,
}

/// Starts one on a free port.
pub(crate) async fn serve(objects: Objects) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let apiserver = Arc::new(Apiserver { objects, written: Mutex::default() });
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let apiserver = apiserver.clone();
            let answer = service_fn(move |request| {
                let apiserver = apiserver.clone();
                async move { Ok::<_, Infallible>(apiserver.answer(request).await) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), answer));
        }
    });
    address
}

/// The part of a path behind group, version and namespace: the plural of a kind, and an object's name where one is meant.
fn resource(path: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts.drain(..if path.starts_with("/apis/") { 3 } else { 2 }.min(parts.len()));
    if parts.len() > 2 && parts[0] == "namespaces" {
        parts.drain(..2);
    }
    parts
}

impl Apiserver {
    async fn answer(&self, request: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let query: BTreeMap<&str, &str> =
            head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        let resource = resource(&path);
        let (status, text) = match (head.method, resource.as_slice()) {
            (Method::GET, [kind]) if query.contains_key("watch") => return watch(kind),
            (Method::GET, [kind]) => (StatusCode::OK, self.page(kind, &query)),
            (Method::GET, _) => self.read(&path),
            (Method::POST, [_]) => {
                let mut object = json(body).await;
                object["metadata"]["resourceVersion"] = VERSION.into();
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                self.write(format!("{path}/{name}"), object)
            }
            _ => self.write(path, json(body).await),
        };
        let body = Full::new(Bytes::from(text)).boxed_unsync();
        Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
    }

    fn page(&self, kind: &str, query: &BTreeMap<&str, &str>) -> String {
        let number = |key: &str| query.get(key).and_then(|value| value.parse::<usize>().ok());
        let (start, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
        let all = self.objects.get(kind).map_or(&[][..], Vec::as_slice);
        let end = start.saturating_add(limit).min(all.len());
        let more = if end < all.len() { end.to_string() } else { String::new() };
        let metadata = json!({"resourceVersion": VERSION, "continue": more, "remainingItemCount": all.len() - end});
        format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{metadata},"items":[{}]}}"#, all[start..end].join(","))
    }

    fn read(&self, path: &str) -> (StatusCode, String) {
        match self.written.lock().unwrap().get(path) {
            Some(object) => (StatusCode::OK, object.to_string()),
            None => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                                    "message": "not found", "code": 404});
                (StatusCode::NOT_FOUND, status.to_string())
            }
        }
    }

    fn write(&self, path: String, object: Value) -> (StatusCode, String) {
        let text = object.to_string();
        self.written.lock().unwrap().insert(path, object);
        (StatusCode::OK, text)
    }
}

async fn json(body: Incoming) -> Value {
    serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default()
}

/// One bookmark, and then nothing for ever.
fn watch(kind: &str) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let object = json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": VERSION}});
    let bookmark = json!({"type": "BOOKMARK", "object": object}).to_string() + "\n";
    let frames = stream::iter([Ok(Frame::data(Bytes::from(bookmark)))]).chain(stream::pending());
    Response::builder().header("content-type", "application/json").body(StreamBody::new(frames).boxed_unsync()).unwrap()
}
