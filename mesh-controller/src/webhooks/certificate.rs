//! Where the certificate of the webhooks comes from: files that somebody else renews, or the mesh's own authority. Both are looked
//! at again and again, and what is wrong is said once and leaves the certificate of before in force.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use mesh_ca::{Current, reconcile};
use mesh_webhook::server::ServingCertificate;
use tokio::sync::watch;

use crate::retry::Retry;

/// How often is looked.
const PERIOD: Duration = Duration::from_secs(1);

/// Serves the chain and the key of these files, in PEM, and follows their changes. Files that are not there yet are waited
/// for.
pub async fn follow_files(chain: PathBuf, key: PathBuf, to: watch::Sender<Option<ServingCertificate>>) -> Infallible {
    let mut retry = Retry::new("the certificate of the webhooks");
    let mut served = None;
    loop {
        let (chain, key) = (chain.clone(), key.clone());
        let read = tokio::task::spawn_blocking(move || anyhow::Ok((read(&chain)?, read(&key)?))).await;
        let new = match read.map_err(anyhow::Error::from).flatten() {
            Ok(texts) if served.as_ref() == Some(&texts) => Ok(None),
            Ok(texts) => {
                ServingCertificate::from_pem(&texts.0, &texts.1).map(|new| Some((texts, new))).map_err(Into::into)
            }
            Err(error) => Err(error),
        };
        match new {
            Ok(Some((texts, new))) => {
                retry.worked();
                served = Some(texts);
                to.send_replace(Some(new));
            }
            Ok(None) => {}
            Err(error) => retry.tell(&format!("{error:#}")),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// Serves a certificate of the mesh's authority for these hosts; it is issued anew when it has passed half of its life, or when the
/// authority is another.
pub async fn follow_authority(
    authority: Arc<Current>,
    hosts: Vec<String>,
    to: watch::Sender<Option<ServingCertificate>>,
) -> Infallible {
    let mut retry = Retry::new("the certificate of the webhooks");
    let mut served = None;
    loop {
        let (now, authority) = (SystemTime::now(), authority.get());
        let is_good = served.as_ref().is_some_and(|(of, chain)| {
            Arc::ptr_eq(of, &authority) && !reconcile::needs_renewal(chain, &authority, &hosts, now)
        });
        if !is_good {
            let issued = authority.serving(&hosts, authority.lifetimes().default, now).map_err(anyhow::Error::from);
            let issued = issued.and_then(|(key, chain)| {
                let new = ServingCertificate::from_pem(chain.presented_pem().as_bytes(), key.to_pem()?.as_bytes())?;
                Ok((chain, new))
            });
            match issued {
                Ok((chain, new)) => {
                    retry.worked();
                    served = Some((authority, chain));
                    to.send_replace(Some(new));
                }
                Err(error) => retry.tell(&format!("{error:#}")),
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use mesh_ca::{Authority, KeyKind, Lifetimes, RootOptions};

    use super::*;

    fn authority() -> Authority {
        let mut options = RootOptions::default();
        options.key = KeyKind::EcdsaP256;
        Authority::self_signed(&options, Lifetimes::default(), SystemTime::now()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let (sender, mut served) = watch::channel(None);
        let following = tokio::spawn(follow_files(chain.clone(), key.clone(), sender));
        tokio::time::sleep(PERIOD * 3).await;
        assert!(served.borrow().is_none(), "files that are not there are waited for");
        let authority = authority();
        let write = |hosts: &[String]| {
            let (private, issued) = authority.serving(hosts, authority.lifetimes().default, SystemTime::now()).unwrap();
            std::fs::write(&chain, issued.presented_pem()).unwrap();
            std::fs::write(&key, private.to_pem().unwrap()).unwrap();
        };
        write(&["one".to_owned()]);
        served.changed().await.unwrap();
        std::fs::write(&key, "nonsense").unwrap();
        tokio::time::sleep(PERIOD * 3).await;
        assert!(!served.has_changed().unwrap() && served.borrow().is_some(), "nonsense changes nothing");
        write(&["two".to_owned()]);
        served.changed().await.unwrap();
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_authority_is_followed() {
        let (sender, mut served) = watch::channel(None);
        let current = Arc::new(Current::new(authority()));
        let following =
            tokio::spawn(follow_authority(current.clone(), vec!["istiod.istio-system.svc".to_owned()], sender));
        served.changed().await.unwrap();
        assert!(served.borrow_and_update().is_some());
        tokio::time::sleep(PERIOD * 3).await;
        assert!(!served.has_changed().unwrap());
        current.set(authority());
        served.changed().await.unwrap();
        following.abort();
    }
}
