//! Clients that send nonsense, nothing, or guesses; and more clients than there are places.

use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use crate::support::certificates::Secrets;
use crate::support::raw::{Raw, message, sqlstate, startup};
use crate::support::{LIMIT, Running, eventually, runtime};
use crate::{PASSWORD, Rig, with};

/// A raw client that was asked for its password.
pub fn asked(node: &Running) -> Raw {
    let mut raw = Raw::connect(&node.address);
    raw.send(&startup("postgres")).unwrap();
    let (kind, body) = raw.message().unwrap();
    assert_eq!((kind, &body[..4]), (b'R', &[0, 0, 0, 10][..]));
    assert!(body.ends_with(b"SCRAM-SHA-256\0\0"));
    raw
}

/// The first message of an exchange.
pub fn sasl_initial(mechanism: &str, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    message(b'p', &[mechanism.as_bytes(), b"\0", &length, data].concat())
}

#[test]
fn nonsense_instead_of_a_password_is_refused() {
    let rig = Rig::start(Secrets::passwords);
    let first = b"n,,n=,r=abcdefgh";
    for (sent, state) in [
        (message(b'Q', b"SELECT 1\0"), "08P01"),
        (message(b'p', b"a plain password\0"), "08P01"),
        (message(b'p', b""), "08P01"),
        (message(b'p', &vec![b'x'; 10_000]), "08P01"),
        (vec![b'p', 0xff, 0xff, 0xff, 0xff], "08P01"),
        (sasl_initial("SCRAM-SHA-1", first), "08P01"),
        (sasl_initial("SCRAM-SHA-256-PLUS", first), "08P01"),
        (sasl_initial("SCRAM-SHA-256", b""), "08P01"),
        (sasl_initial("SCRAM-SHA-256", b"n,,n=,r="), "08P01"),
        (sasl_initial("SCRAM-SHA-256", &[0xff; 50]), "08P01"),
        ([sasl_initial("SCRAM-SHA-256", first), message(b'p', b"c=biws,r=abcdefgh,p=AAAA")].concat(), "08P01"),
        ([sasl_initial("SCRAM-SHA-256", first), message(b'Q', b"SELECT 1\0")].concat(), "08P01"),
    ] {
        let mut raw = asked(&rig.node);
        let _ = raw.send(&sent);
        let states: Vec<_> = raw.until_closed().iter().filter_map(sqlstate).collect();
        assert_eq!(states, [state], "{sent:?}");
    }
    // Who asks for TLS and says more before it is agreed upon, is not whom the client takes it for.
    let tls = Rig::start(Secrets::passwords_and_tls);
    let mut raw = Raw::connect(&tls.node.address);
    let request = [&8_u32.to_be_bytes()[..], &80_877_103_u32.to_be_bytes()].concat();
    raw.send(&[request, startup("postgres")].concat()).unwrap();
    assert_eq!(raw.until_closed().iter().filter_map(sqlstate).collect::<Vec<_>>(), ["08P01"]);
}

#[test]
fn silence_ends_at_the_timeout_wherever_it_falls() {
    let rig = Rig::start(|secrets| with(secrets.passwords_and_tls(), &["--sql-startup-timeout-s", "1s"]));
    let begun = Instant::now();
    let mut silent = Raw::connect(&rig.node.address);
    let mut half = asked(&rig.node);
    half.send(b"p\0\0").unwrap();
    let mut proofless = asked(&rig.node);
    proofless.send(&sasl_initial("SCRAM-SHA-256", b"n,,n=,r=abcdefgh")).unwrap();
    let mut handshake = Raw::connect(&rig.node.address);
    handshake.send(&[&8_u32.to_be_bytes()[..], &80_877_103_u32.to_be_bytes()].concat()).unwrap();
    let mut direct = Raw::connect(&rig.node.address);
    direct.send(&[0x16, 3, 1, 2]).unwrap();
    let states = |raw: &mut Raw| raw.until_closed().iter().filter_map(sqlstate).collect::<Vec<_>>();
    assert_eq!(states(&mut silent), ["08P01"]);
    assert_eq!(states(&mut half), ["57014"]);
    assert_eq!(states(&mut proofless), ["57014"]);
    handshake.until_closed_of_any_form();
    direct.until_closed_of_any_form();
    // One byte at a time is no sign of life either.
    let mut dripping = Raw::connect(&rig.node.address);
    let dripped = Instant::now();
    for byte in startup("postgres").iter().take(20) {
        if dripping.has_answer() || dripping.send(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(states(&mut dripping), ["08P01"]);
    assert!(dripped.elapsed() < Duration::from_secs(5) && begun.elapsed() < LIMIT);
}

#[test]
fn guessing_is_slow_and_ends() {
    let rig = Rig::start(Secrets::passwords);
    let guess = |password: &str| {
        let settings =
            format!("host=127.0.0.1 port={} user=ann dbname=postgres password='{password}'", rig.node.port());
        async move {
            let error = tokio_postgres::connect(&settings, NoTls).await.map(drop).err();
            error.map(|error| error.code().expect("an answer").code().to_owned())
        }
    };
    let begun = Instant::now();
    let outcomes = runtime().block_on(async {
        let guesses: Vec<_> = (0..40).map(|number| tokio::spawn(guess(&format!("guess {number}")))).collect();
        let mut outcomes = Vec::new();
        for guess in guesses {
            outcomes.push(guess.await.unwrap().unwrap());
        }
        outcomes
    });
    let looked_at = outcomes.iter().filter(|state| *state == "28P01").count();
    println!("{looked_at} of {} guesses were looked at in {:?}", outcomes.len(), begun.elapsed());
    assert!((1..20).contains(&looked_at) && begun.elapsed() > Duration::from_secs(1), "{outcomes:?}");
    assert!(outcomes.iter().all(|state| state == "28P01" || state == "28000"), "{outcomes:?}");
    eventually("who knows the password gets in", LIMIT, || runtime().block_on(guess(PASSWORD)).is_none());
}

#[test]
fn the_last_connections_are_for_superusers() {
    let limits = ["--sql-connection-limit", "3", "--sql-superuser-reserved-connections", "1"];
    let rig = Rig::start(|secrets| with(secrets.passwords(), &limits));
    let connect = |user: &str| {
        let settings =
            format!("host=127.0.0.1 port={} user={user} dbname=postgres password='{PASSWORD}'", rig.node.port());
        async move { tokio_postgres::connect(&settings, NoTls).await }
    };
    runtime().block_on(async {
        let (_one, _two) = (connect("ann").await.unwrap(), connect("ben").await.unwrap());
        let error = connect("ann").await.err().unwrap();
        assert_eq!(error.code().unwrap().code(), "53300");
        assert!(error.as_db_error().unwrap().message().contains("reserved for superuser"), "{error:?}");
        let superuser = connect("postgres").await.unwrap();
        let error = connect("postgres").await.err().unwrap();
        assert!(error.as_db_error().unwrap().message().contains("too many clients"), "{error:?}");
        drop(superuser);
    });
}
