//! A client that knows nothing of us but the protocol, under random histories: in the end it has exactly what it should
//! have, and on the way there no route of its ever points to a cluster that it doesn't have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use proptest::prelude::*;

use super::tests::{Read, World, read};
use super::*;
use crate::Resource;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const USED: [TypeUrl; 4] = [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::Route];

#[derive(Clone, Debug)]
enum Step {
    /// Of one type, the content of each name; 0 for absent.
    Set(usize, [u8; 6]),
    Push,
    /// The client reads one message and takes it.
    Ack,
    /// The client reads one message and takes only every nth resource.
    Nack(usize),
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    Tick(u64),
    Reconnect,
}

fn step(faults: bool) -> impl Strategy<Value = Step> {
    let quiet = prop_oneof![
        3 => (0..4_usize, proptest::array::uniform6(0..3_u8)).prop_map(|(t, c)| Step::Set(t, c)),
        3 => Just(Step::Push),
        6 => Just(Step::Ack),
        1 => (0..4_usize, 0..6_usize).prop_map(|(t, n)| Step::Subscribe(t, n)),
        1 => (0..4_usize, 0..6_usize).prop_map(|(t, n)| Step::Unsubscribe(t, n)),
    ];
    let fault =
        prop_oneof![(1..4_usize).prop_map(Step::Nack), (1..9_000_u64).prop_map(Step::Tick), Just(Step::Reconnect),];
    prop_oneof![8 => quiet, u32::from(faults) => fault]
}

struct Client {
    face: Face,
    session: Session,
    world: World,
    now: u64,
    has: BTreeMap<TypeUrl, BTreeMap<String, String>>,
    names: BTreeMap<TypeUrl, BTreeSet<&'static str>>,
    versions: BTreeMap<TypeUrl, String>,
    nonces: BTreeMap<TypeUrl, String>,
    inbox: VecDeque<Read>,
    nacked: bool,
}

impl Client {
    fn new(face: Face, world: World) -> Self {
        let names = BTreeMap::from([(TypeUrl::Endpoint, NAMES.into()), (TypeUrl::Route, NAMES.into())]);
        let session = Session::new(face, Options::default().into());
        let mut client = Self {
            face,
            session,
            world,
            now: 0,
            has: BTreeMap::new(),
            names,
            versions: BTreeMap::new(),
            nonces: BTreeMap::new(),
            inbox: VecDeque::new(),
            nacked: false,
        };
        client.connect();
        client
    }

    fn connect(&mut self) {
        self.session = Session::new(self.face, Options::default().into());
        self.inbox.clear();
        self.nonces.clear();
        for ty in USED {
            let names: Vec<String> = self.names.get(&ty).into_iter().flatten().map(|n| n.to_string()).collect();
            self.request(ty, &names, &[], None, true);
        }
    }

    fn request(&mut self, ty: TypeUrl, add: &[String], drop: &[String], error: Option<&str>, first: bool) {
        let node = Some(Node { id: "n".into(), ..Node::default() });
        let error_detail = error.map(|e| Status { code: 3, message: e.into(), details: vec![] });
        let type_url = ty.as_str().to_owned();
        let acks = add.is_empty() && drop.is_empty();
        let nonce = self.nonces.get(&ty).cloned().unwrap_or_default();
        let input = match self.face {
            Face::Sotw => Input::Sotw(Box::new(
                DiscoveryRequest {
                    node,
                    type_url,
                    error_detail,
                    version_info: self.versions.get(&ty).cloned().unwrap_or_default(),
                    response_nonce: nonce,
                    resource_names: self.names.get(&ty).into_iter().flatten().map(|n| n.to_string()).collect(),
                    ..Default::default()
                }
                .into(),
            )),
            Face::Delta => {
                let has = self.has.get(&ty).into_iter().flatten().filter(|_| first);
                Input::Delta(Box::new(DeltaDiscoveryRequest {
                    node,
                    type_url,
                    error_detail,
                    response_nonce: if acks { nonce } else { String::new() },
                    resource_names_subscribe: add.to_vec(),
                    resource_names_unsubscribe: drop.to_vec(),
                    initial_resource_versions: has
                        .map(|(n, c)| (n.clone(), resource(ty, n, c).version_text()))
                        .collect(),
                    ..Default::default()
                }))
            }
        };
        self.handle(input);
    }

    fn handle(&mut self, input: Input) {
        for output in self.session.handle(input, self.now, &self.world) {
            match output {
                Output::Send(response) => self.inbox.push_back(read(&response)),
                Output::Close(close) => panic!("{close:?}"),
                Output::Event(_) => {}
            }
        }
        let outstanding = |ty: TypeUrl| self.inbox.iter().filter(|r| r.type_url == ty.as_str()).count();
        assert!(USED.into_iter().all(|ty| outstanding(ty) <= 1), "more than one outstanding response");
    }

    fn take(&mut self, every: Option<usize>) {
        let Some(message) = self.inbox.pop_front() else { return };
        let ty = TypeUrl::parse(&message.type_url).unwrap();
        let wanted = |name: &str| self.names.get(&ty).is_none_or(|names| names.contains(name));
        let has = self.has.entry(ty).or_default();
        let whole = self.face == Face::Sotw && ty.is_wildcard();
        if whole && every.is_none() {
            has.clear();
        }
        for (_, (name, content)) in
            message.resources.into_iter().enumerate().filter(|(i, _)| every.is_none_or(|n| i % n == 1))
        {
            if wanted(&name) {
                has.insert(name, content);
            }
        }
        if every.is_none() {
            message.removed.iter().for_each(|name| {
                has.remove(name);
            });
            self.versions.insert(ty, message.version);
        } else {
            self.nacked = true;
        }
        self.nonces.insert(ty, message.nonce);
        self.request(ty, &[], &[], every.map(|_| "no"), false);
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Set(t, content) => self.set(USED[t], content),
            Step::Push => self.handle(Input::Snapshot),
            Step::Ack => self.take(None),
            Step::Nack(n) => self.take(Some(n)),
            Step::Tick(ms) => {
                self.now += ms;
                self.handle(Input::Tick);
            }
            Step::Reconnect => self.connect(),
            Step::Subscribe(t, n) => {
                let ty = USED[t];
                let Some(names) = self.names.get_mut(&ty) else { return };
                if names.insert(NAMES[n]) {
                    self.request(ty, &[NAMES[n].into()], &[], None, false);
                }
            }
            Step::Unsubscribe(t, n) => {
                let ty = USED[t];
                let Some(names) = self.names.get_mut(&ty) else { return };
                // An empty list in a first request would mean something else.
                if names.len() > 1 && names.remove(NAMES[n]) {
                    self.has.entry(ty).or_default().remove(NAMES[n]);
                    self.request(ty, &[], &[NAMES[n].into()], None, false);
                }
            }
        }
    }

    fn set(&mut self, ty: TypeUrl, content: [u8; 6]) {
        let named = NAMES.into_iter().zip(content).filter(|(_, c)| *c > 0);
        let list = named.map(|(n, c)| Arc::new(resource(ty, n, &c.to_string()))).collect();
        self.world.0[ty as usize] = ResourceSet::new(list);
    }

    fn drain(&mut self) {
        loop {
            while !self.inbox.is_empty() {
                self.take(None);
            }
            let Some(at) = self.session.deadline() else { return };
            self.now = at;
            self.handle(Input::Tick);
        }
    }

    /// What the client has of what exists, and what it has at all where it can be told to forget.
    fn assert_latest(&self) {
        for ty in USED {
            let should: BTreeMap<String, String> = self
                .world
                .get(ty)
                .iter()
                .filter(|r| self.names.get(&ty).is_none_or(|names| names.contains(r.name().as_str())))
                .map(|r| (r.name().to_string(), String::from_utf8(r.value().to_vec()).unwrap()))
                .collect();
            let mut has = self.has.get(&ty).cloned().unwrap_or_default();
            if self.face == Face::Sotw && !ty.is_wildcard() {
                has.retain(|name, _| should.contains_key(name));
            }
            assert_eq!(has, should, "{ty}");
        }
    }
}

fn resource(ty: TypeUrl, name: &str, content: &str) -> Resource {
    Resource::from_value(Name::from(name), ty.as_str(), content.as_bytes())
}

fn face() -> impl Strategy<Value = Face> {
    prop_oneof![Just(Face::Sotw), Just(Face::Delta)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_client_ends_with_the_latest(face in face(), steps in proptest::collection::vec(step(true), 1..60)) {
        let mut client = Client::new(face, World::default());
        for step in steps {
            client.run(step);
        }
        client.drain();
        if client.nacked {
            // A rejected response comes again, all of it, when anything of its type changes.
            for ty in USED {
                let mut list = client.world.get(ty).as_slice().to_vec();
                list.retain(|r| r.name().as_str() != "a");
                list.push(Arc::new(resource(ty, "a", "last")));
                client.world.0[ty as usize] = ResourceSet::new(list);
                client.names.entry(TypeUrl::Endpoint).or_default().remove("a");
                client.names.entry(TypeUrl::Route).or_default().remove("a");
            }
            for ty in [TypeUrl::Endpoint, TypeUrl::Route] {
                client.names.entry(ty).or_default().insert("a");
                client.request(ty, &["a".into()], &[], None, false);
            }
        }
        client.handle(Input::Snapshot);
        client.drain();
        prop_assert!(client.session.is_settled());
        client.assert_latest();
    }

    #[test]
    fn no_route_ever_points_to_a_missing_cluster(
        face in face(),
        worlds in proptest::collection::vec((1..64_u8, proptest::array::uniform3(0..6_usize), 0..3_usize), 1..12),
    ) {
        // Each world: which clusters there are, the cluster of each route, how many messages are read in between.
        let mut client: Option<Client> = None;
        for (present, targets, reads) in worlds {
            let clusters: Vec<usize> = (0..6).filter(|i| present & (1 << i) != 0).collect();
            let mut world = World::default();
            let list = clusters.iter().map(|c| resource(TypeUrl::Cluster, NAMES[*c], "1").into()).collect();
            world.0[TypeUrl::Cluster as usize] = ResourceSet::new(list);
            let target = |i: usize| NAMES[clusters[targets[i] % clusters.len()]];
            for (ty, names) in [(TypeUrl::Route, 0..2), (TypeUrl::Listener, 2..3)] {
                let list = names.map(|i| resource(ty, NAMES[i], target(i)).into()).collect();
                world.0[ty as usize] = ResourceSet::new(list);
            }
            let client = match &mut client {
                None => client.insert(Client::new(face, world)),
                Some(client) => {
                    client.world = world;
                    client.handle(Input::Snapshot);
                    client
                }
            };
            let check = |client: &Client| {
                let clusters = client.has.get(&TypeUrl::Cluster).cloned().unwrap_or_default();
                for ty in [TypeUrl::Route, TypeUrl::Listener] {
                    for (name, cluster) in client.has.get(&ty).into_iter().flatten() {
                        assert!(clusters.contains_key(cluster), "{ty} {name} points to {cluster}, not in {clusters:?}");
                    }
                }
            };
            for _ in 0..reads {
                client.take(None);
                check(client);
            }
        }
        let mut client = client.unwrap();
        while !client.inbox.is_empty() {
            client.take(None);
        }
        client.assert_latest();
    }
}
