//! The order in which types leave: nothing is sent before what it refers to, nothing taken away before what refers to it.
//! Scripts as in `tests`.

use super::tests::script;
use super::*;

#[test]
fn new_clusters_before_listeners_before_routes_before_removals() {
    for face in [Face::Sotw, Face::Delta] {
        let (names, union, removed) = match face {
            Face::Sotw => ("e", "< cds#5 c=1 new=1", "< cds#8 new=1"),
            Face::Delta => ("+e", "< cds#5 new=1", "< cds#8 -c"),
        };
        script(
            face,
            &format!(
                "set cds c=1
                 set lds l=1
                 set rds e=1
                 set eds e=1
                 > cds
                 < cds#1 c=1
                 > eds {names}
                 < eds#2 e=1
                 > lds
                 < lds#3 l=1
                 > rds {names}
                 < rds#4 e=1
                 > cds ack
                 < ack cds
                 > eds {eds} ack
                 < ack eds
                 > lds ack
                 < ack lds
                 > rds {eds} ack
                 < ack rds
                 set cds new=1
                 set lds l=2 l2=1
                 set rds e=2
                 push
                 {union}
                 > cds ack
                 < ack cds
                 {lds}
                 > lds ack
                 < ack lds
                 < rds#7 e=2
                 > rds {eds} ack
                 < ack rds
                 {removed}
                 > cds ack
                 < ack cds",
                eds = if face == Face::Sotw { "e" } else { "" },
                lds = "< lds#6 l=2 l2=1",
            ),
        );
    }
}

#[test]
fn changes_alone_do_not_wait() {
    script(
        Face::Delta,
        "set cds c=1
         set lds l=1
         set rds r=1
         > cds
         < cds#1 c=1
         > lds
         < lds#2 l=1
         > rds +r
         < rds#3 r=1
         > cds ack
         < ack cds
         > lds ack
         < ack lds
         > rds ack
         < ack rds
         set cds c=2
         set lds l=2
         set rds r=2
         push
         < cds#4 c=2
         < lds#5 l=2
         < rds#6 r=2",
    );
}

#[test]
fn removals_alone_go_at_once_and_endpoints_after_their_cluster() {
    script(
        Face::Delta,
        "set cds a=1 b=1
         set eds a=1 b=1
         set lds l=1
         > cds
         < cds#1 a=1 b=1
         > cds ack
         < ack cds
         > eds +a +b
         < eds#2 a=1 b=1
         > eds ack
         < ack eds
         > lds
         < lds#3 l=1
         > lds ack
         < ack lds
         set cds a=1
         set eds a=1
         push
         < cds#4 -b
         > cds ack
         < ack cds
         < eds#5 -b
         > eds ack
         < ack eds
         push",
    );
}

#[test]
fn a_missing_ack_holds_the_others_only_for_a_while() {
    let session = script(
        Face::Delta,
        "set cds c=1
         set lds l=1
         > cds
         < cds#1 c=1
         > lds
         < lds#2 l=1
         > lds ack
         < ack lds
         > cds ack
         < ack cds
         set cds c=1 d=1
         set lds l=2
         push
         < cds#3 d=1
         tick 4999
         push",
    );
    assert_eq!(session.deadline(), Some(5_000));
    script(
        Face::Delta,
        "set cds c=1
         set lds l=1
         > cds
         < cds#1 c=1
         > lds
         < lds#2 l=1
         > lds ack
         < ack lds
         set cds d=1
         set lds l=2
         push
         tick 5000
         < lds#3 l=2
         > lds ack
         < ack lds
         > cds ack
         < ack cds
         < cds#4 d=1
         > cds ack
         < ack cds
         < cds#5 -c",
    );
}

#[test]
fn a_refused_listener_keeps_the_clusters_it_may_still_use() {
    script(
        Face::Delta,
        "set cds c=1
         set lds l=1
         > cds
         < cds#1 c=1
         > lds
         < lds#2 l=1
         > cds ack
         < ack cds
         > lds ack
         < ack lds
         set cds
         set lds l=2
         push
         < lds#3 l=2
         > lds nack=no
         < nack lds no
         tick 100000
         set lds l=3
         push
         < lds#4 l=3
         > lds ack
         < ack lds
         < cds#5 -c",
    );
}

#[test]
fn endpoints_follow_a_cluster_that_is_sent_again() {
    for (face, names) in [(Face::Sotw, "a b"), (Face::Delta, "+a +b")] {
        let again = if face == Face::Sotw { "a b" } else { "" };
        let cds = if face == Face::Sotw { "a=2 b=1" } else { "a=2" };
        script(
            face,
            &format!(
                "set cds a=1 b=1
                 set eds a=1 b=1
                 > cds
                 < cds#1 a=1 b=1
                 > cds ack
                 < ack cds
                 > eds {names}
                 < eds#2 a=1 b=1
                 > eds {again} ack
                 < ack eds
                 set cds a=2 b=1
                 push
                 < cds#3 {cds}
                 < eds#4 a=1"
            ),
        );
    }
    // On reconnect Envoy may ask for endpoints before clusters, or after.
    script(
        Face::Delta,
        "set cds a=2 b=1
         set eds a=1 b=1
         > eds +a +b had:a=1 had:b=1
         > cds had:a=1 had:b=1
         < cds#1 a=2
         < eds#2 a=1",
    );
    script(
        Face::Delta,
        "set cds a=2 b=1
         set eds a=1 b=1
         > cds had:a=1 had:b=1
         < cds#1 a=2
         > eds +a +b had:a=1 had:b=1
         < eds#2 a=1",
    );
    script(
        Face::Delta,
        "set cds a=1
         set eds a=1
         > cds
         < cds#1 a=1
         > eds +a had:a=1
         < eds#2 a=1",
    );
    script(
        Face::Sotw,
        "set cds a=1
         set eds a=1
         > eds a
         < eds#1 a=1
         > eds a ack
         < ack eds
         > cds
         < cds#2 a=1
         < eds#3 a=1",
    );
}
