//! Answers of other servers, kept for as long as they allow and no longer than half a minute: the names of a mesh's
//! surroundings change, and an application must not be the last to know.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

/// What an agent can spare: some hundred kilobytes.
const MOST: usize = 512;
const LONGEST: Duration = Duration::from_secs(30);

/// A question that others have asked before. Those with options of EDNS are questions of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    name: Name,
    kind: RecordType,
    class: DNSClass,
    edns: Option<bool>,
    checking_disabled: bool,
}

impl Key {
    /// The key of a question, if its answer may be kept.
    pub fn of(question: &Message) -> Option<Self> {
        let [query] = question.queries.as_slice() else { return None };
        if question.edns.as_ref().is_some_and(|edns| !edns.options().as_ref().is_empty()) {
            return None;
        }
        Some(Self {
            name: query.name().to_lowercase(),
            kind: query.query_type(),
            class: query.query_class(),
            edns: question.edns.as_ref().map(|edns| edns.flags().dnssec_ok),
            checking_disabled: question.metadata.checking_disabled,
        })
    }
}

/// Answers by question.
#[derive(Debug, Default)]
pub struct Cache {
    kept: HashMap<Key, Kept>,
}

#[derive(Debug)]
struct Kept {
    answer: Message,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// The answer for whoever asks now: under the id and the spelling of this question, and with what is left of its life.
    pub fn get(&self, key: &Key, question: &Message, now: Instant) -> Option<Message> {
        let kept = self.kept.get(key).filter(|kept| now < kept.until)?;
        let mut answer = kept.answer.clone();
        answer.metadata.id = question.metadata.id;
        answer.queries.clone_from(&question.queries);
        let age = u32::try_from(now.saturating_duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        for record in answer.answers.iter_mut().chain(&mut answer.authorities).chain(&mut answer.additionals) {
            record.decrement_ttl(age);
        }
        Some(answer)
    }

    /// Keeps an answer, if it may be kept.
    pub fn put(&mut self, key: Key, answer: Message, now: Instant) {
        let Some(life) = life(&answer) else { return };
        if self.kept.len() >= MOST && !self.kept.contains_key(&key) {
            self.kept.retain(|_, kept| now < kept.until);
            // Full of what is good: the one that is gone first anyway makes room.
            if self.kept.len() >= MOST
                && let Some(first) = self.kept.iter().min_by_key(|(_, kept)| kept.until).map(|(key, _)| key.clone())
            {
                self.kept.remove(&first);
            }
        }
        self.kept.insert(key, Kept { answer, since: now, until: now + life });
    }
}

/// How long an answer may be kept. `None`: not at all.
fn life(answer: &Message) -> Option<Duration> {
    let said = match answer.metadata.response_code {
        ResponseCode::NoError if !answer.answers.is_empty() => answer.answers.iter().map(|record| record.ttl).min(),
        // That there is nothing holds for as long as the zone says.
        ResponseCode::NoError | ResponseCode::NXDomain => {
            answer.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                _ => None,
            })
        }
        _ => None,
    };
    let life = Duration::from_secs(said?.into()).min(LONGEST);
    (!life.is_zero() && !answer.metadata.truncation).then_some(life)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::Query;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, SOA};

    use super::*;

    fn question(name: &str) -> Message {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        question
    }

    fn answered(name: &str, ttl: u32) -> Message {
        let mut answer = question(name).into_response();
        let data = RData::A(A(Ipv4Addr::LOCALHOST));
        answer.add_answer(Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data));
        answer
    }

    #[test]
    fn answers_live_as_long_as_they_say_and_not_longer_than_we_like() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for (name, ttl, life) in [("a.", 10, 10), ("b.", 3600, 30), ("c.", 0, 0)] {
            let key = Key::of(&question(name)).unwrap();
            cache.put(key.clone(), answered(name, ttl), now);
            let at = |seconds| cache.get(&key, &question(name), now + Duration::from_secs(seconds));
            assert!(at(life).is_none(), "{name}");
            if life > 0 {
                assert_eq!(at(life - 1).unwrap().answers[0].ttl, ttl - (life as u32 - 1), "{name}");
            }
        }
        let asked = question("A.");
        let got = cache.get(&Key::of(&asked).unwrap(), &asked, now).unwrap();
        assert_eq!((got.metadata.id, &got.queries), (asked.metadata.id, &asked.queries));
    }

    #[test]
    fn that_there_is_nothing_is_kept_as_the_zone_says() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let key = Key::of(&question("no.")).unwrap();
        let mut nothing = question("no.").into_response();
        nothing.metadata.response_code = ResponseCode::NXDomain;
        cache.put(key.clone(), nothing.clone(), now);
        assert!(cache.get(&key, &question("no."), now).is_none(), "without a zone nobody says how long");
        let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 5);
        nothing.add_authority(Record::from_rdata(Name::root(), 3600, RData::SOA(soa)));
        cache.put(key.clone(), nothing.clone(), now);
        assert!(cache.get(&key, &question("no."), now + Duration::from_secs(4)).is_some());
        assert!(cache.get(&key, &question("no."), now + Duration::from_secs(5)).is_none());
        for (code, cut) in [(ResponseCode::ServFail, false), (ResponseCode::NoError, true)] {
            let mut bad = answered("bad.", 10);
            bad.metadata.response_code = code;
            bad.metadata.truncation = cut;
            let key = Key::of(&question("bad.")).unwrap();
            cache.put(key.clone(), bad, now);
            assert!(cache.get(&key, &question("bad."), now).is_none());
        }
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for n in 0..5_000u32 {
            let name = format!("n{n}.");
            cache.put(Key::of(&question(&name)).unwrap(), answered(&name, 5 + n % 20), now);
        }
        assert_eq!(cache.kept.len(), MOST);
        assert!(cache.kept.contains_key(&Key::of(&question("n4999.")).unwrap()));
    }
}
