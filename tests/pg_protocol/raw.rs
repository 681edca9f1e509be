//! What a client gets that does not play by the rules, or just by the letter.

use std::time::Duration;

use mainstay::server::pg::PgConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{PATIENCE, Rig};

/// A client that sends what it is told, byte by byte.
pub struct Socket(TcpStream);

/// The server's messages: type and body.
#[derive(Debug)]
pub struct Replies(Vec<(u8, Vec<u8>)>);

impl Replies {
    pub fn types(&self) -> String {
        self.0.iter().map(|(message_type, _)| char::from(*message_type)).collect()
    }

    pub fn has_error(&self, state: &str) -> bool {
        let field = format!("C{state}\0");
        self.has(b'E', field.as_bytes())
    }

    pub fn has_tag(&self, tag: &str) -> bool {
        self.has(b'C', tag.as_bytes())
    }

    pub fn is_ready(&self) -> bool {
        self.types().ends_with('Z')
    }

    /// What ReadyForQuery said at the end: `I`, `T` or `E`.
    pub fn status(&self) -> Option<char> {
        self.0.last().filter(|(message_type, _)| *message_type == b'Z').map(|(_, body)| char::from(body[0]))
    }

    fn has(&self, wanted: u8, part: &[u8]) -> bool {
        self.0.iter().any(|(message_type, body)| {
            *message_type == wanted && body.windows(part.len()).any(|window| window == part)
        })
    }
}

/// A message of a connected client.
pub fn message(message_type: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![message_type];
    bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

impl Socket {
    pub async fn open(port: u16) -> Socket {
        Socket(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    /// A client that has read its first ReadyForQuery.
    pub async fn connected(port: u16) -> Socket {
        let mut socket = Socket::open(port).await;
        socket.send_startup(3, 0, &[("user", "postgres")]).await;
        assert!(socket.read_until_ready_or_end().await.is_ready());
        socket
    }

    /// Sends; a server that has closed already is no failure.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    pub async fn send_startup(&mut self, major: u16, minor: u16, parameters: &[(&str, &str)]) {
        let mut body = [major.to_be_bytes(), minor.to_be_bytes()].concat();
        for (name, value) in parameters {
            body.extend(format!("{name}\0{value}\0").bytes());
        }
        body.push(0);
        let framed = message(b'?', &body);
        self.send(&framed[1..]).await;
    }

    pub async fn query(&mut self, sql: &str) {
        self.send(&message(b'Q', format!("{sql}\0").as_bytes())).await;
    }

    pub async fn read_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let message_type = self.0.read_u8().await.ok()?;
        let length = self.0.read_u32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.0.read_exact(&mut body).await.ok()?;
        Some((message_type, body))
    }

    async fn read(&mut self, until: fn(u8) -> bool) -> Replies {
        timeout(PATIENCE, async {
            let mut replies = Vec::new();
            while let Some(reply) = self.read_message().await {
                let last = until(reply.0);
                replies.push(reply);
                if last {
                    break;
                }
            }
            Replies(replies)
        })
        .await
        .expect("the server answers in time")
    }

    pub async fn read_until_ready_or_end(&mut self) -> Replies {
        self.read(|message_type| message_type == b'Z').await
    }

    pub async fn read_to_end(&mut self) -> Replies {
        self.read(|_| false).await
    }
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

pub fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

pub fn execute(portal: &str) -> Vec<u8> {
    message(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_before_startup_gets_an_error_and_disturbs_nobody() {
    let rig = Rig::start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\x07",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\x0e\0\x03\0\0no end",
        b"\0\0\0\x09\0\x03\0\0x",
    ] {
        let mut socket = Socket::open(rig.port()).await;
        socket.send(bytes).await;
        assert!(socket.read_to_end().await.has_error("08P01"), "{bytes:?}");
    }
    rig.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_after_startup_gets_an_error_and_disturbs_nobody() {
    let rig = Rig::start().await;
    for (bytes, state) in [
        (&b"\0\0\0\0\0\0\0\0"[..], "08P01"),
        (b"Q\0\0\0\x03", "08P01"),
        (b"Q\xff\xff\xff\xff", "08P01"),
        (b"Q\x7f\xff\xff\xff", "54000"),
        (b"p\0\0\0\x05\0", "08P01"),
    ] {
        let mut socket = Socket::connected(rig.port()).await;
        socket.send(bytes).await;
        assert!(socket.read_to_end().await.has_error(state), "{bytes:?}");
    }
    rig.still_serves().await;
    rig.sessions(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_disturb_nobody() {
    let rig = Rig::start().await;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..100 {
        let mut socket =
            if round % 2 == 0 { Socket::open(rig.port()).await } else { Socket::connected(rig.port()).await };
        let bytes: Vec<u8> = (0..1000)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_be_bytes()[0]
            })
            .collect();
        socket.send(&bytes).await;
        socket.0.shutdown().await.unwrap();
        socket.read_to_end().await;
    }
    rig.still_serves().await;
    rig.sessions(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_message_gets_its_error_even_while_it_is_being_sent() {
    let rig = Rig::with(PgConfig { message_limit_bytes: 4096, ..PgConfig::default() }).await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query(&"x".repeat(1 << 20)).await;
    assert!(socket.read_to_end().await.has_error("54000"));
    let mut socket = Socket::connected(rig.port()).await;
    socket.query(&format!("put {}", "x".repeat(4000))).await;
    assert!(socket.read_until_ready_or_end().await.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_message_leaves_the_connection_usable() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.send(&message(b'Q', b"no end")).await;
    let replies = socket.read_until_ready_or_end().await;
    assert!(replies.has_error("08P01") && replies.is_ready());
    socket.send(&message(b'Q', b"select \xff\0")).await;
    assert!(socket.read_until_ready_or_end().await.has_error("22021"));
    socket.send(&[message(b'B', b"\0\0\xff\xff"), execute(""), sync()].concat()).await;
    assert_eq!(socket.read_until_ready_or_end().await.types(), "EZ");
    socket.query("select 1").await;
    assert_eq!(socket.read_until_ready_or_end().await.types(), "TDCZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_says_nothing_is_dropped_after_the_startup_timeout() {
    let startup_timeout = Duration::from_millis(50);
    let rig = Rig::with(PgConfig { startup_timeout, ..PgConfig::default() }).await;
    let mut silent = Socket::open(rig.port()).await;
    let mut truncated = Socket::open(rig.port()).await;
    truncated.send(b"\0\0\0\x20\0\x03").await;
    assert!(silent.read_to_end().await.has_error("08P01"));
    assert!(truncated.read_to_end().await.has_error("08P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_is_declined_and_startup_goes_on() {
    let rig = Rig::start().await;
    let mut socket = Socket::open(rig.port()).await;
    for code in [80_877_103_u32, 80_877_104] {
        socket.send(&[8_u32.to_be_bytes(), code.to_be_bytes()].concat()).await;
        assert_eq!(socket.0.read_u8().await.unwrap(), b'N');
    }
    socket.send_startup(3, 0, &[("user", "postgres")]).await;
    assert!(socket.read_until_ready_or_end().await.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_minor_version_is_negotiated_and_other_major_ones_are_refused() {
    let rig = Rig::start().await;
    let mut newer = Socket::open(rig.port()).await;
    newer.send_startup(3, 2, &[("user", "postgres")]).await;
    let replies = newer.read_until_ready_or_end().await;
    assert!(replies.types().starts_with("vR") && replies.is_ready());
    for major in [2, 4] {
        let mut other = Socket::open(rig.port()).await;
        other.send_startup(major, 0, &[]).await;
        assert!(other.read_to_end().await.has_error("0A000"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn error_in_a_pipeline_skips_the_rest_up_to_sync_and_rolls_back() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    let step = |sql: &str| [parse("", sql), bind("", ""), execute("")].concat();
    let pipeline = [step("put a"), step("error 23505"), step("put b"), sync(), step("put c"), step("put d"), sync()];
    socket.send(&pipeline.concat()).await;
    let replies = socket.read_until_ready_or_end().await;
    assert_eq!(replies.types(), "12C12EZ");
    assert!(replies.has_error("23505"));
    assert_eq!(socket.read_until_ready_or_end().await.types(), "12C12CZ");
    assert_eq!(rig.fake.committed(), ["c", "d"]);
    let log = rig.fake.take_log();
    assert_eq!(
        log,
        ["put a Implicit", "error 23505 Implicit", "end false", "put c Implicit", "put d Implicit", "end true"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_brings_replies_before_sync() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.send(&[parse("s", "select 3"), message(b'D', b"Ss\0"), message(b'H', b"")].concat()).await;
    assert_eq!(socket.read(|message_type| message_type == b'T').await.types(), "1tT");
    socket.send(&[bind("p", "s"), message(b'D', b"Pp\0"), execute("p"), sync()].concat()).await;
    assert_eq!(socket.read_until_ready_or_end().await.types(), "2TDCZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_checked_and_portals_end_with_their_transaction() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    let mut answer = async |messages: &[Vec<u8>]| {
        socket.send(&[messages.concat(), sync()].concat()).await;
        socket.read_until_ready_or_end().await
    };
    assert_eq!(answer(&[parse("s", "select 3")]).await.types(), "1Z");
    assert!(answer(&[parse("s", "select 4")]).await.has_error("42P05"));
    assert!(answer(&[bind("", "none")]).await.has_error("26000"));
    assert!(answer(&[execute("none")]).await.has_error("34000"));
    assert!(answer(&[bind("p", "s"), bind("p", "s")]).await.has_error("42P03"));
    assert_eq!(answer(&[bind("p", "s")]).await.types(), "2Z");
    assert!(answer(&[execute("p")]).await.has_error("34000"));
    assert!(answer(&[bind("p", "s"), execute("p"), execute("p")]).await.has_error("55000"));
    assert_eq!(answer(&[message(b'C', b"Ss\0"), message(b'C', b"Snone\0")]).await.types(), "33Z");
    assert!(answer(&[bind("", "s")]).await.has_error("26000"));
    assert!(answer(&[parse("", "select 1; select 2")]).await.has_error("42601"));
    assert_eq!(answer(&[parse("", " ; "), bind("", ""), message(b'D', b"P\0"), execute("")]).await.types(), "12nIZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_are_bounded() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    let mut messages: Vec<u8> = (0..1025).flat_map(|index| parse(&format!("s{index}"), "select 1")).collect();
    messages.extend(sync());
    socket.send(&messages).await;
    let replies = socket.read_until_ready_or_end().await;
    assert!(replies.has_error("54000"));
    assert_eq!(replies.types(), format!("{}EZ", "1".repeat(1024)));
}

#[tokio::test(flavor = "multi_thread")]
async fn function_call_is_refused_and_stray_copy_data_passed_over() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.send(&message(b'F', b"\0\0\0\x01\0\0\0\0\0\0")).await;
    let replies = socket.read_until_ready_or_end().await;
    assert!(replies.has_error("0A000") && replies.is_ready());
    socket.send(&[message(b'd', b"1\n"), message(b'c', b""), message(b'f', b"no\0")].concat()).await;
    socket.query("select 1").await;
    assert_eq!(socket.read_until_ready_or_end().await.types(), "TDCZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_vanishes_in_a_transaction_leaves_nothing() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("begin; put a").await;
    assert!(socket.read_until_ready_or_end().await.is_ready());
    drop(socket);
    rig.sessions(0).await;
    assert!(rig.fake.committed().is_empty());
    rig.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_vanishes_in_a_result_ends_its_statement() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("rows 1000000000").await;
    socket.read_message().await.unwrap();
    drop(socket);
    rig.sessions(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_vanishes_during_a_statement_has_it_interrupted() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("sleep").await;
    rig.waiting(1).await;
    drop(socket);
    rig.waiting(0).await;
    rig.sessions(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_client_still_gets_its_replies() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.send(&[message(b'Q', b"put a\0"), message(b'Q', b"select 1\0"), message(b'X', b"")].concat()).await;
    socket.0.shutdown().await.unwrap();
    assert_eq!(socket.read_to_end().await.types(), "CZTDCZ");
    assert_eq!(rig.fake.committed(), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_holds_back_its_statement_and_nobody_else() {
    let rig = Rig::start().await;
    let mut slow = Socket::connected(rig.port()).await;
    slow.query("rows 100000").await;
    let sent = || rig.fake.rows_sent.load(std::sync::atomic::Ordering::SeqCst);
    crate::eventually("rows are sent", || sent() > 0).await;
    rig.still_serves().await;
    // 100 MB do not fit into the buffers of two sockets.
    assert!(sent() < 100_000);
    let replies = slow.read_until_ready_or_end().await;
    assert!(replies.has_tag("SELECT 100000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn terminate_closes_the_session() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.send(&message(b'X', b"")).await;
    assert_eq!(socket.read_to_end().await.types(), "");
    rig.sessions(0).await;
}
