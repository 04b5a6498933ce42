//! What protobuf JSON allows a writer beyond the canonical form: fields by the names of the proto file
//! (`max_connections`), enums by number, bytes in either alphabet of base64.
//!
//! All of it is for reading; nothing here writes. An unknown name stays as written, so that it can be reported so.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use k8s_openapi::ByteString;
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::message::{Field, camel_case};

/// Reads a message: its fields have their JSON names (`maxConnections`) or those of the proto file.
pub(crate) struct Message<D>(pub(crate) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Message<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Fields(visitor))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A message's visitor, its map, its keys and their visitor: each hands on what it is given, the last one the JSON name.
struct Fields<T>(T);
struct Key<T>(T);

impl<'de, V: Visitor<'de>> Visitor<'de> for Fields<V> {
    type Value = V::Value;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Fields(map))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<A> {
    type Error = A::Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(Key(seed))
    }
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<K> {
    type Value = K::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        self.0.deserialize(Key(deserializer))
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Key<D> {
    type Error = D::Error;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_identifier(Key(visitor))
    }
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Key<V> {
    type Value = V::Value;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<V::Value, E> {
        if name.contains('_') { self.0.visit_str(&camel_case(name)) } else { self.0.visit_str(name) }
    }
}

/// An enum of a proto file.
pub(crate) trait Enumeration: DeserializeOwned {
    /// The alternative with this number.
    fn from_number(number: i64) -> Option<Self>;
}

/// Reads an enum: the name of an alternative, or its number.
pub(crate) fn enumeration<'de, E: Enumeration, D: Deserializer<'de>>(deserializer: D) -> Result<E, D::Error> {
    struct NameOrNumber<E>(PhantomData<E>);
    impl<E: Enumeration> Visitor<'_> for NameOrNumber<E> {
        type Value = E;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("the name of an alternative, or its number")
        }
        fn visit_str<R: Error>(self, name: &str) -> Result<E, R> {
            E::deserialize(name.into_deserializer())
        }
        fn visit_i64<R: Error>(self, number: i64) -> Result<E, R> {
            E::from_number(number).ok_or_else(|| R::invalid_value(Unexpected::Signed(number), &self))
        }
        fn visit_u64<R: Error>(self, number: u64) -> Result<E, R> {
            self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
        }
    }
    deserializer.deserialize_any(NameOrNumber(PhantomData))
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

impl<'de> Field<'de> for ByteString {
    fn present<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
        let bytes = alphabet.decode(&text);
        bytes.map(Self).map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"bytes in base64"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use crate::networking::{ConnectionPoolSettings, DestinationRuleSpec, HttpBody, HttpDirectResponse};

    fn reads<T: super::DeserializeOwned>(value: Value) -> Result<T, String> {
        from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_have_two_names() {
        let written: DestinationRuleSpec = reads(json!({
            "host": "a",
            "traffic_policy": {
                "connection_pool": {"http": {"http1_max_pending_requests": "7", "h2_upgrade_policy": 2}},
                "load_balancer": {"consistent_hash": {"ring_hash": {"minimum_ring_size": "8"}, "use_source_ip": true}},
            },
        }))
        .unwrap();
        let canonical = json!({
            "host": "a",
            "trafficPolicy": {
                "connectionPool": {"http": {"http1MaxPendingRequests": 7, "h2UpgradePolicy": "UPGRADE"}},
                "loadBalancer": {"consistentHash": {"ringHash": {"minimumRingSize": 8}, "useSourceIp": true}},
            },
        });
        assert_eq!(serde_json::to_value(&written).unwrap(), canonical);
        assert_eq!(reads::<DestinationRuleSpec>(canonical).unwrap(), written);
        let twice = json!({"http": {"maxRetries": 1, "max_retries": 2}});
        assert!(reads::<ConnectionPoolSettings>(twice).unwrap_err().contains("duplicate field"));
    }

    #[test]
    fn enums_have_numbers() {
        use crate::mesh::{AuthenticationPolicy, OutboundTrafficPolicyMode};
        use crate::networking::ServerTlsMode;
        use crate::types::AnalysisMessageLevel;
        assert_eq!(super::enumeration(json!(2)).ok(), Some(ServerTlsMode::Mutual));
        assert_eq!(super::enumeration(json!(1000)).ok(), Some(AuthenticationPolicy::Inherit));
        assert_eq!(super::enumeration(json!(3)).ok(), Some(OutboundTrafficPolicyMode::AllowAnyDynamicDns));
        assert_eq!(super::enumeration(json!(8)).ok(), Some(AnalysisMessageLevel::Warning));
        for wrong in [json!(2), json!(-1), json!(u64::MAX), json!(1.5), json!("allow_any"), json!(true), json!([])] {
            assert!(super::enumeration::<OutboundTrafficPolicyMode, _>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_base64_of_any_sort() {
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            let response: HttpDirectResponse = reads(json!({"status": 200, "body": {"bytes": text}})).unwrap();
            assert_eq!(response.body, Some(HttpBody::Bytes(k8s_openapi::ByteString(vec![0xfb, 0xff]))), "{text}");
        }
        assert!(reads::<HttpDirectResponse>(json!({"body": {"bytes": "a b"}})).unwrap_err().contains("base64"));
    }
}
