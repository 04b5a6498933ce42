//! In which order containers start and are shown.

use super::pod::{Container, PROXY, Pod, find, name};

#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// Orders the containers of an injected pod. `hold` makes the application wait for the proxy.
pub(super) fn order(pod: &mut Pod, hold: bool) {
    // Last, so that `kubectl exec` goes to the application; first, where the kubelet shall wait for it.
    put(&mut pod.containers, PROXY, if hold { End::First } else { End::Last });
    let moves: &[(&str, End)] = if find(&pod.init_containers, PROXY).is_some() {
        // A native sidecar comes before the user's init containers, which then are in the mesh.
        &[
            ("enable-core-dump", End::First),
            (PROXY, End::First),
            ("istio-validation", End::First),
            ("istio-init", End::First),
        ]
    } else {
        // Rules that lead to a proxy that doesn't run yet would cut off the user's init containers.
        &[("istio-validation", End::First), ("istio-init", End::Last), ("enable-core-dump", End::Last)]
    };
    for &(container, end) in moves {
        put(&mut pod.init_containers, container, end);
    }
}

fn put(containers: &mut Vec<Container>, wanted: &str, end: End) {
    let Some(at) = containers.iter().position(|container| name(container) == wanted) else { return };
    let container = containers.remove(at);
    match end {
        End::First => containers.insert(0, container),
        End::Last => containers.push(container),
    }
}
