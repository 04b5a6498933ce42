//! HTTP/2 over a Unix socket, for the Envoy beside us: secrets and configuration.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Envoy needs a handful. More than this is no Envoy, and gets no answer.
const MOST_CONNECTIONS: usize = 256;
const MOST_STREAMS: u32 = 256;
/// What a peer may have sent that we have not passed on.
const WINDOW: u32 = 256 * 1024;
/// A client that says nothing for so long after connecting has nothing to say.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// A Unix socket that is bound.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket, with the folders above it. One that nobody serves any more is replaced.
    ///
    /// # Errors
    /// When that fails, or another process serves the socket.
    pub fn bind(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if is_served(&path) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket"));
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// Serves until it is dropped. Every connection has its own task, which ends with this future.
    pub async fn serve<S, B, F>(self, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future = F> + Clone + Send + 'static,
        F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) if connections.len() < MOST_CONNECTIONS => {
                    connections.spawn(serve_one(stream, service.clone()));
                }
                Ok(_) => tracing::warn!(path = ?self.path, "too many connections"),
                Err(error) => {
                    tracing::warn!(%error, path = ?self.path, "accepting failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Without us it would only be in the way.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve_one<S, B, F>(stream: UnixStream, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future = F>,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !matches!(tokio::time::timeout(FIRST_WORD, stream.readable()).await, Ok(Ok(()))) {
        return;
    }
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(MOST_STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_send_buf_size(64 * 1024);
    // A client that breaks off is its own matter.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// True where a process answers at this socket.
pub fn is_served(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/socket");
        let first = Socket::bind(&path).unwrap();
        assert_eq!(Socket::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        // As a process leaves it that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::bind(&path).unwrap());
    }
}
