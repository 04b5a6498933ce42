//! ProxyConfig, the kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::At;
use super::labels::selector;
use crate::networking::ProxyConfigSpec;

pub(super) fn check(at: &At<'_>, _: &ObjectMeta, spec: &ProxyConfigSpec) {
    selector(at, "selector", spec.selector.as_ref());
    if let Some(threads) = spec.concurrency.filter(|threads| *threads < 0) {
        let message =
            format!("concurrency must be greater than or equal to 0, not {threads}; 0 is one thread for each core");
        at.field("concurrency").error("InvalidNumber", message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::networking::ProxyConfig;
    use crate::validate::testing::check;

    #[test]
    fn threads() {
        check::<ProxyConfig>(&[
            (json!({"concurrency": 0}), &[]),
            (
                json!({"concurrency": -1}),
                &["E spec.concurrency: concurrency must be greater than or equal to 0, not -1"],
            ),
            (json!({"selector": {}}), &["W spec.selector"]),
        ]);
    }
}
