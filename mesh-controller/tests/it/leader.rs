//! Leader election over a real apiserver.

use std::future::pending;
use std::time::Duration;

use kube::Client;
use mesh_controller::leader::{Candidate, Options};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::envtest::Cluster;

const LONG: Duration = Duration::from_secs(20);

fn candidate(client: Client, identity: &str) -> Candidate {
    let mut options = Options::default();
    options.duration = Duration::from_secs(3);
    options.deadline = Duration::from_secs(2);
    options.period = Duration::from_millis(100);
    Candidate::new(client, "default", "meshd", identity, options)
}

fn stand(client: Client, identity: &str) -> (watch::Receiver<bool>, JoinHandle<()>) {
    let candidate = candidate(client, identity);
    (candidate.leads(), tokio::spawn(candidate.run(pending())))
}

async fn leads(candidate: &mut watch::Receiver<bool>) {
    timeout(LONG, candidate.wait_for(|leads| *leads)).await.expect("it leads in the end").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_or_steps_down_is_followed_by_another() {
    let Some(cluster) = Cluster::start("leader election").await else { return };
    let (mut a, first) = stand(cluster.client(), "a");
    leads(&mut a).await;
    let (mut b, second) = stand(cluster.client(), "b");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(*a.borrow() && !*b.borrow(), "a leader that renews stays");
    first.abort();
    assert!(timeout(Duration::from_secs(1), leads(&mut b)).await.is_err(), "a lease is respected to its end");
    leads(&mut b).await;

    let (c, (step_down, stepped)) = (candidate(cluster.client(), "c"), oneshot::channel::<()>());
    let mut c_leads = c.leads();
    second.abort();
    let third = tokio::spawn(async move { c.run(async { assert_eq!(stepped.await, Ok(())) }).await });
    leads(&mut c_leads).await;
    let (mut d, _fourth) = stand(cluster.client(), "d");
    step_down.send(()).unwrap();
    third.await.unwrap();
    assert!(!*c_leads.borrow());
    timeout(Duration::from_secs(2), leads(&mut d)).await.expect("a lease that was given back is free at once");
}
