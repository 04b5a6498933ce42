//! The agent's port for probes: `/healthz/ready` answers 200 only once Envoy has clusters and listeners from the control
//! plane and its workers run. The kubelet asks through Envoy's own port 15021, so a yes also means that Envoy serves.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::admin::Admin;

/// Asks Envoy whether it is ready. A yes holds for Envoy's life; afterwards only draining takes it back.
#[derive(Debug)]
pub struct Readiness {
    admin: Admin,
    once: AtomicBool,
    ending: AtomicBool,
}

impl Readiness {
    /// The readiness of the Envoy behind this admin port.
    pub fn new(admin: Admin) -> Self {
        Self { admin, once: AtomicBool::new(false), ending: AtomicBool::new(false) }
    }

    /// From now on the pod is not ready: it ends.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// `Err` says what is still missing.
    pub async fn check(&self) -> Result<(), String> {
        if self.ending.load(Ordering::Acquire) {
            return Err("the proxy is draining".into());
        }
        if self.once.load(Ordering::Acquire) {
            return Ok(());
        }
        const FILTER: &str = "%5E(cluster_manager%5C.cds|listener_manager%5C.lds)%5C.update_(success|rejected)$\
                              |%5Eserver%5C.state$|%5Elistener_manager%5C.workers_started$";
        let stats = self.admin.stats(FILTER).await.map_err(|error| error.to_string())?;
        verdict(&stats)?;
        self.once.store(true, Ordering::Release);
        Ok(())
    }
}

fn verdict(stats: &std::collections::HashMap<String, u64>) -> Result<(), String> {
    let of = |name: &str| stats.get(name).copied().unwrap_or_default();
    let (cds, lds) = (of("cluster_manager.cds.update_success"), of("listener_manager.lds.update_success"));
    let rejected = of("cluster_manager.cds.update_rejected") + of("listener_manager.lds.update_rejected");
    if cds == 0 || lds == 0 {
        let what = match (cds + lds, rejected) {
            (_, 1..) => "Envoy rejected configuration of the control plane",
            (0, _) => "no configuration from the control plane yet (does it run, is discoveryAddress right?)",
            _ => "configuration from the control plane is not complete yet",
        };
        return Err(format!("{what}: cds {cds}, lds {lds}, rejected {rejected}"));
    }
    match (stats.get("server.state"), of("listener_manager.workers_started")) {
        (Some(0), 1) => Ok(()),
        (Some(0), _) => Err("Envoy's workers have not started yet".into()),
        (Some(state), _) => Err(format!("Envoy is not live yet (server.state {state})")),
        (None, _) => Err("Envoy does not tell its state yet".into()),
    }
}

/// Serves probes until the returned future is dropped. Binding happens before, so that a taken port is an error at once.
pub async fn serve(address: SocketAddr, readiness: Arc<Readiness>) -> std::io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::bind(address).await?;
    Ok(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let readiness = readiness.clone();
                    connections.spawn(async move {
                        let answer = service_fn(move |request| answer(readiness.clone(), request));
                        // A prober that hangs up is its own matter.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), answer)
                            .await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "status port: accepting failed");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    })
}

async fn answer(readiness: Arc<Readiness>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match request.uri().path() {
        "/healthz/ready" => match readiness.check().await {
            Ok(()) => (200, String::new()),
            Err(why) => (503, why),
        },
        _ => (404, "only /healthz/ready is here".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_with_everything() {
        let all = [
            ("cluster_manager.cds.update_success", 1),
            ("listener_manager.lds.update_success", 1),
            ("server.state", 0),
            ("listener_manager.workers_started", 1),
        ];
        let of = |stats: &[(&str, u64)]| verdict(&stats.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect());
        assert_eq!(of(&all), Ok(()));
        for without in 0..all.len() {
            let mut some = all.to_vec();
            some.remove(without);
            assert!(of(&some).is_err(), "ready without {}", all[without].0);
        }
        assert!(of(&[("cluster_manager.cds.update_rejected", 2)]).unwrap_err().contains("rejected"));
        assert!(of(&[]).unwrap_err().contains("does it run"));
        let mut initializing = all;
        initializing[2].1 = 3;
        assert!(of(&initializing).unwrap_err().contains("not live"));
    }
}
