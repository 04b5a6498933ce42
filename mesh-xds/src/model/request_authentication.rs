//! Which tokens are taken with requests, and where the keys that prove them come from.

use mesh_api::types::Duration;
use mesh_api::{Name, ObjectRef};

use super::attachment::Attachment;
use crate::snapshot::TableKey;

/// A RequestAuthentication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestAuthentication {
    /// The object.
    pub source: ObjectRef,
    /// `metadata.creationTimestamp` in seconds.
    pub created: i64,
    /// The workloads that are meant.
    pub attachment: Attachment,
    /// The tokens that are taken: any of these.
    pub rules: Vec<JwtRule>,
}

/// One sort of token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JwtRule {
    /// The claim `iss`.
    pub issuer: Name,
    /// One of these is in the claim `aud`; none: no matter.
    pub audiences: Vec<Name>,
    /// What proves it.
    pub keys: Keys,
    /// Headers that may hold it, and what stands before it there. If no place is named at all, it is `Authorization: Bearer`
    /// and the parameter `access_token`.
    pub from_headers: Vec<(Name, Name)>,
    /// Query parameters that may hold it.
    pub from_params: Vec<Name>,
    /// Cookies that may hold it.
    pub from_cookies: Vec<Name>,
    /// The token goes on to the workload.
    pub forward: bool,
    /// The header that its payload goes on in; empty: none.
    pub payload_to: Name,
    /// Claims that go on in headers: the header, the claim.
    pub claims_to: Vec<(Name, Name)>,
    /// How long fetching keys may take.
    pub timeout: Duration,
    /// Claims that are lists separated by spaces, sorted.
    pub space_delimited: Vec<Name>,
    /// A request must bear it.
    pub required: bool,
}

/// Where keys come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keys {
    /// Written in the policy.
    Inline(Name),
    /// To be fetched.
    Fetched(KeySource),
}

/// Where keys are to be fetched.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum KeySource {
    /// The JSON Web Key Set at this URL.
    Url(Name),
    /// The one that OpenID discovery finds for this issuer.
    Issuer(Name),
}

/// What came of fetching.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchedKeys {
    /// A JSON Web Key Set as text.
    Set(Name),
    /// Why there is none yet.
    Failed(Name),
}

/// True for a JSON Web Key Set: an object with a list of `keys`. What the keys are is for the data plane to find out.
pub fn is_key_set(text: &str) -> bool {
    let set: Result<serde_json::Value, _> = serde_json::from_str(text);
    set.is_ok_and(|set| set.get("keys").is_some_and(serde_json::Value::is_array))
}

impl TableKey for KeySource {
    type Bucket = Self;
    fn bucket(&self) -> Self {
        self.clone()
    }
    fn first_of(bucket: &Self) -> Self {
        bucket.clone()
    }
}
