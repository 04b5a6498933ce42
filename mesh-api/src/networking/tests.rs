//! The reading rules that all networking kinds share, shown on fields of each sort.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::types::Duration;

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn refusal<T: DeserializeOwned + std::fmt::Debug>(value: Value) -> String {
    serde_json::from_value::<T>(value).unwrap_err().to_string()
}

#[test]
fn null_and_absent_are_the_zero_value() {
    let nulls = json!({"hosts": null, "gateways": null, "http": [{
        "name": null, "match": null, "redirect": null, "timeout": null, "mirrorPercent": null, "headers": {"request": null},
    }], "tcp": null});
    let spec: VirtualServiceSpec = read(nulls);
    let expected = VirtualServiceSpec {
        http: vec![HttpRoute { headers: Some(Headers::default()), ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(spec, expected);
    assert_eq!(serde_json::to_value(&spec).unwrap(), json!({"http": [{"headers": {}}]}));
}

#[test]
fn a_spec_may_be_missing() {
    for object in [json!({"metadata": {"name": "all"}}), json!({"metadata": {"name": "all"}, "spec": null})] {
        assert_eq!(read::<Sidecar>(object).spec, SidecarSpec::default());
    }
}

#[test]
fn numbers_may_be_text_or_floats_without_fraction() {
    for weight in [json!(80), json!("80"), json!(80.0)] {
        assert_eq!(read::<RouteDestination>(json!({ "weight": weight })).weight, 80);
    }
    for value in [json!(0.5), json!("0.5")] {
        assert_eq!(read::<Percent>(json!({ "value": value })).value, 0.5);
    }
    assert_eq!(refusal::<Percent>(json!({"value": "NaN"})), "value: invalid value: string \"NaN\", expected a number");
    assert_eq!(refusal::<PortSelector>(json!({"number": -1})), "number: -1 is out of range, expected 0 to 4294967295");
    assert_eq!(
        refusal::<PortSelector>(json!({"number": "http"})),
        "number: invalid value: string \"http\", expected an integer of type u32"
    );
    assert_eq!(
        refusal::<PortSelector>(json!({"number": 80.5})),
        "number: invalid value: floating point `80.5`, expected an integer of type u32"
    );
}

#[test]
fn unknown_fields_are_skipped_and_unknown_names_refused() {
    assert_eq!(read::<Destination>(json!({"host": "a", "hots": "b"})).host, "a");
    assert_eq!(read::<ConsistentHashLb>(json!({"hots": {"b": [1]}})), ConsistentHashLb::default());
    assert_eq!(
        refusal::<DestinationRuleSpec>(json!({"trafficPolicy": {"tls": {"mode": "SIMPEL"}}})),
        "trafficPolicy.tls.mode: unknown variant `SIMPEL`, expected one of `DISABLE`, `SIMPLE`, `MUTUAL`, `ISTIO_MUTUAL`"
    );
}

#[test]
fn lists_and_maps_hold_no_null() {
    assert!(refusal::<VirtualServiceSpec>(json!({"hosts": ["a", null]})).starts_with("hosts[1]: invalid type: null"));
    assert!(
        refusal::<HttpMatchRequest>(json!({"sourceLabels": {"app": null}}))
            .starts_with("sourceLabels.app: invalid type: null")
    );
}

#[test]
fn a_oneof_takes_one_of_its_fields() {
    let settings: LoadBalancerSettings = read(json!({
        "simple": null,
        "consistentHash": {"useSourceIp": true, "maglev": {"tableSize": "65537"}},
        "warmup": {"duration": "1m"},
    }));
    let hash = ConsistentHashLb {
        hash_key: Some(HashKey::UseSourceIp(true)),
        hash_algorithm: Some(HashAlgorithm::Maglev(MagLev { table_size: 65537 })),
        ..Default::default()
    };
    assert_eq!(settings.lb_policy, Some(LbPolicy::ConsistentHash(hash)));
    assert_eq!(settings.warmup.and_then(|warmup| warmup.duration), Some(Duration::from_secs(60)));
    assert_eq!(read::<LoadBalancerSettings>(json!({})).lb_policy, None);
}

#[test]
fn a_oneof_reports_contradictions_and_wrong_values() {
    let both = r#"{"simple": "RANDOM", "consistentHash": {}}"#;
    let error = serde_json::from_str::<LoadBalancerSettings>(both).unwrap_err().to_string();
    assert!(error.contains("`simple` and `consistentHash` exclude each other"), "{error}");
    assert_eq!(
        refusal::<LoadBalancerSettings>(json!({"consistentHash": {"httpCookie": {"name": "c", "ttl": "1 day"}}})),
        "consistentHash.httpCookie.ttl: invalid duration \"1 day\", expected a number with a unit \
         (h, m, s, ms, us, ns) such as 1.5s or 1h30m"
    );
    assert_eq!(
        refusal::<LoadBalancerSettings>(json!({"simple": "RANDOMLY"})),
        "simple: unknown variant `RANDOMLY`, expected one of `UNSPECIFIED`, `LEAST_CONN`, `RANDOM`, `PASSTHROUGH`, \
         `ROUND_ROBIN`, `LEAST_REQUEST`"
    );
    assert_eq!(
        refusal::<StringMatch>(json!({"exact": "a", "prefix": "b"})),
        "prefix: `exact` and `prefix` exclude each other"
    );
}

#[test]
fn string_matches_and_bodies() {
    let request: HttpMatchRequest =
        read(json!({"uri": {"prefix": "/a"}, "headers": {"x-there": {}, "x-one": {"exact": "1"}}}));
    assert_eq!(request.uri, Some(StringMatch::Prefix("/a".into())));
    assert_eq!(request.headers["x-there"], StringMatch::Present);
    assert_eq!(
        serde_json::to_value(&request).unwrap(),
        json!({"uri": {"prefix": "/a"}, "headers": {"x-there": {}, "x-one": {"exact": "1"}}})
    );
    let bytes: HttpDirectResponse = read(json!({"status": 418, "body": {"bytes": "dGVh"}}));
    assert_eq!(bytes.body, Some(HttpBody::Bytes(k8s_openapi::ByteString(b"tea".to_vec()))));
    assert_eq!(read::<HttpDirectResponse>(json!({"status": 418, "body": {}})).body, None);
}
