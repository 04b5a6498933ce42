//! Clusters of services that no rule speaks of: most clusters of most meshes. They differ in names, metadata and TLS, so
//! what they have in common is built and encoded once for all services that speak a protocol.

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, UpstreamTlsContext};
use mesh_api::types::Duration;
use prost::{Message, Name};

use super::draft::STAT_NAME_END;
use super::{Defaults, Discovery, Draft, Mode, Outbound, Traits, outbound_name, sni_dnat_name, stat_name, tls};
use crate::model::Protocol;
use crate::model::destination_rule::{Subset, TrafficPolicy};
use crate::resource::{Resource, TypeUrl, Writer, canonical_bytes};

/// Numbers of fields of `Cluster`.
mod field {
    pub(super) const NAME: u32 = 1;
    pub(super) const EDS_CLUSTER_CONFIG: u32 = 3;
    pub(super) const METADATA: u32 = 25;
    pub(super) const ALT_STAT_NAME: u32 = 28;
    pub(super) const TRANSPORT_SOCKET_MATCHES: u32 = 43;
}

/// Which clusters have their shape in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Plain {
    pub(crate) protocol: Protocol,
    pub(crate) traits: Traits,
}

/// What plain clusters have in common.
#[derive(PartialEq, Debug)]
pub(crate) struct Shape {
    /// Encoded fields of the cluster.
    fields: Bytes,
    /// Mesh mTLS.
    tls: MeshTls,
    /// The encoded transport socket for endpoints without mesh mTLS, as a field of the cluster.
    plaintext: Bytes,
}

/// A `CommonTlsContext` for mesh mTLS without the names that a server may bear, in encoded parts.
#[derive(PartialEq, Debug)]
struct MeshTls {
    /// What comes before `combined_validation_context`.
    parameters: Bytes,
    /// The fields of `combined_validation_context` after the names.
    authorities: Bytes,
    /// What comes after it.
    rest: Bytes,
}

impl MeshTls {
    fn new(context: UpstreamTlsContext) -> Self {
        let mut rest = context.common_tls_context.unwrap_or_default();
        let parameters = CommonTlsContext { tls_params: rest.tls_params.take(), ..CommonTlsContext::default() };
        let authorities = match rest.validation_context_type.take() {
            Some(ValidationContextType::CombinedValidationContext(combined)) => {
                CombinedCertificateValidationContext { default_validation_context: None, ..combined }
            }
            _ => CombinedCertificateValidationContext::default(),
        };
        Self {
            parameters: parameters.encode_to_vec().into(),
            authorities: authorities.encode_to_vec().into(),
            rest: rest.encode_to_vec().into(),
        }
    }

    /// The context with those names.
    fn with(&self, names: &[mesh_api::Name], common: &mut Writer) {
        common.fields(&[&self.parameters]);
        // combined_validation_context
        common.message(8, |combined| {
            // default_validation_context
            combined.message(1, |checks| {
                for matcher in tls::subject_names(names) {
                    checks.message(15, |out| out.prost(&matcher)); // match_typed_subject_alt_names
                }
            });
            combined.fields(&[&self.authorities]);
        });
        common.fields(&[&self.rest]);
    }
}

impl Plain {
    /// The shape that the mesh's defaults give.
    pub(crate) fn shape(&self, defaults: &Defaults) -> Shape {
        let mut draft = Draft::new(String::new(), None);
        draft.set_type(cluster::DiscoveryType::Eds);
        let policy = defaults.policy(None);
        draft.shape(self.protocol, policy.as_deref(), Discovery::Eds, None, defaults, &self.traits);
        let tls = MeshTls::new(draft.mesh_tls(&[], "", defaults));
        let plaintext = Cluster { transport_socket_matches: vec![tls::plaintext_match()], ..Cluster::default() };
        let cluster = Cluster { alt_stat_name: String::new(), ..draft.build() };
        Shape { fields: canonical_bytes(&cluster).into(), tls, plaintext: plaintext.encode_to_vec().into() }
    }
}

/// The names of an outbound cluster.
pub(super) struct Names {
    pub(super) cluster: String,
    /// Its name in statistics, where it is another one.
    pub(super) statistics: Option<String>,
    /// The server name by which a gateway passes mesh mTLS on.
    pub(super) sni: String,
}

impl Outbound<'_> {
    /// The names of the whole or of a subset.
    pub(super) fn names(&self, subset: Option<&Subset>) -> Names {
        let (host, port) = (self.service.hostname.as_str(), self.port.number);
        let subset = subset.map_or("", |s| s.name.as_str());
        let sni = sni_dnat_name(port, subset, host);
        let cluster = match self.mode {
            Mode::Client => outbound_name(port, subset, host),
            Mode::SniDnat => sni.clone(),
        };
        let statistics = match self.defaults.outbound_stat_name.as_str() {
            "" => None,
            pattern => Some(stat_name(pattern, self.service, self.port, subset, 0)),
        };
        Names { cluster, statistics, sni }
    }

    /// True when the mesh's defaults decide on everything but names and metadata.
    pub(super) fn is_plain(&self, discovery: Discovery) -> bool {
        let own_tls = self.is_auto_mtls() && self.traits.client_files.is_some();
        discovery == Discovery::Eds && self.rule.is_none() && self.service.traffic_distribution.is_none() && !own_tls
    }

    /// The cluster of a service that no rule speaks of.
    pub(super) fn plain_cluster(&self, shape: &Shape) -> Resource {
        let names = self.names(None);
        let mut out = Writer::with_capacity(1024);
        out.text(field::NAME, &names.cluster);
        let statistics = names.statistics.as_ref().unwrap_or(&names.cluster);
        out.joined(field::ALT_STAT_NAME, &[statistics.as_bytes(), STAT_NAME_END.as_bytes()]);
        out.fields(&[&shape.fields]);
        if self.mode == Mode::Client && self.is_auto_mtls() && self.traits.identity {
            out.message(field::TRANSPORT_SOCKET_MATCHES, |matched| {
                matched.text(1, tls::MESH_MTLS_MATCH); // name
                matched.message(2, |endpoint| endpoint.struct_text("tlsMode", "istio")); // match
                // transport_socket
                matched.message(3, |socket| {
                    socket.text(1, tls::TLS_SOCKET); // name
                    socket.any(3, &UpstreamTlsContext::type_url(), |context| {
                        context.message(1, |common| shape.tls.with(self.subject_alt_names, common)); // common_tls_context
                        context.text(2, &names.sni); // sni
                    });
                });
            });
            out.fields(&[&shape.plaintext]);
        }
        self.own_fields(&mut out, &names.cluster, Discovery::Eds, None, None);
        Resource::from_value(names.cluster.into(), TypeUrl::Cluster.as_str(), &out.into_bytes())
    }

    /// The fields that are different in every outbound cluster, its names aside.
    pub(super) fn own_fields(
        &self,
        out: &mut Writer,
        cluster: &str,
        discovery: Discovery,
        subset: Option<&Subset>,
        policy: Option<&TrafficPolicy>,
    ) {
        if discovery == Discovery::Eds {
            out.message(field::EDS_CLUSTER_CONFIG, |eds| {
                eds.message(1, |source| source.prost(&tls::ads(Some(Duration::ZERO)))); // eds_config
                eds.text(2, cluster); // service_name
            });
        }
        out.message(field::METADATA, |metadata| {
            metadata.struct_entry(1, "istio", |fields| self.metadata(fields, subset, policy));
        });
    }
}
