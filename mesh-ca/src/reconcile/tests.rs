use std::time::UNIX_EPOCH;

use k8s_openapi::api::admissionregistration::v1::ServiceReference;

use super::*;
use crate::KeyKind;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn options() -> RootOptions {
    RootOptions { key: KeyKind::EcdsaP256, ..RootOptions::default() }
}

fn root() -> Authority {
    Authority::self_signed(&options(), Lifetimes::default(), now()).unwrap()
}

/// An API server's part in creating.
#[derive(Default)]
struct Server(Option<Secret>);

impl Server {
    /// What one replica ends up with.
    fn replica(&mut self, seen: Option<Secret>) -> Authority {
        match own_root(seen.as_ref(), "istio-system", &options(), Lifetimes::default(), now()).unwrap() {
            OwnRoot::Use(authority) => *authority,
            OwnRoot::Create(secret) => {
                // Created, or there already: in either case what is there counts.
                self.0.get_or_insert(*secret);
                self.replica(self.0.clone())
            }
        }
    }
}

#[test]
fn replicas_that_start_together_agree_on_one_root() {
    let mut server = Server::default();
    let seen = server.0.clone();
    let (one, two) = (server.replica(seen.clone()), server.replica(seen));
    assert_eq!(one.certificate(), two.certificate());
    let secret = server.0.clone().unwrap();
    assert_eq!(
        (secret.type_.as_deref(), secret.metadata.name.as_deref()),
        (Some("istio.io/ca-root"), Some("istio-ca-secret"))
    );
    assert_eq!(server.replica(Some(secret)).certificate(), one.certificate(), "and after a restart");
}

#[test]
fn a_damaged_root_is_not_replaced() {
    let mut secret = ca_secret(&root(), "istio-system").unwrap();
    secret.data.as_mut().unwrap().remove("ca-key.pem");
    let told =
        own_root(Some(&secret), "istio-system", &options(), Lifetimes::default(), now()).unwrap_err().to_string();
    assert!(told.starts_with("Secret istio-ca-secret: ca-key.pem: is missing"), "{told}");
}

#[test]
fn roots_are_renewed_in_the_last_part_of_their_life() {
    let root = root();
    let year = Duration::from_secs(365 * 24 * 3600);
    assert!(!root_is_old(&root, 20, now() + 7 * year));
    assert!(root_is_old(&root, 20, now() + 9 * year));
    let again = Authority::with_root_key(
        crate::PrivateKey::from_pem(root.key().to_pem().unwrap().as_bytes()).unwrap(),
        &options(),
        Lifetimes::default(),
        now() + 9 * year,
    );
    let again = again.unwrap();
    assert_eq!(again.certificate().public_key(), root.certificate().public_key());
    assert_eq!(again.certificate().subject(), root.certificate().subject());
}

#[test]
fn the_roots_are_kept_right_in_every_namespace() {
    let (root, other) = (root(), root());
    let made = root_config_map(&root, "default", None).unwrap();
    assert_eq!(made.data.as_ref().unwrap()["root-cert.pem"], **root.roots_pem());
    assert_eq!(root_config_map(&root, "default", Some(&made)), None, "what is right is left alone");
    let mut edited = made.clone();
    edited.data.as_mut().unwrap().insert("root-cert.pem".into(), other.roots_pem().to_string());
    assert_eq!(root_config_map(&root, "default", Some(&edited)), Some(made.clone()));
    let mut bare = made.clone();
    bare.metadata.labels = None;
    assert_eq!(root_config_map(&root, "default", Some(&bare)), Some(made.clone()));
    let mut richer = made;
    richer.data.as_mut().unwrap().insert("more".into(), "of others".into());
    assert_eq!(root_config_map(&root, "default", Some(&richer)), None, "others may add to it");
    assert_eq!(root_config_map(&root, "kube-system", None), None);
}

#[test]
fn lists_are_taken_back_where_they_are_ours() {
    let (listed, bare) = (root().also_checking(Some("a")).also_checking(Some("b")), root());
    assert_eq!(crl_config_map(&bare, "default", None), None, "there are no lists");
    let lists = |map: &ConfigMap| map.data.as_ref().unwrap()["ca-crl.pem"].clone();
    let made = crl_config_map(&listed, "default", None).unwrap();
    assert_eq!(lists(&made), "\nb");
    let emptied = crl_config_map(&bare, "default", Some(&made)).unwrap();
    assert_eq!(lists(&emptied), "");
    assert_eq!(crl_config_map(&bare, "default", Some(&emptied)), None);
    let mut theirs = made;
    theirs.metadata.labels = None;
    assert_eq!(crl_config_map(&bare, "default", Some(&theirs)), None, "another's");
}

#[test]
fn servers_are_recertified_at_half_life_for_new_hosts_and_new_roots() {
    let root = root();
    let hosts = ["istiod.istio-system.svc".to_owned(), "10.0.0.1".to_owned()];
    let day = Duration::from_secs(24 * 3600);
    let (_, chain) = root.serving(&hosts, day, now()).unwrap();
    assert!(!needs_renewal(&chain, &root, &hosts, now() + day / 3));
    assert!(needs_renewal(&chain, &root, &hosts, now() + day / 2));
    let more = [hosts.as_slice(), &["istiod".to_owned()]].concat();
    assert!(needs_renewal(&chain, &root, &more, now()));
    assert!(needs_renewal(&chain, &self::root(), &hosts, now()));
}

#[test]
fn webhooks_of_our_service_get_the_bundle() {
    let hook = |service: &str, bundle: Option<&[u8]>| WebhookClientConfig {
        ca_bundle: bundle.map(|pem| ByteString(pem.to_vec())),
        service: Some(ServiceReference { name: service.into(), namespace: "system".into(), ..Default::default() }),
        ..Default::default()
    };
    let service = |namespace: &str| WebhookService { name: "istiod".into(), namespace: namespace.into() };
    let hooks = [hook("istiod", None), hook("other", None), hook("istiod", Some(b"PEM")), hook("istiod", Some(b"old"))];
    let named = || ["a", "b", "c", "d"].into_iter().zip(&hooks);
    let of = |name: &str| json!({"name": name, "clientConfig": {"caBundle": "UEVN"}});
    assert_eq!(bundle_patch(named(), &service("system"), "PEM"), Some(json!({"webhooks": [of("a"), of("d")]})));
    assert_eq!(bundle_patch(named().skip(1).take(2), &service("system"), "PEM"), None, "all is right");
    assert_eq!(bundle_patch(named(), &service("elsewhere"), "PEM"), None, "another control plane's");
}
