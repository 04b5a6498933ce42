//! Prometheus. It scrapes the agent, which adds the application's metrics to the proxy's: what the pod's annotations say
//! of the application goes into a variable of the proxy, and the annotations then point to the agent.

use serde::Serialize;

use super::annotations::parse_bool;
use super::pod::{PROXY, Pod, set_env};
use super::{Config, InjectError};

/// Tells the agent where the application's metrics are.
const VARIABLE: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";

/// Ports of the proxy and the agent, which are no place for an application's metrics.
const RESERVED: [(u16, &str); 9] = [
    (15000, "Envoy's admin port"),
    (15001, "outbound traffic"),
    (15004, "the control plane's debug port"),
    (15006, "inbound traffic"),
    (15008, "the HBONE tunnel"),
    (15020, "the merged metrics themselves"),
    (15021, "Envoy's health"),
    (15053, "DNS"),
    (15090, "Envoy's metrics, which are merged already"),
];

#[derive(Default, Serialize)]
struct Scrape {
    scrape: String,
    path: String,
    port: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Target {
    port: String,
    path: String,
}

/// The annotations of Prometheus, in the spelling that Prometheus reduces all spellings to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Scrape,
    Port,
    Path,
    Targets,
    SecurePort,
}

/// Prometheus takes any character that a label can't have for `_`; so `prometheus.io/port` and `prometheus-io-port` are one.
fn known(annotation: &str) -> Option<Known> {
    let label: String = annotation.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    Some(match label.as_str() {
        "prometheus_io_scrape" => Known::Scrape,
        "prometheus_io_port" => Known::Port,
        "prometheus_io_path" => Known::Path,
        "prometheus_istio_io_scrape_targets" => Known::Targets,
        "prometheus_istio_io_secure_port" => Known::SecurePort,
        _ => return None,
    })
}

fn value(pod: &Pod, wanted: Known) -> Option<&str> {
    pod.annotations.iter().find(|(name, _)| known(name) == Some(wanted)).and_then(|(_, value)| value.as_str())
}

/// The port that Prometheus is told, if any.
pub(super) fn port(pod: &Pod) -> Option<&str> {
    value(pod, Known::Port)
}

/// Removes what Prometheus is told.
pub(super) fn clear(pod: &mut Pod) {
    pod.annotations.retain(|name, _| !matches!(known(name), Some(known) if known != Known::SecurePort));
}

/// Points Prometheus to the agent at `status_port`, unless the pod or the mesh doesn't want that.
pub(super) fn merge(pod: &mut Pod, config: &Config, status_port: i32) -> Result<(), InjectError> {
    let scraped = value(pod, Known::Scrape).and_then(parse_bool).unwrap_or(true);
    let merged = pod.annotation("prometheus.istio.io/merge-metrics").and_then(parse_bool);
    let agent = status_port.to_string();
    // With the agent's port, the pod was injected before.
    if !scraped || !merged.unwrap_or(config.mesh.enable_prometheus_merge) || port(pod) == Some(&agent) {
        return Ok(());
    }
    let scrape = scrape(pod, &agent)?;
    if let Some(scrape) = scrape
        && let Some(proxy) = pod.container_mut(PROXY)
    {
        set_env(proxy, VARIABLE, serde_json::json!(scrape).to_string());
    }
    // Of two spellings Prometheus would choose one by chance.
    clear(pod);
    pod.annotate("prometheus.io/port", agent);
    pod.annotate("prometheus.io/path", "/stats/prometheus");
    pod.annotate("prometheus.io/scrape", "true");
    Ok(())
}

/// Tells Prometheus of the agent's port for mutual TLS, where the proxy has one and the pod says nothing.
pub(super) fn tell_secure_port(pod: &mut Pod) {
    let port = pod.proxy_env("ENVOY_SECURE_MERGED_METRICS_PORT").filter(|port| !matches!(*port, "" | "0"));
    if let Some(port) = port.map(str::to_owned).filter(|_| value(pod, Known::SecurePort).is_none()) {
        pod.annotate("prometheus.istio.io/secure-port", port);
    }
}

/// What the agent has to scrape; none where nothing is said.
fn scrape(pod: &Pod, agent: &str) -> Result<Option<Scrape>, InjectError> {
    let text = |known| value(pod, known).unwrap_or_default().to_owned();
    let mut scrape = Scrape {
        scrape: text(Known::Scrape),
        path: text(Known::Path),
        port: text(Known::Port),
        // A list that can't be read says nothing, as in Istio.
        targets: targets(&text(Known::Targets)).unwrap_or_default(),
    };
    for target in &scrape.targets {
        check(&target.port, agent, "prometheus.istio.io/scrape-targets")?;
    }
    match scrape.targets.first() {
        // For agents that know one target only.
        Some(first) => (scrape.port, scrape.path) = (first.port.clone(), first.path.clone()),
        None if !scrape.port.is_empty() => check(&scrape.port, agent, "prometheus.io/port")?,
        None => {}
    }
    let says = [&scrape.scrape, &scrape.path, &scrape.port].into_iter().any(|text| !text.is_empty());
    Ok(says.then_some(scrape))
}

/// Reads `port:path,..`; a missing path is `/metrics`. None where a port is missing.
fn targets(text: &str) -> Option<Vec<Target>> {
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let (port, path) = entry.split_once(':').unwrap_or((entry, ""));
            let path = if path.trim().is_empty() { "/metrics" } else { path.trim() };
            let target = Target { port: port.trim().to_owned(), path: path.to_owned() };
            (!target.port.is_empty()).then_some(target)
        })
        .collect()
}

fn check(port: &str, agent: &str, name: &'static str) -> Result<(), InjectError> {
    let refuse = |why: String| Err(InjectError::Annotation { name, value: port.to_owned(), why });
    let Some(number) = port.parse::<u16>().ok().filter(|number| *number > 0) else {
        return refuse("write a port, 1 to 65535".to_owned());
    };
    if number.to_string() == agent {
        return refuse("that is the agent's own port; name the application's".to_owned());
    }
    match RESERVED.iter().find(|(reserved, _)| *reserved == number) {
        Some((_, what)) => refuse(format!("this port is {what}; name the application's")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(annotations: &serde_json::Value) -> Result<Pod, InjectError> {
        let pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": PROXY}]}});
        let mut pod = Pod::read(pod).unwrap();
        merge(&mut pod, &Config::default(), 15020).map(|()| pod)
    }

    #[test]
    fn the_agent_scrapes_in_place_of_prometheus() {
        let pod = merged(&json!({"prometheus.io/port": "80", "prometheus-io-path": "/m"})).unwrap();
        let told =
            |pod: &Pod| pod.proxy_env(VARIABLE).map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(told(&pod), Some(json!({"path": "/m", "port": "80", "scrape": ""})));
        assert_eq!(
            json!(pod.annotations),
            json!({"prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus", "prometheus.io/scrape": "true"})
        );
        let pod = merged(&json!({"prometheus.istio.io/scrape-targets": "80, 81:/x"})).unwrap();
        let targets = json!([{"path": "/metrics", "port": "80"}, {"path": "/x", "port": "81"}]);
        assert_eq!(told(&pod), Some(json!({"path": "/metrics", "port": "80", "scrape": "", "targets": targets})));
        assert_eq!(told(&merged(&json!({})).unwrap()), None);
    }

    #[test]
    fn who_does_not_want_it_is_left_alone() {
        for annotations in [
            json!({"prometheus.io/scrape": "false", "prometheus.io/port": "15000"}),
            json!({"prometheus.istio.io/merge-metrics": "false"}),
            json!({"prometheus.io/port": "15020"}),
        ] {
            assert_eq!(json!(merged(&annotations).unwrap().annotations), annotations);
        }
    }

    #[test]
    fn ports_of_the_mesh_are_refused() {
        for port in ["15090", "15001", "0", "http", "70000"] {
            assert!(merged(&json!({"prometheus.io/port": port})).is_err(), "{port}");
            assert!(merged(&json!({"prometheus.istio.io/scrape-targets": format!("80,{port}")})).is_err(), "{port}");
        }
    }
}
