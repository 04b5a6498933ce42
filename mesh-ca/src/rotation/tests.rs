use proptest::prelude::*;

use super::*;

const TIMING: Timing =
    Timing { settle: Duration::from_secs(10), patience: Duration::from_secs(200), longest: Duration::from_secs(60) };

/// A proxy: whom it trusts, who signed its certificate, and until when that is valid.
#[derive(Clone, Debug)]
struct Peer {
    connected: bool,
    trusted: Vec<Side>,
    signed_by: Side,
    until: u64,
}

/// A mesh whose control plane may die at any moment: only what was written stays.
struct Mesh {
    written: Rotation,
    /// What the running control plane goes by; none while it is dead.
    running: Option<Rotation>,
    peers: Vec<Peer>,
    now: u64,
}

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Kill,
    Start,
    Step,
    Renew(usize),
    Connect(usize),
    Disconnect(usize),
    Abort,
}

impl Mesh {
    fn new() -> Self {
        let peer =
            Peer { connected: true, trusted: vec![Side::Old], signed_by: Side::Old, until: TIMING.longest.as_secs() };
        Self { written: Rotation::begin(0), running: None, peers: vec![peer; 4], now: 0 }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Wait(seconds) => self.now += seconds,
            Event::Kill => self.running = None,
            Event::Start => self.running = Some(self.written.clone()),
            Event::Step => self.step(),
            Event::Abort => {
                if let Some(state) = &self.running {
                    self.written = state.abort("told to", &TIMING, self.now);
                    self.running = Some(self.written.clone());
                }
            }
            Event::Renew(index) => self.renew(*index),
            Event::Connect(index) => {
                // Who starts or comes back reads what is published.
                self.peers[*index].connected = self.running.is_some();
                self.renew(*index);
            }
            Event::Disconnect(index) => self.peers[*index].connected = false,
        }
        // An expired certificate is presented to nobody: its owner waits for a new one.
        for index in 0..self.peers.len() {
            if self.peers[index].until <= self.now {
                self.peers[index].connected &= self.running.is_some();
                self.renew(index);
            }
        }
    }

    fn step(&mut self) {
        let Some(state) = self.running.clone() else { return };
        let has = |peer: &Peer| state.trusted() == peer.trusted.as_slice();
        let behind = self.peers.iter().enumerate().filter(|(_, peer)| peer.connected && !has(peer));
        let behind = behind.map(|(index, _)| Behind { proxy: index.to_string(), since: 0 });
        let observed = Observed { behind: behind.collect(), ..seen() };
        self.written = state.step(&observed, &TIMING, self.now);
        self.running = Some(self.written.clone());
    }

    /// A connected peer gets the trust of the phase, and a certificate.
    fn renew(&mut self, index: usize) {
        let (Some(state), peer) = (&self.running, &mut self.peers[index]) else { return };
        if peer.connected {
            let until = self.now + TIMING.longest.as_secs();
            *peer = Peer { connected: true, trusted: state.trusted().to_vec(), signed_by: state.issuer(), until };
        }
    }

    /// All who are connected and hold a valid certificate can talk to one another.
    fn all_can_talk(&self) -> bool {
        let alive = || self.peers.iter().filter(|peer| peer.connected && peer.until > self.now);
        alive().all(|one| alive().all(|other| one.trusted.contains(&other.signed_by)))
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (1u64..40).prop_map(Event::Wait),
        1 => Just(Event::Kill),
        3 => Just(Event::Start),
        6 => Just(Event::Step),
        4 => (0usize..4).prop_map(Event::Renew),
        1 => (0usize..4).prop_map(Event::Connect),
        1 => (0usize..4).prop_map(Event::Disconnect),
        1 => Just(Event::Abort),
    ]
}

proptest! {
    #[test]
    fn no_handshake_fails_whenever_the_control_plane_dies(events in proptest::collection::vec(event(), 0..120)) {
        let mut mesh = Mesh::new();
        for event in &events {
            mesh.happen(event);
            prop_assert!(mesh.all_can_talk(), "{event:?} in {:?}: {:?}", mesh.written, mesh.peers);
        }
    }
}

/// Runs to the end, the control plane being killed before every step.
fn run(kill: bool) -> Vec<Phase> {
    let mut mesh = Mesh::new();
    let mut phases = vec![];
    for _ in 0..400 {
        let mut events = vec![Event::Start, Event::Step, Event::Wait(1)];
        events.extend((0..4).map(Event::Renew));
        if kill {
            events.extend([Event::Kill, Event::Start]);
        }
        for event in events {
            mesh.happen(&event);
            assert!(mesh.all_can_talk(), "{:?}: {:?}", mesh.written, mesh.peers);
        }
        if phases.last() != Some(&mesh.written.phase) {
            phases.push(mesh.written.phase.clone());
        }
    }
    phases
}

#[test]
fn it_comes_to_its_end_and_resumes_in_every_phase() {
    let phases = run(false);
    assert!(
        matches!(phases[..], [Phase::Distributing, Phase::Draining { .. }, Phase::Retiring, Phase::Done]),
        "{phases:?}"
    );
    assert_eq!(run(true), phases);
}

#[test]
fn it_gives_up_by_itself_when_trust_is_not_seen() {
    let begun = Rotation::begin(0);
    let sleep = |since: u64| Observed { behind: vec![Behind { proxy: "sleep.default".into(), since }], ..seen() };
    let behind = sleep(0);
    assert_eq!(begun.step(&behind, &TIMING, 199), begun);
    assert_eq!(begun.step(&sleep(100), &TIMING, 299), begun, "who has come lately is waited for as long");
    let aborted = begun.step(&behind, &TIMING, 200);
    assert_eq!((aborted.issuer(), aborted.trusted()), (Side::Old, &[Side::Old][..]));
    assert!(aborted.is_over() && aborted.reason.as_ref().unwrap().contains("sleep.default"), "{aborted:?}");
    let unpublished = begun.step(&Observed::default(), &TIMING, 200);
    assert!(unpublished.reason.unwrap().contains("istio-ca-root-cert"));
    assert_eq!(aborted.step(&seen(), &TIMING, 1_000), aborted, "and stays so");
}

#[test]
fn whoever_begins_to_look_waits_for_those_who_come_back() {
    let begun = Rotation::begin(0);
    let restarted = Observed { since: 100, ..seen() };
    assert_eq!(begun.step(&restarted, &TIMING, 109), begun, "nobody is behind, as nobody is connected");
    assert_eq!(begun.step(&restarted, &TIMING, 110).phase.word(), "draining");
}

#[test]
fn who_never_tells_is_given_the_time_of_a_certificate() {
    let begun = Rotation::begin(0);
    let silent = Observed { silent: vec!["of-istio.default".into()], ..seen() };
    assert_eq!(begun.step(&silent, &TIMING, 59), begun, "its certificate may be of before");
    assert_eq!(begun.step(&silent, &TIMING, 60).phase.word(), "draining", "its certificate has brought both roots");
    let retiring = begun.step(&seen(), &TIMING, 10).step(&silent, &TIMING, 80);
    assert_eq!(retiring.step(&silent, &TIMING, 81).phase, Phase::Done, "it is not asked to trust anybody new");
}

fn seen() -> Observed {
    Observed { published: true, ..Observed::default() }
}

#[test]
fn after_the_switch_the_way_back_is_as_careful() {
    let seen = seen();
    let draining = Rotation::begin(0).step(&seen, &TIMING, 10);
    let returning = draining.abort("a partner does not trust it", &TIMING, 20);
    assert_eq!((returning.issuer(), returning.trusted()), (Side::Old, &[Side::Old, Side::New][..]));
    assert_eq!(returning.step(&seen, &TIMING, 89).phase, Phase::Returning { until: 90 });
    assert_eq!(returning.step(&seen, &TIMING, 90).phase, Phase::Aborted);
    let retiring = draining.step(&seen, &TIMING, 80);
    assert_eq!(retiring.abort("too late", &TIMING, 81), retiring);
}

#[test]
fn the_state_is_kept_as_text() {
    let draining = Rotation { phase: Phase::Draining { until: 7 }, since: 3, reason: None };
    let text = serde_json::to_string(&draining).unwrap();
    assert_eq!(text, r#"{"phase":"draining","until":7,"since":3}"#);
    assert_eq!(serde_json::from_str::<Rotation>(&text).unwrap(), draining);
}
