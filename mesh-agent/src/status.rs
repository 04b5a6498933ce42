//! The agent's own port, 15020: is the proxy ready, is the application (for the kubelet), what do all three count (for
//! Prometheus), and a few orders from within the pod.
//!
//! `/healthz/ready` answers 200 only once Envoy has clusters and listeners from the control plane and its workers run. The
//! kubelet asks through Envoy's own port 15021, so a yes also means that Envoy serves.

mod probes;
mod scrape;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub use probes::{Probes, ProbesError};
pub use scrape::{Scrape, ScrapeError};

use crate::admin::Admin;
use crate::dns::{Table, Tables};
use crate::metrics::Metrics;
use crate::supervise::Order;

/// The kubelet, Prometheus and a few curious people; more are no friends.
const MOST_CONNECTIONS: usize = 512;
const HELP: &str = "here are /healthz/ready, /stats/prometheus, /app-health/ and /app-lifecycle/; from the pod itself \
                    /debug/ndsz, and by POST /drain and /quitquitquit";
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);

/// What is told and taken on the agent's port.
#[derive(Debug)]
#[non_exhaustive]
pub struct Status {
    /// Whether the proxy is ready.
    pub readiness: Arc<Readiness>,
    /// The application's probes.
    pub probes: Probes,
    /// Whose metrics are merged.
    pub scrape: Scrape,
    /// The agent's own metrics.
    pub metrics: Metrics,
    /// Where orders go.
    pub orders: mpsc::Sender<Order>,
}

/// Asks Envoy whether it is ready. A yes holds for Envoy's life; afterwards only draining takes it back.
#[derive(Debug)]
pub struct Readiness {
    admin: Admin,
    names: Option<Tables>,
    once: AtomicBool,
    ending: AtomicBool,
}

impl Readiness {
    /// The readiness of the Envoy behind this admin port.
    pub fn new(admin: Admin) -> Self {
        Self { admin, names: None, once: AtomicBool::new(false), ending: AtomicBool::new(false) }
    }

    /// Not before the names of the mesh are there either: the application would not find its servers.
    #[must_use]
    pub fn with_names(mut self, names: Option<Tables>) -> Self {
        self.names = names;
        self
    }

    /// The names of the mesh, as far as they are there.
    fn names(&self) -> Option<Arc<Table>> {
        self.names.as_ref()?.borrow().clone()
    }

    /// From now on the pod is not ready: it ends.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// `Err` says what is still missing.
    pub async fn check(&self) -> Result<(), String> {
        if self.ending.load(Ordering::Acquire) {
            return Err("the proxy is draining".into());
        }
        if self.once.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.names.is_some() && self.names().is_none() {
            return Err("the names of the mesh have not come from the control plane yet".into());
        }
        const FILTER: &str = "%5E(cluster_manager%5C.cds|listener_manager%5C.lds)%5C.update_(success|rejected)$\
                              |%5Eserver%5C.state$|%5Elistener_manager%5C.workers_started$";
        let stats = self.admin.stats(FILTER).await.map_err(|error| error.to_string())?;
        verdict(&stats)?;
        self.once.store(true, Ordering::Release);
        Ok(())
    }
}

fn verdict(stats: &std::collections::HashMap<String, u64>) -> Result<(), String> {
    let of = |name: &str| stats.get(name).copied().unwrap_or_default();
    let (cds, lds) = (of("cluster_manager.cds.update_success"), of("listener_manager.lds.update_success"));
    let rejected = of("cluster_manager.cds.update_rejected") + of("listener_manager.lds.update_rejected");
    if cds == 0 || lds == 0 {
        let what = match (cds + lds, rejected) {
            (_, 1..) => "Envoy rejected configuration of the control plane",
            (0, _) => "no configuration from the control plane yet (does it run, is discoveryAddress right?)",
            _ => "configuration from the control plane is not complete yet",
        };
        return Err(format!("{what}: cds {cds}, lds {lds}, rejected {rejected}"));
    }
    match (stats.get("server.state"), of("listener_manager.workers_started")) {
        (Some(0), 1) => Ok(()),
        (Some(0), _) => Err("Envoy's workers have not started yet".into()),
        (Some(state), _) => Err(format!("Envoy is not live yet (server.state {state})")),
        (None, _) => Err("Envoy does not tell its state yet".into()),
    }
}

impl Status {
    /// All that is told and taken.
    pub fn new(
        readiness: Arc<Readiness>,
        probes: Probes,
        scrape: Scrape,
        metrics: Metrics,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        Self { readiness, probes, scrape, metrics, orders }
    }

    /// Serves until the returned future is dropped. Binding happens before, so that a taken port is an error at once.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn serve(self, address: SocketAddr) -> std::io::Result<impl Future<Output = ()>> {
        let listener = TcpListener::bind(address).await?;
        let port = listener.local_addr()?.port();
        let status = Arc::new(self);
        Ok(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    Some(_) = connections.join_next() => continue,
                };
                match accepted {
                    Ok((stream, peer)) if connections.len() < MOST_CONNECTIONS => {
                        let status = status.clone();
                        connections.spawn(async move {
                            let answer = service_fn(move |request| {
                                let status = status.clone();
                                async move { Ok::<_, Infallible>(status.answer(&request, peer, port).await) }
                            });
                            // A prober that hangs up is its own matter.
                            let _ = hyper::server::conn::http1::Builder::new()
                                .timer(TokioTimer::new())
                                .header_read_timeout(HEAD)
                                .serve_connection(TokioIo::new(stream), answer)
                                .await;
                        });
                    }
                    Ok(_) => tracing::warn!("status port: too many connections"),
                    Err(error) => {
                        tracing::warn!(%error, "status port: accepting failed");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        })
    }

    async fn answer(&self, request: &Request<Incoming>, peer: SocketAddr, port: u16) -> Response<Answer> {
        let is_local = peer.ip().to_canonical().is_loopback();
        let is_post = request.method() == Method::POST;
        match request.uri().path() {
            "/healthz/ready" => match self.readiness.check().await {
                Ok(()) => text(StatusCode::OK, Bytes::new()),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            "/stats/prometheus" | "/metrics" => {
                let merged = self.scrape.merged(request.uri().query(), request.headers(), &self.metrics).await;
                merged.map(|parts| StreamBody::new(parts.map(|part| Ok(Frame::data(part)))).boxed_unsync())
            }
            path if probes::is_probe(path) => {
                let (status, body) = self.probes.ask(path, port, request.headers()).await;
                text(status, body)
            }
            "/quitquitquit" | "/drain" | "/debug/ndsz" if !is_local => {
                text(StatusCode::FORBIDDEN, "Only requests from localhost are allowed")
            }
            "/quitquitquit" | "/drain" if !is_post => text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
            "/quitquitquit" => self.order(Order::Quit).await,
            "/drain" => self.order(Order::Drain).await,
            "/debug/ndsz" => match self.readiness.names() {
                Some(table) => text(StatusCode::OK, json!(table.iter().collect::<BTreeMap<_, _>>()).to_string()),
                None => text(StatusCode::NOT_FOUND, "{}"),
            },
            _ => text(StatusCode::NOT_FOUND, HELP),
        }
    }

    async fn order(&self, order: Order) -> Response<Answer> {
        tracing::info!(?order, "ordered on the status port");
        match self.orders.send(order).await {
            Ok(()) => text(StatusCode::OK, "OK"),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the proxy has ended"),
        }
    }
}

type Answer = UnsyncBoxBody<Bytes, Infallible>;

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Full::new(text.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_with_everything() {
        let all = [
            ("cluster_manager.cds.update_success", 1),
            ("listener_manager.lds.update_success", 1),
            ("server.state", 0),
            ("listener_manager.workers_started", 1),
        ];
        let of = |stats: &[(&str, u64)]| verdict(&stats.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect());
        assert_eq!(of(&all), Ok(()));
        for without in 0..all.len() {
            let mut some = all.to_vec();
            some.remove(without);
            assert!(of(&some).is_err(), "ready without {}", all[without].0);
        }
        assert!(of(&[("cluster_manager.cds.update_rejected", 2)]).unwrap_err().contains("rejected"));
        assert!(of(&[]).unwrap_err().contains("does it run"));
        let mut initializing = all;
        initializing[2].1 = 3;
        assert!(of(&initializing).unwrap_err().contains("not live"));
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn orders_and_answers() {
        use tokio::io::AsyncWriteExt;
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let readiness = Arc::new(Readiness::new(Admin::new(([127, 0, 0, 1], 1).into())));
        let probes = Probes::new(None, address.ip(), false).unwrap();
        let (orders, mut ordered) = mpsc::channel(4);
        let scrape = Scrape::new(1, None, address.port()).unwrap();
        let status = Status::new(readiness, probes, scrape, Metrics::default(), orders);
        let serving = tokio::spawn(status.serve(address).await.unwrap());
        // Some who connect and say nothing, or nonsense.
        let mut silent = Vec::new();
        for n in 0..200u8 {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(&[n; 64]).await.unwrap();
            }
            silent.push(stream);
        }
        for (request, want) in [
            ("GET /healthz/ready", "HTTP/1.1 503"),
            ("GET /app-health/a/livez", "HTTP/1.1 400"),
            ("GET /quitquitquit", "HTTP/1.1 405"),
            ("POST /quitquitquit", "HTTP/1.1 200"),
            ("POST /drain", "HTTP/1.1 200"),
            ("GET /etc/passwd", "HTTP/1.1 404"),
        ] {
            let answer = exchange(address, request).await;
            assert!(answer.starts_with(want), "{request}: {answer}");
        }
        assert_eq!((ordered.recv().await, ordered.recv().await), (Some(Order::Quit), Some(Order::Drain)));
        let metrics = exchange(address, "GET /stats/prometheus").await;
        assert!(metrics.contains("istio_agent_scrapes_total 1"), "{metrics}");
        serving.abort();
    }
}
