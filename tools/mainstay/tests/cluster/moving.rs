//! Members that come back at another address while nobody leads.

use crate::nodes::*;
use crate::support::{LIMIT, eventually};

/// Where a member is, as the cluster has it.
fn address(by: &[&str], id: u64) -> Option<String> {
    let member = members(by)?.into_iter().find(|member| member.id == id)?;
    member.addresses.into_iter().next()
}

#[test]
fn members_that_moved_while_nobody_led_are_found_and_the_cluster_learns_where_they_are() {
    let place = Place::new();
    let a = place.form("a");
    let b = place.join("b", &a);
    let c = place.join("c", &a);
    settled(&[&a.cluster], &[1, 2, 3]);
    let (b_was, c_was) = (b.cluster.clone(), c.cluster.clone());
    c.kill();
    assert_eq!(b.stop().code, Some(0));
    // Two of three are there, and one of them is not where the other looks.
    let mut b = place.start("b", &["--cluster-listen", &LISTEN]);
    b.ready();
    assert_ne!(b.cluster, b_was);
    eventually("both lead", LIMIT, || leader(&[&a.cluster]).is_some() && leader(&[&b.cluster]).is_some());
    eventually("it is known where it is", LIMIT, || address(&[&a.cluster], 2).as_ref() == Some(&b.cluster));
    eventually("it is ready", LIMIT, || b.get("/readyz").0 == 200);
    put(&[&b.cluster], "k", "v");
    // The third comes back elsewhere, too, when those who knew its old address have all moved or stopped since.
    let mut c = place.start("c", &["--cluster-listen", &LISTEN]);
    c.ready();
    assert_ne!(c.cluster, c_was);
    settled(&[&c.cluster], &[1, 2, 3]);
    assert_eq!(address(&[&a.cluster], 3).as_ref(), Some(&c.cluster));
    assert_eq!(value(&[&c.cluster], "k").unwrap(), b"v");
    // What was learned from a life that is over does not count against what the cluster knows: back to where they were.
    assert_eq!(a.stop().code, Some(0));
    assert_eq!(b.stop().code, Some(0));
    let mut b = place.start("b", &["--cluster-listen", &b_was]);
    b.ready();
    eventually("these two lead", LIMIT, || address(&[&c.cluster], 2).as_ref() == Some(&b_was));
    let mut a = place.start("a", &[]);
    a.ready();
    settled(&[&a.cluster, &b.cluster, &c.cluster], &[1, 2, 3]);
}

/// The others may not call where it says, as plaintext is not spoken beyond loopback: it never hears who leads.
#[test]
fn a_member_that_nobody_reaches_says_so_and_the_cluster_knows_where_it_claims_to_be() {
    let place = Place::new();
    let a = place.form("a");
    let b = place.join("b", &a);
    let c = place.join("c", &a);
    settled(&[&a.cluster], &[1, 2, 3]);
    c.kill();
    assert_eq!(b.stop().code, Some(0));
    let elsewhere = "192.0.2.1:7002";
    let mut b = place.start("b", &["--cluster-listen", &LISTEN, "--cluster-advertise", elsewhere]);
    b.ready();
    let not_ready = |node: &Node| {
        let (status, why) = node.get("/readyz");
        status == 503 && why.starts_with("no leader: ")
    };
    assert!(not_ready(&b), "{:?}", b.get("/readyz"));
    let mut c = place.start("c", &[]);
    c.ready();
    eventually("the other two lead", LIMIT, || leader(&[&a.cluster]).is_some() && leader(&[&c.cluster]).is_some());
    eventually("it is known where it claims to be", LIMIT, || {
        address(&[&a.cluster], 2).is_some_and(|address| address == elsewhere)
    });
    assert_eq!(c.get("/readyz").0, 200);
    assert!(not_ready(&b), "{:?}", b.get("/readyz"));
    // The rows are there all the time.
    assert_eq!(a.get("/readyz").0, 200);
}
