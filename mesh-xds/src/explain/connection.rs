//! From a connection to a filter chain: the listener that has the address, what its listener filters can see, and the sieve
//! by which Envoy picks a chain, each criterion keeping only the best matches and, if none matches, those that leave
//! it out. There is no way back: a chain dropped by an earlier criterion stays dropped.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::transport_socket;
use envoy_types::pb::envoy::config::core::v3::{Address, CidrRange, TransportSocket, address, socket_address};
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, ListenerFilterChainMatchPredicate, listener_filter,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use super::origin::written;
use super::{Direction, ErrorKind, Explanation, Protocol, Request, Resources, Tls};

/// The chain that takes the connection.
pub(super) struct Chain<'a> {
    pub(super) name: String,
    pub(super) filters: &'a [Filter],
    pub(super) terminal: Terminal,
}

/// What the chain ends in.
pub(super) enum Terminal {
    Http(Box<HttpConnectionManager>),
    Tcp(Box<TcpProxy>),
    None,
}

/// Decodes an `Any` if it is an `M`.
pub(super) fn unpack<M: Message + Name + Default>(any: &Any) -> Option<M> {
    (any.type_url == M::type_url()).then(|| M::decode(any.value.as_slice()).ok()).flatten()
}

/// The configuration of a filter, if it is an `M`.
pub(super) fn filter_config<M: Message + Name + Default>(filter: &Filter) -> Option<M> {
    match filter.config_type.as_ref()? {
        ConfigType::TypedConfig(any) => unpack(any),
        ConfigType::ConfigDiscovery(_) => None,
    }
}

/// Finds listener and chain and lets the connection in, or says why not.
pub(super) fn accept<'a>(resources: &'a Resources, request: &Request, out: &mut Explanation) -> Option<Chain<'a>> {
    let Some((listener, why)) = listener(&resources.listeners, request) else {
        let what = match request.direction {
            Direction::Inbound => "the proxy has no listener virtualInbound".to_owned(),
            _ => format!(
                "nothing listens on {}:{}, on port {} of all addresses, or as virtualOutbound",
                request.address, request.port, request.port
            ),
        };
        out.fail(ErrorKind::NoListener, "listener", what);
        return None;
    };
    out.listener = Some(listener.name.clone());
    out.step("listener", &listener.name, why, written(listener.metadata.as_ref()));

    let seen = Seen::of(listener, request);
    let chain = match choose(listener, request, &seen) {
        Ok((chain, why)) => {
            out.filter_chain = Some(chain.name.clone()).filter(|n| !n.is_empty());
            out.step("filterChain", &chain.name, why, written(chain.metadata.as_ref()));
            chain
        }
        Err((error, why)) => {
            out.fail(error, "filterChain", why);
            return None;
        }
    };
    check_tls(chain, request, out).then(|| Chain {
        name: chain.name.clone(),
        filters: &chain.filters,
        terminal: terminal(&chain.filters),
    })
}

fn terminal(filters: &[Filter]) -> Terminal {
    for filter in filters {
        if let Some(hcm) = filter_config(filter) {
            return Terminal::Http(Box::new(hcm));
        }
        if let Some(proxy) = filter_config(filter) {
            return Terminal::Tcp(Box::new(proxy));
        }
    }
    Terminal::None
}

fn listener<'a>(listeners: &'a [Listener], request: &Request) -> Option<(&'a Listener, String)> {
    if request.direction == Direction::Inbound {
        let why = "iptables redirects inbound connections to it".to_owned();
        return listeners.iter().find(|l| l.name == "virtualInbound").map(|l| (l, why));
    }
    let (address, port) = (request.address, request.port);
    let at = |wanted: &dyn Fn(IpAddr) -> bool| {
        listeners.iter().find(|l| addresses(l).any(|(a, p)| p == u32::from(port) && wanted(a)))
    };
    if let Some(exact) = at(&|a| a == address) {
        return Some((exact, format!("it has the address {address}:{port}")));
    }
    let same_family = |a: IpAddr| a.is_unspecified() && a.is_ipv4() == address.is_ipv4();
    if let Some(all) = at(&same_family).or_else(|| at(&|a| a.is_unspecified())) {
        return Some((all, format!("it has port {port} of all addresses, and no listener has {address}:{port}")));
    }
    let why = format!("no listener has {address}:{port} or port {port} of all addresses");
    listeners.iter().find(|l| l.name == "virtualOutbound").map(|l| (l, why))
}

/// The TCP addresses of a listener.
fn addresses(listener: &Listener) -> impl Iterator<Item = (IpAddr, u32)> + '_ {
    let more = listener.additional_addresses.iter().filter_map(|additional| additional.address.as_ref());
    listener.address.iter().chain(more).filter_map(tcp_address)
}

fn tcp_address(a: &Address) -> Option<(IpAddr, u32)> {
    match a.address.as_ref()? {
        address::Address::SocketAddress(s) if s.protocol == socket_address::Protocol::Tcp as i32 => {
            match s.port_specifier.as_ref()? {
                socket_address::PortSpecifier::PortValue(port) => Some((s.address.parse().ok()?, *port)),
                socket_address::PortSpecifier::NamedPort(_) => None,
            }
        }
        _ => None,
    }
}

/// What the listener filters find out about the connection.
struct Seen {
    transport: &'static str,
    sni: String,
    alpn: String,
}

impl Seen {
    fn of(listener: &Listener, request: &Request) -> Self {
        let inspects_tls = has_filter(listener, "tls_inspector", "TlsInspector", request.port);
        let inspects_http = has_filter(listener, "http_inspector", "HttpInspector", request.port);
        if request.is_tls() && inspects_tls {
            let alpn = match (request.alpn.as_str(), request.protocol) {
                ("", Protocol::MtlsHttp) => "istio-http/1.1",
                ("", Protocol::MtlsTcp) => "istio",
                (given, _) => given,
            };
            return Self { transport: "tls", sni: request.server_name().to_ascii_lowercase(), alpn: alpn.to_owned() };
        }
        let alpn = match request.protocol {
            Protocol::Http if inspects_http => "http/1.1",
            Protocol::Http2 if inspects_http => "h2c",
            _ => "",
        };
        Self { transport: "raw_buffer", sni: String::new(), alpn: alpn.to_owned() }
    }
}

/// The host without its port, if it has one.
pub(super) fn host_without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.chars().all(|c| c.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

fn has_filter(listener: &Listener, name: &str, message: &str, port: u16) -> bool {
    let is_it = |filter: &&ListenerFilter| match &filter.config_type {
        Some(listener_filter::ConfigType::TypedConfig(any)) => any.type_url.ends_with(message),
        _ => filter.name.ends_with(name),
    };
    let disabled = |f: &ListenerFilter| f.filter_disabled.as_ref().is_some_and(|p| predicate(p, port));
    listener.listener_filters.iter().find(is_it).is_some_and(|f| !disabled(f))
}

fn predicate(p: &ListenerFilterChainMatchPredicate, port: u16) -> bool {
    match &p.rule {
        Some(Rule::OrMatch(set)) => set.rules.iter().any(|p| predicate(p, port)),
        Some(Rule::AndMatch(set)) => set.rules.iter().all(|p| predicate(p, port)),
        Some(Rule::NotMatch(p)) => !predicate(p, port),
        Some(Rule::AnyMatch(any)) => *any,
        Some(Rule::DestinationPortRange(range)) => (range.start..range.end).contains(&i32::from(port)),
        None => false,
    }
}

type Failure = (ErrorKind, String);

fn choose<'a>(listener: &'a Listener, request: &Request, seen: &Seen) -> Result<(&'a FilterChain, String), Failure> {
    static ANY: FilterChainMatch = FilterChainMatch {
        destination_port: None,
        prefix_ranges: Vec::new(),
        address_suffix: String::new(),
        suffix_len: None,
        direct_source_prefix_ranges: Vec::new(),
        source_type: 0,
        source_prefix_ranges: Vec::new(),
        source_ports: Vec::new(),
        server_names: Vec::new(),
        transport_protocol: String::new(),
        application_protocols: Vec::new(),
    };
    let mut left: Vec<(&FilterChain, &FilterChainMatch)> =
        listener.filter_chains.iter().map(|c| (c, c.filter_chain_match.as_ref().unwrap_or(&ANY))).collect();
    let source: Option<IpAddr> = request.source_ip.parse().ok();
    let local = source.is_some_and(|s| s.is_loopback() || s == request.address);
    let mut stuck = "";

    // A criterion ranks a match: None = the chain leaves it out, Some(0) = it does not match, else the higher the better.
    type Criterion<'c> = (&'static str, Box<dyn Fn(&FilterChainMatch) -> Option<usize> + 'c>);
    let criteria: [Criterion<'_>; 8] = [
        (
            "destination port",
            Box::new(|m| m.destination_port.as_ref().map(|p| usize::from(p.value == u32::from(request.port)))),
        ),
        ("destination address", Box::new(|m| best_prefix(&m.prefix_ranges, Some(request.address)))),
        ("server name", Box::new(|m| best_name(&m.server_names, &seen.sni))),
        ("transport protocol", Box::new(|m| some(&m.transport_protocol).map(|t| usize::from(t == seen.transport)))),
        (
            "application protocol",
            Box::new(|m| {
                (!m.application_protocols.is_empty()).then(|| usize::from(m.application_protocols.contains(&seen.alpn)))
            }),
        ),
        ("direct source address", Box::new(|m| best_prefix(&m.direct_source_prefix_ranges, source))),
        (
            "source type",
            Box::new(|m| match ConnectionSourceType::try_from(m.source_type) {
                Ok(ConnectionSourceType::SameIpOrLoopback) => Some(usize::from(local)),
                Ok(ConnectionSourceType::External) => Some(usize::from(!local)),
                _ => None,
            }),
        ),
        ("source address", Box::new(|m| best_prefix(&m.source_prefix_ranges, source))),
    ];
    for (name, rank) in &criteria {
        let best = left.iter().filter_map(|(_, m)| rank(m)).max().filter(|rank| *rank > 0);
        left.retain(|(_, m)| rank(m) == best);
        if left.is_empty() && stuck.is_empty() {
            stuck = name;
        }
    }
    match (left.as_slice(), &listener.default_filter_chain) {
        ([(chain, found)], _) => Ok((chain, describe(found, seen))),
        ([], Some(default)) => {
            let why = if stuck.is_empty() { "it is the default".to_owned() } else { no_match(stuck, request, seen) };
            Ok((default, format!("{why}: the default filter chain")))
        }
        ([], None) => Err((ErrorKind::NoFilterChain, no_match(stuck, request, seen))),
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|(chain, _)| chain.name.as_str()).collect();
            Err((ErrorKind::MultipleFilterChains, format!("these match equally well: {}", names.join(", "))))
        }
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn no_match(criterion: &str, request: &Request, seen: &Seen) -> String {
    let value = match criterion {
        "destination port" => request.port.to_string(),
        "destination address" => request.address.to_string(),
        "server name" => format!("{:?}", seen.sni),
        "transport protocol" => seen.transport.to_owned(),
        "application protocol" => format!("{:?}", seen.alpn),
        _ => some(&request.source_ip).unwrap_or("unknown").to_owned(),
    };
    match criterion {
        "" => "there is no filter chain".to_owned(),
        _ => format!("no filter chain matches the {criterion} {value}"),
    }
}

fn describe(m: &FilterChainMatch, seen: &Seen) -> String {
    let mut parts = Vec::new();
    if let Some(port) = &m.destination_port {
        parts.push(format!("destination port {}", port.value));
    }
    if !m.prefix_ranges.is_empty() {
        let ranges = m.prefix_ranges.iter().map(|r| format!("{}/{}", r.address_prefix, prefix_len(r)));
        parts.push(format!("destination in {}", ranges.collect::<Vec<_>>().join(", ")));
    }
    if !m.server_names.is_empty() {
        parts.push(format!("server name {:?} in {}", seen.sni, m.server_names.join(", ")));
    }
    if !m.transport_protocol.is_empty() {
        parts.push(format!("transport {}", m.transport_protocol));
    }
    if !m.application_protocols.is_empty() {
        parts.push(format!("application protocol {:?}", seen.alpn));
    }
    if !m.source_prefix_ranges.is_empty() || !m.direct_source_prefix_ranges.is_empty() {
        parts.push("source address".to_owned());
    }
    match parts.is_empty() {
        true => "it takes what no other chain takes".to_owned(),
        false => format!("it matches {}", parts.join("; ")),
    }
}

fn prefix_len(range: &CidrRange) -> u32 {
    range.prefix_len.as_ref().map_or(0, |l| l.value)
}

/// The longest matching prefix. A range of all addresses is the same as none for Envoy.
fn best_prefix(ranges: &[CidrRange], address: Option<IpAddr>) -> Option<usize> {
    if ranges.is_empty() {
        return None;
    }
    let fits = |r: &&CidrRange| match address {
        Some(a) => in_range(r, a),
        None => prefix_len(r) == 0,
    };
    match ranges.iter().filter(fits).map(prefix_len).max() {
        Some(0) => None,
        Some(len) => Some(len as usize),
        None => Some(0),
    }
}

pub(super) fn in_range(range: &CidrRange, address: IpAddr) -> bool {
    let len = prefix_len(range);
    match (range.address_prefix.parse::<IpAddr>(), address) {
        (Ok(IpAddr::V4(p)), IpAddr::V4(a)) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(len)).unwrap_or(0);
            p.to_bits() & mask == a.to_bits() & mask
        }
        (Ok(IpAddr::V6(p)), IpAddr::V6(a)) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(len)).unwrap_or(0);
            p.to_bits() & mask == a.to_bits() & mask
        }
        _ => false,
    }
}

/// Exact before the longest wildcard suffix before `*`.
fn best_name(names: &[String], sni: &str) -> Option<usize> {
    let rank = |name: &String| {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix('*') {
            Some("") => 1,
            Some(suffix) if sni.len() > suffix.len() && sni.ends_with(suffix) => name.len(),
            None if name == sni => usize::MAX,
            _ => 0,
        }
    };
    names.iter().map(rank).max()
}

/// The TLS of the chain against that of the connection.
fn check_tls(chain: &FilterChain, request: &Request, out: &mut Explanation) -> bool {
    let context = chain.transport_socket.as_ref().and_then(downstream);
    if let Some(context) = &context {
        let tls = Tls {
            secret: first_secret(context),
            require_client_certificate: context.require_client_certificate.as_ref().is_some_and(|r| r.value),
        };
        let because = match tls.require_client_certificate {
            true => "the chain terminates TLS and demands a client certificate",
            false => "the chain terminates TLS",
        };
        out.step("tls", &tls.secret, because, None);
        out.tls = Some(tls);
    }
    let identity = some(&request.mtls_secret).unwrap_or("default");
    let is_mesh = out.tls.as_ref().is_some_and(|t| t.require_client_certificate && t.secret == identity);
    if context.is_some() && !request.is_tls() {
        out.fail(ErrorKind::TlsError, "tls", "the request comes in plaintext");
        return false;
    }
    if context.is_some() && is_mesh != request.is_mtls() {
        let why = match is_mesh {
            true => "the client shows no mesh certificate",
            false => "the client speaks mesh mTLS, the chain terminates other TLS",
        };
        out.fail(ErrorKind::MtlsError, "tls", why);
        return false;
    }
    let speaks_http = chain.filters.iter().any(|f| filter_config::<HttpConnectionManager>(f).is_some());
    if speaks_http && request.is_tls() && context.is_none() {
        out.fail(ErrorKind::ProtocolError, "tls", "the chain speaks HTTP and does not terminate the request's TLS");
        return false;
    }
    if speaks_http && !request.is_http() {
        out.fail(ErrorKind::ProtocolError, "tls", "the chain speaks HTTP, the connection does not");
        return false;
    }
    true
}

fn downstream(socket: &TransportSocket) -> Option<DownstreamTlsContext> {
    match socket.config_type.as_ref()? {
        transport_socket::ConfigType::TypedConfig(any) => unpack(any),
    }
}

fn first_secret(context: &DownstreamTlsContext) -> String {
    let secrets = context.common_tls_context.iter().flat_map(|c| &c.tls_certificate_sds_secret_configs);
    secrets.map(|s| s.name.clone()).next().unwrap_or_default()
}
