//! The kinds of `security.istio.io` as users write them: who must prove who they are, by mutual TLS or by token, and who
//! may do what.
//!
//! Which policy wins, what an unset mode inherits and what a pattern means is for `lower`; here is only what was written.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResource;
use schemars::Schema;

use crate::object::served;
use crate::types::{Duration, IstioStatus, Serving, crd, enumeration, message, schema};

pub use crate::types::{PolicyTargetReference, WorkloadSelector};

served! {
    /// The kinds as `security.istio.io/v1beta1` serves them.
    v1beta1 = V1Beta1: AuthorizationPolicy PeerAuthentication RequestAuthentication
}

/// The definitions of all kinds of this group, for an apiserver.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let served = Serving { older: &["v1beta1"], ..Serving::default() };
    vec![crd::<AuthorizationPolicy>(served), crd::<PeerAuthentication>(served), crd::<RequestAuthentication>(served)]
}

message! {
    /// Whether workloads accept plaintext, mutual TLS or both.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::security::{MutualTls, MutualTlsMode, PeerAuthentication, PeerAuthenticationSpec, WorkloadSelector};
    /// // Details takes mutual TLS only, but on port 9090, where plaintext is accepted, too.
    /// let yaml = "
    /// apiVersion: security.istio.io/v1
    /// kind: PeerAuthentication
    /// metadata: {name: details, namespace: bookinfo}
    /// spec:
    ///   selector:
    ///     matchLabels: {app: details}
    ///   mtls: {mode: STRICT}
    ///   portLevelMtls:
    ///     9090: {mode: PERMISSIVE}
    /// ";
    /// let mtls = |mode| MutualTls { mode, ..Default::default() };
    /// let details = WorkloadSelector { match_labels: [("app".into(), "details".into())].into(), ..Default::default() };
    /// let spec = PeerAuthenticationSpec {
    ///     selector: Some(details),
    ///     mtls: Some(mtls(MutualTlsMode::Strict)),
    ///     port_level_mtls: Some([(9090, mtls(MutualTlsMode::Permissive))].into()),
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<PeerAuthentication>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "security.istio.io",
        version = "v1",
        kind = "PeerAuthentication",
        plural = "peerauthentications",
        shortname = "pa",
        category = "istio-io",
        category = "security-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "Whether workloads accept plaintext, mutual TLS or both.",
        printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mtls.mode", description = "What is accepted."),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the object was created.")
    )]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "portLevelMtls needs a selector",
        "has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? self.selector.matchLabels : {}).size() > 0) : true",
    )])))]
    pub struct PeerAuthenticationSpec {
        /// The workloads. Default: all of the namespace; in the root namespace, of the mesh.
        pub selector: Option<WorkloadSelector>,
        /// What they accept. Default: as the namespace's or the mesh's policy says.
        pub mtls: Option<MutualTls>,
        /// What they accept on single ports, by the workload's port number. Needs a selector, and may not be empty.
        #[schemars(with = "BTreeMap<String, MutualTls>")]
        #[schemars(extend("minProperties" = 1, "x-kubernetes-validations" = schema::rules(&[
            ("a port is between 1 and 65535", "self.all(key, 0 < int(key) && int(key) <= 65535)"),
        ])))]
        pub port_level_mtls: Option<BTreeMap<u32, MutualTls>>,
    }
}

message! {
    /// What is accepted.
    pub struct MutualTls {
        /// The mode.
        pub mode: MutualTlsMode,
    }
}

enumeration! {
    /// What a workload accepts.
    pub enum MutualTlsMode {
        /// As the level above says; at the top, both.
        #[default]
        Unset,
        /// Plaintext.
        Disable,
        /// Both.
        Permissive,
        /// Mutual TLS.
        Strict,
    }
}

message! {
    /// Which tokens a workload accepts with requests. A request without a token passes, one with a bad token doesn't.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::security::{JwtHeader, JwtRule, RequestAuthentication, RequestAuthenticationSpec};
    /// // Tokens of one issuer, looked for in a header of their own.
    /// let yaml = "
    /// apiVersion: security.istio.io/v1
    /// kind: RequestAuthentication
    /// metadata: {name: tokens, namespace: bookinfo}
    /// spec:
    ///   jwtRules:
    ///   - issuer: https://accounts.example
    ///     fromHeaders:
    ///     - name: x-token
    /// ";
    /// let spec = RequestAuthenticationSpec {
    ///     jwt_rules: vec![JwtRule {
    ///         issuer: "https://accounts.example".into(),
    ///         from_headers: vec![JwtHeader { name: "x-token".into(), ..Default::default() }],
    ///         ..Default::default()
    ///     }],
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<RequestAuthentication>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "security.istio.io",
        version = "v1",
        kind = "RequestAuthentication",
        plural = "requestauthentications",
        shortname = "ra",
        category = "istio-io",
        category = "security-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "Which tokens workloads accept with requests."
    )]
    #[schemars(extend("x-kubernetes-validations" = schema::one_target()))]
    pub struct RequestAuthenticationSpec {
        /// The workloads. Default: all of the namespace; in the root namespace, of the mesh.
        pub selector: Option<WorkloadSelector>,
        /// The object that it is attached to instead. Superseded by `target_refs`.
        pub target_ref: Option<PolicyTargetReference>,
        /// The objects that it is attached to instead.
        #[schemars(length(max = 16))]
        pub target_refs: Vec<PolicyTargetReference>,
        /// The tokens accepted: any one of these.
        #[schemars(length(max = 4096))]
        pub jwt_rules: Vec<JwtRule>,
    }
}

message! {
    /// A sort of token and where it is looked for.
    #[schemars(transform = jwks_uri)]
    #[schemars(extend("x-kubernetes-validations" = schema::at_most_one(&["jwksUri", "jwks_uri", "jwks"])))]
    pub struct JwtRule {
        /// Who issued it: the claim `iss`.
        #[schemars(length(min = 1))]
        pub issuer: String,
        /// For whom it was issued: one of these must be in the claim `aud`. Default: anyone.
        #[schemars(inner(length(min = 1)))]
        pub audiences: Vec<String>,
        /// URL of the issuer's keys. Default: by OpenID discovery from the issuer.
        #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = schema::rules(&[
            ("the URL must begin with http:// or https://", "url(self).getScheme() in ['http', 'https']"),
        ])))]
        pub jwks_uri: String,
        /// The issuer's keys themselves.
        pub jwks: String,
        /// Headers that may hold it. Default, when no place is named: `Authorization: Bearer` and the parameter
        /// `access_token`.
        pub from_headers: Vec<JwtHeader>,
        /// Query parameters that may hold it.
        #[schemars(inner(length(min = 1)))]
        pub from_params: Vec<String>,
        /// Header in which its payload is sent on, in base64.
        pub output_payload_to_header: String,
        /// Cookies that may hold it.
        #[schemars(inner(length(min = 1)))]
        pub from_cookies: Vec<String>,
        /// Whether the token itself is sent on.
        pub forward_original_token: bool,
        /// Claims that are sent on in headers.
        pub output_claim_to_headers: Vec<ClaimToHeader>,
        /// How long fetching the keys may take. Default: 5 s.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub timeout: Option<Duration>,
        /// Further claims that are lists separated by spaces, as `scope` and `permission` are.
        #[schemars(length(max = 64), inner(length(min = 1)))]
        pub space_delimited_claims: Vec<String>,
        /// Whether a request must bear such a token.
        pub presence: TokenPresence,
    }
}

/// The older spelling of `jwksUri` is a property of its own in the schema.
fn jwks_uri(message: &mut Schema) {
    schema::also_spelled(message, "jwksUri", "jwks_uri");
}

enumeration! {
    /// Whether a request must bear a token.
    pub enum TokenPresence {
        /// It may come without.
        #[default]
        Optional,
        /// It must bear one.
        Required,
    }
}

message! {
    /// A header that may hold a token.
    #[schemars(extend("required" = ["name"]))]
    pub struct JwtHeader {
        /// Its name.
        #[schemars(length(min = 1))]
        pub name: String,
        /// What comes before the token, such as `Bearer `.
        pub prefix: String,
    }
}

message! {
    /// A claim that is sent on in a header.
    #[schemars(extend("required" = ["header", "claim"]))]
    pub struct ClaimToHeader {
        /// The header.
        #[schemars(length(min = 1), regex(pattern = r"^[-_A-Za-z0-9]+$"))]
        pub header: String,
        /// The claim; a dot leads into an object.
        #[schemars(length(min = 1))]
        pub claim: String,
    }
}

message! {
    /// Who may do what with workloads.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::security::{AuthorizationPolicy, AuthorizationPolicySpec, Operation, Rule, RuleFrom, RuleTo, Source};
    /// // The namespace may read, and nobody may do anything else.
    /// let yaml = "
    /// apiVersion: security.istio.io/v1
    /// kind: AuthorizationPolicy
    /// metadata: {name: readers, namespace: bookinfo}
    /// spec:
    ///   action: ALLOW
    ///   rules:
    ///   - from:
    ///     - source: {namespaces: [bookinfo]}
    ///     to:
    ///     - operation: {methods: [GET]}
    /// ";
    /// let neighbours = Source { namespaces: vec!["bookinfo".into()], ..Default::default() };
    /// let reading = Operation { methods: vec!["GET".into()], ..Default::default() };
    /// // `Action::Allow` is the default.
    /// let spec = AuthorizationPolicySpec {
    ///     rules: vec![Rule {
    ///         from: vec![RuleFrom { source: Some(neighbours), ..Default::default() }],
    ///         to: vec![RuleTo { operation: Some(reading), ..Default::default() }],
    ///         ..Default::default()
    ///     }],
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<AuthorizationPolicy>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "security.istio.io",
        version = "v1",
        kind = "AuthorizationPolicy",
        plural = "authorizationpolicies",
        shortname = "ap",
        category = "istio-io",
        category = "security-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "Who may do what with workloads.",
        printcolumn(name = "Action", type_ = "string", json_path = ".spec.action", description = "What happens to matching requests."),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the object was created.")
    )]
    #[schemars(extend("x-kubernetes-validations" = schema::one_target()))]
    pub struct AuthorizationPolicySpec {
        /// The workloads. Default: all of the namespace; in the root namespace, of the mesh.
        pub selector: Option<WorkloadSelector>,
        /// The object that it is attached to instead. Superseded by `target_refs`.
        pub target_ref: Option<PolicyTargetReference>,
        /// The objects that it is attached to instead.
        #[schemars(length(max = 16))]
        pub target_refs: Vec<PolicyTargetReference>,
        /// Which requests are meant: those of any one rule, none if there is no rule.
        #[schemars(length(max = 512))]
        pub rules: Vec<Rule>,
        /// What happens to them.
        pub action: Action,
        oneof {
            /// More about the action.
            pub action_detail: ActionDetail {
                /// Who decides, with `CUSTOM`.
                provider => Provider(PolicyExtensionProvider),
            }
        }
    }
}

enumeration! {
    /// What happens to the requests that a policy means.
    pub enum Action {
        /// They pass; others don't, unless another policy lets them.
        #[default]
        Allow,
        /// They are refused.
        Deny,
        /// They are marked for the log.
        Audit,
        /// An extension provider decides.
        Custom,
    }
}

message! {
    /// The provider that decides.
    pub struct PolicyExtensionProvider {
        /// Its name among the mesh's `extensionProviders`.
        pub name: String,
    }
}

message! {
    /// Some requests: those that match a source, an operation and all conditions. What is absent matches all.
    pub struct Rule {
        /// Where they come from: any one of these.
        #[schemars(length(max = 512))]
        pub from: Vec<RuleFrom>,
        /// What they want: any one of these.
        pub to: Vec<RuleTo>,
        /// What else holds: all of these.
        pub when: Vec<Condition>,
    }
}

message! {
    /// Where requests come from.
    pub struct RuleFrom {
        /// The source.
        pub source: Option<Source>,
    }
}

message! {
    /// What requests want.
    pub struct RuleTo {
        /// The operation.
        pub operation: Option<Operation>,
    }
}

message! {
    /// Properties of the client; all that are given must hold, each by any one of its values. `*` may begin, end or be a
    /// value.
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "serviceAccounts cannot be set together with namespaces or principals",
        "(has(self.serviceAccounts) || has(self.notServiceAccounts)) ? (!has(self.principals) && !has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces)) : true",
    )])))]
    pub struct Source {
        /// Identities by mutual TLS, `td/ns/namespace/sa/account`.
        pub principals: Vec<String>,
        /// None of these.
        pub not_principals: Vec<String>,
        /// Identities by token, `issuer/subject`.
        pub request_principals: Vec<String>,
        /// None of these.
        pub not_request_principals: Vec<String>,
        /// Namespaces by mutual TLS.
        pub namespaces: Vec<String>,
        /// None of these.
        pub not_namespaces: Vec<String>,
        /// Service accounts by mutual TLS, `[namespace/]account`.
        #[schemars(length(max = 16), inner(length(max = 320)))]
        pub service_accounts: Vec<String>,
        /// None of these.
        #[schemars(length(max = 16), inner(length(max = 320)))]
        pub not_service_accounts: Vec<String>,
        /// Addresses or ranges of the connection.
        pub ip_blocks: Vec<String>,
        /// None of these.
        pub not_ip_blocks: Vec<String>,
        /// Addresses or ranges of the client, as trusted proxies tell.
        pub remote_ip_blocks: Vec<String>,
        /// None of these.
        pub not_remote_ip_blocks: Vec<String>,
        /// Trust domains by mutual TLS.
        pub trust_domains: Vec<String>,
        /// None of these.
        pub not_trust_domains: Vec<String>,
    }
}

message! {
    /// Properties of the request; all that are given must hold, each by any one of its values. `*` may begin, end or be a
    /// value.
    pub struct Operation {
        /// Hosts.
        pub hosts: Vec<String>,
        /// None of these.
        pub not_hosts: Vec<String>,
        /// Ports of the workload.
        pub ports: Vec<String>,
        /// None of these.
        pub not_ports: Vec<String>,
        /// Methods; for gRPC always `POST`.
        pub methods: Vec<String>,
        /// None of these.
        pub not_methods: Vec<String>,
        /// Paths, or templates with `{*}` and `{**}`; for gRPC `/package.service/method`.
        pub paths: Vec<String>,
        /// None of these.
        pub not_paths: Vec<String>,
    }
}

message! {
    /// A condition on an attribute.
    #[schemars(extend("required" = ["key"]))]
    pub struct Condition {
        /// The attribute, such as `request.headers[x-user]`.
        pub key: String,
        /// One of these.
        pub values: Vec<String>,
        /// None of these.
        pub not_values: Vec<String>,
    }
}
