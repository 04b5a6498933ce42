//! The routes of the webhook as one tower service: it takes requests and gives responses and knows no socket.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tower_service::Service;

use crate::review::{self, Review};

/// The largest review that is read, in bytes: an object and its old version, each of etcd's largest size, twice over for
/// the envelope, as the apiserver itself limits a request.
pub const MAX_BODY: usize = 6 * 1024 * 1024;

/// What of a larger one is still received, and thrown away: who gets an answer before everything is sent may see a broken
/// connection instead.
const MAX_DISCARDED: usize = 4 * MAX_BODY;

/// Answers reviews of one path.
pub trait Admit: Send + Sync + 'static {
    /// The answer to a request. `path` is what follows the route, such as `/cluster/c1/net/n1`, or empty.
    fn admit(&self, request: &review::Request, path: &str) -> review::Response;
}

/// A webhook: routes, each with what answers there.
///
/// ```
/// use mesh_webhook::{Config, Injector, Webhook};
///
/// let hook = Webhook::new().route("/inject", Injector::new(Config::default()));
/// let answer = hook.answer("/inject", br#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
///     "request": {"uid": "1", "namespace": "shop", "object": {"spec": {"containers": [{"name": "app"}]}}}}"#);
/// let response = answer.unwrap().response.unwrap();
/// assert!(response.allowed && response.patch.is_some());
/// ```
#[derive(Clone, Default)]
pub struct Webhook {
    routes: BTreeMap<String, Arc<dyn Admit>>,
}

impl Webhook {
    /// A webhook without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers at a path and everything below it.
    #[must_use]
    pub fn route(mut self, path: &str, admit: impl Admit) -> Self {
        self.routes.insert(path.trim_end_matches('/').to_owned(), Arc::new(admit));
        self
    }

    /// The answer to a review at a path; none where no route is.
    pub fn answer(&self, path: &str, body: &[u8]) -> Option<Review> {
        let (admit, rest) = self.routes.iter().find_map(|(route, admit)| {
            let rest = path.strip_prefix(route.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((admit, rest))
        })?;
        Some(match Review::read(body) {
            Ok(review) => {
                let response = review.request.as_ref().map(|request| answer(admit.as_ref(), request, rest));
                review.answer(response.unwrap_or_default())
            }
            Err(answer) => *answer,
        })
    }

    /// The answer to an HTTP request: 200 with a review for every review that could be received, however malformed. The
    /// response bears the review's [`Outcome`](review::Outcome) as an extension.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview".to_owned());
        }
        let json = head.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
            value.to_str().is_ok_and(|value| value.split(';').next().map(str::trim) == Some("application/json"))
        });
        if !json {
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json".to_owned());
        }
        let body = match receive(body).await {
            Ok(Some(body)) => body,
            Ok(None) => return plain(StatusCode::PAYLOAD_TOO_LARGE, format!("a review has at most {MAX_BODY} bytes")),
            Err(error) => {
                let error = error.into();
                return plain(StatusCode::BAD_REQUEST, format!("the review could not be received: {error}"));
            }
        };
        let Some(review) = self.answer(head.uri.path(), &body) else {
            return plain(StatusCode::NOT_FOUND, format!("no webhook at {}", head.uri.path()));
        };
        let outcome = review.response.as_ref().map(|response| response.outcome).unwrap_or_default();
        let text = match serde_json::to_vec(&review) {
            Ok(text) => text,
            // Texts and flags, which JSON can always hold.
            Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        let mut response = Response::new(Full::from(text));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response.extensions_mut().insert(outcome);
        response
    }
}

/// What the service says. A defect of ours ends one review, never the connection with all that is under way on it.
fn answer(admit: &dyn Admit, request: &review::Request, path: &str) -> review::Response {
    catch_unwind(AssertUnwindSafe(|| admit.admit(request, path))).unwrap_or_else(|_| {
        review::Response::deny(500, "the webhook failed at this object, which is its defect; see its log")
    })
}

/// The body; none where it is too large.
async fn receive<B: http_body::Body>(body: B) -> Result<Option<Bytes>, B::Error> {
    let mut body = std::pin::pin!(body);
    let mut received = Vec::with_capacity(usize::try_from(body.size_hint().lower()).unwrap_or(0).min(MAX_BODY));
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame?.into_data() else { continue };
        length += data.remaining();
        if length > MAX_DISCARDED {
            break;
        }
        while length <= MAX_BODY && data.has_remaining() {
            let chunk = data.chunk();
            received.extend_from_slice(chunk);
            let read = chunk.len();
            data.advance(read);
        }
    }
    Ok((length <= MAX_BODY).then(|| received.into()))
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

impl<B> Service<Request<B>> for Webhook
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let hook = self.clone();
        Box::pin(async move { Ok(hook.handle(request).await) })
    }
}
