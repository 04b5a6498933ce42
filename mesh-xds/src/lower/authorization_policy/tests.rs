use mesh_api::Object;

use super::*;
use crate::model::attachment::Attachment;
use crate::model::authorization_policy::Pattern;
use crate::testing::objects;

fn lowered(annotations: &str, spec: &str) -> (Option<Arc<AuthorizationPolicy>>, Vec<String>) {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: ns, annotations: \
         {{{annotations}}}}}\nspec: {spec}\n"
    );
    let Object::AuthorizationPolicy(object) = objects(&text).remove(0) else { panic!("no policy") };
    let Lowered { rows, diagnostics } = lower(&object);
    let row = rows.into_iter().next().map(|row| match row {
        Row::AuthorizationPolicy(_, row) => row,
        other => panic!("{other:?}"),
    });
    (row, diagnostics.iter().map(|d| format!("{} {}", d.code, d.path)).collect())
}

#[test]
fn conditions_are_part_of_each_alternative() {
    let spec = "{rules: [{from: [{source: {principals: [a], notNamespaces: [b]}}, {}], when: [{key: source.ip, values: [10.0.0.0/8]}, \
                {key: destination.port, notValues: ['80']}]}]}";
    let (row, told) = lowered("", spec);
    assert!(told.is_empty(), "{told:?}");
    let row = row.unwrap();
    let rule = &row.rules[0];
    let sizes = |alternatives: &[Vec<Clause<Client>>]| alternatives.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(&rule.from), [3, 1]);
    assert_eq!(rule.to, [[Clause { one_of: vec![], none_of: vec![Operation::Port(80)] }]]);
    assert_eq!(rule.from[0][1], Clause { one_of: vec![], none_of: vec![Client::Namespace("b".into())] });
}

#[test]
fn no_rules_mean_nothing_and_an_empty_rule_means_all() {
    let rules = |spec: &str| lowered("", spec).0.unwrap().rules.clone();
    assert_eq!(rules("{}"), [Rule { index: 0, from: vec![], to: vec![] }]);
    assert_eq!(rules("{rules: [{}]}"), [Rule { index: 0, from: vec![vec![]], to: vec![vec![]] }]);
}

#[test]
fn what_cannot_be_read_never_allows_more_nor_denies_less() {
    let bad = [
        ("to: [{operation: {ports: [http, '80']}}]", "InvalidPort spec.rules[0].to[0].operation.ports[0]"),
        ("from: [{source: {ipBlocks: [x, 10.0.0.1]}}]", "InvalidAddress spec.rules[0].from[0].source.ipBlocks[0]"),
        ("to: [{operation: {paths: ['/{**}/{*}', /a]}}]", "InvalidPath spec.rules[0].to[0].operation.paths[0]"),
        ("to: [{operation: {paths: ['a/{*}', /a]}}]", "InvalidPath spec.rules[0].to[0].operation.paths[0]"),
        ("when: [{key: 'request.headers[]', values: [a]}]", "InvalidKey spec.rules[0].when[0].values[0]"),
        ("when: [{key: request.auth.claims, values: [a]}]", "InvalidKey spec.rules[0].when[0].values[0]"),
    ];
    for (rule, want) in bad {
        let (allow, told) = lowered("", &format!("{{rules: [{{{rule}}}]}}"));
        assert_eq!((allow.unwrap().rules.len(), told.as_slice()), (0, [want.to_owned()].as_slice()), "{rule}");
        let (deny, told) = lowered("", &format!("{{action: DENY, rules: [{{{rule}}}]}}"));
        assert_eq!((deny.unwrap().rules.len(), told.as_slice()), (1, [want.to_owned()].as_slice()), "{rule}");
    }
    let (deny, told) = lowered("", "{action: DENY, rules: [{when: [{key: nonsense, values: [a]}]}]}");
    assert_eq!((deny.unwrap().rules.len(), told), (0, vec!["UnknownAttribute spec.rules[0].when[0].key".to_owned()]));
}

#[test]
fn attributes_and_values() {
    let client = |key: &str, value: &str| {
        let spec = format!("{{rules: [{{when: [{{key: '{key}', values: ['{value}']}}]}}]}}");
        lowered("", &spec).0.unwrap().rules[0].from[0][0].one_of[0].clone()
    };
    let exact = |text: &str| Pattern::Exact(text.into());
    let principal = |issuer, subject| Client::RequestPrincipal { issuer, subject };
    for (value, want) in [
        ("*", principal(Pattern::Any, Pattern::Any)),
        ("https://a.b/c", principal(exact("https://a.b"), exact("c"))),
        ("https://a.b/*", principal(exact("https://a.b"), Pattern::Any)),
        ("*/c", principal(Pattern::Any, exact("c"))),
        ("*b/c", principal(Pattern::Suffix("b".into()), exact("c"))),
        ("iss/c*", principal(exact("iss"), Pattern::Prefix("c".into()))),
        ("iss*", principal(Pattern::Prefix("iss".into()), Pattern::Any)),
        ("*sub", principal(Pattern::Any, Pattern::Suffix("sub".into()))),
        ("iss", principal(exact("iss"), exact(""))),
    ] {
        assert_eq!(client("request.auth.principal", value), want, "{value}");
    }
    let claim = |path: &[&str]| Client::Claim { path: path.iter().map(|p| (*p).into()).collect(), value: exact("v") };
    assert_eq!(client("request.auth.claims[a][b]", "v"), claim(&["a", "b"]));
    assert_eq!(client("request.auth.claims[a.b]", "v"), claim(&["a.b"]));
    assert_eq!(client("request.auth.audiences", "v"), claim(&["aud"]));
    let account = |namespace: &str| Client::ServiceAccount { namespace: namespace.into(), name: "sa".into() };
    assert_eq!(client("source.serviceAccount", "sa"), account("ns"));
    assert_eq!(client("source.serviceAccount", "other/sa"), account("other"));
    let spec = "{rules: [{when: [{key: 'experimental.envoy.filters.a.b[c]', values: ['[v]', v*]}]}]}";
    let found =
        |in_list, value| Operation::Metadata { filter: "envoy.filters.a.b".into(), key: "c".into(), in_list, value };
    let rule = lowered("", spec).0.unwrap().rules[0].clone();
    assert_eq!(rule.to[0][0].one_of, [found(true, exact("v")), found(false, Pattern::Prefix("v".into()))]);
}

#[test]
fn dry_runs_targets_and_providers() {
    let (row, told) = lowered("istio.io/dry-run: 'true'", "{}");
    assert_eq!((row.unwrap().dry_run, told.len()), (true, 0));
    let (row, told) = lowered("istio.io/dry-run: maybe", "{}");
    assert_eq!((row.unwrap().dry_run, told.len()), (false, 1));
    let (row, told) = lowered("istio.io/dry-run: 'true'", "{action: CUSTOM, provider: {name: a}}");
    assert_eq!((row, told.len()), (None, 1));
    let (row, told) = lowered("", "{action: CUSTOM}");
    assert_eq!(
        (row.unwrap().action.clone(), told),
        (Action::Custom("".into()), vec!["NoProvider spec.provider.name".into()])
    );
    let spec = "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}, {kind: Service, name: s}]}";
    let (row, told) = lowered("", spec);
    assert_eq!(row.unwrap().attachment, Attachment::Gateways(vec!["gw".into()]));
    assert_eq!(told, ["UnsupportedField spec.targetRefs[1]"]);
}
