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
    // A folder that is followed is looked at by the clock of the machine.
    let (folder, authority) = CaFolder::open(folder.to_owned(), options(), SystemTime::now()).unwrap();
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

/// A copy of a folder's authority takes the place of another's.
fn put(from: &std::path::Path, to: &std::path::Path) {
    for name in ["ca-key.pem", "ca-cert.pem", "root-cert.pem"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Follows a folder in a task, without waiting between the phases of a rotation.
struct Following {
    current: Arc<Current>,
    task: tokio::task::JoinHandle<()>,
}

impl Following {
    fn new(folder: &std::path::Path, settle: u64, proxies: Proxies) -> Self {
        let mut options = options();
        options.timing.settle = Duration::from_secs(settle);
        options.timing.longest = Duration::ZERO;
        let (folder, authority) = CaFolder::open(folder.to_owned(), options, SystemTime::now()).unwrap();
        let current = Arc::new(Current::new(authority));
        let rotating = Rotating::new(current.clone(), Metrics::default()).proxies(proxies);
        let task = tokio::spawn(async move { match folder.follow(&rotating).await {} });
        Self { current, task }
    }

    async fn until(&self, is_right: impl Fn(&Authority) -> bool) {
        while !is_right(&self.current.get()) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// As a process that is killed.
    async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_folder_leads_a_new_root_in() {
    let parent = tempfile::tempdir().unwrap();
    let (old, new) = (parent.path().join("old"), parent.path().join("new"));
    let (before, next) = (root_of(&old).1, root_of(&new).1);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let behind = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let proxies = Proxies::new({
        let (seen, behind) = (seen.clone(), behind.clone());
        move |roots| {
            seen.lock().unwrap().push(roots.len());
            let proxy = mesh_ca::rotation::Behind { proxy: "sleep.default".into(), since: u64::MAX };
            let behind = behind.load(std::sync::atomic::Ordering::Relaxed).then_some(proxy);
            mesh_ca::rotation::Observed { behind: behind.into_iter().collect(), ..Default::default() }
        }
    });
    let following = Following::new(&old, 0, proxies.clone());
    std::fs::copy(new.join("ca-key.pem"), old.join("ca-key.pem")).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*following.current.get().certificate(), before, "half a change is none");
    put(&new, &old);
    following.until(|authority| authority.roots().len() == 2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*following.current.get().certificate(), before, "somebody does not trust the new one yet");
    let status = std::fs::read_to_string(old.join("rotation-status.json")).unwrap();
    assert!(status.contains("distributing") && status.contains("sleep.default"), "{status}");
    following.end().await;

    // Another process goes on where the first was killed.
    let following = Following::new(&old, 0, proxies);
    assert_eq!(following.current.get().roots().len(), 2);
    assert_eq!(*following.current.get().certificate(), before);
    behind.store(false, std::sync::atomic::Ordering::Relaxed);
    following.until(|authority| *authority.certificate() == next).await;
    following.until(|authority| authority.roots().len() == 1).await;
    assert!(seen.lock().unwrap().contains(&2), "the proxies were asked for both roots");
    following.end().await;
    assert_eq!(root_of(&old).1, next);
}

#[tokio::test(start_paused = true)]
async fn putting_the_old_back_gives_the_new_up() {
    let parent = tempfile::tempdir().unwrap();
    let [old, new, kept] = ["old", "new", "kept"].map(|name| parent.path().join(name));
    let before = root_of(&old).1;
    root_of(&new);
    std::fs::create_dir(&kept).unwrap();
    put(&old, &kept);
    let following = Following::new(&old, 3600, Proxies::default());
    put(&new, &old);
    following.until(|authority| authority.roots().len() == 2).await;
    put(&kept, &old);
    following.until(|authority| authority.roots().len() == 1).await;
    assert_eq!(*following.current.get().certificate(), before);
    following.end().await;
}
