//! The application's probes and hooks, which the kubelet asks of us: with mTLS in force it could not ask the application itself.
//! What to ask is in `ISTIO_KUBE_APP_PROBERS`, by the path at which the kubelet asks us.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::header::{HOST, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::client::{self, ClientError, Peer};

/// From here we ask: the interception rules let this address reach the application without passing Envoy.
const FROM_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const FROM_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));
/// The kubelet shows no more of an answer.
const MAX_ANSWER: usize = 10 * 1024;
const MOST_REDIRECTS: usize = 10;

/// All probes of a pod.
#[derive(Clone, Debug)]
pub struct Probes {
    /// The pod's address, at which applications are asked.
    pod: IpAddr,
    from: Option<IpAddr>,
    by_path: BTreeMap<String, Prober>,
}

/// One probe or hook.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Prober {
    #[serde(flatten)]
    action: Action,
    #[serde(default)]
    timeout_seconds: u64,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum Action {
    HttpGet(HttpGet),
    TcpSocket { port: u16 },
    Grpc { port: u16, service: Option<String> },
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: u16,
    #[serde(default)]
    scheme: String,
}

/// What is wrong with `ISTIO_KUBE_APP_PROBERS`. The injector writes it, so somebody else changed it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbesError {
    /// Not what the injector writes.
    #[error(
        "ISTIO_KUBE_APP_PROBERS: {0}; each probe has one of httpGet, tcpSocket and grpc, with the number of a port"
    )]
    Json(#[from] serde_json::Error),
    /// A path at which no kubelet asks.
    #[error("ISTIO_KUBE_APP_PROBERS: {0:?} is no path of a probe, such as /app-health/CONTAINER/livez")]
    Path(String),
}

/// An answer for the kubelet.
pub(super) type Verdict = (StatusCode, Bytes);

impl Probes {
    /// Reads the probes of a pod with this address. `local`: applications listen on loopback only
    /// (`REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION`).
    ///
    /// # Errors
    /// When the text is not what the injector writes.
    pub fn new(json: Option<&str>, pod: IpAddr, local: bool) -> Result<Self, ProbesError> {
        let by_path: BTreeMap<String, Prober> = json.map_or(Ok(BTreeMap::new()), serde_json::from_str)?;
        if let Some(path) = by_path.keys().find(|path| !is_probe(path)) {
            return Err(ProbesError::Path(path.clone()));
        }
        let (loopback, from): (IpAddr, _) = match pod {
            IpAddr::V4(_) => (Ipv4Addr::LOCALHOST.into(), FROM_V4),
            IpAddr::V6(_) => (Ipv6Addr::LOCALHOST.into(), FROM_V6),
        };
        Ok(Self { pod: if local { loopback } else { pod }, from: Some(from), by_path })
    }

    /// Asks the application what the kubelet asks at this path.
    pub(super) async fn ask(&self, path: &str, status_port: u16, headers: &HeaderMap) -> Verdict {
        let Some(prober) = self.by_path.get(path) else {
            return (StatusCode::BAD_REQUEST, format!("app prober config does not exists for {path}").into());
        };
        let time = Duration::from_secs(prober.timeout_seconds.max(1));
        let asked = client::within(time, async {
            match &prober.action {
                Action::HttpGet(get) => self.http(get, status_port, headers).await,
                Action::TcpSocket { port } => self.tcp(*port).await,
                Action::Grpc { port, service } => Ok(self.grpc(*port, service.as_deref()).await),
            }
        });
        asked.await.unwrap_or_else(|error| {
            tracing::warn!(path, %error, "the application's probe failed");
            (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
        })
    }

    fn peer(&self, port: u16) -> Peer {
        Peer { address: SocketAddr::new(self.pod, port), from: self.from, tls: false }
    }

    async fn tcp(&self, port: u16) -> Result<Verdict, ClientError> {
        let peer = self.peer(port);
        let connected = peer.connect().await.map_err(|error| ClientError::Connect(peer.address, error));
        connected.map(|_| (StatusCode::OK, Bytes::new()))
    }

    async fn grpc(&self, port: u16, service: Option<&str>) -> Verdict {
        let peer = self.peer(port);
        let connect = tower::service_fn(move |_| async move { peer.connect().await.map(TokioIo::new) });
        let asked = async {
            let channel =
                tonic::transport::Endpoint::from_static("http://application").connect_with_connector(connect).await;
            let request = HealthCheckRequest { service: service.unwrap_or_default().to_owned() };
            let answer = HealthClient::new(channel.map_err(|error| error.to_string())?).check(request).await;
            answer.map(|answer| answer.into_inner().status()).map_err(|status| status.message().to_owned())
        };
        match asked.await {
            Ok(ServingStatus::Serving) => (StatusCode::OK, Bytes::new()),
            Ok(other) => (StatusCode::INTERNAL_SERVER_ERROR, other.as_str_name().into()),
            Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, why.into()),
        }
    }

    async fn http(&self, get: &HttpGet, status_port: u16, headers: &HeaderMap) -> Result<Verdict, ClientError> {
        let peer = Peer { tls: get.scheme.eq_ignore_ascii_case("https"), ..self.peer(get.port) };
        let mut path = format!("/{}", get.path.trim_start_matches('/'));
        for _ in 0..=MOST_REDIRECTS {
            let response = peer.send(request(&path, get.port, status_port, headers)).await?;
            let status = response.status();
            if !status.is_redirection() {
                return Ok((status, beginning(response.into_body()).await?));
            }
            // Elsewhere is somebody else's health: the application could say where, so it is well.
            match response.headers().get(LOCATION).and_then(|to| here(to, self.pod)) {
                Some(next) => path = next,
                None => return Ok((StatusCode::OK, Bytes::new())),
            }
        }
        Ok((StatusCode::INTERNAL_SERVER_ERROR, Bytes::from_static(b"stopped after 10 redirects")))
    }
}

/// `/app-health/CONTAINER/livez` and the like.
pub(super) fn is_probe(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let [first, kind, container, what] = parts.as_slice() else { return false };
    first.is_empty()
        && matches!(*kind, "app-health" | "app-lifecycle")
        && !container.is_empty()
        && matches!(*what, "livez" | "readyz" | "startupz" | "prestopz" | "poststartz")
}

/// The kubelet's request, to the application.
fn request(path: &str, port: u16, status_port: u16, headers: &HeaderMap) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.parse().unwrap_or_default();
    for (name, value) in headers.iter().filter(|(name, _)| !is_of_connection(name)) {
        request.headers_mut().append(name, value.clone());
    }
    // The kubelet named us; the application knows itself by its own port.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let host = match host.rsplit_once(':') {
        Some((name, said)) if said == status_port.to_string() => format!("{name}:{port}"),
        _ => host.to_owned(),
    };
    if let Ok(host) = HeaderValue::try_from(host) {
        request.headers_mut().insert(HOST, host);
    }
    request
}

fn is_of_connection(name: &HeaderName) -> bool {
    use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
    [CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE].contains(name)
}

/// The path of a redirect to the application itself.
fn here(location: &HeaderValue, pod: IpAddr) -> Option<String> {
    let uri: Uri = location.to_str().ok()?.parse().ok()?;
    let host = uri.host().map(|host| host.trim_start_matches('[').trim_end_matches(']'));
    let same = host.is_none_or(|host| host.parse() == Ok(pod));
    same.then(|| uri.path_and_query().map_or("/".to_owned(), |path| path.to_string()))
}

/// As much of an answer as the kubelet shows; the rest is not waited for.
async fn beginning(mut body: hyper::body::Incoming) -> Result<Bytes, ClientError> {
    use http_body_util::BodyExt;
    let mut text = Vec::new();
    while text.len() < MAX_ANSWER
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data);
        }
    }
    text.truncate(MAX_ANSWER);
    Ok(text.into())
}

#[cfg(test)]
mod tests;
