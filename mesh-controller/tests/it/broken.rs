//! A folder of broken documents: the control plane serves all that is good in it, and says of each broken one where it is.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::{Diagnostic, ObjectRef};
use mesh_controller::ControlPlane;
use mesh_controller::source::Files;
use mesh_controller::store::Published;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[path = "../../../mesh-api/tests/it/broken/cases.rs"]
mod cases;

fn good(name: &str, port: u16) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: {port}\n")
}

fn key(name: &str) -> ObjectRef {
    ObjectRef::new("Service", "default", name)
}

async fn until(states: &mut watch::Receiver<Arc<Published>>, what: &str, holds: impl Fn(&Published) -> bool) {
    let found = tokio::time::timeout(Duration::from_secs(20), states.wait_for(|state| holds(state))).await;
    assert!(found.is_ok_and(|found| found.is_ok()), "{what}");
}

fn port(state: &Published, name: &str) -> Option<u16> {
    let (_, row) = state.snapshot.services.iter().find(|(_, service)| service.source == key(name))?;
    row.ports.first().map(|port| port.number)
}

#[tokio::test]
async fn a_folder_of_broken_documents_hides_nothing_good() {
    assert!(cases::BROKEN.len() >= 100);
    let folder = tempfile::tempdir().unwrap();
    let file = |index: usize| folder.path().join(format!("{index:03}.yaml"));
    for (index, (_, text, _)) in cases::BROKEN.iter().enumerate() {
        let (before, after) = (good(&format!("before-{index}"), 80), good(&format!("after-{index}"), 80));
        fs::write(file(index), format!("{before}---\n{text}\n---\n{after}")).unwrap();
    }

    let control_plane =
        ControlPlane::builder().source(Files::new([folder.path().to_owned()])).bind().await.expect("no ports");
    let (mut states, mut problems, mut ready) =
        (control_plane.states(), control_plane.problems(), control_plane.ready());
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let running = tokio::spawn(control_plane.run_until(async move { stopped.cancelled().await }));
    tokio::time::timeout(Duration::from_secs(20), ready.wait_for(|ready| *ready)).await.expect("ready").unwrap();

    let state = states.borrow().clone();
    for index in 0..cases::BROKEN.len() {
        for name in [format!("before-{index}"), format!("after-{index}")] {
            assert_eq!(port(&state, &name), Some(80), "{name} is hidden by {:?}", cases::BROKEN[index]);
        }
    }
    let mut told: BTreeMap<String, Vec<Diagnostic>> = BTreeMap::new();
    for problem in problems.borrow().iter() {
        let location = problem.location.as_ref().unwrap_or_else(|| panic!("{problem} is nowhere"));
        told.entry(location.file.to_string()).or_default().push(problem.clone());
    }
    for (index, (what, _, line)) in cases::BROKEN.iter().enumerate() {
        // The first neighbour and the marker take eight lines.
        let want = line + 8;
        let told = told.get(&file(index).display().to_string()).map(Vec::as_slice).unwrap_or_default();
        let lines: Vec<u32> = told.iter().filter_map(|problem| problem.location.as_ref()).map(|l| l.line).collect();
        assert!(lines.contains(&want), "{what}: line {want} is not told but {told:?}");
    }

    // It goes on following, the good and the repaired alike.
    fs::write(file(0), good("after-0", 81)).unwrap();
    until(&mut states, "an edit among the broken", |state| port(state, "after-0") == Some(81)).await;
    assert_eq!(port(&states.borrow(), "before-0"), None, "what a repaired file no longer has is gone");
    let name = file(0).display().to_string();
    let well = |problems: &Arc<mesh_controller::store::Problems>| problems.parts().all(|(_, part, _)| *part != *name);
    tokio::time::timeout(Duration::from_secs(20), problems.wait_for(well)).await.expect("the report ends").unwrap();

    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("it ends").unwrap().unwrap();
}
