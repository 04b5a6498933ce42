//! A wire between a client and a server of this machine, which can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Stands between a client and a server, and can cut all that goes through it.
pub(crate) struct Wire {
    pub(crate) port: u16,
    open: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Wire {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let open = Arc::new(AtomicBool::new(true));
        let is_open = open.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            loop {
                tokio::select! {
                    Ok((mut client, _)) = listener.accept() => if is_open.load(Ordering::SeqCst) {
                        connections.spawn(async move {
                            let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                            tokio::io::copy_bidirectional(&mut client, &mut server).await
                        });
                    },
                    _ = tick.tick() => if !is_open.load(Ordering::SeqCst) {
                        connections.abort_all();
                    },
                }
            }
        });
        Self { port: own, open, task: task.abort_handle() }
    }

    pub(crate) async fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    pub(crate) fn mend(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}
