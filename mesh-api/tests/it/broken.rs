//! Documents that are wrong, each in its own way: every one is reported with file and line, and costs no neighbour.

use mesh_api::{Severity, document};

/// What is wrong, the document, and the line of it that must be told.
const BROKEN: &[(&str, &str, u32)] = &[
    // Not YAML.
    ("open list", "a: [1, 2\nb: 3\n", 2),
    ("open mapping", "a: {b: 1\nc: 2\n", 2),
    ("open quote", "a: \"x\nb: y\n", 1),
    ("open single quote", "a: 'x\nb: y\n", 1),
    ("text after quote", "a: \"x\" y\n", 1),
    ("bad escape", "a: \"\\q\"\n", 1),
    ("tab indentation", "a:\n\tb: 1\n", 2),
    ("sibling too far left", "a:\n    b: 1\n  c: 2\n", 3),
    ("sibling too far right", "a: 1\n  b: 2\n", 2),
    ("no colon", "a: 1\nb\nc: 2\n", 3),
    ("two values", "a: b: c\n", 1),
    ("list in mapping", "a: 1\n- b\n", 2),
    ("mapping in list", "- a\nb: 1\n", 2),
    ("closing bracket alone", "a: ]\n", 1),
    ("closing brace alone", "a: }\n", 1),
    ("at sign", "a: @b\n", 1),
    ("backtick", "a: `b`\n", 1),
    ("percent", "a: %b\n", 1),
    ("unknown alias", "a: *nobody\n", 1),
    ("merge of a scalar", "a: &x 1\nb:\n  <<: *x\n", 1),
    ("list as key", "? [a, b]\n: 1\n", 1),
    ("mapping as key", "{a: 1}: 2\n", 1),
    ("foreign tag", "a: !secret b\n", 1),
    ("binary tag", "a: !!binary aGk=\n", 1),
    ("foreign tag on a mapping", "a: !thing\n  b: 1\n", 1),
    ("text as number", "a: !!int x\n", 1),
    ("text as boolean", "a: !!bool x\n", 1),
    ("text as float", "a: !!float x\n", 1),
    ("Helm template", "metadata:\n  {{- include \"labels\" . }}\n", 2),
    ("Go template block", "{{ if .Values.on }}\nkind: Service\n{{ end }}\n", 1),
    ("control character", "a: \u{1}\n", 1),
    ("block scalar header", "a: |x\n  b\n", 1),
    ("merge conflict marker", "<<<<<<< HEAD\nkind: Service\n=======\nkind: Pod\n", 2),
    ("JSON without a comma", "{\"kind\": \"Service\"\n \"apiVersion\": \"v1\"}\n", 2),
    ("JSON cut off", "{\"kind\": \"Service\",\n \"metadata\": {\"name\":\n", 2),
    // Not well-formed as a document.
    ("twice the same key", "kind: Service\napiVersion: v1\nkind: Pod\n", 3),
    ("twice the same quoted key", "a: 1\n\"a\": 2\n", 2),
    ("twice the same number as key", "1: a\n0x1: b\n", 2),
    ("twice the same key, nested", "a:\n  b:\n    c: 1\n    c: 2\n", 4),
    ("twice the same key in a flow", "a: {b: 1, b: 2}\n", 1),
    ("twice the same key in JSON", "{\"a\": 1,\n\"a\": 2}\n", 2),
    // No object.
    ("text", "hello\n", 1),
    ("number", "42\n", 1),
    ("list of texts", "- a\n- b\n", 1),
    ("boolean", "yes\n", 1),
    ("no kind", "apiVersion: v1\nmetadata: {name: a}\n", 1),
    ("no apiVersion", "kind: Service\nmetadata: {name: a}\n", 1),
    ("empty kind", "apiVersion: v1\nkind: \"\"\nmetadata: {name: a}\n", 1),
    ("null kind", "apiVersion: v1\nkind:\nmetadata: {name: a}\n", 1),
    ("kind is a list", "apiVersion: v1\nkind: [Service]\nmetadata: {name: a}\n", 2),
    ("kind is a number", "apiVersion: v1\nkind: 7\nmetadata: {name: a}\n", 2),
    ("apiVersion is a number", "apiVersion: 1\nkind: Service\nmetadata: {name: a}\n", 1),
    ("no metadata", "apiVersion: v1\nkind: Service\n", 1),
    ("no name", "apiVersion: v1\nkind: Service\nmetadata:\n  namespace: a\n", 4),
    ("empty name", "apiVersion: v1\nkind: Service\nmetadata:\n  name: \"\"\n", 4),
    ("generated name", "apiVersion: v1\nkind: Pod\nmetadata:\n  generateName: a-\n", 4),
    ("metadata is a text", "apiVersion: v1\nkind: Service\nmetadata: a\n", 3),
    ("metadata is a list", "apiVersion: v1\nkind: Service\nmetadata:\n- name: a\n", 4),
    ("name is a number", "apiVersion: v1\nkind: Service\nmetadata:\n  name: 1\n", 4),
    ("namespace is a boolean", "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  namespace: on\n", 5),
    ("label is a number", "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  labels: {version: 1}\n", 5),
    ("annotation is a boolean", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    x: true\n", 6),
    ("time is no time", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  creationTimestamp: noon\n", 5),
    ("foreign object's name", "apiVersion: a.example/v1\nkind: Thing\nmetadata:\n  name: [a]\n", 4),
    ("foreign object without a name", "apiVersion: a.example/v1\nkind: Thing\n", 1),
    // Unserved or misspelt.
    ("unserved version", "apiVersion: networking.istio.io/v1alpha1\nkind: Gateway\nmetadata: {name: a}\n", 1),
    ("unserved core version", "apiVersion: v2\nkind: Service\nmetadata: {name: a}\n", 1),
    ("old Deployment", "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: a}\n", 1),
    ("misspelt kind", "apiVersion: networking.istio.io/v1\nkind: VirtualServise\nmetadata: {name: a}\n", 2),
    ("kind of another group", "apiVersion: security.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\n", 2),
    // Values that don't fit Kubernetes' fields.
    ("spec is a text", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: x\n", 4),
    ("ports is a mapping", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports: {port: 80}\n", 5),
    ("port is a text", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: http\n", 6),
    ("port is a fraction", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 80.5\n", 6),
    (
        "port too large",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 3000000000\n",
        6,
    ),
    (
        "port missing",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - name: x\n    port: []\n",
        7,
    ),
    ("selector value", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  selector:\n    v: 2\n", 6),
    ("cluster IPs", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  clusterIPs: 10.0.0.1\n", 5),
    (
        "ready is a text",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nendpoints:\n- addresses: [a]\n  conditions: {ready: \"true\"}\n",
        7,
    ),
    ("replicas is a text", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  replicas: two\n", 5),
    ("data is no base64", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n  key: \"***\"\n", 5),
    ("data is a number", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  key: 5\n", 5),
    ("containers is a text", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: none\n", 5),
    // Values that don't fit Istio's fields.
    (
        "hosts is a text",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: b\n",
        5,
    ),
    (
        "http is a mapping",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http: {}\n",
        5,
    ),
    (
        "weight is a text",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http:\n  - route:\n    - weight: half\n",
        7,
    ),
    (
        "bad duration",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http:\n  - timeout: 5\n",
        6,
    ),
    (
        "unit of a duration",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http:\n  - timeout: 5 seconds\n",
        6,
    ),
    (
        "two matches of one text",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http:\n  - match:\n    - uri: {exact: a, prefix: b}\n",
        7,
    ),
    (
        "match is a text",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http:\n  - match:\n    - uri: /a\n",
        7,
    ),
    (
        "unknown TLS mode",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  trafficPolicy:\n    tls: {mode: SIMPEL}\n",
        6,
    ),
    (
        "unknown load balancer",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  trafficPolicy:\n    loadBalancer:\n      simple: FASTEST\n",
        7,
    ),
    (
        "two load balancers",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  trafficPolicy:\n    loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}\n",
        6,
    ),
    (
        "negative port",
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec:\n  servers:\n  - port: {number: -1}\n",
        6,
    ),
    (
        "servers is a mapping",
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec:\n  servers:\n    port: 80\n",
        6,
    ),
    (
        "unknown resolution",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec:\n  resolution: dns\n",
        5,
    ),
    (
        "label of a subset",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  subsets:\n  - name: v1\n    labels: {version: 1}\n",
        7,
    ),
    (
        "weight of a machine",
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a}\nspec:\n  weight: heavy\n",
        5,
    ),
    (
        "egress is a text",
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: a}\nspec:\n  egress:\n  - hosts: \"*/*\"\n",
        6,
    ),
    (
        "unknown mTLS mode",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec:\n  mtls:\n    mode: MUST\n",
        6,
    ),
    (
        "port that is no number",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec:\n  portLevelMtls:\n    http: {mode: STRICT}\n",
        6,
    ),
    (
        "unknown action",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  action: PERMIT\n",
        5,
    ),
    (
        "rules is a mapping",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  rules:\n    from: []\n",
        6,
    ),
    (
        "jwtRules",
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a}\nspec:\n  jwtRules:\n  - audiences: me\n",
        6,
    ),
    (
        "sampling",
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: a}\nspec:\n  tracing:\n  - randomSamplingPercentage: all\n",
        6,
    ),
    (
        "listeners is a text",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec:\n  gatewayClassName: istio\n  listeners: none\n",
        6,
    ),
    // Fields that do not exist: read all the same, but told.
    (
        "unknown field",
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec:\n  server: []\n",
        5,
    ),
    (
        "unknown field of a union",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http:\n  - match:\n    - uri:\n        prefx: /\n",
        8,
    ),
    (
        "unknown field of a Service",
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  ports:\n  - port: 80\n    targetport: 8080\n",
        8,
    ),
    ("unknown field at the top", "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nports: []\n", 5),
    ("unknown field of the metadata", "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  label: {}\n", 5),
];

fn good(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: 80\n")
}

#[test]
fn each_is_reported_with_file_and_line_and_costs_no_neighbour() {
    assert!(BROKEN.len() >= 100, "{}", BROKEN.len());
    let mut wrong = Vec::new();
    for (what, text, line) in BROKEN {
        // The first neighbour and the markers take nine lines.
        let file = format!("{}---\n{text}\n---\n{}", good("before"), good("after"));
        let parsed = document::parse(&"folder/file.yaml".into(), &file);
        let names: Vec<_> = parsed
            .objects()
            .map(|o| o.object_ref().to_string())
            .filter(|n| n.contains("ore") || n.contains("after"))
            .collect();
        let told: Vec<_> = parsed.diagnostics().collect();
        let places: Vec<_> = told.iter().map(|d| d.location.as_ref().map_or(0, |l| l.line)).collect();
        let files = told.iter().all(|d| d.location.as_ref().is_some_and(|l| l.file == "folder/file.yaml"));
        if names != ["Service default/before", "Service default/after"] || places != [line + 8] || !files {
            wrong.push(format!("{what}: want line {}, told {told:#?}, kept {names:?}", line + 8));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), BROKEN.len(), wrong.join("\n"));
}

#[test]
fn one_file_with_all_of_them_hides_nothing() {
    let mut file = good("first");
    for (number, (_, text, _)) in BROKEN.iter().enumerate() {
        file.push_str(&format!("---\n{text}\n---\n{}", good(&format!("good-{number}"))));
    }
    let parsed = document::parse(&"all.yaml".into(), &file);
    let kept = parsed.objects().filter(|o| o.object_ref().name.starts_with("good-")).count();
    assert_eq!(kept, BROKEN.len());
    let told: Vec<u32> = parsed.diagnostics().map(|d| d.location.as_ref().unwrap().line).collect();
    assert_eq!(told.len(), BROKEN.len());
    assert!(told.is_sorted(), "in the order of the text");
}

#[test]
fn a_broken_document_names_its_object_where_it_can() {
    for (text, want) in [
        ("apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec: [", "Service default/a"),
        ("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels: {x: 1}\n", "Namespace a"),
        (
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a, namespace: b}\nspec: 1\n",
            "Gateway b/a",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  namespace: b\n  name: a\nspec: {",
            "Gateway.gateway.networking.k8s.io b/a",
        ),
        (
            "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: x, labels: {a: 1}}}\n",
            "Pod default/x",
        ),
    ] {
        let parsed = document::parse(&"f".into(), text);
        let told: Vec<_> = parsed.diagnostics().collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].severity, Severity::Error);
        assert_eq!(told[0].object.as_ref().map(ToString::to_string).as_deref(), Some(want));
    }
}

#[test]
fn bytes_that_are_no_text_cost_their_own_document_only() {
    let mut file = good("before").into_bytes();
    file.extend_from_slice(b"---\nkind: Service\napiVersion: v1\nmetadata:\n  name: \xFF\xFE\n---\n");
    file.extend_from_slice(good("after").as_bytes());
    let parsed = document::parse(&"f".into(), &file);
    assert_eq!(parsed.objects().count(), 2);
    let told: Vec<_> = parsed.diagnostics().map(ToString::to_string).collect();
    assert_eq!(told, ["f:12:9: not UTF-8; save the file in that encoding [InvalidYAML]"]);
}
