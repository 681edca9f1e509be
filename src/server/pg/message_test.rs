use bytes::BytesMut;
use pgwire::messages::Message as _;
use pgwire::messages::{extendedquery, simplequery, startup};
use proptest::prelude::*;

use super::super::frame::{self, Batch};
use super::*;

const LIMIT_BYTES: usize = 1 << 20;

fn read_all(bytes: &[u8]) -> (Vec<Result<Message, SqlError>>, Option<SqlError>) {
    let mut input = BytesMut::from(bytes);
    let mut messages = Vec::new();
    loop {
        let Batch { frames, fault } = frame::take_batch(&mut input, LIMIT_BYTES);
        if frames.is_empty() {
            return (messages, fault);
        }
        messages.extend(frames.into_iter().map(read));
    }
}

/// Valid messages, as another implementation writes them.
fn samples() -> BytesMut {
    let mut bytes = BytesMut::new();
    let name = || Some("name".to_owned());
    let parameters = vec![Some(Bytes::from_static(b"42")), None, Some(Bytes::new())];
    simplequery::Query::new("select 1".into()).encode(&mut bytes).unwrap();
    extendedquery::Parse::new(name(), "select $1".into(), vec![23, 0]).encode(&mut bytes).unwrap();
    extendedquery::Bind::new(None, name(), vec![0, 1], parameters, vec![1]).encode(&mut bytes).unwrap();
    extendedquery::Describe::new(b'S', name()).encode(&mut bytes).unwrap();
    extendedquery::Execute::new(name(), 7).encode(&mut bytes).unwrap();
    extendedquery::Close::new(b'P', None).encode(&mut bytes).unwrap();
    extendedquery::Sync::new().encode(&mut bytes).unwrap();
    bytes
}

#[test]
fn messages_of_another_implementation_are_read() {
    let (messages, fault) = read_all(&samples());
    let messages: Vec<_> = messages.into_iter().collect::<Result<_, _>>().unwrap();
    let name = || "name".to_owned();
    assert_eq!(
        messages,
        [
            Message::Query("select 1".into()),
            Message::Parse {
                name: name(),
                sql: "select $1".into(),
                parameter_types: vec![PgType::INT4, PgType::UNSPECIFIED]
            },
            Message::Bind(Bind {
                portal: String::new(),
                statement: name(),
                parameter_formats: vec![0, 1],
                parameters: vec![Some(Bytes::from_static(b"42")), None, Some(Bytes::new())],
                result_formats: vec![1],
            }),
            Message::Describe(Target::Statement(name())),
            Message::Execute { portal: name(), row_limit: 7 },
            Message::Close(Target::Portal(String::new())),
            Message::Sync,
        ]
    );
    assert_eq!(fault, None);
}

#[test]
fn startup_packet_of_another_implementation_is_read() {
    let mut packet = startup::Startup::new();
    packet.parameters.insert("user".into(), "postgres".into());
    let mut bytes = BytesMut::new();
    packet.encode(&mut bytes).unwrap();
    let body = frame::take_startup(&mut bytes).unwrap().unwrap();
    let parameters = BTreeMap::from([("user".to_owned(), "postgres".to_owned())]);
    assert_eq!(read_startup(body).unwrap(), Startup::Connect { major: 3, minor: 0, parameters });
}

#[test]
fn bodies_that_lie_are_refused() {
    for (kind, body, state) in [
        (Kind::Query, &b"no end"[..], SqlState::PROTOCOL_VIOLATION),
        (Kind::Query, b"one\0two\0", SqlState::PROTOCOL_VIOLATION),
        (Kind::Query, b"\xff\xfe\0", SqlState::CHARACTER_NOT_IN_REPERTOIRE),
        (Kind::Parse, b"\0select 1\0", SqlState::PROTOCOL_VIOLATION),
        (Kind::Parse, b"\0select 1\0\xff\xff\0\0", SqlState::PROTOCOL_VIOLATION),
        (Kind::Bind, b"\0\0\0\0\0\x01\x7f\xff\xff\xff", SqlState::PROTOCOL_VIOLATION),
        (Kind::Bind, b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0", SqlState::PROTOCOL_VIOLATION),
        (Kind::Describe, b"Xname\0", SqlState::PROTOCOL_VIOLATION),
        (Kind::Execute, b"\0\0", SqlState::PROTOCOL_VIOLATION),
        (Kind::Sync, b"more", SqlState::PROTOCOL_VIOLATION),
    ] {
        let error = read(Frame { kind, body: Bytes::from_static(body) }).unwrap_err();
        assert_eq!(error.state, state, "{kind:?} {body:?}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        read_all(&bytes);
        if let Ok(Some(body)) = frame::take_startup(&mut BytesMut::from(&bytes[..])) {
            let _ = read_startup(body);
        }
    }

    #[test]
    fn random_bodies_never_panic(kind in prop::sample::select(&b"QPBDECHSXFdcf"[..]),
                                 body in proptest::collection::vec(any::<u8>(), 0..128)) {
        let mut bytes = vec![kind];
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        prop_assert_eq!(read_all(&bytes).0.len(), 1);
    }

    #[test]
    fn random_startup_bodies_never_panic(code in prop::sample::select(&[196_608, 196_610, 131_072, SSL_REQUEST,
                                                                        GSS_ENCRYPTION_REQUEST, CANCEL_REQUEST][..]),
                                         rest in proptest::collection::vec(any::<u8>(), 0..128)) {
        let mut bytes = code.to_be_bytes().to_vec();
        bytes.extend(rest);
        let _ = read_startup(Bytes::from(bytes));
    }

    #[test]
    fn mutated_messages_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
                                    end in any::<prop::sample::Index>()) {
        let mut bytes = samples().to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(end.index(bytes.len()) + 1);
        read_all(&bytes);
    }
}
