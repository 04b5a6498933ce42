//! The filter chains of a gateway's listener: HTTP by a route configuration, bytes by TCP and TLS rules, with TLS ended
//! here or passed through.

use envoy_types::pb::envoy::config::core::v3::{Metadata, TransportSocket};
use envoy_types::pb::envoy::config::listener::v3::Filter;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::ForwardClientCertDetails as Xfcc;
use mesh_api::Name;
use mesh_api::mesh::ForwardClientCertDetails;
use mesh_api::networking::ServerTlsMode;

use super::merge::{Bound, Listening};
use super::{Router, tls};
use crate::build::access::{Access, AccessTo};
use crate::build::cluster::Defaults;
use crate::build::defaults::MeshDefaults;
use crate::build::destination::Rules;
use crate::build::http::{Http, Routes, Side};
use crate::build::lookup::{Destinations, tcp_policy};
use crate::build::route::l4::{L4Chain, TcpPolicy, tcp_proxy};
use crate::build::route::{RouteContext, config_metadata, vs_metadata};
use crate::build::{TCP_PROXY, access_log, network_filter};
use crate::model::virtual_service::{Source, VirtualService};
use crate::model::{Protocol, Settings};
use crate::scope::{ScopeOf, ServicesOf, VirtualServicesFor, settings};
use crate::view::View;

/// What sidecars say when they speak mesh mTLS to each other.
const MESH_ALPN: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// One filter chain.
pub(super) struct Chain {
    /// Server names; `*` among them for any.
    pub(super) sni: Vec<String>,
    /// Application protocols.
    pub(super) alpn: Vec<String>,
    /// TLS that ends here.
    pub(super) tls: Option<TransportSocket>,
    /// The route configuration that it names.
    pub(super) rds: Option<Name>,
    /// What it does.
    pub(super) filters: Vec<Filter>,
    /// The object behind it.
    pub(super) origin: Metadata,
}

impl Chain {
    /// Server names and application protocols that a connection must have.
    pub(super) fn conditions(&self) -> (Vec<String>, Vec<String>) {
        let mut names = if self.sni.iter().any(|s| s == "*") { Vec::new() } else { self.sni.clone() };
        names.sort();
        names.dedup();
        (names, self.alpn.clone())
    }
}

/// The chains of one group of servers.
pub(super) fn of(view: &View<'_>, router: &Router, listening: &Listening, listener: &str) -> Vec<Chain> {
    let settings = settings(view);
    let defaults = view.get(&MeshDefaults);
    let access = view.get(&AccessTo::gateway(&router.client));
    let builder = Builder { view, router, settings: &settings, defaults: &defaults, listener, access: &access };
    if listening.protocol.is_http() {
        let Some(first) = listening.servers.first() else { return Vec::new() };
        let filters = vec![builder.http(&listening.route_name, listening.protocol, None)];
        let rds = Some(listening.route_name.clone());
        return vec![Chain { sni: Vec::new(), alpn: Vec::new(), tls: None, rds, filters, origin: origin(first) }];
    }
    let mut out = Vec::new();
    // Server names taken by rules of earlier virtual services; the same again could never be reached.
    let mut taken: Vec<String> = Vec::new();
    for bound in &listening.servers {
        if bound.server.is_https() {
            let name = Some(bound.server.name.as_str()).filter(|n| !n.is_empty());
            out.push(Chain {
                sni: sni_hosts(bound),
                alpn: Vec::new(),
                tls: tls::downstream(&bound.server, &defaults),
                rds: Some(bound.route_name.clone()),
                filters: vec![builder.http(&bound.route_name, bound.server.protocol, name)],
                origin: origin(bound),
            });
        } else if bound.server.is_passthrough() {
            out.extend(builder.passthrough(bound, &mut taken));
        } else {
            out.extend(builder.tcp(bound));
        }
    }
    out
}

fn origin(bound: &Bound) -> Metadata {
    let path = format!("spec.servers[{}]", bound.server.index);
    config_metadata("gateway", &bound.gateway.namespace, &bound.gateway.name, &path)
}

/// The hosts of a server without the namespaces that may use them.
fn sni_hosts(bound: &Bound) -> Vec<String> {
    let mut hosts: Vec<String> = bound.server.hosts.iter().map(|h| h.host.to_string()).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

struct Builder<'b, 'v> {
    view: &'b View<'v>,
    router: &'b Router,
    settings: &'b Settings,
    defaults: &'b Defaults,
    listener: &'b str,
    /// What everything that comes in must pass, unless it goes through by server name.
    access: &'b Access,
}

impl Builder<'_, '_> {
    fn http(&self, route_name: &Name, protocol: Protocol, stat_prefix: Option<&str>) -> Filter {
        let prefix = stat_prefix.map_or_else(|| format!("outbound_{}", self.listener), str::to_owned);
        let mut http = Http::new(Side::Gateway, prefix, Routes::Rds(route_name.to_string()), protocol);
        http.use_remote_address = true;
        http.http10 = self.router.client.metadata("HTTP10") == "1";
        let topology = self.settings.mesh.default_config.gateway_topology.as_ref();
        http.xff_num_trusted_hops = topology.map_or(0, |t| t.num_trusted_proxies);
        http.forward_client_cert = Some(match topology.map(|t| t.forward_client_cert_details).unwrap_or_default() {
            ForwardClientCertDetails::Undefined | ForwardClientCertDetails::SanitizeSet => Xfcc::SanitizeSet,
            ForwardClientCertDetails::Sanitize => Xfcc::Sanitize,
            ForwardClientCertDetails::ForwardOnly => Xfcc::ForwardOnly,
            ForwardClientCertDetails::AppendForward => Xfcc::AppendForward,
            ForwardClientCertDetails::AlwaysForwardOnly => Xfcc::AlwaysForwardOnly,
        });
        http.filters.clone_from(&self.access.http);
        http.filter(self.settings)
    }

    fn virtual_services(&self, bound: &Bound) -> Vec<crate::shared::Shared<VirtualService>> {
        let query =
            VirtualServicesFor { namespace: self.router.client.namespace.clone(), gateway: bound.gateway.full_name() };
        let all = self.view.get(&query);
        all.iter().filter(|vs| is_bound(bound, vs)).cloned().collect()
    }

    /// The first TCP rule that holds, with TLS in front where the server ends it. Without one nothing listens.
    fn tcp(&self, bound: &Bound) -> Option<Chain> {
        let services = self.virtual_services(bound);
        let (vs, rule) = services.iter().find_map(|vs| {
            let holds = |m: &crate::model::virtual_service::TcpMatch| self.holds(bound, m.port, &m.source);
            let rule = vs.tcp.iter().find(|rule| rule.matches.is_empty() || rule.matches.iter().any(holds))?;
            Some((vs, rule))
        })?;
        let chain = L4Chain {
            vs,
            sni_hosts: &[],
            destination_subnets: Vec::new(),
            route: &rule.route,
            path: rule.path.text("tcp", None),
        };
        let is_tls = bound.server.is_tls();
        Some(Chain {
            sni: if is_tls { sni_hosts(bound) } else { Vec::new() },
            alpn: Vec::new(),
            tls: if is_tls { tls::downstream(&bound.server, self.defaults) } else { None },
            rds: None,
            filters: self.proxy(bound, &chain),
            origin: vs_metadata(vs, &chain.path),
        })
    }

    /// TLS that goes through: each TLS rule that holds, by its server names.
    fn passthrough(&self, bound: &Bound, taken: &mut Vec<String>) -> Vec<Chain> {
        if bound.server.tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough) {
            return self.auto_passthrough(bound);
        }
        let mut out = Vec::new();
        for vs in self.virtual_services(bound) {
            for (rule, m) in vs.tls.iter().flat_map(|rule| rule.matches.iter().map(move |m| (rule, m))) {
                let key = |sni: &mesh_api::Hostname| format!("{}|{sni}", bound.server.bind);
                if !self.holds(bound, m.port, &m.source) || m.sni_hosts.iter().any(|h| taken.contains(&key(h))) {
                    continue;
                }
                taken.extend(m.sni_hosts.iter().map(key));
                let chain = L4Chain {
                    vs: &vs,
                    sni_hosts: &m.sni_hosts,
                    destination_subnets: Vec::new(),
                    route: &rule.route,
                    path: rule.path.text("tls", Some(m.index)),
                };
                out.push(Chain {
                    sni: m.sni_hosts.iter().map(ToString::to_string).collect(),
                    alpn: Vec::new(),
                    tls: None,
                    rds: None,
                    filters: self.proxy(bound, &chain),
                    origin: vs_metadata(&vs, &chain.path),
                });
            }
        }
        out
    }

    /// A chain for each port of each service of the mesh whose host the server has: the server name is the cluster's name,
    /// as sidecars of other networks write it, and only mesh mTLS goes through.
    fn auto_passthrough(&self, bound: &Bound) -> Vec<Chain> {
        let scope = self.view.get(&ServicesOf(ScopeOf::client(&self.router.client)));
        let rules = Rules::new(self.view, &self.router.client);
        let mut out = Vec::new();
        for service in scope.iter().filter(|s| !s.mesh_external) {
            if !bound.server.hosts.iter().any(|h| h.host.covers(&service.hostname)) {
                continue;
            }
            for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
                let rule = rules.outbound(service);
                let subsets = rule.iter().flat_map(|r| r.subsets.iter()).map(|s| s.name.clone());
                for subset in std::iter::once(Name::default()).chain(subsets) {
                    let cluster = crate::build::cluster::sni_dnat_name(port.number, &subset, service.hostname.as_str());
                    // The client's proxy has asked for a tunnel if there is one; this one sees but TLS.
                    let policy = tcp_policy(&self.router.client, rule.as_deref(), &subset);
                    let policy = TcpPolicy { tunnel: None, ..policy };
                    let proxy = crate::build::outbound::plan::single(&cluster, &policy, self.settings);
                    out.push(Chain {
                        sni: vec![cluster],
                        alpn: MESH_ALPN.map(str::to_owned).to_vec(),
                        tls: None,
                        rds: None,
                        filters: vec![crate::build::outbound::plan::tcp_proxy_filter(proxy)],
                        origin: origin(bound),
                    });
                }
            }
        }
        out
    }

    /// Labels and namespace of the proxy don't count at a gateway.
    fn holds(&self, bound: &Bound, port: Option<u16>, source: &Source) -> bool {
        port.is_none_or(|p| p == bound.server.port)
            && (source.gateways.is_empty() || source.gateways.contains(&bound.gateway.full_name()))
    }

    fn proxy(&self, bound: &Bound, chain: &L4Chain<'_>) -> Vec<Filter> {
        let client = &self.router.client;
        let destinations = Destinations::new(self.view, client);
        let gateways = [bound.gateway.full_name()];
        let ctx = RouteContext {
            namespace: &client.namespace,
            labels: &client.labels,
            gateways: &gateways,
            port: bound.server.port,
            tls: bound.server.is_tls(),
            default_retries: None,
            append_x_forwarded_host: false,
            lookup: &destinations,
        };
        let mut proxy = tcp_proxy(chain, &ctx, |host, subset| destinations.tcp_policy(host, subset));
        proxy.access_log = access_log::tcp(&self.settings.mesh);
        let mut filters = self.access.tcp.clone();
        filters.push(network_filter(TCP_PROXY, &proxy));
        filters
    }
}

/// True when one of a server's hosts could be meant by one of a virtual service's.
fn is_bound(bound: &Bound, vs: &VirtualService) -> bool {
    let hosts = bound.server.hosts.iter().filter(|h| h.admits(&vs.namespace));
    hosts.into_iter().any(|h| vs.hosts.iter().any(|host| h.host.matches(host)))
}
