//! MeshConfig: what holds for the whole mesh, as `meshConfig` of the ConfigMap `istio` or of an installation says.

/// The settings of a mesh, with Istio's defaults.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct MeshConfig {
    /// `exportTo` of services that say none; empty means `*`.
    pub default_service_export_to: Vec<String>,
    /// `exportTo` of virtual services that say none; empty means `*`.
    pub default_virtual_service_export_to: Vec<String>,
    /// `exportTo` of destination rules that say none; empty means `*`.
    pub default_destination_rule_export_to: Vec<String>,
    /// Where access logs go, e.g. `/dev/stdout`; empty means nowhere.
    pub access_log_file: String,
    /// The format of a line or, for JSON, an object of format strings; empty means Istio's.
    pub access_log_format: String,
    /// Text or JSON.
    pub access_log_encoding: AccessLogEncoding,
    /// How paths are normalised before routes and policies look at them.
    pub path_normalization: Option<ProxyPathNormalization>,
}

/// Text or JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AccessLogEncoding {
    /// A line of text.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// `pathNormalization`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProxyPathNormalization {
    /// How far.
    pub normalization: PathNormalization,
}

/// How far paths are normalised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathNormalization {
    /// As [`PathNormalization::Base`].
    #[default]
    Default,
    /// Not at all.
    None,
    /// RFC 3986.
    Base,
    /// RFC 3986, and `//` becomes `/`.
    MergeSlashes,
    /// As before, with `%2F` and `%5C` decoded first.
    DecodeAndMergeSlashes,
}
