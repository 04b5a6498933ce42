use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use mesh_ca::authenticate::ClientCertificate;
use mesh_ca::{Authority, Certificate, KeyKind};
use tonic::Code;

use super::*;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn options() -> CaOptions {
    let mut options = CaOptions::default();
    options.root.key = KeyKind::EcdsaP256;
    options
}

fn identity() -> Identity {
    let CaOptions { root, lifetimes, .. } = options();
    let authority = Authority::self_signed(&root, lifetimes, now()).unwrap();
    let hosts = Identity::hosts_in("istio-system", "");
    Identity::new(Arc::new(Current::new(authority)), vec![Arc::new(ClientCertificate)], hosts)
}

#[tokio::test]
async fn proxies_are_admitted_as_who_they_are() {
    let identity = identity();
    let headers = HeaderMap::new();
    let proxy = |namespace: &str, account: &str| {
        let mut proxy = Proxy::sidecar("p", namespace, [10, 0, 0, 1].into());
        proxy.metadata.insert("SERVICE_ACCOUNT".into(), account.into());
        proxy
    };
    let one = &["spiffe://td/ns/default/sa/sleep"][..];
    for (uris, namespace, account, want) in [
        (one, "default", "sleep", None),
        (one, "default", "", None),
        (one, "other", "sleep", Some(Code::PermissionDenied)),
        (one, "default", "other", Some(Code::PermissionDenied)),
        (&[][..], "default", "sleep", Some(Code::Unauthenticated)),
        (&["https://x"][..], "default", "sleep", Some(Code::Unauthenticated)),
        (&[one[0], one[0]][..], "default", "sleep", Some(Code::Unauthenticated)),
    ] {
        let uris: Vec<String> = uris.iter().map(|uri| (*uri).to_owned()).collect();
        let peer = Peer::over_tls(([10, 0, 0, 1], 1).into(), uris);
        let known = identity.authenticate(&Caller::new(&peer, &headers), now()).await;
        let got = known.and_then(|known| Identity::admit(&proxy(namespace, account), &known));
        assert_eq!(got.err().map(|status| status.code()), want, "{peer:?} as {namespace}/{account}");
    }
}

fn root_of(folder: &std::path::Path) -> (CaFolder, Certificate) {
    let (folder, authority) = CaFolder::open(folder.to_owned(), options(), now()).unwrap();
    (folder, authority.certificate().clone())
}

#[test]
fn a_root_is_made_once_and_kept() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("ca");
    let roots: Vec<Certificate> = std::thread::scope(|scope| {
        let racing: Vec<_> = (0..4).map(|_| scope.spawn(|| root_of(&path).1)).collect();
        racing.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]), "all who start together agree");
    assert_eq!(root_of(&path).1, roots[0], "and after a restart");
    let names: Vec<_> = std::fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ca"], "nothing is left beside it");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(path.join("ca-key.pem")).unwrap().permissions().mode() & 0o077, 0);
    std::fs::write(path.join("ca-key.pem"), "nonsense").unwrap();
    let error = format!("{:#}", CaFolder::open(path, options(), now()).unwrap_err());
    assert!(error.contains("ca-key.pem: no private key"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_folder_is_followed() {
    let parent = tempfile::tempdir().unwrap();
    let (old, new) = (parent.path().join("old"), parent.path().join("new"));
    // What is followed is looked at by the machine's clock.
    let open = |path: &std::path::Path| CaFolder::open(path.to_owned(), options(), SystemTime::now()).unwrap();
    let (folder, authority) = open(&old);
    let (_, next) = open(&new);
    let current = Arc::new(Current::new(authority));
    let following = tokio::spawn({
        let current = current.clone();
        async move { folder.follow(&current, &Metrics::default()).await }
    });
    let before = current.get().certificate().clone();
    std::fs::copy(new.join("ca-key.pem"), old.join("ca-key.pem")).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*current.get().certificate(), before, "half a change is none");
    for name in ["ca-cert.pem", "root-cert.pem"] {
        std::fs::copy(new.join(name), old.join(name)).unwrap();
    }
    while current.get().certificate() != next.certificate() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    following.abort();
}
