//! The apiserver's steps and words, on a definition that has something of everything.

use serde_json::json;

use super::*;

/// A definition with this schema as its spec's.
fn validator(spec: Json) -> Validator {
    let schema = json!({"type": "object", "properties": {"spec": spec, "status": {"type": "object"}}});
    let crd = json!({"metadata": {"name": "things.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                      "subresources": {"status": {}}}],
    }});
    Validator::with(&[serde_json::from_value(crd).unwrap()])
}

fn thing(spec: Json) -> Json {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

fn told(validator: &Validator, object: &Json) -> Vec<String> {
    validator.validate(object).iter().map(|told| format!("{}: {}", told.path, told.message)).collect()
}

#[test]
fn values_must_fit_their_schema() {
    let validator = validator(json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^a"},
        "count": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 70000},
        "share": {"type": "number", "maximum": 1.5},
        "mode": {"type": "string", "enum": ["A", "B"]},
        "port": {"x-kubernetes-int-or-string": true},
        "list": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "boolean"}},
        "map": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
        "one": {"type": "object", "oneOf": [{"required": ["x"]}, {"required": ["y"]}],
                "properties": {"x": {"type": "string"}, "y": {"type": "string"}}},
        "when": {"type": "string", "format": "date-time"},
        "bytes": {"type": "string", "format": "byte"},
    }}));
    let valid = json!({"name": "abc", "count": 7.0, "share": 1, "mode": "A", "port": 80, "list": [true], "map": {"k": "v"},
        "one": {"x": ""}, "when": "2023-01-02T03:04:05+01:00", "bytes": "dGVh"});
    assert_eq!(told(&validator, &thing(valid)), [""; 0]);
    for (spec, message) in [
        (json!({}), "spec.name: Required value"),
        (json!({"name": null}), "spec.name: Required value"),
        (
            json!({"name": 5}),
            "spec.name: Invalid value: \"integer\": spec.name in body must be of type string: \"integer\"",
        ),
        (json!({"name": "a"}), "spec.name: Invalid value: \"a\": spec.name in body should be at least 2 chars long"),
        (json!({"name": "abcd"}), "spec.name: Too long: may not be more than 3 bytes"),
        (json!({"name": "ba"}), "spec.name: Invalid value: \"ba\": spec.name in body should match '^a'"),
        (
            json!({"name": "ab", "count": 0}),
            "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1",
        ),
        (
            json!({"name": "ab", "count": 70001}),
            "spec.count: Invalid value: 70001: spec.count in body should be less than or equal to 70000",
        ),
        (
            json!({"name": "ab", "count": 1.5}),
            "spec.count: Invalid value: \"\": spec.count in body must be of type int32: \"\"",
        ),
        (
            json!({"name": "ab", "share": 2.5}),
            "spec.share: Invalid value: 2.5: spec.share in body should be less than or equal to 1.5",
        ),
        (json!({"name": "ab", "mode": "C"}), "spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\""),
        (
            json!({"name": "ab", "port": true}),
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"name": "ab", "list": []}),
            "spec.list: Invalid value: 0: spec.list in body should have at least 1 items",
        ),
        (json!({"name": "ab", "list": [true, false]}), "spec.list: Too many: 2: must have at most 1 item"),
        (
            json!({"name": "ab", "list": [null]}),
            "spec.list[0]: Invalid value: \"null\": spec.list[0] in body must be of type boolean: \"null\"",
        ),
        (json!({"name": "ab", "map": {"a": "", "b": ""}}), "spec.map: Too many: 2: must have at most 1 item"),
        (
            json!({"name": "ab", "map": {"a": 1}}),
            "spec.map.a: Invalid value: \"integer\": spec.map.a in body must be of type string: \"integer\"",
        ),
        (
            json!({"name": "ab", "one": {"x": "", "y": ""}}),
            "spec.one: Invalid value: \"\": \"spec.one\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
        (
            json!({"name": "ab", "one": {}}),
            "spec.one: Invalid value: \"\": \"spec.one\" must validate one and only one schema (oneOf). Found none valid",
        ),
        (
            json!({"name": "ab", "when": "now"}),
            "spec.when: Invalid value: \"now\": spec.when in body must be of type date-time: \"now\"",
        ),
        (
            json!({"name": "ab", "bytes": "*"}),
            "spec.bytes: Invalid value: \"*\": spec.bytes in body must be of type byte: \"*\"",
        ),
        (json!({"name": "ab", "nam": 1}), "spec.nam: unknown field \"spec.nam\""),
    ] {
        let told = told(&validator, &thing(spec.clone()));
        assert_eq!(told.first().map(String::as_str), Some(message), "{spec}: {told:?}");
    }
}

#[test]
fn objects_are_decoded_first() {
    let validator = validator(json!({"type": "object", "required": ["mode"], "properties": {
        "mode": {"type": "string", "default": "A", "enum": ["A"]},
        "nested": {"type": "object", "default": {}, "properties": {"deep": {"type": "integer", "default": 3}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "any": {"type": "object", "additionalProperties": true},
        "nil": {"type": "string", "nullable": true},
    }, "x-kubernetes-validations": [{"rule": "self.nested.deep == 3"}]}));
    for spec in
        [json!({}), json!({"mode": null, "nested": {"deep": null}}), json!({"free": {"a": [{"b": null}]}, "nil": null})]
    {
        assert_eq!(told(&validator, &thing(spec.clone())), [""; 0], "{spec}");
    }
    let mut object = thing(json!({"nested": {"deep": 4}}));
    object["status"] = json!("dropped in a creation");
    object["extra"] = json!(1);
    assert_eq!(
        told(&validator, &object),
        ["extra: unknown field \"extra\"", "spec: Invalid value: failed rule: self.nested.deep == 3"]
    );
}

#[test]
fn lists_have_nothing_twice() {
    let validator = validator(json!({"type": "object", "properties": {
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "x": {"type": "integer"}}}},
    }}));
    let spec = json!({"set": ["a", "b", "a", "a"], "map": [{"name": "n", "x": 1}, {"name": "m"}, {"name": "n"}]});
    assert_eq!(
        told(&validator, &thing(spec)),
        ["spec.map[2]: Duplicate value: {\"name\":\"n\"}", "spec.set[2]: Duplicate value: \"a\""]
    );
}

#[test]
fn metadata_has_kubernetes_forms() {
    let validator = validator(json!({"type": "object"}));
    let mut object = thing(json!({}));
    object["metadata"] = json!({"name": "A", "labels": {"a b": "c", "d": "-"}, "annotations": {"e": 1}, "foo": 1});
    let codes: Vec<String> =
        validator.validate(&object).iter().map(|told| format!("{} {}", told.path, told.code)).collect();
    assert_eq!(
        codes,
        [
            "metadata.foo UnknownField",
            "metadata.name FieldValueInvalid",
            "metadata.labels FieldValueInvalid",
            "metadata.labels FieldValueInvalid",
            "metadata.annotations.e FieldValueInvalid",
        ]
    );
    object["metadata"] = json!({});
    assert_eq!(told(&validator, &object), ["metadata.name: Required value: name or generateName is required"]);
}

#[test]
fn rules_are_evaluated_and_told_as_by_an_apiserver() {
    let validator = validator(json!({"type": "object", "properties": {
        "a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0", "message": "must be positive"}]},
        "b": {"type": "integer"},
        "ports": {"type": "object", "additionalProperties": {"type": "integer",
                  "x-kubernetes-validations": [{"rule": "self < 9"}]}},
    }, "x-kubernetes-validations": [
        {"rule": "self.b > self.a", "message": "b must be above a"},
        {"rule": "!has(self.b) || self.b < 10", "messageExpression": "'b is ' + string(self.b)", "fieldPath": ".b",
         "reason": "FieldValueForbidden"},
        {"rule": "self == oldSelf", "message": "a change is not judged here"},
    ]}));
    assert_eq!(told(&validator, &thing(json!({"a": 1, "b": 2, "ports": {"x": 1}}))), [""; 0]);
    for (spec, messages) in [
        (json!({"a": 0, "b": 1}), vec!["spec.a: Invalid value: 0: must be positive"]),
        (json!({"a": 2, "b": 1}), vec!["spec: Invalid value: b must be above a"]),
        (json!({"a": 1}), vec!["spec: Invalid value: \"object\": no such key: b evaluating rule: b must be above a"]),
        (json!({"a": 1, "b": 10}), vec!["spec.b: Forbidden: b is 10"]),
        (json!({"a": 1, "b": 2, "ports": {"x": 9}}), vec!["spec.ports[x]: Invalid value: 9: failed rule: self < 9"]),
        (
            json!({"a": "x"}),
            vec![
                "spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\"",
                ": Invalid value: null: some validation rules were not checked because the object was invalid; \
                 correct the existing errors to complete validation",
            ],
        ),
    ] {
        assert_eq!(told(&validator, &thing(spec.clone())), messages, "{spec}");
    }
}

#[test]
fn the_rules_of_all_kinds_compile() {
    fn visit(path: &str, node: &Node, count: &mut usize) {
        for rule in &node.rules {
            *count += 1;
            assert!(rule.program.is_ok(), "{path}: {}: {:?}", rule.source.rule, rule.program);
        }
        assert!(node.pattern.as_ref().is_none_or(|(_, expression)| expression.is_some()), "{path}: {:?}", node.pattern);
        for (name, inner) in &node.properties {
            visit(&format!("{path}.{name}"), inner, count);
        }
        node.items.as_deref().into_iter().chain(node.values()).for_each(|inner| visit(path, inner, count));
    }
    let mut count = 0;
    let validator = Validator::new();
    for ((group, version, kind), judge) in &validator.versions {
        visit(&format!("{group}/{version} {kind}"), &judge.schema, &mut count);
    }
    assert!(count > 300, "only {count} rules");
}
