//! The pod's DNS: names of the mesh are answered from what the control plane knows, at once and without anybody else; all others
//! go to the servers of `/etc/resolv.conf` as they came, and what those answer is kept for a while.
//!
//! [`Table`], [`answer()`] and [`Cache`] are pure. The shell is [`Server`]: UDP and TCP on port 15053, to which the interception
//! rules bring the application's questions.

mod answer;
mod cache;
mod forward;
pub mod names;
mod resolv;
mod table;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub use answer::{answer, encode, failure};
pub use cache::{Cache, Key};
pub use forward::Forwarder;
pub use resolv::Resolv;
pub use table::Table;

use crate::metrics::Metrics;

/// Questions that may wait for other servers at the same time.
const MOST_WAITING: usize = 1024;
/// Clients of TCP at the same time.
const MOST_CONNECTIONS: usize = 128;
/// How long a client of TCP may say nothing.
const IDLE: Duration = Duration::from_secs(10);
/// The longest message of DNS.
const LONGEST: usize = u16::MAX as usize;

/// What the server answers from; `None` until the control plane has told the names.
pub type Tables = watch::Receiver<Option<Arc<Table>>>;

/// A DNS server whose sockets are bound.
#[derive(Debug)]
pub struct Server {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tables: Tables,
    cache: Mutex<Cache>,
    forward: Forwarder,
    waiting: Semaphore,
    metrics: Metrics,
}

/// How a question came, and so how long the answer may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// The addresses to listen on: those of a literal address, or loopback of each family that the pod's name servers have.
pub fn addresses(address: &str, resolv: &Resolv) -> Option<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Some(vec![address]);
    }
    let port = address.strip_prefix("localhost:")?.parse().ok()?;
    let has = |v6: bool| resolv.servers.iter().any(|server| server.is_ipv6() == v6);
    let mut addresses: Vec<IpAddr> = Vec::new();
    addresses.extend((has(false) || resolv.servers.is_empty()).then_some(IpAddr::from(Ipv4Addr::LOCALHOST)));
    addresses.extend(has(true).then_some(IpAddr::from(Ipv6Addr::LOCALHOST)));
    Some(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

impl Server {
    /// Binds UDP and TCP on each address.
    ///
    /// # Errors
    /// When one cannot be had.
    pub async fn bind(
        addresses: &[SocketAddr],
        tables: Tables,
        forward: Forwarder,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for address in addresses {
            let listener = TcpListener::bind(address).await?;
            // The same port, also where any free one was asked for.
            udp.push(UdpSocket::bind(listener.local_addr()?).await?);
            tcp.push(listener);
        }
        let (cache, waiting) = (Mutex::default(), Semaphore::new(MOST_WAITING));
        Ok(Self { udp, tcp, shared: Arc::new(Shared { tables, cache, forward, waiting, metrics }) })
    }

    /// The addresses that were bound.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok())
    }

    /// Serves until dropped.
    pub async fn run(self) {
        let mut all = JoinSet::new();
        for socket in self.udp {
            all.spawn(serve_udp(Arc::new(socket), self.shared.clone()));
        }
        for listener in self.tcp {
            all.spawn(serve_tcp(listener, self.shared.clone()));
        }
        while all.join_next().await.is_some() {}
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut waiting = JoinSet::new();
    let mut buffer = [0; 4096];
    loop {
        // Those who wait for others are collected now and then; nobody waits for them here.
        while waiting.try_join_next().is_some() {}
        let received = socket.recv_from(&mut buffer).await;
        let (length, from) = match received {
            Ok(received) => received,
            Err(error) => {
                // Such as a client's port that is closed again, told by ICMP.
                tracing::debug!(%error, "DNS over UDP");
                continue;
            }
        };
        let Some(bytes) = buffer.get(..length) else { continue };
        match shared.at_once(bytes, Transport::Udp) {
            Reply::Now(answer) => {
                // Lost answers are asked for again; that is UDP.
                let _ = socket.send_to(&answer, from).await;
            }
            Reply::Later(question) => {
                let (socket, shared) = (socket.clone(), shared.clone());
                waiting.spawn(async move {
                    let answer = shared.later(question, Transport::Udp).await;
                    let _ = socket.send_to(&answer, from).await;
                });
            }
            Reply::None => {}
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < MOST_CONNECTIONS => {
                let shared = shared.clone();
                // A client that breaks off or is silent is its own matter.
                connections.spawn(async move { drop(serve_stream(stream, &shared).await) });
            }
            Ok(_) => tracing::warn!("DNS over TCP: too many connections"),
            Err(error) => {
                tracing::warn!(%error, "DNS over TCP: accepting failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_stream(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let question = timeout(IDLE, read_message(&mut stream)).await??;
        let answer = match shared.at_once(&question, Transport::Tcp) {
            Reply::Now(answer) => answer,
            Reply::Later(question) => shared.later(question, Transport::Tcp).await,
            Reply::None => return Ok(()),
        };
        timeout(IDLE, write_message(&mut stream, &answer)).await??;
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::other("too long for DNS"))?;
    // Both at once: some clients read the length and expect the rest with it.
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// What to do with a question.
enum Reply {
    Now(Vec<u8>),
    Later(Box<Question>),
    /// It was none.
    None,
}

/// A question for other servers.
struct Question {
    message: Message,
    bytes: Vec<u8>,
    key: Option<Key>,
}

impl Shared {
    fn at_once(&self, bytes: &[u8], transport: Transport) -> Reply {
        let Ok(message) = Message::from_vec(bytes) else { return Reply::None };
        // Who answers answers starts a quarrel without end.
        if message.metadata.message_type != hickory_proto::op::MessageType::Query {
            return Reply::None;
        }
        self.metrics.dns_asked();
        let most = most(&message, transport);
        let now = |answer: &Message| Reply::Now(encode(answer, most));
        let Some(table) = self.tables.borrow().clone() else { return now(&failure(&message)) };
        if message.queries.is_empty() {
            return now(&failure(&message));
        }
        if let Some(answer) = answer(&table, &message, fastrand::usize(..)) {
            return now(&answer);
        }
        let key = Key::of(&message);
        let known = key.as_ref().and_then(|key| self.cache().get(key, &message, Instant::now().into_std()));
        match known {
            Some(answer) => now(&answer),
            None => Reply::Later(Box::new(Question { message, bytes: bytes.to_vec(), key })),
        }
    }

    async fn later(&self, question: Box<Question>, transport: Transport) -> Vec<u8> {
        let most = most(&question.message, transport);
        let Ok(_waiting) = self.waiting.try_acquire() else { return encode(&failure(&question.message), most) };
        self.metrics.dns_forwarded();
        let over_tcp = transport == Transport::Tcp;
        let Some(bytes) = self.forward.ask(&question.message, &question.bytes, over_tcp).await else {
            self.metrics.dns_failed();
            return encode(&failure(&question.message), most);
        };
        if let (Some(key), Ok(answer)) = (question.key, Message::from_vec(&bytes)) {
            self.cache().put(key, answer, Instant::now().into_std());
        }
        // As it came, but for the size that this client can take.
        match Message::from_vec(&bytes) {
            Ok(answer) if bytes.len() > most.into() => encode(&answer, most),
            _ => bytes,
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn most(question: &Message, transport: Transport) -> u16 {
    match transport {
        Transport::Udp => question.max_payload(),
        Transport::Tcp => LONGEST as u16,
    }
}

#[cfg(test)]
mod tests;
