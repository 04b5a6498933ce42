//! The routes of the webhook as one tower service: it takes requests and gives responses and knows no socket.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tower_service::Service;

use crate::review::{self, Review};

/// The largest review that is read, in bytes: an object and its old version, each of etcd's largest size, twice over for
/// the envelope, as the apiserver itself limits a request.
pub const MAX_BODY: usize = 6 * 1024 * 1024;

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
                let response = review.request.as_ref().map(|request| admit.admit(request, rest)).unwrap_or_default();
                review.answer(response)
            }
            Err(answer) => *answer,
        })
    }

    /// The answer to an HTTP request: 200 with a review for every review that could be received, however malformed.
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
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return plain(StatusCode::PAYLOAD_TOO_LARGE, format!("a review has at most {MAX_BODY} bytes"));
            }
            Err(error) => return plain(StatusCode::BAD_REQUEST, format!("the review could not be received: {error}")),
        };
        let Some(review) = self.answer(head.uri.path(), &body) else {
            return plain(StatusCode::NOT_FOUND, format!("no webhook at {}", head.uri.path()));
        };
        let mut response = Response::new(Full::from(serde_json::json!(review).to_string()));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response
    }
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
