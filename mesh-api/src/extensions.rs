//! The kinds of `extensions.istio.io` as users write them: filters in WebAssembly or Lua that proxies run.

use kube::CustomResource;

use crate::types::{IstioStatus, PolicyTargetReference, PortSelector, WorkloadSelector, enumeration, message};

message! {
    /// A WebAssembly filter. Superseded by TrafficExtension.
    ///
    /// ```
    /// use mesh_api::extensions::{PluginPhase, WasmPlugin};
    /// let plugin: WasmPlugin = serde_json::from_value(serde_json::json!({
    ///     "apiVersion": "extensions.istio.io/v1alpha1",
    ///     "kind": "WasmPlugin",
    ///     "metadata": {"name": "auth", "namespace": "bookinfo"},
    ///     "spec": {"url": "oci://registry.example/auth:1.0", "phase": "AUTHN", "pluginConfig": {"realm": "x"}},
    /// }))?;
    /// assert_eq!(plugin.spec.phase, PluginPhase::Authn);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "extensions.istio.io",
        version = "v1alpha1",
        kind = "WasmPlugin",
        plural = "wasmplugins",
        category = "istio-io",
        category = "extensions-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "A WebAssembly filter.",
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the object was created.")
    )]
    pub struct WasmPluginSpec {
        /// The workloads. Default: all of the namespace; in the root namespace, of the mesh.
        pub selector: Option<WorkloadSelector>,
        /// The object that it is attached to instead. Superseded by `target_refs`.
        pub target_ref: Option<PolicyTargetReference>,
        /// The objects that it is attached to instead.
        pub target_refs: Vec<PolicyTargetReference>,
        /// Where the module is: `oci://` (the default), `file://` or `http[s]://`.
        pub url: String,
        /// Checksum of the module or image, in hex.
        pub sha256: String,
        /// When the image is fetched again.
        pub image_pull_policy: PullPolicy,
        /// Secret for fetching the image.
        pub image_pull_secret: String,
        /// Key that signed the module. Not used.
        pub verification_key: String,
        /// Settings that the module gets, as JSON.
        pub plugin_config: serde_json::Map<String, serde_json::Value>,
        /// Name that the module goes by.
        pub plugin_name: String,
        /// Where in the filter chain it runs.
        pub phase: PluginPhase,
        /// Within a phase, higher runs first. Default: 0.
        pub priority: Option<i32>,
        /// What happens to traffic when it fails.
        pub fail_strategy: FailStrategy,
        /// Its virtual machine.
        pub vm_config: Option<VmConfig>,
        /// Which traffic it sees: any one of these. Default: all.
        pub r#match: Vec<TrafficSelector>,
        /// HTTP or network filter.
        pub r#type: PluginType,
    }
}

message! {
    /// A filter in WebAssembly or Lua.
    ///
    /// ```
    /// use mesh_api::extensions::{FilterConfig, TrafficExtension};
    /// let lua: TrafficExtension = serde_json::from_value(serde_json::json!({
    ///     "apiVersion": "extensions.istio.io/v1alpha1",
    ///     "kind": "TrafficExtension",
    ///     "metadata": {"name": "stamp", "namespace": "bookinfo"},
    ///     "spec": {"lua": {"inlineCode": "function envoy_on_request(h) end"}},
    /// }))?;
    /// assert!(matches!(lua.spec.filter_config, Some(FilterConfig::Lua(_))));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "extensions.istio.io",
        version = "v1alpha1",
        kind = "TrafficExtension",
        plural = "trafficextensions",
        category = "istio-io",
        category = "extensions-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "A filter in WebAssembly or Lua.",
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the object was created.")
    )]
    pub struct TrafficExtensionSpec {
        /// The workloads. Default: all of the namespace; in the root namespace, of the mesh.
        pub selector: Option<WorkloadSelector>,
        /// The objects that it is attached to instead.
        pub target_refs: Vec<PolicyTargetReference>,
        /// Where in the filter chain it runs.
        pub phase: ExecutionPhase,
        /// Within a phase, higher runs first. Default: 0.
        pub priority: Option<i32>,
        /// Which traffic it sees: any one of these. Default: all.
        pub r#match: Vec<TrafficSelector>,
        oneof {
            /// The filter.
            pub filter_config: FilterConfig {
                /// In WebAssembly.
                wasm => Wasm(WasmConfig),
                /// In Lua.
                lua => Lua(LuaConfig),
            }
        }
    }
}

message! {
    /// A filter in WebAssembly.
    pub struct WasmConfig {
        /// Where the module is: `oci://` (the default), `file://` or `http[s]://`.
        pub url: String,
        /// Checksum of the module or image, in hex.
        pub sha256: String,
        /// When the image is fetched again.
        pub image_pull_policy: PullPolicy,
        /// Secret for fetching the image.
        pub image_pull_secret: String,
        /// Key that signed the module. Not used.
        pub verification_key: String,
        /// Settings that the module gets, as JSON.
        pub plugin_config: serde_json::Map<String, serde_json::Value>,
        /// Name that the module goes by.
        pub plugin_name: String,
        /// What happens to traffic when it fails.
        pub fail_strategy: FailStrategy,
        /// Its virtual machine.
        pub vm_config: Option<VmConfig>,
        /// HTTP or network filter.
        pub r#type: PluginType,
    }
}

message! {
    /// A filter in Lua.
    pub struct LuaConfig {
        /// The script, with `envoy_on_request` and `envoy_on_response`.
        pub inline_code: String,
    }
}

message! {
    /// Chooses traffic. What is absent matches all.
    pub struct TrafficSelector {
        /// By the proxy's role.
        pub mode: WorkloadMode,
        /// By the port: any one of these.
        pub ports: Vec<PortSelector>,
    }
}

enumeration! {
    /// The proxy's role in an exchange.
    pub enum WorkloadMode {
        /// As `CLIENT_AND_SERVER`.
        #[default]
        Undefined,
        /// It sends the request.
        Client,
        /// It takes the request.
        Server,
        /// Either.
        ClientAndServer,
    }
}

enumeration! {
    /// Where in the filter chain a WasmPlugin runs.
    pub enum PluginPhase {
        /// At the end, before the router.
        #[default]
        UnspecifiedPhase,
        /// Before Istio's authentication.
        Authn,
        /// After authentication, before Istio's authorization.
        Authz,
        /// After authorization, before Istio's statistics.
        Stats,
    }
}

enumeration! {
    /// Where in the filter chain a TrafficExtension runs.
    pub enum ExecutionPhase {
        /// At the end, before the router.
        #[default]
        Unspecified,
        /// Before Istio's authentication.
        Authn,
        /// After authentication, before Istio's authorization.
        Authz,
        /// After authorization, before Istio's statistics.
        Stats,
    }
}

enumeration! {
    /// When an image is fetched again.
    pub enum PullPolicy {
        /// `Always` for the tag `latest`, otherwise `IfNotPresent`.
        #[default]
        UnspecifiedPolicy,
        /// When the proxy doesn't have it.
        #[serde(rename = "IfNotPresent")]
        IfNotPresent,
        /// Whenever the plugin changes.
        #[serde(rename = "Always")]
        Always,
    }
}

enumeration! {
    /// HTTP or network filter.
    pub enum PluginType {
        /// As `HTTP`.
        #[default]
        UnspecifiedPluginType,
        /// It sees requests.
        Http,
        /// It sees bytes.
        Network,
    }
}

enumeration! {
    /// What happens to traffic when a filter fails.
    pub enum FailStrategy {
        /// It is refused.
        #[default]
        FailClose,
        /// It passes without the filter.
        FailOpen,
        /// The filter is started anew once, then traffic is refused.
        FailReload,
    }
}

message! {
    /// A module's virtual machine.
    pub struct VmConfig {
        /// Its environment.
        pub env: Vec<EnvVar>,
    }
}

message! {
    /// A variable of a module's environment.
    pub struct EnvVar {
        /// Its name.
        pub name: String,
        /// Where its value comes from.
        pub value_from: EnvValueSource,
        /// Its value, when `INLINE`.
        pub value: String,
    }
}

enumeration! {
    /// Where a variable's value comes from.
    pub enum EnvValueSource {
        /// It is given.
        #[default]
        Inline,
        /// From the proxy's environment.
        Host,
    }
}
