//! What is fuzzed: whatever the bytes, nothing panics, every complaint has its place, what could be read is
//! written and read again as the same, and whatever there is, is validated.

use std::sync::LazyLock;

use mesh_api::mesh::{MeshConfig, MeshNetworks};
use mesh_api::schema::Validator;
use mesh_api::{Object, Validate, document, yaml};

static SCHEMAS: LazyLock<Validator> = LazyLock::new(Validator::new);

/// A file of manifests, and of settings.
#[allow(dead_code, reason = "each target uses one of the bodies")]
pub(crate) fn yaml(bytes: &[u8]) {
    let parsed = document::parse(&"fuzz.yaml".into(), bytes);
    let lines = bytes.iter().filter(|&&byte| byte == b'\n' || byte == b'\r').count() + 1;
    for told in parsed.diagnostics() {
        let line = told.location.as_ref().map_or(0, |location| location.line as usize);
        assert!((1..=lines).contains(&line), "line {line} of {lines}: {told}");
    }
    parsed.objects().for_each(reads_back);
    for raw in document::raw(&"fuzz.yaml".into(), bytes).into_iter().flatten() {
        let _ = SCHEMAS.validate(&raw.node.to_json());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = MeshConfig::from_yaml(text).0.validate();
        let _ = MeshNetworks::from_yaml(text).0.validate();
    }
}

/// One object, as an apiserver would send it.
#[allow(dead_code, reason = "each target uses one of the bodies")]
pub(crate) fn json(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    let _ = SCHEMAS.validate(&value);
    if let Ok(object) = Object::from_value(&value) {
        reads_back(&object);
    }
}

fn reads_back(object: &Object) {
    let _ = object.validate();
    let Ok(json) = object.to_json() else { panic!("{object:?} cannot be written") };
    let again = Object::from_value(&json);
    assert_eq!(again.as_ref(), Ok(object), "{json}");
    let text = yaml::to_string(&json);
    let parsed = document::parse(&"again.yaml".into(), &text);
    if !object.object_ref().name.is_empty() {
        assert_eq!(parsed.objects().next(), Some(object), "{text}");
    }
}
