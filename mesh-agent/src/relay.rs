//! Envoy's configuration stream, passed on to the control plane: Envoy speaks to a Unix socket without knowing who it is, and
//! the agent adds TLS and the proof of identity.
//!
//! HTTP/2 bodies are handed from one connection to the other frame by frame, so a message is never collected, decoded or
//! copied, and a slow side holds back the other through HTTP/2's own flow control. Envoy's requests arrive as it wrote them:
//! after a break it says itself which resources it has (`initial_resource_versions`), and is sent only what has changed.
//!
//! While the control plane is away, Envoy's call waits here instead of failing, and Envoy serves what it has.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, Version};
use http_body_util::{Either, Empty};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tonic::Code;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::endpoint::{ConnectError, Endpoint, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT};
use crate::metrics::{Counting, Metrics};
use crate::unix::Socket;

const SERVICE: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";
/// What the control plane may send before Envoy takes it.
const WINDOW: u32 = 512 * 1024;

/// Passes streams on to the control plane.
#[derive(Debug)]
pub struct Relay {
    upstream: Endpoint,
    metrics: Metrics,
}

type Answer = Response<Either<Streaming, Empty<Bytes>>>;

/// What the control plane sends, for as long as it does.
struct Streaming {
    body: Incoming,
    address: String,
    _counted: Counting,
}

impl Body for Streaming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        info!(address = self.address, "the stream of configuration has ended");
    }
}

impl Relay {
    /// A relay to this control plane.
    pub fn new(upstream: Endpoint, metrics: Metrics) -> Self {
        Self { upstream, metrics }
    }

    /// Serves until dropped.
    pub async fn serve(self, socket: Socket) {
        let relay = Arc::new(self);
        let service = service_fn(move |request| {
            let relay = relay.clone();
            async move { Ok::<_, Infallible>(relay.answer(request).await) }
        });
        socket.serve(service).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if !request.uri().path().starts_with(SERVICE) {
            return refusal(Code::Unimplemented);
        }
        let (mut sender, headers) = self.connected().await;
        let answered =
            async { Ok::<_, RelayError>(sender.send_request(self.upstream_request(request, headers)?).await?) };
        match answered.await {
            Ok(response) => {
                let (address, counted) = (self.upstream.address.clone(), self.metrics.upstream_connected());
                info!(address, "configuration is relayed");
                response.map(|body| Either::Left(Streaming { body, address, _counted: counted }))
            }
            Err(error) => {
                // It was under way when it broke: Envoy has to begin anew.
                self.metrics.upstream_failed();
                warn!("the control plane broke off: {error}");
                refusal(Code::Unavailable)
            }
        }
    }

    /// A connection for one stream, and the headers that say who we are: as soon as there is one.
    async fn connected(&self) -> (http2::SendRequest<Incoming>, Headers) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match self.connect().await {
                Ok(connected) => return connected,
                Err(error) => {
                    let wait = backoff.next(fastrand::f64());
                    self.metrics.upstream_failed();
                    warn!("no control plane, trying again in {wait:.1?}: {error}");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn connect(&self) -> Result<(http2::SendRequest<Incoming>, Headers), RelayError> {
        let headers = self.upstream.headers()?;
        let connection = self.upstream.connect().await?;
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(64 * 1024);
        let (sender, driver) = http.handshake(connection).await?;
        // The stream itself says how it ended.
        tokio::spawn(async move { drop(driver.await) });
        Ok((sender, headers))
    }

    /// Envoy's call as the control plane gets it: the same body, and our headers.
    fn upstream_request(&self, call: Request<Incoming>, headers: Headers) -> Result<Request<Incoming>, RelayError> {
        let (head, body) = call.into_parts();
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        let scheme = if self.upstream.tls.is_some() { "https" } else { "http" };
        *request.uri_mut() = format!("{scheme}://{}{}", self.upstream.address, head.uri.path()).parse()?;
        for name in [CONTENT_TYPE, TE, USER_AGENT] {
            if let Some(value) = head.headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        for (name, value) in headers {
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }
}

type Headers = Vec<(&'static str, HeaderValue)>;

/// An answer without content.
fn refusal(code: Code) -> Answer {
    let mut refusal = Response::new(Either::Right(Empty::new()));
    refusal.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    refusal.headers_mut().insert("grpc-status", (code as i32).into());
    refusal
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
    #[error("discoveryAddress: {0}")]
    Address(#[from] http::uri::InvalidUri),
}

#[cfg(test)]
mod tests;
