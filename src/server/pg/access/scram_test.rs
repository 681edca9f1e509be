use super::*;

/// The exchange that RFC 7677 gives as its example.
const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const OUR_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FINAL: &str =
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

fn verifier() -> Verifier {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    Verifier::with_salt("pencil", salt, super::super::verifier::ITERATIONS).unwrap()
}

fn begin(mechanism: &str, client_first: &str, bound: Option<&[u8]>) -> Result<Exchange, Refused> {
    Exchange::begin(mechanism, client_first.as_bytes(), bound, (verifier(), true), OUR_NONCE)
}

/// What a client with that password answers.
fn client_final(exchange: &Exchange, password: &str, binding: &str) -> String {
    let of_client = Verifier::with_salt(password, verifier().salt, verifier().iterations).unwrap();
    let mut salted = [0; KEY_BYTES];
    let (algorithm, iterations) = (ring::pbkdf2::PBKDF2_HMAC_SHA256, of_client.iterations);
    ring::pbkdf2::derive(algorithm, iterations, &of_client.salt, password.as_bytes(), &mut salted);
    let without_proof = format!("c={binding},r={}", exchange.nonce);
    let signed = format!("{},{},{without_proof}", exchange.client_first_bare, exchange.server_first);
    let mut proof = sign(&salted, b"Client Key");
    proof.iter_mut().zip(sign(&of_client.stored_key, signed.as_bytes())).for_each(|(byte, mask)| *byte ^= mask);
    format!("{without_proof},p={}", STANDARD.encode(proof))
}

#[test]
fn example_of_the_standard() {
    let exchange = begin(SCRAM_SHA_256, CLIENT_FIRST, None).unwrap();
    let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    assert_eq!(exchange.server_first(), expected);
    let answer = exchange.finish(CLIENT_FINAL.as_bytes()).unwrap();
    assert_eq!(answer, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn another_password_or_proof_or_nobody_is_refused() {
    let exchange = begin(SCRAM_SHA_256, CLIENT_FIRST, None).unwrap();
    assert_eq!(exchange.finish(client_final(&exchange, "pencil", "biws").as_bytes()).map(|_| ()), Ok(()));
    assert_eq!(exchange.finish(client_final(&exchange, "pencils", "biws").as_bytes()), Err(Refused::Proof));
    let unknown = (verifier(), false);
    let exchange = Exchange::begin(SCRAM_SHA_256, CLIENT_FIRST.as_bytes(), None, unknown, OUR_NONCE).unwrap();
    assert_eq!(exchange.finish(CLIENT_FINAL.as_bytes()), Err(Refused::Proof));
}

#[test]
fn proofs_are_taken_once_whole_and_for_their_own_nonce() {
    let exchange = begin(SCRAM_SHA_256, CLIENT_FIRST, None).unwrap();
    let other = Exchange::begin(SCRAM_SHA_256, CLIENT_FIRST.as_bytes(), None, (verifier(), true), "other").unwrap();
    assert!(matches!(other.finish(CLIENT_FINAL.as_bytes()), Err(Refused::Malformed(_))));
    for changed in [
        "",
        "c=biws",
        &CLIENT_FINAL.replace(",p=", ",q="),
        &CLIENT_FINAL.replace("ndVQ=", ""),
        &CLIENT_FINAL.replace("p=dHzb", "p=AAAAdHzb"),
        &CLIENT_FINAL.replace("c=biws,", ""),
        &CLIENT_FINAL.replace("r=rOpr", "r="),
    ] {
        assert!(matches!(exchange.finish(changed.as_bytes()), Err(Refused::Malformed(_))), "{changed}");
    }
    assert_eq!(exchange.finish(CLIENT_FINAL.replace("p=dHzb", "p=eHzb").as_bytes()), Err(Refused::Proof));
    assert_eq!(exchange.finish(CLIENT_FINAL.replace("c=biws", "c=eSws").as_bytes()), Err(Refused::Binding));
    assert_eq!(exchange.finish(b"\xff,p="), Err(Refused::Malformed("not text")));
}

#[test]
fn binding_is_to_the_certificate_and_cannot_be_talked_away() {
    let (ours, theirs) = (&b"hash of our certificate"[..], &b"hash of another one"[..]);
    let first = format!("{BINDING_HEADER}n=,r=abc");
    let exchange = begin(SCRAM_SHA_256_PLUS, &first, Some(ours)).unwrap();
    let binding = |hash: &[u8]| STANDARD.encode([BINDING_HEADER.as_bytes(), hash].concat());
    exchange.finish(client_final(&exchange, "pencil", &binding(ours)).as_bytes()).unwrap();
    let relayed = client_final(&exchange, "pencil", &binding(theirs));
    assert_eq!(exchange.finish(relayed.as_bytes()), Err(Refused::Binding));

    let refused = |mechanism, first: &str, bound| begin(mechanism, first, bound).err();
    assert_eq!(refused(SCRAM_SHA_256, "y,,n=,r=abc", Some(ours)), Some(Refused::Binding));
    assert_eq!(refused(SCRAM_SHA_256, "y,,n=,r=abc", None), None);
    assert_eq!(refused(SCRAM_SHA_256, "n,,n=,r=abc", Some(ours)), None);
    for (mechanism, first, bound) in [
        (SCRAM_SHA_256_PLUS, "n,,n=,r=abc", Some(ours)),
        (SCRAM_SHA_256_PLUS, first.as_str(), None),
        (SCRAM_SHA_256_PLUS, "p=tls-unique,,n=,r=abc", Some(ours)),
        (SCRAM_SHA_256, first.as_str(), Some(ours)),
        ("SCRAM-SHA-1", "n,,n=,r=abc", None),
    ] {
        assert!(matches!(refused(mechanism, first, bound), Some(Refused::Malformed(_))), "{mechanism} {first}");
    }
}

#[test]
fn first_messages_that_make_no_sense_are_refused() {
    for first in
        ["", "n", "n,,", "n,,n=", "n,,n=,r=", "n,,r=abc,n=", "n,a=admin,n=,r=abc", "n,,m=x,n=,r=abc", "n,,n=,r=a\u{e9}"]
    {
        assert!(matches!(begin(SCRAM_SHA_256, first, None).err(), Some(Refused::Malformed(_))), "{first}");
    }
}

#[test]
fn binding_is_offered_first_and_only_where_there_is_one() {
    assert_eq!(mechanisms(true), [SCRAM_SHA_256_PLUS, SCRAM_SHA_256]);
    assert_eq!(mechanisms(false), [SCRAM_SHA_256]);
}
