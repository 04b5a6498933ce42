//! One text of metrics for Prometheus: the agent's, Envoy's, and the application's as its annotations say
//! (`ISTIO_PROMETHEUS_ANNOTATIONS`). Who does not answer is left out and counted; the others are still worth having.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use futures::stream::{self, Stream, StreamExt};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyStream, Empty};
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;

use crate::client::{self, ClientError, Peer};
use crate::metrics::{Metrics, Scraped};

/// More than any application has to say.
const MAX_APP: usize = 10 * 1024 * 1024;
/// Without a word from Prometheus.
const PATIENCE: Duration = Duration::from_secs(10);
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text";
const TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
/// The mark at the end of OpenMetrics.
const END: &[u8] = b"# EOF";
/// Ports of the proxy, which have no metrics of an application.
const RESERVED: [u16; 9] = [15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090];

/// Whom to ask for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrape {
    envoy: u16,
    apps: Vec<Target>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    port: u16,
    path: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    scrape: String,
    path: String,
    port: String,
    targets: Vec<Written>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    port: String,
    path: String,
}

/// What is wrong with `ISTIO_PROMETHEUS_ANNOTATIONS`: the pod's annotations `prometheus.io/*` say so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScrapeError {
    /// Not what the injector writes.
    #[error("ISTIO_PROMETHEUS_ANNOTATIONS: {0}")]
    Json(#[from] serde_json::Error),
    /// A port that is none, or one of the proxy's own.
    #[error(
        "ISTIO_PROMETHEUS_ANNOTATIONS: {0:?} is no port of an application; check the annotation prometheus.io/port"
    )]
    Port(String),
}

impl Scrape {
    /// Envoy's metrics at this port, and the application's as its annotations say. `status_port` is our own.
    ///
    /// # Errors
    /// When they name no port that can be asked.
    pub fn new(envoy: u16, annotations: Option<&str>, status_port: u16) -> Result<Self, ScrapeError> {
        let Some(annotations) = annotations else { return Ok(Self { envoy, apps: Vec::new() }) };
        let mut said: Annotations = serde_json::from_str(annotations)?;
        if said.scrape == "false" {
            return Ok(Self { envoy, apps: Vec::new() });
        }
        if said.targets.is_empty() {
            said.targets.push(Written { port: said.port, path: said.path });
        }
        let target = |Written { port, path }: Written| {
            let number = if port.is_empty() { Some(80) } else { port.parse().ok() };
            let number = number.filter(|port| *port > 0 && *port != status_port && !RESERVED.contains(port));
            let path =
                if path.is_empty() { "/metrics".to_owned() } else { format!("/{}", path.trim_start_matches('/')) };
            number.map(|port| Target { port, path }).ok_or(ScrapeError::Port(port))
        };
        Ok(Self { envoy, apps: said.targets.into_iter().map(target).collect::<Result<_, _>>()? })
    }

    /// The merged metrics. Envoy's, which may be long, are passed on as they come.
    pub(super) async fn merged(
        &self,
        query: Option<&str>,
        headers: &HeaderMap,
        metrics: &Metrics,
    ) -> Response<impl Stream<Item = Bytes> + use<>> {
        metrics.scraped();
        let time = headers.get(TIMEOUT).and_then(|text| text.to_str().ok()?.parse().ok());
        let time = time.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(PATIENCE);
        let failed = |what: Scraped| {
            move |error: ClientError| {
                tracing::warn!(?what, %error, "no metrics");
                metrics.not_scraped(what);
            }
        };
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        let envoy = Target { port: self.envoy, path: format!("/stats/prometheus{query}") };
        let envoy = client::within(time, ask(&envoy, headers, "text/plain"));
        let apps = futures::future::join_all(self.apps.iter().map(|app| client::within(time, whole(app, headers))));
        let (envoy, apps) = futures::future::join(envoy, apps).await;
        let envoy = envoy.map_err(failed(Scraped::Envoy)).ok();
        let apps: Vec<_> = apps.into_iter().filter_map(|app| app.map_err(failed(Scraped::Application)).ok()).collect();
        let format = common_format(&apps);
        let is_open = format.starts_with(OPEN_METRICS);
        let own = stream::once(std::future::ready(Bytes::from(metrics.text(SystemTime::now()))));
        let envoy = stream::iter(envoy).flat_map(|answer| BodyStream::new(answer.into_body()).filter_map(data));
        let mut rest: Vec<Bytes> = apps.into_iter().map(|(_, text)| text).collect();
        rest.extend(is_open.then_some(Bytes::from_static(b"# EOF\n")));
        let mut response = Response::new(own.chain(envoy).chain(stream::iter(rest)));
        let format = HeaderValue::try_from(format).unwrap_or(HeaderValue::from_static(TEXT));
        response.headers_mut().insert(CONTENT_TYPE, format);
        response
    }
}

async fn data(frame: Result<hyper::body::Frame<Bytes>, hyper::Error>) -> Option<Bytes> {
    frame.ok()?.into_data().ok()
}

async fn ask(target: &Target, headers: &HeaderMap, accept: &'static str) -> Result<Response<Incoming>, ClientError> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target.path.parse().unwrap_or_default();
    for name in [USER_AGENT.as_str(), TIMEOUT] {
        if let (Some(value), Ok(name)) = (headers.get(name), http::HeaderName::try_from(name)) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let response = Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, target.port))).send(request).await?;
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(ClientError::Body(format!("its status is {status}").into())),
    }
}

/// An application's metrics: their format, and the text without the mark of its end.
async fn whole(target: &Target, headers: &HeaderMap) -> Result<(String, Bytes), ClientError> {
    // What Prometheus would understand; protobuf can't be merged.
    let wants_open =
        headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|a| a.contains(OPEN_METRICS));
    let accept =
        if wants_open { "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5" } else { "text/plain" };
    let response = ask(target, headers, accept).await?;
    let format =
        response.headers().get(CONTENT_TYPE).and_then(|format| format.to_str().ok()).unwrap_or(TEXT).to_owned();
    let text = client::body(response.into_body(), MAX_APP).await?;
    Ok((format, without_end(&text)))
}

fn without_end(text: &Bytes) -> Bytes {
    let trimmed = text.trim_ascii_end();
    let kept = trimmed.strip_suffix(END).unwrap_or(trimmed).len();
    let mut text = text.slice(..kept).to_vec();
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.into()
}

/// OpenMetrics only if all of them are.
fn common_format(apps: &[(String, Bytes)]) -> String {
    match apps.first() {
        Some((first, _)) if first.starts_with(OPEN_METRICS) && apps.iter().all(|(format, _)| format == first) => {
            first.clone()
        }
        _ => TEXT.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers everything with this text of this format.
    async fn server(format: &'static str, text: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /"));
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {format}\r\nconnection: close\r\n\r\n");
                stream.write_all((head + text).as_bytes()).await.unwrap();
            }
        });
        port
    }

    async fn merged(scrape: &Scrape, metrics: &Metrics) -> (String, String) {
        let response = scrape.merged(Some("usedonly"), &HeaderMap::new(), metrics).await;
        let format = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let parts: Vec<Bytes> = response.into_body().collect().await;
        (format, String::from_utf8(parts.concat()).unwrap())
    }

    #[tokio::test]
    async fn all_that_answer_are_in_one_text() {
        let envoy = server(TEXT, "envoy_up 1\n").await;
        let open = "application/openmetrics-text; version=1.0.0";
        let (one, two) = (server(open, "one 1\n# EOF\n").await, server(open, "two 2\n# EOF").await);
        let plain = server(TEXT, "plain 3").await;
        let apps = |ports: &[u16]| {
            let target = |port: &u16| Target { port: *port, path: "/metrics".into() };
            Scrape { envoy, apps: ports.iter().map(target).collect() }
        };
        let metrics = Metrics::default();
        let (format, text) = merged(&apps(&[one, two]), &metrics).await;
        assert!(text.starts_with("# HELP istio_agent_"), "{text}");
        assert!(text.ends_with("\nenvoy_up 1\none 1\ntwo 2\n# EOF\n"), "{text}");
        assert_eq!(format, open);
        let (format, text) = merged(&apps(&[one, plain]), &metrics).await;
        assert!(text.ends_with("\nenvoy_up 1\none 1\nplain 3\n"), "{text}");
        assert_eq!(format, TEXT);
        let gone = Scrape { envoy: 1, ..apps(&[1, plain]) };
        let (_, text) = merged(&gone, &metrics).await;
        assert!(text.ends_with("\nplain 3\n"), "{text}");
        let text = metrics.text(SystemTime::now());
        for line in [
            "istio_agent_scrapes_total 3",
            "istio_agent_scrape_failures_total{type=\"envoy\"} 1",
            "istio_agent_scrape_failures_total{type=\"application\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn annotations_say_where() {
        let of = |json: &str| Scrape::new(15090, Some(json), 15020).map(|scrape| scrape.apps);
        let target = |port, path: &str| Target { port, path: path.into() };
        assert_eq!(of("{}").unwrap(), [target(80, "/metrics")]);
        assert_eq!(of(r#"{"scrape":"true","port":"8080","path":"m"}"#).unwrap(), [target(8080, "/m")]);
        assert_eq!(of(r#"{"scrape":"false","port":"8080"}"#).unwrap(), []);
        let two = r#"{"targets":[{"port":"1","path":"/a"},{"port":"2"}]}"#;
        assert_eq!(of(two).unwrap(), [target(1, "/a"), target(2, "/metrics")]);
        for bad in [r#"{"port":"015020"}"#, r#"{"port":"http"}"#, r#"{"port":"15090"}"#, r#"{"port":"0"}"#] {
            assert!(matches!(of(bad), Err(ScrapeError::Port(_))), "{bad}");
        }
        assert_eq!(Scrape::new(15090, None, 15020).unwrap().apps, []);
    }
}
