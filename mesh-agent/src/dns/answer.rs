//! From a question and the names of the mesh to an answer.

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::table::Table;

/// Short, so that whoever keeps an answer soon asks again: addresses in a mesh change.
const TTL: u32 = 30;

/// The answer from the names of the mesh. `None`: others must be asked. `random` decides which of several addresses is first.
pub fn answer(table: &Table, question: &Message, random: usize) -> Option<Message> {
    let query = question.queries.first().filter(|query| query.query_class() == DNSClass::IN)?;
    if !matches!(query.query_type(), RecordType::A | RecordType::AAAA) {
        return None;
    }
    let name = query.name().to_ascii().to_ascii_lowercase();
    let found = table.find(name.trim_end_matches('.'))?;
    let mut answer = reply(question);
    answer.metadata.authoritative = true;
    let mut addresses: Vec<RData> = match query.query_type() {
        RecordType::A => found.v4.iter().map(|ip| RData::A(A(*ip))).collect(),
        _ => found.v6.iter().map(|ip| RData::AAAA(AAAA(*ip))).collect(),
    };
    // A known name without such an address has no address, rather than not being: else clients that ask for both
    // families would take the name for unknown.
    if addresses.is_empty() {
        return Some(answer);
    }
    let first = random % addresses.len();
    addresses.rotate_left(first);
    let mut owner = query.name().clone();
    if let Some(alias) = found.alias {
        let alias = Name::from_ascii(format!("{alias}.")).ok()?;
        answer.add_answer(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(alias.clone()))));
        owner = alias;
    }
    answer.add_answers(addresses.into_iter().map(|address| Record::from_rdata(owner.clone(), TTL, address)));
    Some(answer)
}

/// "I can't say": the names have not come yet, nobody answers, or there is no question.
pub fn failure(question: &Message) -> Message {
    let mut answer = reply(question);
    answer.metadata.response_code = ResponseCode::ServFail;
    answer
}

/// An answer without any content.
fn reply(question: &Message) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.queries.clone_from(&question.queries);
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(question.max_payload());
        answer.set_edns(edns);
    }
    answer
}

/// The bytes of an answer, at most so many: what doesn't fit is left out and the answer says so. Empty if not even its head
/// can be written.
pub fn encode(answer: &Message, most: u16) -> Vec<u8> {
    let emit = |answer: &Message, most: u16| {
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(most);
        answer.emit(&mut encoder).map(|()| bytes)
    };
    emit(answer, most).or_else(|_| emit(&answer.truncate(), most)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::Query;
    use mesh_xds::build::names::{NameInfo, NameTable};

    use super::super::table::tests::table;
    use super::*;

    fn question(name: &str, kind: RecordType) -> Message {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        question
    }

    fn shown(answer: &Message) -> Vec<String> {
        answer.answers.iter().map(|record| format!("{} {}", record.name, record.data)).collect()
    }

    #[test]
    fn what_is_known_is_answered() {
        let of = |name: &str, kind| answer(&table(), &question(name, kind), 1).map(|answer| shown(&answer));
        assert_eq!(of("Productpage.", RecordType::A), Some(vec!["Productpage. 9.9.9.9".into()]), "as it was asked");
        assert_eq!(of("productpage.", RecordType::AAAA), Some(vec![]));
        assert_eq!(of("reviews.ns2.", RecordType::AAAA), Some(vec!["reviews.ns2. fd00::10".into()]));
        let expanded = of("www.google.com.ns1.svc.cluster.local.", RecordType::A).unwrap();
        assert_eq!(expanded, ["www.google.com.ns1.svc.cluster.local. www.google.com.", "www.google.com. 1.2.3.4"]);
        assert_eq!(of("x.wildcard.io.", RecordType::A), Some(vec!["x.wildcard.io. 5.5.5.5".into()]));
        assert_eq!(of("productpage.", RecordType::TXT), None);
        assert_eq!(of("example.com.", RecordType::A), None);
        let headless = of("headless.", RecordType::A).unwrap();
        assert_eq!(headless, ["headless. 1.1.1.2", "headless. 1.1.1.3", "headless. 1.1.1.1"]);
        let got = answer(&table(), &question("productpage.", RecordType::A), 0).unwrap();
        assert!(got.metadata.authoritative && got.metadata.recursion_desired && got.metadata.recursion_available);
        assert_eq!(failure(&question("a.", RecordType::A)).metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn long_answers_are_cut_and_say_so() {
        let ips = (0..150u8).map(|n| Ipv4Addr::new(10, 0, 0, n).to_string()).collect();
        let info = NameInfo { ips, ..NameInfo::default() };
        let table = Table::new(NameTable { table: [("many.example".to_owned(), info)].into() }, "", "", None);
        let mut question = question("many.example.", RecordType::A);
        let sized = |question: &Message| {
            let all = answer(&table, question, 0).unwrap();
            let bytes = encode(&all, question.max_payload());
            let read = Message::from_vec(&bytes).unwrap();
            (bytes.len(), read.metadata.truncation, read.answers.len(), read.edns.is_some())
        };
        let (length, cut, some, _) = sized(&question);
        assert!(length <= 512 && cut && (15..150).contains(&some), "{length} {cut} {some}");
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        question.set_edns(edns);
        assert!(matches!(sized(&question), (_, false, 150, true)), "{:?}", sized(&question));
    }
}
