//! WasmPlugin and TrafficExtension: where the code is, and which traffic it sees.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::{At, Check};
use super::labels::policy_targets;
use super::{net, url};
use crate::extensions::{
    EnvValueSource, FilterConfig, LuaConfig, TrafficExtensionSpec, TrafficSelector, VmConfig, WasmPluginSpec,
};

pub(super) fn wasm_plugin(at: &At<'_>, _: &ObjectMeta, spec: &WasmPluginSpec) {
    policy_targets(at, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    let WasmPluginSpec { url, sha256, image_pull_secret, plugin_name, vm_config, .. } = spec;
    module(at, Module { url, sha256, secret: image_pull_secret, name: plugin_name, vm: vm_config.as_ref() });
    traffic(at, &spec.r#match);
}

pub(super) fn traffic_extension(at: &At<'_>, _: &ObjectMeta, spec: &TrafficExtensionSpec) {
    policy_targets(at, spec.selector.as_ref(), None, &spec.target_refs);
    match &spec.filter_config {
        None => at.error("MissingFilter", "exactly one of wasm or lua must be set; add one"),
        Some(FilterConfig::Lua(config)) => lua(&at.field("lua"), config),
        Some(FilterConfig::Wasm(config)) => module(
            &at.field("wasm"),
            Module {
                url: &config.url,
                sha256: &config.sha256,
                secret: &config.image_pull_secret,
                name: &config.plugin_name,
                vm: config.vm_config.as_ref(),
            },
        ),
    }
    traffic(at, &spec.r#match);
}

/// What both kinds say of a module.
struct Module<'a> {
    url: &'a str,
    sha256: &'a str,
    secret: &'a str,
    name: &'a str,
    vm: Option<&'a VmConfig>,
}

fn module(at: &At<'_>, module: Module<'_>) {
    at.field("url").check("InvalidUrl", url::module(module.url));
    at.field("sha256").check("InvalidChecksum", checksum(module.sha256));
    at.field("imagePullSecret").check("TooLong", short(module.secret, 253));
    at.field("pluginName").check("TooLong", short(module.name, 256));
    if let Some(vm) = module.vm {
        environment(&at.field("vmConfig"), vm);
    }
}

fn checksum(text: &str) -> Check {
    if text.is_empty() || (text.len() == 64 && text.bytes().all(|b| matches!(b, b'a'..=b'f' | b'0'..=b'9'))) {
        Ok(())
    } else {
        Err("sha256 field must be 64 characters long and match [a-f0-9]{64} pattern".to_owned())
    }
}

fn short(text: &str, most: usize) -> Check {
    if text.len() <= most {
        Ok(())
    } else {
        Err(format!("the field has {} characters, at most {most} are allowed", text.len()))
    }
}

fn environment(at: &At<'_>, vm: &VmConfig) {
    let mut names = HashSet::new();
    for (index, variable) in vm.env.iter().enumerate() {
        let list = at.field("env");
        let at = list.index(index);
        let name = at.field("name");
        if variable.name.is_empty() {
            name.error("MissingName", "spec.vmConfig.env invalid: a variable has no name; add it");
        } else if !names.insert(variable.name.as_str()) {
            name.error("DuplicateValue", format!("duplicate env {}; keep one of them", variable.name));
        }
        name.check("TooLong", short(&variable.name, 256));
        at.field("value").refuse(
            variable.value_from != EnvValueSource::Inline && !variable.value.is_empty(),
            "ConflictingFields",
            "value may only be set when valueFrom is INLINE; remove it",
        );
    }
}

fn traffic(at: &At<'_>, selectors: &[TrafficSelector]) {
    at.each("match", selectors, |at, selector| {
        at.each("ports", &selector.ports, |at, port| at.field("number").check("InvalidPort", net::port(port.number)));
    });
}

fn lua(at: &At<'_>, config: &LuaConfig) {
    const MOST: usize = 64 * 1024;
    let at = at.field("inlineCode");
    match config.inline_code.len() {
        0 => at.error("MissingCode", "lua.inlineCode cannot be empty; add the script"),
        1..=MOST => {}
        size => at.error("TooLong", format!("lua.inlineCode exceeds maximum size of 64KB: it has {size} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::extensions::{TrafficExtension, WasmPlugin};
    use crate::validate::testing::check;

    #[test]
    fn modules() {
        let with = |more: Value| {
            let mut spec = json!({"url": "oci://a/b"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        let env = |variables: Value| with(json!({"vmConfig": {"env": variables}}));
        check::<WasmPlugin>(&[
            (with(json!({"sha256": "0f".repeat(32), "match": [{"ports": [{"number": 80}]}]})), &[]),
            (json!({}), &["E spec.url: url field needs to be set"]),
            (with(json!({"url": "ftp://a"})), &["url contains unsupported scheme: ftp"]),
            (with(json!({"sha256": "0F".repeat(32)})), &["sha256: sha256 field must be 64 characters"]),
            (with(json!({"sha256": "0"})), &["sha256"]),
            (
                with(json!({"imagePullSecret": "a".repeat(254), "pluginName": "a".repeat(257)})),
                &["imagePullSecret", "pluginName"],
            ),
            (env(json!([{"name": "a", "value": "b"}, {"name": "c", "valueFrom": "HOST"}])), &[]),
            (
                env(json!([{"name": "a"}, {"name": "a"}, {"value": "b"}])),
                &["duplicate env a", "spec.vmConfig.env invalid"],
            ),
            (
                env(json!([{"name": "a", "valueFrom": "HOST", "value": "b"}])),
                &["value may only be set when valueFrom is INLINE"],
            ),
            (with(json!({"match": [{"ports": [{}]}]})), &["E spec.match[0].ports[0].number: port number 0"]),
            (
                with(json!({"selector": {}, "targetRefs": [{"kind": "Service", "name": "a"}]})),
                &["only one of targetRefs", "W "],
            ),
        ]);
    }

    #[test]
    fn extensions() {
        check::<TrafficExtension>(&[
            (json!({"lua": {"inlineCode": "x"}}), &[]),
            (json!({"wasm": {"url": "a.com/b"}}), &[]),
            (json!({}), &["E spec: exactly one of wasm or lua must be set"]),
            (json!({"lua": {}}), &["E spec.lua.inlineCode: lua.inlineCode cannot be empty"]),
            (json!({"lua": {"inlineCode": "x".repeat(65537)}}), &["exceeds maximum size of 64KB"]),
            (json!({"wasm": {"pluginName": "a".repeat(257)}}), &["E spec.wasm.url", "E spec.wasm.pluginName"]),
            (json!({"lua": {"inlineCode": "x"}, "match": [{"ports": [{"number": 70000}]}]}), &["port number 70000"]),
        ]);
    }
}
