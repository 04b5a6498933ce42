//! An explanation as a short story: one line a step, with the object and the field behind it, and how it ends.

use std::fmt::Write;

use super::Explanation;

/// The explanation as text, lines ended by newlines.
pub fn render(explanation: &Explanation) -> String {
    let mut out = String::new();
    for step in &explanation.steps {
        let name = if step.name.is_empty() { "-" } else { &step.name };
        let _ = write!(out, "{:<14} {name}: {}", step.step, step.because);
        if let Some(object) = &step.object {
            let _ = write!(out, "  [{object}]");
        }
        out.push('\n');
    }
    for mirror in &explanation.mirrors {
        let _ = writeln!(out, "{:<14} {}: gets a copy of {} % of requests", "mirror", mirror.cluster, mirror.percent);
    }
    if let Some(tls) = &explanation.upstream_tls {
        let _ = write!(out, "{:<14} {}", "upstream TLS", tls.transport_socket);
        for (what, value) in [("secret", &tls.secret), ("server name", &tls.sni)] {
            if !value.is_empty() {
                let _ = write!(out, ", {what} {value}");
            }
        }
        out.push('\n');
    }
    for endpoint in &explanation.endpoints {
        let _ = write!(out, "  -> {} ({}, weight {}", endpoint.address, endpoint.health, endpoint.weight);
        if endpoint.priority > 0 {
            let _ = write!(out, ", priority {}", endpoint.priority);
        }
        if !endpoint.locality.is_empty() {
            let _ = write!(out, ", {}", endpoint.locality);
        }
        if explanation.weighted_clusters.len() > 1 {
            let _ = write!(out, ", {}", endpoint.cluster);
        }
        out.push_str(")\n");
    }
    if let Some(answer) = &explanation.answer {
        let _ = write!(out, "the proxy answers {}", answer.status);
        if let Some(location) = &answer.location {
            let _ = write!(out, ", location {location}");
        }
        out.push('\n');
    }
    if let Some(authz) = explanation.authz.as_ref().filter(|a| !a.allowed) {
        let by = if authz.policy.is_empty() { "as no policy allows it" } else { authz.policy.as_str() };
        let _ = writeln!(out, "denied: {by}");
    }
    if let Some(error) = explanation.error {
        let _ = writeln!(out, "it ends here: {error}");
    }
    out
}
