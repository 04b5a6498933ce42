//! The bookinfo stand-in: one small HTTP application that plays productpage, details, reviews (v1 to v3) or ratings.
//!
//! It speaks real HTTP to the others by their DNS names and knows nothing of a mesh: that is what makes it a witness.
//! A failed call of its own is a 502 of its own, so that a client at the very front sees every failure.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The port that every part listens on.
pub const PORT: u16 = 9080;

/// Which part the application plays, and in which version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    service: Service,
    version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

impl FromStr for Part {
    type Err = String;
    /// Reads `reviews-v2`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (service, version) = text.rsplit_once('-').ok_or_else(|| format!("{text:?} is not SERVICE-VERSION"))?;
        let service = match service {
            "productpage" => Service::Productpage,
            "details" => Service::Details,
            "reviews" => Service::Reviews,
            "ratings" => Service::Ratings,
            _ => return Err(format!("{service:?} is no part of bookinfo")),
        };
        Ok(Self { service, version: version.to_owned() })
    }
}

/// Headers that belong to the user's request and must follow it, as every application in a mesh passes them on.
const PASSED_ON: [&str; 4] = ["x-request-id", "traceparent", "tracestate", "end-user"];

struct App {
    part: Part,
    pod: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// Serves the part until the process ends. `pod` is what the replies name as their origin.
pub async fn serve(part: Part, pod: String, address: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let app = Arc::new(App { part, pod, client: Client::builder(TokioExecutor::new()).build_http() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let app = app.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let app = app.clone();
                async move { app.answer(request).await }
            });
            // A client that hangs up ends its connection, nothing more.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

impl App {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, http::Error> {
        let (status, body) = if request.uri().path() == "/health" {
            (StatusCode::OK, json!({ "status": "healthy" }))
        } else {
            match self.content(&request).await {
                Ok(Some(content)) => (StatusCode::OK, content),
                Ok(None) => (StatusCode::NOT_FOUND, json!({ "error": "no such page" })),
                Err(error) => (StatusCode::BAD_GATEWAY, json!({ "error": error, "pod": self.pod })),
            }
        };
        let body = Full::new(Bytes::from(body.to_string()));
        Response::builder().status(status).header("content-type", "application/json").body(body)
    }

    /// The page for this part, `None` where it has no such page.
    async fn content(&self, request: &Request<Incoming>) -> Result<Option<Value>, String> {
        let path = request.uri().path();
        let headers = request.headers();
        let of = |service: &str| Some(path.strip_prefix('/')?.strip_prefix(service)?.strip_prefix('/')?.to_owned());
        Ok(match self.part.service {
            Service::Productpage => {
                let id = path.strip_prefix("/api/v1/products/").or((path == "/productpage").then_some("0"));
                let Some(id) = id else { return Ok(None) };
                let (details, reviews) = tokio::try_join!(
                    self.ask(format!("http://details:{PORT}/details/{id}"), headers),
                    self.ask(format!("http://reviews:{PORT}/reviews/{id}"), headers),
                )?;
                Some(self.signed(json!({ "details": details, "reviews": reviews })))
            }
            Service::Details => of("details").map(|id| {
                self.signed(
                    json!({ "id": id, "title": "The Comedy of Errors", "author": "William Shakespeare", "pages": 200 }),
                )
            }),
            Service::Reviews => match of("reviews") {
                Some(id) => Some(self.reviews(&id, headers).await?),
                None => None,
            },
            Service::Ratings => {
                of("ratings").map(|id| self.signed(json!({ "id": id, "ratings": { "Reviewer1": 5, "Reviewer2": 4 } })))
            }
        })
    }

    /// Version 1 has no stars, 2 black ones, 3 red ones.
    async fn reviews(&self, id: &str, headers: &HeaderMap) -> Result<Value, String> {
        let texts =
            [("Reviewer1", "An extremely entertaining play."), ("Reviewer2", "Absolutely fun and entertaining.")];
        let color = match self.part.version.as_str() {
            "v1" => None,
            "v2" => Some("black"),
            _ => Some("red"),
        };
        let ratings = match color {
            Some(_) => self.ask(format!("http://ratings:{PORT}/ratings/{id}"), headers).await?,
            None => Value::Null,
        };
        let reviews = texts.map(|(reviewer, text)| match (color, ratings.pointer(&format!("/ratings/{reviewer}"))) {
            (Some(color), Some(stars)) => json!({ "reviewer": reviewer, "text": text, "stars": stars, "color": color }),
            _ => json!({ "reviewer": reviewer, "text": text }),
        });
        Ok(self.signed(json!({ "id": id, "reviews": reviews, "ratings": ratings.get("pod") })))
    }

    /// The page with who made it.
    fn signed(&self, mut page: Value) -> Value {
        if let Some(page) = page.as_object_mut() {
            page.insert("pod".into(), self.pod.as_str().into());
            page.insert("version".into(), self.part.version.as_str().into());
        }
        page
    }

    async fn ask(&self, url: String, headers: &HeaderMap) -> Result<Value, String> {
        let mut request = Request::get(&url).body(Empty::new()).map_err(|error| error.to_string())?;
        for name in PASSED_ON {
            if let Some(value) = headers.get(name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let answer = self.client.request(request).await.map_err(|error| format!("{url}: {error}"))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| format!("{url}: {error}"))?.to_bytes();
        if status != StatusCode::OK {
            return Err(format!("{url}: {status}: {}", String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_services_in_a_version() {
        let part: Part = "reviews-v2".parse().unwrap();
        assert_eq!(part, Part { service: Service::Reviews, version: "v2".into() });
        for bad in ["reviews", "reviewers-v1", ""] {
            assert!(bad.parse::<Part>().is_err(), "{bad}");
        }
    }
}
