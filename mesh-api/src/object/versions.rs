//! The kinds in their older served versions, for clients of an apiserver that doesn't serve the newest or for whoever must
//! write it.
//!
//! The versions of a kind share one spec, so there is one Rust type for all of them, and it bears the version that we
//! prefer. [`Served`] is that object under another version's name; nothing in it is converted, and nothing can get lost.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::object::{HasSpec, HasStatus};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A version of an API.
pub trait Version {
    /// As in `apiVersion`: `v1beta1`.
    const NAME: &'static str;
}

macro_rules! versions {
    ($($(#[$meta:meta])* $version:ident = $name:literal;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $version {}
        impl Version for $version {
            const NAME: &'static str = $name;
        }
    )*};
}

versions! {
    /// `v1beta1`.
    V1Beta1 = "v1beta1";
    /// `v1alpha3`.
    V1Alpha3 = "v1alpha3";
    /// `v1alpha1`.
    V1Alpha1 = "v1alpha1";
}

/// The object `K` as version `V` of its API, for `kube::Api` and for writing: it reads any version, and says its own.
///
/// ```
/// use mesh_api::networking::{VirtualService, VirtualServiceSpec, v1beta1};
/// // kube::Api<v1beta1::VirtualService> asks for networking.istio.io/v1beta1.
/// let newest = VirtualService::new("reviews", VirtualServiceSpec { hosts: vec!["reviews".into()], ..Default::default() });
/// let older: v1beta1::VirtualService = newest.clone().into();
/// assert_eq!(serde_json::to_value(&older)?["apiVersion"], "networking.istio.io/v1beta1");
/// assert_eq!(older.spec.hosts, ["reviews"]);
/// assert_eq!(VirtualService::from(older), newest);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub struct Served<K, V> {
    object: K,
    version: PhantomData<fn() -> V>,
}

impl<K, V> Served<K, V> {
    /// The object in the version that its type prefers.
    pub fn into_inner(self) -> K {
        self.object
    }
}

impl<K, V> From<K> for Served<K, V> {
    fn from(object: K) -> Self {
        Self { object, version: PhantomData }
    }
}

impl<K, V> Deref for Served<K, V> {
    type Target = K;
    fn deref(&self) -> &K {
        &self.object
    }
}

impl<K, V> DerefMut for Served<K, V> {
    fn deref_mut(&mut self) -> &mut K {
        &mut self.object
    }
}

impl<K: Clone, V> Clone for Served<K, V> {
    fn clone(&self) -> Self {
        self.object.clone().into()
    }
}

impl<K: Default, V> Default for Served<K, V> {
    fn default() -> Self {
        K::default().into()
    }
}

impl<K: PartialEq, V> PartialEq for Served<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.object == other.object
    }
}

impl<K: fmt::Debug, V: Version> fmt::Debug for Served<K, V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple(V::NAME).field(&self.object).finish()
    }
}

impl<K: Resource<DynamicType = ()>, V: Version> Resource for Served<K, V> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        V::NAME.into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.meta_mut()
    }
}

impl<K, V> Serialize for Served<K, V>
where
    K: Resource<DynamicType = ()> + HasSpec + HasStatus,
    K::Spec: Serialize,
    K::Status: Serialize,
    V: Version,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Written<'a, Spec, Status> {
            api_version: Cow<'a, str>,
            kind: Cow<'a, str>,
            metadata: &'a ObjectMeta,
            spec: &'a Spec,
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<&'a Status>,
        }
        Written {
            api_version: Self::api_version(&()),
            kind: Self::kind(&()),
            metadata: self.meta(),
            spec: self.object.spec(),
            status: self.object.status(),
        }
        .serialize(serializer)
    }
}

impl<'de, K: Deserialize<'de>, V> Deserialize<'de> for Served<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::deserialize(deserializer).map(Self::from)
    }
}

/// Declares the module of an older version: the kinds that are served in it.
macro_rules! served {
    ($(#[$meta:meta])* $module:ident = $version:ident: $($kind:ident)+) => {
        $(#[$meta])*
        pub mod $module {
            use crate::object::{Served, $version};
            $(
                #[doc = concat!("[`", stringify!($kind), "`](super::", stringify!($kind), ") in this version.")]
                pub type $kind = Served<super::$kind, $version>;

                impl From<$kind> for super::$kind {
                    fn from(served: $kind) -> Self {
                        served.into_inner()
                    }
                }
            )+
        }
    };
}
pub(crate) use served;

#[cfg(test)]
mod tests {
    use kube::Resource;
    use serde_json::json;

    use crate::object::KINDS;
    use crate::{networking, security, telemetry};

    #[test]
    fn an_older_version_is_the_same_object_under_its_own_name() {
        let text = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "ServiceEntry",
            "metadata": {"name": "db"},
            "spec": {"hosts": ["db.example.com"]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let older: networking::v1alpha3::ServiceEntry = serde_json::from_value(text.clone()).unwrap();
        let mut written = serde_json::to_value(&older).unwrap();
        assert_eq!(written["apiVersion"], "networking.istio.io/v1alpha3");
        written["apiVersion"] = text["apiVersion"].clone();
        assert_eq!(written, text);
        assert_eq!(serde_json::to_value(networking::ServiceEntry::from(older)).unwrap(), text);
    }

    fn is_served<K: Resource<DynamicType = ()>>() {
        let (group, kind, version) = (K::group(&()), K::kind(&()), K::version(&()));
        let served = KINDS.iter().any(|k| k.group == group && k.kind == kind && k.versions.contains(&version.as_ref()));
        assert!(served, "{group}/{version} {kind}");
    }

    #[test]
    fn each_is_a_served_version() {
        is_served::<networking::v1alpha3::Sidecar>();
        is_served::<networking::v1beta1::WorkloadGroup>();
        is_served::<security::v1beta1::AuthorizationPolicy>();
        is_served::<telemetry::v1alpha1::Telemetry>();
        assert_eq!(networking::v1beta1::Gateway::plural(&()), "gateways");
    }
}
