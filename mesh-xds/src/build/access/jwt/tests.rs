use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use prost::Message;

use super::*;
use crate::model::Features;
use crate::proxy::ProxyType;
use crate::testing::{envoy_accepts, snapshot};
use crate::{Builder, Change, Proxy, Snapshot, TypeUrl};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};

const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: app, namespace: default}
spec: {clusterIP: 10.0.0.1, selector: {app: app}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: keys, namespace: default}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 8000}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  selector: {app: app}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
";

fn world(rules: &str, features: &[(&str, &str)]) -> Snapshot {
    let text = format!(
        "{WORLD}apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: default}}\nspec: {{jwtRules: \
         {rules}}}\n"
    );
    let features = features.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    snapshot(&text, Settings { features: Features::new(features), ..Settings::default() })
}

/// The filter for tokens of all chains that speak HTTP, in listeners that Envoy accepts.
fn filters(world: &Snapshot, kind: ProxyType) -> Vec<JwtAuthentication> {
    let mut proxy = Proxy::sidecar("app.default", "default", [10, 1, 0, 1].into());
    proxy.kind = kind;
    proxy.labels = [("app".into(), "app".into())].into();
    let (builder, proxy) = (Builder::default(), Arc::new(proxy));
    let built = |kind| builder.build(world, &proxy, kind);
    let listeners: Vec<Listener> = built(TypeUrl::Listener).iter().map(|l| l.decode().unwrap()).collect();
    let clusters: Vec<Cluster> = built(TypeUrl::Cluster).iter().map(|c| c.decode().unwrap()).collect();
    envoy_accepts(listeners.clone(), clusters);
    let mut out = Vec::new();
    let all = listeners.iter().filter(|l| l.name != "virtualOutbound").flat_map(|l| &l.filter_chains);
    for found in all.flat_map(|chain| &chain.filters) {
        let Some(filter::ConfigType::TypedConfig(any)) = &found.config_type else { continue };
        if !any.type_url.ends_with("HttpConnectionManager") {
            continue;
        }
        let hcm = HttpConnectionManager::decode(&*any.value).unwrap();
        for filter in hcm.http_filters.iter().filter(|filter| filter.name == JWT_FILTER) {
            let Some(http_filter::ConfigType::TypedConfig(any)) = &filter.config_type else { panic!("typed") };
            out.push(JwtAuthentication::decode(&*any.value).unwrap());
        }
    }
    out
}

fn source(config: &JwtAuthentication, index: usize) -> &JwksSourceSpecifier {
    config.providers[&provider_name(index)].jwks_source_specifier.as_ref().unwrap()
}

#[test]
fn one_issuer_may_be_absent_but_not_wrong() {
    let rule = "[{issuer: a, audiences: [x], jwks: '{\"keys\":[]}', fromHeaders: [{name: x-token, prefix: 'T '}], fromParams: [t], fromCookies: \
                [c], forwardOriginalToken: true, outputPayloadToHeader: x-payload, outputClaimToHeaders: [{header: x-g, claim: g}]}]";
    let world = world(rule, &[]);
    for (kind, again) in [(ProxyType::Sidecar, false), (ProxyType::Router, true)] {
        let found = filters(&world, kind);
        assert!(!found.is_empty() && found.iter().all(|config| *config == found[0]), "{kind:?}");
        let provider = &found[0].providers["origins-0"];
        assert_eq!(provider.clear_route_cache, again);
        assert_eq!(provider.payload_in_metadata, "payload");
        assert_eq!(
            (provider.from_params.as_slice(), provider.from_cookies.as_slice()),
            (["t".to_owned()].as_slice(), ["c".to_owned()].as_slice())
        );
        assert_eq!(
            provider.normalize_payload_in_metadata.as_ref().unwrap().space_delimited_claims,
            ["permission", "scope"]
        );
        let Some(RequirementType::Requires(requires)) = &found[0].rules[0].requirement_type else { panic!("a rule") };
        let Some(RequiresType::RequiresAny(any)) = &requires.requires_type else { panic!("any") };
        assert_eq!(any.requirements[1].requires_type, Some(RequiresType::AllowMissing(Empty {})));
    }
}

#[test]
fn what_is_required_must_be_there() {
    let world = world("[{issuer: b, jwks: '{}'}, {issuer: a, jwks: '{}', presence: REQUIRED}]", &[]);
    let found = filters(&world, ProxyType::Sidecar).remove(0);
    let Some(RequirementType::Requires(requires)) = &found.rules[0].requirement_type else { panic!("a rule") };
    let Some(RequiresType::RequiresAll(all)) = &requires.requires_type else { panic!("all") };
    assert_eq!(all.requirements[0].requires_type, Some(RequiresType::ProviderName("origins-0".to_owned())));
    assert_eq!(found.providers["origins-0"].issuer, "a", "by issuer");
    assert_eq!(all.requirements.len(), 2);
}

#[test]
fn keys_come_from_whoever_is_to_fetch_them() {
    let outside = "[{issuer: a, jwksUri: 'https://out.example/keys'}]";
    let inside = "[{issuer: a, jwksUri: 'http://keys.default.svc.cluster.local:8000/keys'}]";
    let url = KeySource::Url("https://out.example/keys".into());
    let at = world(outside, &[]);
    assert!(Builder::default().wanted_keys(&at).contains_key(&url));
    let keys = |at: &Snapshot| filters(at, ProxyType::Sidecar).first().map(|config| source(config, 0).clone());
    assert_eq!(keys(&at), Some(local(NOBODYS_KEY)));
    assert_eq!(Builder::default().problems(&at), []);
    let failed = at.apply([Change::Keys(url.clone(), Some(FetchedKeys::Failed("no answer".into())))]);
    assert_eq!(keys(&failed), Some(local(NOBODYS_KEY)));
    assert_eq!(Builder::default().problems(&failed).len(), 1);
    let set = NOBODYS_KEY.replace("rJXEYW", "sJXEYW");
    let fetched = failed.apply([Change::Keys(url.clone(), Some(FetchedKeys::Set(set.as_str().into())))]);
    assert_eq!(keys(&fetched), Some(local(&set)));
    assert_ne!(keys(&fetched), keys(&failed));

    let cluster = |rules: &str, mode: &str| match keys(&world(rules, &[("PILOT_JWT_ENABLE_REMOTE_JWKS", mode)])) {
        Some(JwksSourceSpecifier::RemoteJwks(remote)) => remote.http_uri.and_then(|uri| uri.http_upstream_type),
        _ => None,
    };
    let to = |name: &str| Some(HttpUpstreamType::Cluster(name.to_owned()));
    assert_eq!(cluster(inside, "true"), to("outbound|8000||keys.default.svc.cluster.local"));
    assert_eq!(cluster(outside, "true"), None, "the control plane fetches what is outside");
    assert_eq!(cluster(outside, "envoy"), to("outbound|443||out.example"));
    assert_eq!(cluster(inside, "false"), None);
}

#[test]
fn no_key_set_costs_a_listener() {
    let point = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    for set in [
        "nonsense",
        "{}",
        "{\"keys\":[]}",
        "{\"keys\":[1,{\"kty\":\"RSA\"}]}",
        "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"?\",\"e\":\"AQAB\"}]}",
        &format!("{{\"keys\":[{{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"{point}\",\"y\":\"{point}\"}}]}}"),
    ] {
        let world = world(&format!("[{{issuer: a, jwks: '{set}'}}]"), &[]);
        assert!(!filters(&world, ProxyType::Sidecar).is_empty(), "{set}");
    }
    assert_eq!(acceptable(NOBODYS_KEY), NOBODYS_KEY);
}

#[test]
fn nobodys_key_is_a_key() {
    let set: serde_json::Value = serde_json::from_str(NOBODYS_KEY).unwrap();
    assert_eq!(set["keys"][0]["n"].as_str().unwrap().len(), 342);
}
