//! Members and join tokens.

use super::*;

fn token(replica: &mut Replica, byte: u8) -> Token {
    the!(Token, replica.done(Kind::CreateToken(CreateToken { hash: hash(byte), ttl_ms: 60_000 })))
}

fn add(secret: u8, token: u8) -> Kind {
    Kind::AddMember(AddMember { member: Some(spec(secret)), token_hash: hash(token) })
}

fn with_token(replica: &mut Replica, secret: u8) -> Member {
    let byte = 100 + u8::try_from(replica.index).unwrap();
    token(replica, byte);
    the!(Member, replica.done(add(secret, byte)))
}

fn start(id: u64, secret: u8, incarnation: u64) -> Kind {
    let secret_hash = hash(secret);
    Kind::StartMember(StartMember { id, secret_hash, incarnation, version: 1, addresses: vec![] })
}

fn to(id: u64, to: MemberState) -> Kind {
    let from = MemberState::Unspecified.into();
    Kind::SetMemberState(proto::SetMemberState { id, from, to: to.into() })
}

fn vote(id: u64, votes: bool) -> Kind {
    Kind::SetMemberVote(proto::SetMemberVote { id, votes })
}

fn remove(id: u64) -> Kind {
    Kind::RemoveMember(proto::RemoveMember { id })
}

#[test]
fn a_token_lets_one_node_join_once_and_asking_again_changes_nothing() {
    let mut replica = Replica::formed();
    assert_eq!(replica.why(add(2, 9)), Refusal::NoSuchToken);
    assert_eq!(token(&mut replica, 9).id, 1);
    let member = the!(Member, replica.done(add(2, 9)));
    assert_eq!((member.id, member.state(), member.name.as_str()), (2, MemberState::Joining, "node2"));
    let before = replica.tables.clone();
    let again = the!(Member, replica.done(add(2, 9)));
    assert_eq!(again, member);
    assert_eq!(replica.tables, before, "who asks again changes nothing");
    let refused = replica.refused(add(3, 9));
    assert_eq!(refused.why(), Refusal::TokenUsed);
    assert!(refused.message.contains("by member 2"), "{}", refused.message);
    let kinds: Vec<_> = replica.events().iter().map(|event| event.kind()).collect();
    use proto::EventKind::{ClusterFormed, MemberAdded, TokenCreated, TokenUsed};
    assert_eq!(kinds, [ClusterFormed, MemberAdded, TokenCreated, MemberAdded, TokenUsed]);
}

#[test]
fn a_refused_join_leaves_the_token_open() {
    let mut replica = Replica::formed();
    token(&mut replica, 9);
    let clash = MemberSpec { addresses: spec(1).addresses, ..spec(2) };
    let clash = AddMember { member: Some(clash), token_hash: hash(9) };
    let refused = replica.refused(Kind::AddMember(clash));
    assert_eq!(refused.why(), Refusal::AddressTaken);
    assert!(refused.message.contains("member 1 has the address 10.0.0.1:7000"), "{}", refused.message);
    assert_eq!(the!(Member, replica.done(add(2, 9))).id, 2, "no number was lost either");
}

#[test]
fn tokens_expire_are_revoked_and_are_bounded() {
    let mut replica = Replica::formed();
    let bad = |hash, ttl_ms| Kind::CreateToken(CreateToken { hash, ttl_ms });
    assert_eq!(replica.why(bad(vec![1], 0)), Refusal::Invalid);
    assert_eq!(replica.why(bad(hash(1), 5)), Refusal::OutOfRange);
    let default = the!(Token, replica.done(bad(hash(1), 0)));
    assert_eq!(default.ttl_ms, 24 * 60 * 60 * 1000);
    assert_eq!(replica.why(bad(hash(1), 0)), Refusal::Invalid, "the same token twice");
    let expire = |tokens| Kind::Expire(Expire { leases: vec![], tokens });
    assert_eq!(the!(Expired, replica.done(expire(vec![1, 99]))).tokens, [1]);
    assert_eq!(replica.why(add(2, 1)), Refusal::TokenExpired);
    token(&mut replica, 2);
    let revoke = |id| Kind::RevokeToken(proto::RevokeToken { id });
    replica.done(revoke(2));
    assert_eq!(replica.why(revoke(2)), Refusal::TokenExpired);
    assert_eq!(replica.why(revoke(9)), Refusal::NoSuchToken);
    assert!(replica.refused(add(2, 2)).message.contains("revoked"));
    assert!(the!(Expired, replica.done(expire(vec![2]))).tokens.is_empty());
    replica.done(set("token.max_open", "1"));
    token(&mut replica, 3);
    assert_eq!(replica.why(bad(hash(4), 0)), Refusal::TooMany);
    replica.done(add(2, 3));
    token(&mut replica, 4);
}

#[test]
fn old_tokens_are_forgotten_but_not_while_they_are_open() {
    let mut replica = Replica::formed();
    let numbered = |number: u64| [&number.to_be_bytes()[..], &[0; 24]].concat();
    let create = |number| Kind::CreateToken(CreateToken { hash: numbered(number), ttl_ms: 0 });
    replica.done(create(1));
    for number in 2..1100 {
        replica.done(create(number));
        replica.done(Kind::Expire(Expire { leases: vec![], tokens: vec![number] }));
    }
    let count = |replica: &Replica, kind: Cluster| {
        let range = kind.all();
        replica.tables.scan(Table::Cluster, &range.start..&range.end, usize::MAX).unwrap().len()
    };
    assert_eq!((count(&replica, Cluster::Token), count(&replica, Cluster::TokenHash)), (1001, 1001));
    replica.done(Kind::Expire(Expire { leases: vec![], tokens: vec![1] }));
    assert_eq!((count(&replica, Cluster::Token), count(&replica, Cluster::TokenHash)), (1000, 1000));
    assert_eq!(replica.why(create(1099)), Refusal::Invalid);
}

#[test]
fn a_start_proves_itself_and_raises_the_incarnation() {
    let mut replica = Replica::formed();
    with_token(&mut replica, 2);
    assert_eq!(replica.why(start(2, 3, 5)), Refusal::WrongSecret);
    assert_eq!(replica.why(start(3, 2, 5)), Refusal::NoSuchMember);
    assert_eq!(the!(Member, replica.done(start(2, 2, 5))).incarnation, 5);
    let refused = replica.refused(start(2, 2, 5));
    assert_eq!((refused.why(), refused.number), (Refusal::StaleIncarnation, 5));
    assert!(refused.message.contains("copied"), "{}", refused.message);
    assert_eq!(replica.why(start(2, 2, 4)), Refusal::StaleIncarnation);
    let moved = StartMember {
        id: 2,
        secret_hash: hash(2),
        incarnation: 6,
        version: 1,
        addresses: vec!["new.example:7000".into()],
    };
    assert_eq!(the!(Member, replica.done(Kind::StartMember(moved.clone()))).addresses, ["new.example:7000"]);
    // Its old address is free.
    token(&mut replica, 3);
    let third = MemberSpec { addresses: spec(2).addresses, ..spec(3) };
    replica.done(Kind::AddMember(AddMember { member: Some(third), token_hash: hash(3) }));
    let back = StartMember { incarnation: 7, addresses: spec(2).addresses, ..moved.clone() };
    assert_eq!(replica.why(Kind::StartMember(back)), Refusal::AddressTaken);
    assert_eq!(replica.why(Kind::StartMember(StartMember { incarnation: 7, version: 0, ..moved })), Refusal::Version);
}

#[test]
fn states_follow_each_other_and_the_last_active_member_stays() {
    use MemberState::{Active, Decommissioned, Draining, Joining};
    let mut replica = Replica::formed();
    assert_eq!(replica.why(to(1, Draining)), Refusal::LastMember);
    with_token(&mut replica, 2);
    assert_eq!(replica.why(to(1, Draining)), Refusal::LastMember, "one that joins is not active yet");
    assert_eq!(replica.why(to(2, Draining)), Refusal::MemberState);
    replica.done(to(2, Active));
    assert_eq!(replica.why(remove(2)), Refusal::MemberState);
    assert_eq!(replica.why(to(2, Decommissioned)), Refusal::MemberState);
    assert_eq!(replica.why(to(2, Joining)), Refusal::MemberState);
    let from = proto::SetMemberState { id: 2, from: Draining.into(), to: Draining.into() };
    assert_eq!(replica.why(Kind::SetMemberState(from)), Refusal::MemberState);
    replica.done(to(2, Draining));
    // Who starts again is of use again.
    assert_eq!(the!(Member, replica.done(start(2, 2, 8))).state(), Active);
    let last = replica.events().pop().unwrap();
    assert_eq!((last.kind(), last.detail.as_str()), (proto::EventKind::MemberState, "draining → active"));
    replica.done(to(2, Draining));
    assert_eq!(replica.why(to(1, Draining)), Refusal::LastMember);
    replica.done(to(2, Decommissioned));
    assert_eq!(replica.why(start(2, 2, 9)), Refusal::MemberState);
    replica.done(remove(2));
    let refused = replica.refused(to(2, Active));
    assert_eq!((refused.why(), refused.message.as_str()), (Refusal::NoSuchMember, "member 2 was removed"));
    // Name, address and secret are free again; the number is not.
    let again = with_token(&mut replica, 2);
    assert_eq!(again.id, 3);
}

#[test]
fn one_active_member_always_votes() {
    use MemberState::{Active, Decommissioned, Draining};
    let mut replica = Replica::formed();
    assert_eq!(replica.why(vote(1, false)), Refusal::LastMember);
    assert_eq!(replica.why(vote(2, false)), Refusal::NoSuchMember);
    with_token(&mut replica, 2);
    assert_eq!(replica.why(vote(1, false)), Refusal::LastMember, "one that joins may never come");
    // Also one that joins may be meant not to vote, and changes its mind.
    assert!(the!(Member, replica.done(vote(2, false))).non_voting);
    replica.done(to(2, Active));
    let refused = replica.refused(vote(1, false));
    assert!(refused.message.contains("last active one that votes"), "{}", refused.message);
    assert_eq!(replica.why(to(1, Draining)), Refusal::LastMember, "it would have nobody to hand over to");
    replica.done(vote(2, true));
    replica.done(vote(1, false));
    assert_eq!(replica.why(to(2, Draining)), Refusal::LastMember);
    assert_eq!(replica.why(vote(2, false)), Refusal::LastMember);
    // One without a vote drains, starts and goes like any other, and still has none after a start.
    replica.done(to(1, Draining));
    assert_eq!(replica.why(vote(1, true)), Refusal::MemberState);
    assert!(the!(Member, replica.done(start(1, 1, 8))).non_voting);
    replica.done(to(1, Draining));
    replica.done(to(1, Decommissioned));
    assert_eq!(replica.why(vote(1, false)), Refusal::MemberState);
    replica.done(remove(1));
    assert_eq!(replica.refused(vote(1, true)).message, "member 1 was removed");
}

#[test]
fn a_vote_that_is_so_already_is_left_as_it_is() {
    let mut replica = Replica::formed();
    with_token(&mut replica, 2);
    replica.done(to(2, MemberState::Active));
    for votes in [true, false] {
        let member = the!(Member, replica.done(vote(2, votes)));
        assert_eq!(member.non_voting, !votes);
        let before = replica.tables.clone();
        assert_eq!(the!(Member, replica.done(vote(2, votes))), member);
        assert_eq!(replica.tables, before);
    }
    let last = replica.events().pop().unwrap();
    assert_eq!((last.kind(), last.subject.as_str()), (proto::EventKind::MemberVote, "2"));
    assert_eq!(last.detail, "voting → non-voting");
}

#[test]
fn names_addresses_and_attributes_are_checked() {
    let mut replica = Replica::formed();
    token(&mut replica, 9);
    let attribute = |key: &str, value: &str| Attribute { key: key.into(), value: value.into() };
    let good = MemberSpec {
        name: "db-2".into(),
        attributes: vec![attribute("ssd", "yes"), attribute("cpu", "8")],
        locality: vec![attribute("region", "eu"), attribute("zone", "a")],
        ..spec(2)
    };
    let bad = [
        MemberSpec { name: "a b".into(), ..good.clone() },
        MemberSpec { name: "x".repeat(64), ..good.clone() },
        MemberSpec { addresses: vec![], ..good.clone() },
        MemberSpec { addresses: vec!["nowhere".into()], ..good.clone() },
        MemberSpec { addresses: vec!["host:99999".into()], ..good.clone() },
        MemberSpec { addresses: vec![":7000".into()], ..good.clone() },
        MemberSpec { attributes: vec![attribute("", "x")], ..good.clone() },
        MemberSpec { attributes: vec![attribute("x", "1"), attribute("x", "2")], ..good.clone() },
        MemberSpec { locality: vec![attribute("x", &"y".repeat(300))], ..good.clone() },
        MemberSpec { secret_hash: vec![1], ..good.clone() },
    ];
    for spec in bad {
        let add = AddMember { member: Some(spec.clone()), token_hash: hash(9) };
        assert_eq!(replica.why(Kind::AddMember(add)), Refusal::Invalid, "{spec:?}");
    }
    let taken = AddMember { member: Some(MemberSpec { name: "node1".into(), ..good.clone() }), token_hash: hash(9) };
    assert_eq!(replica.why(Kind::AddMember(taken)), Refusal::NameTaken);
    let added = AddMember { member: Some(good), token_hash: hash(9) };
    let member = the!(Member, replica.done(Kind::AddMember(added)));
    let keys = |list: &[Attribute]| list.iter().map(|attribute| attribute.key.clone()).collect::<Vec<_>>();
    assert_eq!(
        (keys(&member.attributes), keys(&member.locality)),
        (vec!["cpu".into(), "ssd".into()], vec!["region".into(), "zone".into()])
    );
    let update = |name: Option<&str>, attributes| {
        Kind::UpdateMember(proto::UpdateMember {
            id: 2,
            name: name.map(str::to_owned),
            addresses: None,
            attributes,
            locality: None,
        })
    };
    assert_eq!(replica.why(update(Some("node1"), None)), Refusal::NameTaken);
    let member = the!(Member, replica.done(update(Some("db-2b"), Some(proto::Attributes { values: vec![] }))));
    assert_eq!((member.name.as_str(), member.attributes.len(), member.locality.len()), ("db-2b", 0, 2));
    assert_eq!(the!(Member, replica.done(update(None, None))).name, "db-2b", "keeping its own name is no clash");
}

#[test]
fn a_forced_cluster_has_one_member_another_id_and_gives_no_number_twice() {
    let mut replica = Replica::formed();
    with_token(&mut replica, 2);
    with_token(&mut replica, 3);
    let force = |cluster_id, survivor| Kind::ForceNew(proto::ForceNew { cluster_id, survivor });
    let cluster = State::headers(&replica.tables).unwrap().cluster;
    assert_eq!(replica.why(force(99, 9)), Refusal::NoSuchMember);
    assert_eq!(replica.why(force(0, 2)), Refusal::Invalid);
    assert_eq!(replica.why(force(cluster.cluster_id, 2)), Refusal::Invalid);
    let member = the!(Member, replica.done(force(99, 2)));
    assert_eq!((member.id, member.state()), (2, MemberState::Active));
    let forced = State::headers(&replica.tables).unwrap().cluster;
    assert_eq!((forced.cluster_id, forced.system_id, forced.members), (99, cluster.system_id, 1));
    let left: Vec<_> = stored::members(&replica.tables).unwrap().iter().map(|member| member.id).collect();
    assert_eq!(left, [2]);
    use proto::EventKind::{ClusterForced, MemberRemoved};
    let events = replica.events();
    let kinds: Vec<_> = events[events.len() - 3..].iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, [ClusterForced, MemberRemoved, MemberRemoved]);
    // Addresses and names of those who are gone can be given again, their numbers cannot.
    assert_eq!(with_token(&mut replica, 3).id, 4);
    // Whoever is left decides, whether it did before or not.
    replica.done(to(4, MemberState::Active));
    replica.done(vote(4, false));
    assert!(!the!(Member, replica.done(force(100, 4))).non_voting);
}
