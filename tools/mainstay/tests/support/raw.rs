//! A PostgreSQL client that sends whatever a test wants, also what no driver would.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::LIMIT;

/// A message of the protocol: its type, and its body without the length.
pub type Message = (u8, Vec<u8>);

/// A connection on which bytes are bytes.
pub struct Raw(pub TcpStream);

impl Raw {
    /// Connects and says nothing.
    pub fn connect(address: &str) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw(stream)
    }

    /// Connects as `postgres` and waits until it may send queries.
    pub fn login(address: &str) -> Raw {
        let mut raw = Raw::connect(address);
        raw.send(&startup("postgres")).unwrap();
        raw.until(b'Z');
        raw
    }

    /// Sends bytes. A server that has closed its end already is no failure of the test.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Runs SQL and answers the messages up to *ready for query*.
    pub fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(&query(sql)).unwrap();
        self.until(b'Z')
    }

    /// The messages up to the first one of that type.
    pub fn until(&mut self, kind: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.message().unwrap_or_else(|| panic!("closed after {messages:?}"));
            let done = message.0 == kind;
            messages.push(message);
            if done {
                return messages;
            }
        }
    }

    /// The next message; none when the server has closed the connection.
    pub fn message(&mut self) -> Option<Message> {
        let mut head = [0; 5];
        if !self.fill(&mut head) {
            return None;
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length.checked_sub(4).expect("a length shorter than itself")];
        self.fill(&mut body).then_some((head[0], body))
    }

    /// Everything until the server closes the connection, which it must do in bounded time.
    pub fn until_closed(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.message()).collect()
    }

    /// Reads until the server closes the connection, whether or not what it says are messages.
    pub fn until_closed_of_any_form(&mut self) {
        let mut byte = [0];
        while self.fill(&mut byte) {}
    }

    /// Whether the server has said something, or has closed the connection.
    pub fn has_answer(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let answer = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        !answer.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn fill(&mut self, buffer: &mut [u8]) -> bool {
        match self.0.read_exact(buffer) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the server neither answers nor closes the connection")
            }
            Err(_) => false,
        }
    }
}

/// A message of that type.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A simple query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

/// A startup packet for that database.
pub fn startup(database: &str) -> Vec<u8> {
    let body = format!("user\0postgres\0database\0{database}\0\0");
    let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
    bytes.extend(0x0003_0000_u32.to_be_bytes());
    bytes.extend(body.as_bytes());
    bytes
}

/// The SQLSTATE of an error message.
pub fn sqlstate(message: &Message) -> Option<String> {
    if message.0 != b'E' {
        return None;
    }
    let fields = message.1.split(|byte| *byte == 0);
    let code = fields.filter_map(|field| field.strip_prefix(b"C")).next()?;
    Some(String::from_utf8_lossy(code).into_owned())
}
