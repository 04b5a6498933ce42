//! What protobuf JSON allows a writer beyond the canonical form: fields by the names of the proto file
//! (`max_connections`), enums by number, bytes in either alphabet of base64.
//!
//! All of it is for reading; nothing here writes. An unknown name stays as written, so that it can be reported so.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use k8s_openapi::ByteString;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer};

use super::message::{Field, camel_case};
use crate::document::Value;
use crate::document::at::{At, TypeError};

/// The name of a field as it is written: the one that JSON has (`maxConnections`) or that of the proto file.
pub(crate) struct FieldName<'k>(Cow<'k, str>);

impl<'k> FieldName<'k> {
    pub(crate) fn new(written: &'k str) -> Self {
        Self(if written.contains('_') { camel_case(written).into() } else { written.into() })
    }

    /// True if it is the name of `field`, which is in Rust's spelling.
    pub(crate) fn means(&self, field: &str) -> bool {
        let mut name = self.0.bytes();
        let mut capital = false;
        for letter in field.strip_prefix("r#").unwrap_or(field).bytes() {
            if letter == b'_' {
                capital = true;
                continue;
            }
            if name.next() != Some(if capital { letter.to_ascii_uppercase() } else { letter }) {
                return false;
            }
            capital = false;
        }
        name.next().is_none()
    }
}

/// An enum of a proto file.
pub(crate) trait Enumeration: DeserializeOwned {
    /// The alternative with this number.
    fn from_number(number: i64) -> Option<Self>;
}

/// Reads an enum: the name of an alternative, or its number.
pub(crate) fn enumeration<E: Enumeration>(at: &At<'_, '_, '_>) -> Result<E, TypeError> {
    let expected = "the name of an alternative, or its number";
    match &at.node().value {
        Value::String(name) => {
            let name: StrDeserializer<'_, TypeError> = name.as_ref().into_deserializer();
            E::deserialize(name)
        }
        Value::Int(number) => E::from_number(*number).ok_or_else(|| at.invalid(&expected)),
        Value::Uint(_) => Err(at.invalid(&expected)),
        _ => Err(at.wrong(&expected)),
    }
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

impl Field for ByteString {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        let text = at.text()?;
        let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
        alphabet.decode(text).map(Self).map_err(|_| at.invalid(&"bytes in base64"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use crate::document::{Node, at};
    use crate::networking::{ConnectionPoolSettings, DestinationRuleSpec, HttpBody, HttpDirectResponse};

    fn reads<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
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

    fn enumeration<E: super::Enumeration>(value: &Value) -> Option<E> {
        at::read(&Node::from_json(value), super::enumeration).ok().map(|(read, _)| read)
    }

    #[test]
    fn enums_have_numbers() {
        use crate::mesh::{AuthenticationPolicy, OutboundTrafficPolicyMode};
        use crate::networking::ServerTlsMode;
        use crate::types::AnalysisMessageLevel;
        assert_eq!(enumeration(&json!(2)), Some(ServerTlsMode::Mutual));
        assert_eq!(enumeration(&json!(1000)), Some(AuthenticationPolicy::Inherit));
        assert_eq!(enumeration(&json!(3)), Some(OutboundTrafficPolicyMode::AllowAnyDynamicDns));
        assert_eq!(enumeration(&json!(8)), Some(AnalysisMessageLevel::Warning));
        for wrong in [json!(2), json!(-1), json!(u64::MAX), json!(1.5), json!("allow_any"), json!(true), json!([])] {
            assert_eq!(enumeration::<OutboundTrafficPolicyMode>(&wrong), None, "{wrong}");
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
