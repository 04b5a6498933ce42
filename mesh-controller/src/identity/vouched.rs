//! The certificate service behind the server of mesh-xds: what is known of the connection is passed on, and nobody may keep
//! us waiting for a request, or send one that is no request for a certificate by its size alone.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use mesh_ca::server::{Metrics, Verified};
use mesh_ca::signer::Later;
use mesh_xds::server::Peer;
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

/// How long the message of a request may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A service of mesh-ca, told what the server of mesh-xds knows of a connection; the two do not know each other.
#[derive(Clone)]
pub(crate) struct Vouched<S> {
    pub(super) service: S,
    pub(super) metrics: Metrics,
}

impl<S: NamedService> NamedService for Vouched<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Vouched<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Later<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let identities = request.extensions().get::<Peer>().map(|peer| peer.identities.clone());
        request.extensions_mut().insert(Verified(identities.unwrap_or_default()));
        let answer = self.service.call(request.map(|body| Body::new(Prompt::new(body))));
        let metrics = self.metrics.clone();
        Box::pin(async move {
            let answer = answer.await?;
            // What tonic refused has not come to the service, which counts the rest.
            Ok(match Status::from_header_map(answer.headers()).map(|status| status.code()) {
                Some(Code::DeadlineExceeded) => {
                    metrics.unreadable();
                    answer
                }
                // The name that all other gRPC servers have for it.
                Some(Code::OutOfRange) => {
                    metrics.unreadable();
                    Status::resource_exhausted("the message is larger than any request for a certificate").into_http()
                }
                _ => answer,
            })
        })
    }
}

/// A body that must come in time.
struct Prompt {
    body: Body,
    deadline: Pin<Box<Sleep>>,
}

impl Prompt {
    fn new(body: Body) -> Self {
        Self { body, deadline: Box::pin(tokio::time::sleep(PATIENCE)) }
    }
}

impl HttpBody for Prompt {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.deadline.as_mut().poll(cx));
        let why = format!("the request did not come within {} s", PATIENCE.as_secs());
        Poll::Ready(Some(Err(Status::deadline_exceeded(why))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
