//! The language by examples, most of them those of Kubernetes' documentation.

use serde_json::json;

use super::*;
use crate::schema::node::Node;

fn value(text: &str) -> Result<String, String> {
    let program = Program::compile(text).map_err(|fault| fault.0)?;
    let value = program.evaluate(Value::Null, &Budget::default()).map_err(|fault| fault.0)?;
    Ok(match value {
        Value::Bool(truth) => truth.to_string(),
        other => super::core::to_text(&other).unwrap_or_else(|| format!("{other:?}")),
    })
}

#[test]
fn these_are_true() {
    for text in [
        // Numbers, texts and their literals.
        "1 + 2 * 3 == 7 && -7 / 2 == -3 && -7 % 2 == -1 && 0x1F == 31 && 7u == 7",
        "1.5e3 == 1500.0 && 1 == 1.0 && 2 > 1.5 && 3u < 4 && -9223372036854775808 < 0",
        r#"'a\n\x41\u00e9' == "a\nAé" && r'\d' == '\\d' && '''x'y''' == "x'y" && b'ab' == bytes('ab')"#,
        "'äö' .size() == 2 && size(b'äö') == 4 // a comment",
        // Logic takes the side that decides.
        "true || 1 / 0 > 0",
        "!(1 / 0 > 0 && false)",
        "(1 > 2 ? 'a' : 2 > 1 ? 'b' : 'c') == 'b'",
        // Collections.
        "2 in [1, 2] && !('c' in {'a': 1}) && {'a': [1]}.a[0] == 1 && [1] + [2] == [1, 2]",
        "has({'a': 1}.a) && !has({'a': 1}.b) && {'a': 1, 'b': 2} == {'b': 2, 'a': 1.0}",
        "[1, 2, 3].all(x, x > 0) && [1, 2].exists(x, x == 2) && [1, 2, 2].exists_one(x, x == 1)",
        "[1, 2, 3].map(x, x > 1, x * 2) == [4, 6] && [1, 2].filter(x, x > 1) == [2] && {'a': 1}.map(k, k) == ['a']",
        "[1, 2].exists(x, 1 / (x - 1) == 1) && ![0, 1].all(x, 1 / x > 5)",
        "[5, 6].all(i, v, v == i + 5) && {'a': 1}.exists(k, v, k == 'a' && v == 1)",
        "[1, 2].transformList(i, v, i > 0, v * 2) == [4] && {'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "{'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'} && ['b', 'a'].sortBy(x, x) == ['a', 'b']",
        "[1, 2, 3].isSorted() && [1, 3].sum() == 4 && [1, 3].max() == 3 && [2, 1].min() == 1 && [1, 2, 2].lastIndexOf(2) == 2",
        "[[1], [2, [3]]].flatten() == [1, 2, [3]] && [1, 1].distinct() == [1] && [1, 2, 3].slice(1, 3) == [2, 3]",
        "lists.range(3) == [0, 1, 2] && [2, 1].sort() == [1, 2] && [1, 2].reverse() == [2, 1] && [7].first().value() == 7",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && sets.intersects([1, 2], [2, 3])",
        // Optional values.
        "{'a': 1}.?b.orValue(2) == 2 && {'a': {'b': 3}}.?a.?b.value() == 3 && !optional.none().hasValue()",
        "optional.of(1).optMap(x, x + 1).value() == 2 && [1, ?optional.none()] == [1] && [1][?5].or(optional.of(0)).value() == 0",
        // Texts.
        "'hello'.contains('ell') && 'abc'.startsWith('ab') && 'abc'.endsWith('bc') && 'a1'.matches('^[a-z][0-9]$')",
        "'tacocat'.indexOf('ac', 3) == -1 && 'tacocat'.indexOf('ac') == 1 && 'tacocat'.lastIndexOf('at') == 5",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco' && 'abc'.charAt(3) == ''",
        "'a,b,c'.split(',', 2) == ['a', 'b,c'] && ['a', 'b'].join('-') == 'a-b' && 'ab'.split('') == ['a', 'b']",
        "' x '.trim() == 'x' && 'TacoCat'.lowerAscii() == 'tacocat' && 'hello hello'.replace('he', 'we', 1) == 'wello hello'",
        "'abc 123'.find('[0-9]+') == '123' && '123 abc 456'.findAll('[0-9]+', 1) == ['123']",
        "'%s is %d of %.2f%%'.format(['a', 2, 1.5]) == 'a is 2 of 1.50%'",
        // Conversions and time.
        "int('42') == 42 && double('1.5') == 1.5 && string(1e6) == '1e+06' && bool('true') && type(1) == int",
        "duration('1h30m') == duration('90m') && duration('90s').getSeconds() == 90 && string(duration('1.5s')) == '1.5s'",
        "timestamp('2023-01-02T03:04:05Z').getFullYear() == 2023 && timestamp('2023-01-01T00:00:00Z').getDayOfWeek() == 0",
        "timestamp('2023-01-02T00:00:00Z') - timestamp('2023-01-01T00:00:00Z') == duration('24h')",
        "timestamp('2023-01-02T03:04:05Z').getHours('-05:00') == 22",
        // Kubernetes' libraries.
        "url('https://user:pw@[::1]:80/p?k=a&k=b#f').getHostname() == '::1' && url('/p').getScheme() == ''",
        "url('https://example.com:80/').getHost() == 'example.com:80' && url('https://e.com/?k=1&k=2').getQuery() == {'k': ['1', '2']}",
        "isURL('/absolute') && !isURL('../relative') && !isURL('https://a:b:c/') && url('https://e.com/a b').getEscapedPath() == '/a%20b'",
        "ip('::1').family() == 6 && isIP('127.0.0.1') && !isIP('::ffff:1.2.3.4') && ip.isCanonical('::1') && ip('fe80::1').isLinkLocalUnicast()",
        "cidr('192.168.0.0/24').containsIP('192.168.0.1') && cidr('10.0.0.1/8').masked() == cidr('10.0.0.0/8') && !isCIDR('1.2.3.4/33')",
        "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && cidr('::1/128').prefixLength() == 128",
        "quantity('50M').compareTo(quantity('50Mi')) == -1 && quantity('1.5k').asInteger() == 1500 && !isQuantity('200K')",
        "quantity('50k').add(20).sub(quantity('20')) == quantity('50k') && quantity('100m').isLessThan(quantity('1'))",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.0', true).minor() == 0 && semver('1.0.0-a').isLessThan(semver('1.0.0'))",
        "format.dns1123Label().validate('a_b').hasValue() && !format.named('uuid').value().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()",
    ] {
        assert_eq!(value(text).as_deref(), Ok("true"), "{text}");
    }
}

#[test]
fn faults_are_worded_as_in_go() {
    for (text, fault) in [
        ("{'a': 1}.b", "no such key: b"),
        ("[1][1]", "index out of bounds: 1"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("1 + 'a'", "no such overload"),
        ("'a' && true", "no such overload"),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("duration('1 day')", "type conversion error from 'string' to 'google.protobuf.Duration'"),
        ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
        ("unknown > 1", "undeclared reference to 'unknown' (in container '')"),
        ("[].max()", "max called on empty list"),
        ("1 +", "Syntax error: the expression ends too early"),
        ("'a", "Syntax error: a text does not end"),
        ("has(a)", "Syntax error: invalid argument to has() macro"),
    ] {
        assert_eq!(value(text), Err(fault.to_owned()), "{text}");
    }
}

#[test]
fn depth_and_cost_are_limited() {
    let nested = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let chained = vec!["1"; 10_000].join(" + ");
    for text in [nested, chained] {
        assert_eq!(value(&text), Err("expression recursion limit exceeded: 250".to_owned()));
    }
    assert_eq!(value(&vec!["true"; 10_000].join(" && ")).as_deref(), Ok("true"));
    let costly = "lists.range(2000).all(a, lists.range(2000).all(b, a + b >= 0))";
    assert_eq!(value(costly), Err("operation cancelled: actual cost limit exceeded".to_owned()));
}

#[test]
fn values_are_seen_through_their_schema() {
    let schema = serde_json::from_value(json!({"type": "object", "properties": {
        "a-b": {"type": "string"}, "namespace": {"type": "integer"}, "n": {"type": "number"},
        "port": {"x-kubernetes-int-or-string": true}, "nil": {"type": "string", "nullable": true},
        "when": {"type": "string", "format": "date-time"},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    }}))
    .unwrap();
    let node = Node::compile(&schema);
    let object = json!({"a-b": "c", "namespace": 5, "n": 2, "port": "http", "nil": null, "hidden": 1,
        "when": "2023-01-02T03:04:05Z", "map": {"k": 1}, "list": [{"x": 1}, {"x": 2}]});
    for text in [
        "self.a__dash__b == 'c' && self.__namespace__ == 5 && type(self.n) == double && self.port == 'http'",
        "!has(self.nil) && !has(self.hidden) && has(self.map.k) && self.map.size() == 1 && 'k' in self.map",
        "self.when.getFullYear() == 2023 && self.list.map(l, l.x).sum() == 3",
        "self.list.all(a, self.list.exists_one(b, a.x == b.x))",
    ] {
        let program = Program::compile(text).unwrap();
        let value = program.evaluate(Value::of(&object, &node).unwrap(), &Budget::default());
        assert!(matches!(value, Ok(Value::Bool(true))), "{text}: {value:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[a-z0-9()\\[\\]{}.,?:<>=!&|+*/%'\" -]{0,40}|\\PC{0,20}") {
        let _ = value(&text);
    }
}
