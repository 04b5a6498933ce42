//! ProxyConfig, the kind: settings of proxies that hold from their next start on. It lies over the mesh-wide settings of
//! the same name and never reaches a proxy that runs.

use std::collections::BTreeMap;

use kube::CustomResource;

use crate::types::{IstioStatus, WorkloadSelector, message, schema};

message! {
    /// Settings of proxies, for a namespace or some of its workloads.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::networking::{ProxyConfig, ProxyConfigSpec};
    /// // Proxies of this namespace use all cores.
    /// let yaml = "
    /// apiVersion: networking.istio.io/v1beta1
    /// kind: ProxyConfig
    /// metadata: {name: all-cores, namespace: bookinfo}
    /// spec:
    ///   concurrency: 0
    /// ";
    /// let spec = ProxyConfigSpec { concurrency: Some(0), ..Default::default() };
    /// assert_eq!(document::one::<ProxyConfig>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1beta1",
        kind = "ProxyConfig",
        plural = "proxyconfigs",
        category = "istio-io",
        category = "networking-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "Settings of proxies, for a namespace or some of its workloads."
    )]
    pub struct ProxyConfigSpec {
        /// Workloads of this namespace. Default: all; in the root namespace those of every namespace.
        pub selector: Option<WorkloadSelector>,
        /// Worker threads; 0 is one for each core. Default: 2, or as the CPU limit allows.
        #[schemars(range(min = 0))]
        pub concurrency: Option<i32>,
        /// Environment variables of the proxy.
        #[schemars(extend("additionalProperties" = schema::text(2048)))]
        pub environment_variables: BTreeMap<String, String>,
        /// The proxy's image.
        pub image: Option<ProxyImage>,
    }
}

message! {
    /// Which of the proxy's images is used.
    pub struct ProxyImage {
        /// `default`, `debug` or `distroless`.
        pub image_type: String,
    }
}
