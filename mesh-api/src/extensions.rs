//! The kinds of `extensions.istio.io` as users write them: filters in WebAssembly or Lua that proxies run.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResource;
use serde_json::{Value, json};

use crate::types::{
    IstioStatus, PolicyTargetReference, PortSelector, Serving, WorkloadSelector, crd, enumeration, message, schema,
};

/// The definitions of all kinds of this group, for an apiserver.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let with_spec = Serving { spec_required: true, ..Serving::default() };
    vec![crd::<TrafficExtension>(with_spec), crd::<WasmPlugin>(with_spec)]
}

/// The rule for where a module is; a URL without a scheme names an image.
fn module_url(schemes: &str) -> Value {
    let rule = format!(
        "isURL(self) ? (url(self).getScheme() in [{schemes}]) : \
         (isURL('http://' + self) && url('http://' + self).getScheme() in [{schemes}])"
    );
    schema::rules(&[("the URL must begin with oci://, file://, http:// or https://, or name an image", rule.as_str())])
}

/// The rules for a TrafficExtension's target and filter.
fn exactly_one_filter() -> Value {
    let mut rules = schema::at_most_one(&["selector", "targetRefs"]);
    if let Value::Array(rules) = &mut rules {
        rules.push(json!({ "message": "one of wasm and lua must be set", "rule": "has(self.wasm) != has(self.lua)" }));
    }
    rules
}

/// A port that must be given.
fn numbered_port() -> Value {
    let number =
        json!({ "type": "integer", "minimum": 1, "maximum": 65535, "description": "The service's port number." });
    json!({ "type": "object", "required": ["number"], "properties": { "number": number } })
}

message! {
    /// A WebAssembly filter. Superseded by TrafficExtension.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::extensions::{PluginPhase, WasmPlugin, WasmPluginSpec};
    /// // A filter from a registry, before the mesh authenticates requests itself.
    /// let yaml = "
    /// apiVersion: extensions.istio.io/v1alpha1
    /// kind: WasmPlugin
    /// metadata: {name: auth, namespace: bookinfo}
    /// spec:
    ///   url: oci://registry.example/auth:1.0
    ///   phase: AUTHN
    ///   pluginConfig: {realm: books}
    /// ";
    /// let spec = WasmPluginSpec {
    ///     url: "oci://registry.example/auth:1.0".into(),
    ///     phase: PluginPhase::Authn,
    ///     plugin_config: [("realm".to_owned(), "books".into())].into_iter().collect(),
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<WasmPlugin>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
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
    #[schemars(extend("required" = ["url"], "x-kubernetes-validations" = schema::one_target()))]
    pub struct WasmPluginSpec {
        /// The workloads. Default: all of the namespace; in the root namespace, of the mesh.
        pub selector: Option<WorkloadSelector>,
        /// The object that it is attached to instead. Superseded by `target_refs`.
        pub target_ref: Option<PolicyTargetReference>,
        /// The objects that it is attached to instead.
        #[schemars(length(max = 16))]
        pub target_refs: Vec<PolicyTargetReference>,
        /// Where the module is: `oci://` (the default), `file://` or `http[s]://`.
        #[schemars(length(min = 1), extend("x-kubernetes-validations" = module_url("'', 'http', 'https', 'oci', 'file'")))]
        pub url: String,
        /// Checksum of the module or image, in hex.
        #[schemars(regex(pattern = r"(^$|^[a-f0-9]{64}$)"))]
        pub sha256: String,
        /// When the image is fetched again.
        pub image_pull_policy: PullPolicy,
        /// Secret for fetching the image.
        #[schemars(length(min = 1, max = 253))]
        pub image_pull_secret: String,
        /// Key that signed the module. Not used.
        pub verification_key: String,
        /// Settings that the module gets, as JSON.
        #[schemars(schema_with = "schema::any_object")]
        pub plugin_config: serde_json::Map<String, Value>,
        /// Name that the module goes by.
        #[schemars(length(min = 1, max = 256))]
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
    /// use mesh_api::document;
    /// use mesh_api::extensions::{FilterConfig, LuaConfig, TrafficExtension, TrafficExtensionSpec};
    /// // A few lines of Lua in every request's way.
    /// let yaml = "
    /// apiVersion: extensions.istio.io/v1alpha1
    /// kind: TrafficExtension
    /// metadata: {name: stamp, namespace: bookinfo}
    /// spec:
    ///   lua:
    ///     inlineCode: function envoy_on_request(h) end
    /// ";
    /// let code = LuaConfig { inline_code: "function envoy_on_request(h) end".into(), ..Default::default() };
    /// let spec = TrafficExtensionSpec { filter_config: Some(FilterConfig::Lua(code)), ..Default::default() };
    /// assert_eq!(document::one::<TrafficExtension>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
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
    #[schemars(extend("x-kubernetes-validations" = exactly_one_filter()))]
    pub struct TrafficExtensionSpec {
        /// The workloads. Default: all of the namespace; in the root namespace, of the mesh.
        pub selector: Option<WorkloadSelector>,
        /// The objects that it is attached to instead.
        #[schemars(length(max = 16))]
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
    #[schemars(extend("required" = ["url"]))]
    pub struct WasmConfig {
        /// Where the module is: `oci://` (the default), `file://` or `http[s]://`.
        #[schemars(length(min = 1), extend("x-kubernetes-validations" = module_url("'', 'http', 'https', 'file', 'oci'")))]
        pub url: String,
        /// Checksum of the module or image, in hex.
        #[schemars(regex(pattern = r"(^$|^[a-f0-9]{64}$)"))]
        pub sha256: String,
        /// When the image is fetched again.
        pub image_pull_policy: PullPolicy,
        /// Secret for fetching the image.
        #[schemars(length(min = 1, max = 253))]
        pub image_pull_secret: String,
        /// Key that signed the module. Not used.
        pub verification_key: String,
        /// Settings that the module gets, as JSON.
        #[schemars(schema_with = "schema::any_object")]
        pub plugin_config: serde_json::Map<String, Value>,
        /// Name that the module goes by.
        #[schemars(length(min = 1, max = 256))]
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
    #[schemars(extend("required" = ["inlineCode"]))]
    pub struct LuaConfig {
        /// The script, with `envoy_on_request` and `envoy_on_response`.
        #[schemars(length(min = 1, max = 65536))]
        pub inline_code: String,
    }
}

message! {
    /// Chooses traffic. What is absent matches all.
    pub struct TrafficSelector {
        /// By the proxy's role.
        pub mode: WorkloadMode,
        /// By the port: any one of these.
        #[schemars(extend("items" = numbered_port()))]
        #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["number"]))]
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
        #[schemars(length(max = 256))]
        #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
        pub env: Vec<EnvVar>,
    }
}

message! {
    /// A variable of a module's environment.
    #[schemars(extend("required" = ["name"], "x-kubernetes-validations" = schema::rules(&[(
        "only INLINE takes a value",
        "(has(self.valueFrom) ? self.valueFrom : '') != 'HOST' || !has(self.value)",
    )])))]
    pub struct EnvVar {
        /// Its name.
        #[schemars(length(min = 1, max = 256))]
        pub name: String,
        /// Where its value comes from.
        pub value_from: EnvValueSource,
        /// Its value, when `INLINE`.
        #[schemars(length(max = 2048))]
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
