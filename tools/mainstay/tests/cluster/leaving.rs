//! Taking members out, and replacing them.

use crate::nodes::*;
use crate::support::{LIMIT, eventually, mainstay, run};

#[test]
fn a_member_is_removed_also_when_it_leads_and_its_place_is_taken_by_another() {
    let place = Place::new();
    let a = place.form("a");
    let b = place.join("b", &a);
    let c = place.join("c", &a);
    let addresses = [a.cluster.clone(), b.cluster.clone(), c.cluster.clone()];
    let [first, ..] = &addresses;
    settled(&[first], &[1, 2, 3]);
    // Another than the first one leads.
    a.kill();
    let mut leads = 0;
    eventually("another leads", LIMIT, || {
        leads = leader(&[&addresses[1]]).unwrap_or(0);
        leads > 1
    });
    let leader = leads;
    let mut a = place.start("a", &[]);
    a.ready();
    settled(&[first], &[1, 2, 3]);
    let removed = remove(first, leader);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert!(removed.stdout.contains(&format!("Removed node {leader}")), "{removed:?}");
    let (gone, stays, name) = if leader == 2 { (b, c, "b") } else { (c, b, "c") };
    let output = gone.ended();
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("was removed from the cluster"), "{output:?}");
    let output = place.start(name, &[]).ended();
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("was removed from the cluster"), "{output:?}");
    let other = if leader == 2 { 3 } else { 2 };
    settled(&[first, &stays.cluster], &[1, other]);
    let primary = remove(first, 1);
    assert_eq!(primary.code, Some(4));
    assert!(primary.stderr.contains("the SQL primary"), "{primary:?}");
    assert_eq!(remove(first, 9).code, Some(3));

    // The same place, wiped, comes back as a new member.
    std::fs::remove_dir_all(place.path(name)).unwrap();
    let address = &addresses[usize::try_from(leader).unwrap() - 1];
    let secret = token(first);
    let mut back = place.start_with_token(name, &["--cluster-listen", address, "--join", first], &secret);
    back.ready();
    settled(&[first], &[1, other, 4]);
}

/// Nobody speaks any more to one that was removed while it heard nothing: it asks, and stops.
#[test]
fn a_member_that_slept_through_its_removal_stops_when_it_wakes() {
    let place = Place::new();
    let a = place.form("a");
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    settled(&[&a.cluster], &[1, 2, 3]);
    let (sleeps, stays, gone) = if leader(&[&a.cluster]) == Some(3) { (b, c, 2) } else { (c, b, 3) };
    sleeps.signal("-STOP");
    let removed = remove(&a.cluster, gone);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    sleeps.signal("-CONT");
    let output = sleeps.ended();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("was removed from the cluster"), "{output:?}");
    settled(&[&a.cluster, &stays.cluster], &[1, 5 - gone]);
}

/// What the leader was asked may be done when it goes on: nobody says that it had no effect.
#[test]
fn a_removal_whose_leader_hangs_is_not_known_and_can_be_asked_again() {
    let place = Place::new();
    let a = place.form("a");
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    let addresses = [a.cluster.clone(), b.cluster.clone(), c.cluster.clone()];
    settled(&[&addresses[0]], &[1, 2, 3]);
    let leads = leader(&[&addresses[0]]).expect("somebody leads") as usize;
    // Another is asked to remove the third, and has spoken with the leader before.
    let asked = if leads == 3 { 1 } else { 3 };
    let gone = if leads == 2 { 3 } else { 2 };
    let nodes = [a, b, c];
    put(&[&addresses[asked - 1]], "k", "v");
    nodes[leads - 1].signal("-STOP");
    let removed = remove(&addresses[asked - 1], gone);
    assert_eq!(removed.code, Some(5), "{removed:?}");
    assert!(removed.stderr.contains("it is not known whether it was done"), "{removed:?}");
    nodes[leads - 1].signal("-CONT");
    let mut again = Some(1);
    eventually("it is removed", LIMIT, || {
        again = remove(&addresses[0], gone).code;
        matches!(again, Some(0 | 3))
    });
    let stay: Vec<u64> = (1..=3).filter(|id| *id != gone).collect();
    settled(&[&addresses[0]], &stay);
}

#[test]
fn a_lost_majority_is_forced_and_who_was_lost_is_refused() {
    let place = Place::new();
    let a = place.form("a");
    execute(&a.sql, "CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let b = place.join("b", &a);
    let c = place.join("c", &a);
    let addresses = [a.cluster.clone(), b.cluster.clone(), c.cluster.clone()];
    let [first, second, third] = &addresses;
    settled(&[first], &[1, 2, 3]);
    put(&[first], "k", "v");
    let data_dir = place.path("a");
    let force = |more: &[&str]| {
        let mut command = mainstay();
        run(command.args(["cluster", "force-new", "--data-dir"]).arg(&data_dir).args(more))
    };
    let running = force(&["--yes"]);
    assert_eq!(running.code, Some(1));
    assert!(running.stderr.contains("in use by another process"), "{running:?}");
    for node in [a, b, c] {
        node.kill();
    }

    let looked = force(&[]);
    assert_eq!(looked.code, Some(1));
    assert!(looked.stderr.contains("nothing was changed"), "{looked:?}");
    assert!(looked.stdout.contains(&format!("node 2 (node2, at {second})")), "{looked:?}");
    assert!(!looked.stdout.contains("ROWS"), "{looked:?}");
    let forced = force(&["--yes"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    let again = force(&["--yes"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("only member already"), "{again:?}");

    let mut a = place.start("a", &[]);
    a.ready();
    settled(&[first], &[1]);
    assert_eq!(value(&[first], "k").unwrap(), b"v");
    assert_eq!(execute(&a.sql, "SELECT a FROM t"), [["1"]]);
    // Those who were lost are another cluster's, and a majority of that: they find each other, and not this one.
    let (mut b, mut c) = (place.start("b", &[]), place.start("c", &[]));
    b.ready();
    c.ready();
    put(&[second, third], "theirs", "x");
    assert_eq!(value(&[first], "theirs"), None);
    settled(&[first], &[1]);
    // One of them is wiped, and joins the new one at the same place, under a new number.
    assert_eq!(c.stop().code, Some(0));
    std::fs::remove_dir_all(place.path("c")).unwrap();
    let secret = token(first);
    let mut c = place.start_with_token("c", &["--cluster-listen", third, "--join", first], &secret);
    c.ready();
    settled(&[first, third], &[1, 4]);
    assert_eq!(value(&[third], "k").unwrap(), b"v");
}
