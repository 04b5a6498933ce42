//! What a request costs, from its text to the response: parsed, verified, issued. One core.

#![allow(clippy::unwrap_used, reason = "a bench that cannot make its input has nothing to measure")]
#![allow(clippy::disallowed_methods, reason = "certificates of a bench are valid now")]

use std::time::SystemTime;

use criterion::{Criterion, Throughput};
use mesh_ca::{Authority, Csr, KeyKind, Lifetimes, PrivateKey, RootOptions};

fn sign(c: &mut Criterion) {
    let (id, now) = ("spiffe://cluster.local/ns/default/sa/sleep".parse().unwrap(), SystemTime::now());
    let mut group = c.benchmark_group("csr");
    group.throughput(Throughput::Elements(1));
    for (name, root, key) in [
        ("ec by ec", KeyKind::EcdsaP256, KeyKind::EcdsaP256),
        ("rsa by ec", KeyKind::EcdsaP256, KeyKind::Rsa2048),
        ("ec by rsa", KeyKind::Rsa2048, KeyKind::EcdsaP256),
        ("rsa by rsa", KeyKind::Rsa2048, KeyKind::Rsa2048),
    ] {
        let mut options = RootOptions::default();
        options.key = root;
        let authority = Authority::self_signed(&options, Lifetimes::default(), now).unwrap();
        let pem = Csr::write(&PrivateKey::generate(key).unwrap(), Some(&id)).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let csr = Csr::from_pem(pem.as_bytes()).unwrap();
                authority.sign(&csr, &id, None, now).unwrap().response()
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    sign(&mut criterion);
    criterion.final_summary();
}
