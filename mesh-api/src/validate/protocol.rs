//! What a port speaks, as far as its name for it tells.

/// Families of protocols that rules depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    HttpProxy,
    Https,
    Tls,
    Tcp,
    /// MongoDB, Redis or MySQL.
    Database,
    Udp,
}

impl Protocol {
    /// By its name in any letter case; none if it isn't known.
    pub(super) fn parse(name: &str) -> Option<Self> {
        const NAMES: [(&str, Protocol); 12] = [
            ("http", Protocol::Http),
            ("http2", Protocol::Http2),
            ("grpc", Protocol::Grpc),
            ("grpc-web", Protocol::GrpcWeb),
            ("http_proxy", Protocol::HttpProxy),
            ("https", Protocol::Https),
            ("tls", Protocol::Tls),
            ("tcp", Protocol::Tcp),
            ("mongo", Protocol::Database),
            ("redis", Protocol::Database),
            ("mysql", Protocol::Database),
            ("udp", Protocol::Udp),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, protocol)| *protocol)
    }

    /// Requests can be read.
    pub(super) fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::HttpProxy)
    }

    /// It is encrypted.
    pub(super) fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Only bytes can be read.
    pub(super) fn is_tcp(self) -> bool {
        self.is_tls() || matches!(self, Self::Tcp | Self::Database)
    }
}

/// A protocol that is known, or none: then it is found out from the bytes.
pub(super) fn known_or_none(name: &str) -> super::at::Check {
    if name.is_empty() || Protocol::parse(name).is_some() {
        Ok(())
    } else {
        Err(format!(
            "unsupported protocol: {name}; write HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, TCP, MONGO, REDIS or MYSQL"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        for (name, http, tls, tcp) in [
            ("HTTP", true, false, false),
            ("gRPC-Web", true, false, false),
            ("HTTPS", false, true, true),
            ("TLS", false, true, true),
            ("Mongo", false, false, true),
            ("UDP", false, false, false),
        ] {
            let protocol = Protocol::parse(name).unwrap();
            assert_eq!((protocol.is_http(), protocol.is_tls(), protocol.is_tcp()), (http, tls, tcp), "{name}");
        }
        assert!(known_or_none("").is_ok() && known_or_none("SCTP").is_err());
    }
}
