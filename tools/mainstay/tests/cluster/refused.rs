//! What cannot be: who is not let in, whom nobody answers, and who is asked while nobody leads. Each says why, with the
//! right status, and in time.

use std::time::{Duration, Instant};

use crate::nodes::*;
use crate::support::{LIMIT, Output, eventually, mainstay, run};

/// How much longer than it was told something may take: the machine has other things to do.
const GRACE: Duration = Duration::from_secs(5);
/// How long a statement about the cluster waits for a leader.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A command that fails with one line, within the time it was given.
fn fails(arguments: &[&str], timeout: Duration) -> (i32, String) {
    let begun = Instant::now();
    let given = format!("{}ms", timeout.as_millis());
    let output = run(mainstay().args(arguments).args(["--timeout", &given]));
    assert!(begun.elapsed() < timeout + GRACE, "{arguments:?} took {:?}", begun.elapsed());
    assert_eq!((output.stdout.as_str(), output.stderr.trim().lines().count()), ("", 1), "{arguments:?}: {output:?}");
    (output.code.unwrap(), output.stderr)
}

#[test]
fn who_is_not_let_in_is_told_why_and_the_token_stays_good() {
    let place = Place::new();
    let a = place.form("a");
    let b = place.join("b", &a);
    settled(&[&a.cluster], &[1, 2]);
    let secret = token(&a.cluster);
    let refused = |more: &[&str], token: &str| -> String {
        let arguments = [&["--join", &a.cluster, "--log-level", "off"], more].concat();
        let Output { code, stderr, .. } = place.start_with_token("c", &arguments, token).ended();
        assert_eq!((code, stderr.trim().lines().count()), (Some(1), 1), "{more:?}: {stderr}");
        assert!(!stderr.contains(token) && !stderr.contains("panicked"), "{stderr}");
        stderr
    };
    let listen = ["--cluster-listen", LISTEN.as_str()];
    let cases = [
        (&["--cluster-listen", a.cluster.as_str()][..], "in use"),
        (
            &[listen[0], listen[1], "--cluster-advertise", &b.cluster],
            &format!("member 2 has the address {}", b.cluster),
        ),
        (&[listen[0], listen[1], "--cluster-name", "node2"], "member 2 has the name \"node2\""),
        (&[listen[0], listen[1], "--cluster-name", "no name"], "cluster.name must have 1 to 63 letters"),
    ];
    for (more, what) in cases {
        let said = refused(more, &secret);
        assert!(said.contains(what), "{more:?}: {said}");
    }

    let made = run(mainstay().args(["cluster", "token", "create", "--ttl", "1s", "--addr", &a.cluster]));
    let expires = made.stdout.trim();
    let events = || run(mainstay().args(["events", "--addr", &a.cluster])).stdout;
    eventually("the token has expired", LIMIT, || events().contains("token expired"));
    let said = refused(&listen, expires);
    assert!(said.contains("token 3 has expired"), "{said}");

    let mut c = place.start_with_token("c", &[&listen[..], &["--join", &a.cluster]].concat(), &secret);
    c.ready();
    settled(&[&a.cluster], &[1, 2, 3]);
}

#[test]
fn addresses_that_do_not_answer_are_named_while_it_is_waited_for_them() {
    let place = Place::new();
    let nobody = &free_addresses(1)[0];
    let secret = format!("mainstay-join-1-{}", "ab".repeat(32));
    let mut node = place.start_with_token("a", &["--cluster-listen", &LISTEN, "--join", nobody], &secret);
    let address = node.waiting();
    let mut why = String::new();
    eventually("it says who does not answer", LIMIT, || {
        let (status, said) = node.get("/readyz");
        assert_eq!(status, 503, "{said}");
        why = said;
        why.contains("was not let into the cluster yet") && why.contains(nobody)
    });
    assert!(!why.contains(&secret[16..]), "{why}");
    assert_eq!(node.get("/livez").0, 200);
    let (code, said) = fails(&["cluster", "init", "--addr", &address], LIMIT);
    assert!(code == 4 && said.contains(&format!("the first of which is {nobody}")), "{code} {said}");

    let second = Duration::from_secs(1);
    for command in [&["init"][..], &["token", "create"], &["remove", "2"]] {
        let arguments = [&["cluster"], command, &["--addr", nobody]].concat();
        let (code, said) = fails(&arguments, second);
        assert!(code == 1 && said.contains(nobody), "{command:?}: {code} {said}");
    }
    let stopped = node.stop();
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
}

#[test]
fn a_follower_that_is_left_alone_says_that_nobody_leads_and_shows_what_it_has() {
    let place = Place::new();
    let a = place.form("a");
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    settled(&[&a.cluster], &[1, 2, 3]);
    put(&[&a.cluster], "k", "v");
    let (follower, other) = if leader(&[&a.cluster]) == Some(3) { (b, c) } else { (c, b) };
    let local = ["kv", "get", "k", "--local", "--addr", &follower.cluster];
    eventually("it has what was put", LIMIT, || run(mainstay().args(local)).stdout == "v\n");
    let primary = a.sql.clone();
    a.kill();
    other.kill();
    eventually("it knows that nobody leads", LIMIT, || leader(&[&follower.cluster]).is_none());

    // All at once: each waits for a leader as long as it may.
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for statement in ["SHOW NODES", "SHOW SETTINGS", "ALTER SYSTEM SET kv.max_leases = 7", "REMOVE NODE 2"] {
            let sql = &follower.sql;
            scope.spawn(move || {
                let (code, message, _) = refusal(sql, statement);
                assert_eq!(code, "55P03", "{statement}: {message}");
                assert!(message.contains("leader") || message.contains("asked in time"), "{statement}: {message}");
            });
        }
    });
    assert!(begun.elapsed() < STATEMENT_TIMEOUT + GRACE, "{:?}", begun.elapsed());
    let second = Duration::from_secs(1);
    let commands = [
        &["kv", "put", "k", "w"][..],
        &["kv", "get", "k"],
        &["kv", "list"],
        &["settings", "set", "kv.max_leases", "7"],
        &["events"],
        &["cluster", "token", "create"],
    ];
    for command in commands {
        // A node that had no time even to say that it does not lead may not know; asked again, it does.
        eventually("it says that nobody leads", LIMIT, || {
            let (code, said) = fails(&[command, &["--addr", &follower.cluster]].concat(), second);
            assert!(code == 5 || said.contains("in time"), "{command:?}: {code} {said}");
            code == 1
        });
    }

    // What needs no leader is answered at once.
    let (code, _, hint) = refusal(&follower.sql, "SELECT 1");
    assert!(code == "25006" && hint.is_some_and(|hint| hint.contains(&primary)), "{code}");
    assert_eq!(execute(&follower.sql, "SHOW RAFT GROUPS").len(), 1);
    assert_eq!(run(mainstay().args(local)).stdout, "v\n");
    assert_eq!(follower.get("/livez").0, 200);
    assert_eq!(follower.stop().code, Some(0));
}

/// A waiting node takes part in nothing yet: whatever is asked of it is answered with that, and not with riddles.
#[test]
fn a_node_that_waits_says_so_whatever_it_is_asked() {
    let place = Place::new();
    let mut node = place.start("a", &["--cluster-listen", &LISTEN]);
    let address = node.waiting();
    let commands = [
        &["status"][..],
        &["events"],
        &["kv", "put", "k", "v"],
        &["kv", "get", "k"],
        &["kv", "get", "k", "--local"],
        &["settings", "list"],
        &["cluster", "check"],
        &["cluster", "drain", "1"],
    ];
    std::thread::scope(|scope| {
        for command in commands {
            let address = &address;
            scope.spawn(move || {
                let (code, said) = fails(&[command, &["--addr", address]].concat(), Duration::from_secs(2));
                assert!(
                    code == 1 && said.contains("no member of a cluster itself (waiting)"),
                    "{command:?}: {code} {said}"
                );
            });
        }
    });
    // A member in the list does for it.
    let b = place.form("b");
    let both = format!("{address},{}", b.cluster);
    assert_eq!(run(mainstay().args(["kv", "put", "k", "v", "--addr", &both])).code, Some(0));
    assert_eq!(run(mainstay().args(["cluster", "init", "--addr", &address])).code, Some(0));
    node.ready();
}

/// Where something else listens, nobody is waited for longer than was asked for, however many questions there are.
#[test]
fn who_asks_a_port_for_sql_waits_no_longer_than_was_said() {
    let place = Place::new();
    let a = place.form("a");
    let timeout = Duration::from_secs(5);
    let commands = [&["status"][..], &["events"], &["kv", "list"], &["settings", "list"], &["cluster", "check"]];
    std::thread::scope(|scope| {
        for command in commands {
            let sql = &a.sql;
            scope.spawn(move || {
                let begun = Instant::now();
                let output = run(mainstay().args(command).args(["--addr", sql, "--timeout", "5s"]));
                assert!(output.code == Some(1) && output.stderr.contains(sql), "{command:?}: {output:?}");
                // Less than a second round would take.
                assert!(begun.elapsed() < timeout + Duration::from_secs(3), "{command:?} took {:?}", begun.elapsed());
            });
        }
    });
}

/// Which of several nodes is not there is not why there is no answer.
#[test]
fn that_nobody_leads_is_said_before_who_is_not_there() {
    let place = Place::new();
    let a = place.form("a");
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    settled(&[&a.cluster], &[1, 2, 3]);
    let all = [b.cluster.clone(), a.cluster.clone(), c.cluster.clone()].join(",");
    let gone = c.cluster.clone();
    a.kill();
    c.kill();
    eventually("nobody leads", LIMIT, || leader(&[&b.cluster]).is_none());
    let mut told = String::new();
    eventually("it says that nobody leads", LIMIT, || {
        let output = run(mainstay().args(["kv", "get", "k", "--addr", &all, "--timeout", "3s"]));
        assert_eq!(output.code, Some(1), "{output:?}");
        told = output.stderr;
        told.contains("no leader answered: ")
    });
    let place = |part: &str| told.find(part).unwrap_or_else(|| panic!("{part}: {told}"));
    assert!(place("no leader answered") < place(&b.cluster) && place(&b.cluster) < place(&gone), "{told}");
}
