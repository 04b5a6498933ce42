//! The rules of the protocol, one script each.
//!
//! ```text
//! set cds a=1 b=1      all resources of a type (nobody is told yet)
//! push                 a new snapshot
//! tick 5000            so many milliseconds pass
//! > cds …              a request. State of the world: the names. Delta: +name, -name. Both: ack, nack=why, nonce=n,
//!                      node=id, nonode, had:name=content (delta), has-version (SotW: claims the present version)
//! < cds#1 a=1 -b       the next output; before each step all outputs must have been expected
//! ```

use bytes::BytesMut;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use prost::Message;

use super::*;
use crate::Resource;

fn resource(ty: TypeUrl, name: &str, content: &str) -> Arc<Resource> {
    Arc::new(Resource::from_value(Name::from(name), ty.as_str(), content.as_bytes()))
}

/// One resource set a type, in the order of `TypeUrl::ALL`.
#[derive(Default)]
pub(super) struct World(pub(super) [ResourceSet; TypeUrl::ALL.len()]);

impl World {
    fn set<'a>(&mut self, ty: TypeUrl, content: impl Iterator<Item = &'a str>) {
        let list = content.map(|c| c.split_once('=').unwrap()).map(|(n, c)| resource(ty, n, c)).collect();
        self.0[ty as usize] = ResourceSet::new(list);
    }
}

impl Resources for World {
    fn get(&self, ty: TypeUrl) -> ResourceSet {
        self.0[ty as usize].clone()
    }
}

/// A message as a client reads it: type, nonce, (name, content), removed names.
pub(super) struct Read {
    pub(super) type_url: String,
    pub(super) nonce: String,
    pub(super) version: String,
    pub(super) resources: Vec<(String, String)>,
    pub(super) removed: Vec<String>,
    pub(super) control_plane: String,
}

pub(super) fn read(response: &Response) -> Read {
    let mut bytes = BytesMut::new();
    response.segments().for_each(|s| bytes.extend_from_slice(&s));
    assert_eq!(bytes.len(), response.encoded_len());
    let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
    match response.face() {
        Face::Sotw => {
            let m = DiscoveryResponse::decode(bytes).unwrap();
            let names = response.body().as_slice().iter().map(|r| r.name().to_string());
            Read {
                type_url: m.type_url,
                nonce: m.nonce,
                version: m.version_info,
                resources: names.zip(m.resources.into_iter().map(|any| text(any.value))).collect(),
                removed: Vec::new(),
                control_plane: m.control_plane.unwrap_or_default().identifier,
            }
        }
        Face::Delta => {
            let m = DeltaDiscoveryResponse::decode(bytes).unwrap();
            assert_eq!(m.removed_resources.len(), response.removed());
            Read {
                type_url: m.type_url,
                nonce: m.nonce,
                version: m.system_version_info,
                resources: m.resources.into_iter().map(|r| (r.name, text(r.resource.unwrap().value))).collect(),
                removed: m.removed_resources,
                control_plane: m.control_plane.unwrap_or_default().identifier,
            }
        }
    }
}

fn show(output: &Output) -> String {
    match output {
        Output::Send(response) => {
            let r = read(response);
            let ty = TypeUrl::parse(&r.type_url).map_or(r.type_url.as_str(), |t| t.short());
            let mut line = format!("{ty}#{}", r.nonce);
            r.resources.iter().for_each(|(n, c)| line += &format!(" {n}={c}"));
            r.removed.iter().for_each(|n| line += &format!(" -{n}"));
            line
        }
        Output::Event(Event::Ack(ty)) => format!("ack {}", ty.short()),
        Output::Event(Event::Nack(ty, nack)) => format!("nack {} {}", ty.short(), nack.message),
        Output::Event(Event::ExpiredNonce(ty)) => format!("expired {}", ty.short()),
        Output::Close(close) => format!("close {:?}: {}", close.code, close.message),
    }
}

pub(super) fn script(face: Face, text: &str) -> Session {
    let mut session = Session::new(face, Options::default().into());
    let mut world = World::default();
    let (mut now, mut named) = (0, false);
    let mut pending: std::collections::VecDeque<String> = Default::default();
    for (at, line) in text.lines().enumerate().map(|(at, l)| (at + 1, l.trim())).filter(|(_, l)| !l.is_empty()) {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap();
        if verb == "<" {
            let expected = line[1..].trim();
            let got = pending.pop_front();
            assert_eq!(got.as_deref(), Some(expected), "line {at}: {line}\nthen {pending:?}");
            continue;
        }
        assert!(pending.is_empty(), "line {at}: before `{line}` there is also {pending:?}");
        let ty = |short: &str| TypeUrl::ALL.into_iter().find(|t| t.short() == short);
        let input = match verb {
            "set" => {
                let ty = ty(words.next().unwrap()).unwrap();
                world.set(ty, words);
                continue;
            }
            "push" => Input::Snapshot,
            "tick" => {
                now += words.next().unwrap().parse::<u64>().unwrap();
                Input::Tick
            }
            ">" => {
                let short = words.next().unwrap();
                let ty = ty(short);
                let mut delta = DeltaDiscoveryRequest {
                    type_url: ty.map_or(if short == "none" { "" } else { short }, |t| t.as_str()).into(),
                    ..Default::default()
                };
                let mut sotw = DiscoveryRequest { type_url: delta.type_url.clone(), ..Default::default() };
                if !named {
                    delta.node = Some(Node { id: "n".into(), ..Node::default() });
                }
                let last = ty.and_then(|ty| session.status(ty)).map_or(0, |s| s.sent_nonce).to_string();
                for word in words {
                    match word.split_once(['=', ':']).unwrap_or((word, "")) {
                        ("ack", _) => delta.response_nonce = last.clone(),
                        ("nack", why) => {
                            delta.response_nonce = last.clone();
                            delta.error_detail = Some(Status { code: 3, message: why.into(), details: vec![] });
                        }
                        ("nonce", nonce) => delta.response_nonce = nonce.into(),
                        ("nonode", _) => delta.node = None,
                        ("node", id) => delta.node = Some(Node { id: id.into(), ..Node::default() }),
                        ("has-version", _) => {
                            sotw.version_info = crate::resource::version_text(world.get(ty.unwrap()).version());
                        }
                        ("had", had) => {
                            let (name, content) = had.split_once('=').unwrap();
                            let version = resource(ty.unwrap(), name, content).version_text();
                            delta.initial_resource_versions.insert(name.into(), version);
                        }
                        _ if face == Face::Sotw => sotw.resource_names.push(word.into()),
                        _ if word.starts_with('+') => delta.resource_names_subscribe.push(word[1..].into()),
                        _ if word.starts_with('-') => delta.resource_names_unsubscribe.push(word[1..].into()),
                        _ => panic!("line {at}: what is `{word}`?"),
                    }
                }
                named |= delta.node.is_some();
                match face {
                    Face::Delta => Input::Delta(delta.into()),
                    Face::Sotw => {
                        sotw.node = delta.node;
                        sotw.response_nonce = delta.response_nonce;
                        sotw.error_detail = delta.error_detail;
                        Input::Sotw(Box::new(SotwRequest::decode(sotw.encode_to_vec().into()).unwrap()))
                    }
                }
            }
            other => panic!("line {at}: what is `{other}`?"),
        };
        pending.extend(session.handle(input, now, &world).iter().map(show));
    }
    assert!(pending.is_empty(), "at the end there is also {pending:?}");
    session
}

#[test]
fn sotw_acks_and_sends_only_what_changed() {
    let session = script(
        Face::Sotw,
        "set cds a=1 b=1
         > cds
         < cds#1 a=1 b=1
         push
         > cds ack
         < ack cds
         push
         set cds a=2 b=1
         push
         < cds#2 a=2 b=1
         > cds ack
         < ack cds",
    );
    let status = session.status(TypeUrl::Cluster).unwrap();
    assert_eq!((status.sent_nonce, status.acked_nonce), (2, 2));
    assert_eq!(status.sent_version, status.acked_version);
    assert!(session.is_settled() && session.deadline().is_none());
}

#[test]
fn delta_sends_only_what_changed() {
    script(
        Face::Delta,
        "set cds a=1 b=1
         > cds
         < cds#1 a=1 b=1
         > cds ack
         < ack cds
         push
         set cds a=2 b=1 c=1
         push
         < cds#2 a=2 c=1
         > cds ack
         < ack cds
         set cds b=1 c=1
         push
         < cds#3 -a",
    );
}

#[test]
fn of_each_type_one_response_is_outstanding_and_the_newest_follows() {
    for face in [Face::Sotw, Face::Delta] {
        script(
            face,
            "set cds a=1
             > cds
             < cds#1 a=1
             set cds a=2
             push
             set cds a=3
             push
             > cds ack
             < ack cds
             < cds#2 a=3
             > cds ack
             < ack cds",
        );
    }
}

#[test]
fn a_rejected_response_is_not_repeated_until_it_changes() {
    let session = script(
        Face::Delta,
        "set lds a=1 b=1
         > lds
         < lds#1 a=1 b=1
         > lds ack
         < ack lds
         set lds a=2 b=2 c=1
         push
         < lds#2 a=2 b=2 c=1
         > lds nack=bad-b
         < nack lds bad-b
         push",
    );
    let status = session.status(TypeUrl::Listener).unwrap();
    assert_eq!((status.sent_nonce, status.acked_nonce), (2, 1));
    assert_eq!(status.nack.unwrap(), Nack { nonce: 2, code: 3, message: "bad-b".into() });
    // Whether the client took a and c is not known: they come again with the first change, even a removal.
    script(
        Face::Delta,
        "set rds a=1 b=1
         > rds +a +b +c
         < rds#1 a=1 b=1 -c
         > rds nack=bad-b
         < nack rds bad-b
         set rds a=1 b=2
         push
         < rds#2 a=1 b=2 -c
         > rds ack
         < ack rds
         set rds a=1 b=3
         push
         < rds#3 b=3",
    );
    script(
        Face::Delta,
        "set lds a=1 b=1
         > lds
         < lds#1 a=1 b=1
         > lds nack=bad-b
         < nack lds bad-b
         set lds a=1
         push
         < lds#2 a=1 -b
         > lds ack
         < ack lds
         push",
    );
    script(
        Face::Sotw,
        "set lds a=1
         > lds
         < lds#1 a=1
         > lds nack=no
         < nack lds no
         push
         > lds nack=no
         set lds a=2
         push
         < lds#2 a=2
         > lds ack
         < ack lds",
    );
}

#[test]
fn stale_nonces_are_ignored() {
    script(
        Face::Sotw,
        "set eds a=1 b=1
         > eds a
         < eds#1 a=1
         > eds a ack
         < ack eds
         set eds a=2 b=1
         push
         < eds#2 a=2
         > eds a b nonce=1
         < expired eds
         > eds a b ack
         < ack eds
         < eds#3 b=1
         > eds a b nack=x
         < nack eds x
         > eds a b nonce=nonsense
         < expired eds",
    );
    // In delta a change of subscription is said only once, so it counts whatever the nonce.
    script(
        Face::Delta,
        "set eds a=1 b=1
         > eds +a
         < eds#1 a=1
         > eds ack
         < ack eds
         > eds +b nonce=0
         < expired eds
         < eds#2 b=1
         > eds nonce=1
         < expired eds
         > eds nonce=2
         < ack eds",
    );
}

#[test]
fn sotw_names_may_be_added_and_dropped() {
    script(
        Face::Sotw,
        "set eds a=1 b=1 c=1
         > eds a
         < eds#1 a=1
         > eds a ack
         < ack eds
         > eds a b ack
         < eds#2 b=1
         > eds b ack
         < ack eds
         set eds a=2 b=2 c=2
         push
         < eds#3 b=2
         > eds b ack
         < ack eds
         > eds ack
         set eds b=3
         push
         > eds b ack
         < eds#4 b=3
         > eds b ack
         < ack eds",
    );
}

#[test]
fn sotw_omits_what_does_not_exist_until_it_does() {
    script(
        Face::Sotw,
        "> rds 80
         < rds#1
         > rds 80 ack
         < ack rds
         set rds 80=1
         push
         < rds#2 80=1
         > rds 80 ack
         < ack rds
         set rds
         push",
    );
}

#[test]
fn sotw_an_empty_list_is_a_wildcard_only_at_first() {
    script(
        Face::Sotw,
        "set cds a=1 b=1
         > cds a
         < cds#1 a=1
         > cds a ack
         < ack cds
         > cds ack
         set cds a=2 b=2
         push
         > cds * ack
         < cds#2 a=2 b=2
         > cds * ack
         < ack cds",
    );
    script(
        Face::Sotw,
        "set lds a=1 b=1
         > lds *
         < lds#1 a=1 b=1
         > lds b ack
         < ack lds
         < lds#2 b=1
         > lds b ack
         < ack lds
         set lds a=2 b=1
         push",
    );
    script(Face::Sotw, "> eds\npush");
}

#[test]
fn sotw_a_second_beginning_is_answered_in_full() {
    script(
        Face::Sotw,
        "set eds a=1 b=1
         > eds a
         < eds#1 a=1
         > eds a b
         > eds a b ack
         < ack eds
         < eds#2 b=1
         > eds a b ack
         < ack eds
         > eds a b
         < eds#3 a=1 b=1",
    );
}

#[test]
fn sotw_who_reconnects_with_our_version_has_it() {
    script(
        Face::Sotw,
        "set cds a=1
         set lds l=1
         > cds has-version
         > lds has-version
         set lds l=2
         push
         < lds#1 l=2",
    );
}

#[test]
fn delta_subscriptions_by_name() {
    script(
        Face::Delta,
        "set eds a=1 b=1 c=1
         > eds +a +x
         < eds#1 a=1 -x
         > eds ack
         < ack eds
         > eds +b -a
         < eds#2 b=1
         > eds ack
         < ack eds
         set eds a=2 b=2 c=2 x=1
         push
         < eds#3 b=2 x=1
         > eds ack
         < ack eds
         > eds +b
         < eds#4 b=2
         > eds -b +c
         > eds ack
         < ack eds
         < eds#5 c=2
         > eds -c -x ack
         < ack eds
         set eds
         push",
    );
}

#[test]
fn delta_wildcards() {
    script(
        Face::Delta,
        "set cds a=1 b=1
         > cds +*
         < cds#1 a=1 b=1
         > cds ack
         < ack cds
         > cds +b
         < cds#2 b=1
         > cds ack
         < ack cds
         > cds -*
         set cds a=2 b=2
         push
         < cds#3 b=2
         > cds ack
         < ack cds
         > cds +*
         < cds#4 a=2
         > cds ack
         < ack cds
         > cds -b
         < cds#5 b=2
         > cds ack
         < ack cds
         push",
    );
    // Subscribing to nothing: what Istio's agents do for types that they fetch on demand.
    script(
        Face::Delta,
        "set cds a=1
         > cds +* -*
         push
         > cds +a
         < cds#1 a=1",
    );
    script(
        Face::Delta,
        "set eds a=1
         > eds
         push
         > eds +*
         < eds#1 a=1",
    );
}

#[test]
fn an_empty_wildcard_is_answered() {
    for face in [Face::Sotw, Face::Delta] {
        script(face, "> cds\n< cds#1\n> lds\n< lds#2\n> cds ack\n< ack cds\n> lds ack\n< ack lds\npush");
    }
}

#[test]
fn delta_reconnect_with_versions_of_every_type() {
    for ty in TypeUrl::ALL.map(TypeUrl::short) {
        let names = if ty == "cds" || ty == "lds" { "" } else { "+a +b +c" };
        script(
            Face::Delta,
            &format!(
                "set {ty} a=1 b=2 c=1
                 > {ty} {names} had:a=1 had:b=1
                 < {ty}#1 b=2 c=1
                 > {ty} ack
                 < ack {ty}
                 set {ty} a=2 b=2 c=1
                 push
                 < {ty}#2 a=2"
            ),
        );
        script(Face::Delta, &format!("set {ty} a=1\n> {ty} {} had:a=1\npush", &names[..names.len().min(2)]));
    }
}

#[test]
fn delta_reconnect_removes_what_vanished_once_the_rest_is_there() {
    script(
        Face::Delta,
        "set cds a=1
         set lds l=2
         > cds had:a=1 had:gone=1
         > lds had:l=1 had:lgone=1
         < lds#1 l=2 -lgone
         > lds ack
         < ack lds
         tick 1000
         < cds#2 -gone
         > cds ack
         < ack cds
         tick 1000",
    );
    script(Face::Delta, "set rds a=1\n> rds +a +gone had:a=1 had:gone=1\n< rds#1 -gone");
}

#[test]
fn extensions_are_never_taken_away() {
    script(
        Face::Delta,
        "set ecds a=1
         > ecds +a
         < ecds#1 a=1
         > ecds ack
         < ack ecds
         set ecds
         push
         set ecds a=2
         push
         < ecds#2 a=2",
    );
}

#[test]
fn the_first_request_says_who_asks_and_no_later_one_says_otherwise() {
    for face in [Face::Sotw, Face::Delta] {
        script(
            face,
            "> cds nonode\n< close InvalidArgument: the first request of the stream has no node\n> cds node=n\npush",
        );
        script(face, "> cds node=\n< close InvalidArgument: the node of the first request of the stream has no id");
        script(face, "> cds node=a\n< cds#1\n> cds node=a ack\n< ack cds\n> lds nonode\n< lds#2");
        script(
            face,
            "> cds node=a
             < cds#1
             > lds node=b
             < close InvalidArgument: the node of this stream changed from a to b",
        );
    }
}

#[test]
fn a_type_that_is_not_served_is_answered_once() {
    for face in [Face::Sotw, Face::Delta] {
        let mut text = "> some.Type
            < some.Type#1
            > some.Type nonce=1
            > type.googleapis.com/istio.v1.HealthInformation
            > cds
            < cds#2
            > none
            < close InvalidArgument: a request names no type_url"
            .to_owned();
        script(face, &text);
        text.clear();
        for i in 0..UNKNOWN_TYPES {
            text += &format!("> t{i}\n< t{i}#{}\n", i + 1);
        }
        script(face, &(text + "> one.too.many"));
    }
}

#[test]
fn a_client_may_not_ask_for_everything() {
    let options = Options { max_names: 2, ..Options::default() };
    let mut session = Session::new(Face::Delta, options.into());
    let mut ask = |names: &[&str]| {
        let request = DeltaDiscoveryRequest {
            node: Some(Node { id: "n".into(), ..Node::default() }),
            type_url: TypeUrl::Endpoint.as_str().into(),
            resource_names_subscribe: names.iter().map(|n| n.to_string()).collect(),
            ..Default::default()
        };
        session.handle(Input::Delta(request.into()), 0, &World::default()).iter().map(show).collect::<Vec<_>>()
    };
    assert_eq!(ask(&["a", "b"]), ["eds#1 -a -b"]);
    let message = format!("3 names of {} are subscribed to on one stream, more than 2", TypeUrl::Endpoint);
    assert_eq!(ask(&["c"]), [format!("close ResourceExhausted: {message}")]);
}

#[test]
fn the_wrong_face_is_an_error() {
    let mut session = Session::new(Face::Delta, Options::default().into());
    let out = session.handle(Input::Sotw(Box::default()), 0, &World::default());
    assert_eq!(show(&out[0]), "close InvalidArgument: a state-of-the-world request came on a delta stream");
}

#[test]
fn responses_share_their_resources_and_name_the_control_plane() {
    let options = Options { control_plane: "mesh".into(), ..Options::default() };
    let mut world = World::default();
    world.set(TypeUrl::Cluster, "a=1 b=1".split(' '));
    for face in [Face::Sotw, Face::Delta] {
        let mut session = Session::new(face, options.clone().into());
        let node = Some(Node { id: "n".into(), ..Node::default() });
        let type_url = TypeUrl::Cluster.as_str().to_owned();
        let input = match face {
            Face::Sotw => Input::Sotw(SotwRequest { node, type_url, ..Default::default() }.into()),
            Face::Delta => Input::Delta(DeltaDiscoveryRequest { node, type_url, ..Default::default() }.into()),
        };
        let out = session.handle(input, 0, &world);
        let [Output::Send(response)] = &out[..] else { panic!("{out:?}") };
        let Body::Whole(set) = response.body() else { panic!("{response:?}") };
        assert!(std::ptr::eq(set.as_slice(), world.get(TypeUrl::Cluster).as_slice()));
        let first = set.iter().next().unwrap();
        assert_eq!(response.part(first, 0).unwrap().as_ptr_range().end, first.delta_head().as_ptr_range().end);
        assert_eq!(read(response).control_plane, "mesh");
        assert_eq!(read(response).version, crate::resource::version_text(set.version()));
    }
}

#[test]
fn an_idle_stream_with_many_names_is_small() {
    let mut world = World::default();
    let names: Vec<String> = (0..1_450).map(|i| format!("outbound|8080||svc-{i}.ns.svc.cluster.local")).collect();
    world.0[TypeUrl::Endpoint as usize] =
        ResourceSet::new(names.iter().map(|n| resource(TypeUrl::Endpoint, n, "x")).collect());
    let mut session = Session::new(Face::Delta, Options::default().into());
    let mut request = DeltaDiscoveryRequest {
        node: Some(Node { id: "n".into(), ..Node::default() }),
        type_url: TypeUrl::Endpoint.as_str().into(),
        resource_names_subscribe: names,
        ..Default::default()
    };
    session.handle(Input::Delta(request.clone().into()), 0, &world);
    request.response_nonce = "1".into();
    request.resource_names_subscribe = Vec::new();
    session.handle(Input::Delta(request.into()), 0, &world);
    // Every name is the allocation of the resource that bears it: the stream pays for a pointer, a length and a mark.
    for (name, r) in session.subscriptions(TypeUrl::Endpoint).zip(world.get(TypeUrl::Endpoint).iter()) {
        assert!(Name::same(name, r.name()));
    }
    let bytes = 1_450 * (size_of::<Name>() + 1) + size_of::<Watch>() + size_of::<Session>();
    assert!(bytes < 30_000, "{bytes}");
}
