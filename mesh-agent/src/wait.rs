//! `mesh-agent wait`: returns once the proxy is ready. The injector runs it as the proxy's `postStart` hook where the
//! application shall start after the proxy; the kubelet starts no further container before the hook ends.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hyper::Method;
use tokio::time::{Instant, sleep, timeout_at};

use crate::admin::{Admin, AdminError};
use crate::client::ClientError;

/// What to wait for, and how long.
#[derive(Clone, Debug, clap::Args)]
#[non_exhaustive]
pub struct Options {
    /// Port on which the proxy, or the agent, tells whether it is ready
    #[arg(long, default_value_t = 15021, value_name = "PORT")]
    pub port: u16,
    /// Seconds after which to give up
    #[arg(long = "timeoutSeconds", default_value_t = 60, value_name = "SECONDS")]
    pub timeout_seconds: u64,
    /// Milliseconds between two questions
    #[arg(long = "periodMillis", default_value_t = 500, value_name = "MILLISECONDS")]
    pub period_millis: u64,
}

/// Asks until the answer is yes.
///
/// # Errors
/// The last answer, when the time is over.
pub async fn wait(options: &Options) -> anyhow::Result<()> {
    // A pod has one of the two, or both.
    let asked = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        .map(|address| Admin::new(SocketAddr::new(address, options.port)));
    let end = Instant::now() + Duration::from_secs(options.timeout_seconds);
    let mut last = String::new();
    let ready = async {
        loop {
            for admin in asked {
                match admin.call(Method::GET, "/healthz/ready").await {
                    Ok(_) => return,
                    // Of a family that the pod doesn't have, the answer would tell nothing.
                    Err(AdminError::Silent(ClientError::Connect(..))) if !last.is_empty() => {}
                    Err(error) => last = error.to_string(),
                }
            }
            sleep(Duration::from_millis(options.period_millis)).await;
        }
    };
    let waited = timeout_at(end, ready).await;
    waited.map_err(|_| anyhow::anyhow!("not ready after {} s: {last}", options.timeout_seconds))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn it_asks_until_the_proxy_is_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = tokio::spawn(async move {
            for status in ["503 Service Unavailable", "200 OK"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                assert!(request[..length].starts_with(b"GET /healthz/ready "));
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        wait(&Options { port, timeout_seconds: 30, period_millis: 1 }).await.unwrap();
        proxy.await.unwrap();
        // Nobody listens there any more.
        let error = wait(&Options { port, timeout_seconds: 0, period_millis: 1 }).await.unwrap_err();
        assert!(error.to_string().starts_with("not ready after 0 s"), "{error}");
    }
}
