//! Documents that are wrong, each in its own way: every one is reported with file and line, and costs no neighbour.

use mesh_api::{Severity, document};

use cases::BROKEN;

mod cases;

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
