//! Questions for others: sent as they came, from a port of their own each, and answers believed only from whom was asked, with
//! the question that was asked.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::Message;
use tokio::net::{TcpStream, UdpSocket};

use super::{LONGEST, read_message, write_message};

/// Asks other servers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forwarder {
    /// The servers.
    pub servers: Vec<SocketAddr>,
    /// How long one may take (`DNS_FORWARD_TIMEOUT`).
    pub patience: Duration,
    /// Ask all of them at once and take the first answer (`DNS_FORWARD_PARALLEL`).
    pub parallel: bool,
}

impl Forwarder {
    /// Asks these servers one after the other, beginning with any.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, patience: Duration::from_secs(5), parallel: false }
    }

    /// The answer to a question, `bytes` being its text. `None`: nobody answers.
    pub(super) async fn ask(&self, question: &Message, bytes: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let mut servers = self.servers.clone();
        fastrand::shuffle(&mut servers);
        let ask = |server: SocketAddr| async move {
            let asked = async { if over_tcp { tcp(server, bytes).await } else { udp(server, question, bytes).await } };
            let answer = tokio::time::timeout(self.patience, asked).await.unwrap_or_else(|late| Err(late.into()));
            answer.inspect_err(|error| tracing::info!(%server, %error, "a name server does not answer")).ok()
        };
        if self.parallel {
            let mut all: FuturesUnordered<_> = servers.into_iter().map(ask).collect();
            while let Some(answer) = all.next().await {
                if answer.is_some() {
                    return answer;
                }
            }
            return None;
        }
        for server in servers {
            if let Some(answer) = ask(server).await {
                return Some(answer);
            }
        }
        None
    }
}

async fn udp(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        let is_answer = Message::from_vec(answer).is_ok_and(|answer| {
            answer.metadata.id == question.metadata.id
                && (answer.queries == question.queries || answer.queries.is_empty())
        });
        if is_answer {
            return Ok(answer.to_vec());
        }
    }
}

async fn tcp(server: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, bytes).await?;
    read_message(&mut stream).await
}
