//! From the first byte of a connection to its first ReadyForQuery.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use pgwire::messages::ProtocolVersion;
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey};

use super::backend::{ClientInfo, TransactionStatus};
use super::cancel::Registration;
use super::error::{SqlError, SqlState};
use super::frame;
use super::message::{self, Startup};
use super::outbox::{self, put};
use super::wire::Wire;
use crate::net::endpoint_tls::Endpoint;

/// The version that clients are told: a PostgreSQL whose protocol and words are spoken here, and what it really is.
/// Clients take what comes before the blank for PostgreSQL's version.
pub const SERVER_VERSION: &str = concat!("15.0 (Mainstay ", env!("CARGO_PKG_VERSION"), ")");
/// The major protocol version that is spoken here.
const MAJOR: u16 = 3;
/// Answers to a request for encryption.
const ENCRYPTION: &[u8] = b"S";
const NO_ENCRYPTION: &[u8] = b"N";
/// What TLS begins with; no startup packet does.
const TLS_HANDSHAKE: u8 = 0x16;
/// A client asks for TLS, then for GSSAPI, and then gives up.
const ENCRYPTION_REQUEST_LIMIT: usize = 2;
/// Names of protocol options begin so.
const PROTOCOL_OPTION_PREFIX: &str = "_pq_.";

/// What became of a connection's first bytes.
#[derive(Debug)]
pub(super) enum Opening {
    /// The client left without a word.
    Left,
    Cancel {
        process_id: i32,
        secret: i32,
    },
    Connect(Hello),
}

/// A startup packet that can be answered.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) client: ClientInfo,
    client_encoding: &'static str,
    /// What the client asked for and does not get: a newer minor version, protocol options.
    negotiate: Option<Vec<String>>,
}

/// Reads until the client has said what it wants, over TLS if it asks for that and `tls` is there.
///
/// # Errors
/// What it sent makes no sense, or asks for what is not here.
pub(super) async fn receive(wire: &mut Wire, tls: Option<Arc<Endpoint>>) -> Result<Opening, SqlError> {
    if let Some(endpoint) = &tls
        && matches!(wire.first_byte().await, Ok(Some(TLS_HANDSHAKE)))
    {
        // It did not ask first. So that nobody takes it for a server of something else, it must name what it speaks.
        match secure(wire, endpoint).await {
            None => return Ok(Opening::Left),
            Some(None) => {
                let message = "received direct SSL connection request without ALPN protocol negotiation extension";
                return Err(SqlError::fatal(SqlState::PROTOCOL_VIOLATION, message));
            }
            Some(Some(_)) => {}
        }
    }
    let mut encryption_requests = 0;
    loop {
        let Some(body) = frame::take_startup(&mut wire.input)? else {
            if matches!(wire.read_more().await, Ok(0) | Err(_)) {
                return Ok(Opening::Left);
            }
            continue;
        };
        match message::read_startup(body)? {
            asked @ (Startup::Tls | Startup::GssEncryption) => {
                encryption_requests += 1;
                if encryption_requests > ENCRYPTION_REQUEST_LIMIT || wire.endpoint().is_some() {
                    return Err(SqlError::fatal(SqlState::PROTOCOL_VIOLATION, "too many requests for encryption"));
                }
                let endpoint = tls.as_ref().filter(|_| asked == Startup::Tls);
                if endpoint.is_some() && !wire.input.is_empty() {
                    // Whoever stands between could put words into the mouth of a client that is to be secured.
                    let message = "received unencrypted data after SSL request";
                    return Err(SqlError::fatal(SqlState::PROTOCOL_VIOLATION, message));
                }
                let answer = if endpoint.is_some() { ENCRYPTION } else { NO_ENCRYPTION };
                if wire.write_all(answer).await.is_err() {
                    return Ok(Opening::Left);
                }
                if let Some(endpoint) = endpoint
                    && secure(wire, endpoint).await.is_none()
                {
                    return Ok(Opening::Left);
                }
            }
            Startup::Cancel { process_id, secret } => return Ok(Opening::Cancel { process_id, secret }),
            Startup::Connect { major, minor, parameters } => {
                return hello(major, minor, parameters).map(Opening::Connect);
            }
        }
    }
}

/// Agrees on TLS. Answers what is to be spoken, if the client said so; nothing if they do not agree.
async fn secure(wire: &mut Wire, endpoint: &Arc<Endpoint>) -> Option<Option<Vec<u8>>> {
    match wire.secure(Arc::clone(endpoint)).await {
        Ok(protocol) => Some(protocol),
        Err(error) => {
            // No louder: anybody who reaches the port can cause as many as they like.
            tracing::debug!(%error, "a client and this server do not agree on TLS");
            None
        }
    }
}

fn hello(major: u16, minor: u16, parameters: BTreeMap<String, String>) -> Result<Hello, SqlError> {
    if major != MAJOR {
        let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0");
        return Err(SqlError::fatal(SqlState::FEATURE_NOT_SUPPORTED, message));
    }
    let client_encoding = client_encoding(parameters.get("client_encoding"))?;
    refuse_replication(parameters.get("replication"))?;
    let Some(user) = parameters.get("user").filter(|user| !user.is_empty()).cloned() else {
        return Err(SqlError::fatal(SqlState::INVALID_AUTHORIZATION, "no user name specified in startup packet"));
    };
    let database = parameters.get("database").filter(|name| !name.is_empty()).unwrap_or(&user).clone();
    let options: Vec<String> =
        parameters.keys().filter(|name| name.starts_with(PROTOCOL_OPTION_PREFIX)).cloned().collect();
    let negotiate = (minor > 0 || !options.is_empty()).then_some(options);
    Ok(Hello { client: ClientInfo { user, database, parameters, ..ClientInfo::default() }, client_encoding, negotiate })
}

/// The name by which the encoding is confirmed. `SQL_ASCII` means that nobody converts, so that the client sees the
/// server's UTF-8; psql asks for it in a terminal without a locale.
fn client_encoding(asked: Option<&String>) -> Result<&'static str, SqlError> {
    let Some(asked) = asked else { return Ok("UTF8") };
    let plain: String = asked.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    match plain.as_str() {
        "utf8" | "unicode" => Ok("UTF8"),
        "sqlascii" => Ok("SQL_ASCII"),
        _ => {
            let message = format!("client encoding \"{asked}\" is not supported");
            Err(SqlError::fatal(SqlState::FEATURE_NOT_SUPPORTED, message).with_hint("Use UTF8."))
        }
    }
}

fn refuse_replication(asked: Option<&String>) -> Result<(), SqlError> {
    match asked.map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("false" | "off" | "no" | "0") => Ok(()),
        Some(_) => {
            Err(SqlError::fatal(SqlState::FEATURE_NOT_SUPPORTED, "replication connections are not supported here"))
        }
    }
}

/// What a client whose session is open is told first.
///
/// # Errors
/// One of its own parameters is too long to be repeated to it.
pub(super) fn greeting(
    hello: &Hello,
    registration: &Registration,
    status: TransactionStatus,
) -> Result<BytesMut, SqlError> {
    let mut bytes = BytesMut::new();
    if let Some(options) = &hello.negotiate {
        let newest = i32::from(ProtocolVersion::PROTOCOL3_0);
        put(&mut bytes, &NegotiateProtocolVersion::new(newest, options.clone()))?;
    }
    put(&mut bytes, &Authentication::Ok)?;
    let application_name = hello.client.parameters.get("application_name").map_or("", String::as_str);
    for (name, value) in [
        ("server_version", SERVER_VERSION),
        ("server_encoding", "UTF8"),
        ("client_encoding", hello.client_encoding),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("IntervalStyle", "postgres"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", if hello.client.is_superuser { "on" } else { "off" }),
        ("session_authorization", &hello.client.user),
        ("application_name", application_name),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
    ] {
        put(&mut bytes, &ParameterStatus::new(name.to_owned(), value.to_owned()))?;
    }
    put(&mut bytes, &BackendKeyData::new(registration.process_id, SecretKey::I32(registration.secret)))?;
    put(&mut bytes, &outbox::ready_for_query(status))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(parameters: &[(&str, &str)]) -> BTreeMap<String, String> {
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn database_defaults_to_the_user() {
        let hello = hello(3, 0, with(&[("user", "postgres")])).unwrap();
        assert_eq!(hello.client.database, "postgres");
        assert_eq!(hello.negotiate, None);
    }

    #[test]
    fn newer_minor_versions_and_options_are_negotiated() {
        let newer = hello(3, 2, with(&[("user", "postgres"), ("_pq_.x", "1")])).unwrap();
        assert_eq!(newer.negotiate, Some(vec!["_pq_.x".to_owned()]));
    }

    #[test]
    fn what_is_not_here_is_refused() {
        for (major, parameters, state) in [
            (2, with(&[]), SqlState::FEATURE_NOT_SUPPORTED),
            (4, with(&[]), SqlState::FEATURE_NOT_SUPPORTED),
            (3, with(&[("user", "")]), SqlState::INVALID_AUTHORIZATION),
            (3, with(&[("user", "a"), ("client_encoding", "LATIN1")]), SqlState::FEATURE_NOT_SUPPORTED),
            (3, with(&[("user", "a"), ("replication", "database")]), SqlState::FEATURE_NOT_SUPPORTED),
        ] {
            assert_eq!(hello(major, 0, parameters).unwrap_err().state, state);
        }
    }

    #[test]
    fn utf8_has_many_spellings() {
        for (asked, confirmed) in [("utf-8", "UTF8"), ("UNICODE", "UTF8"), ("SQL_ASCII", "SQL_ASCII")] {
            assert_eq!(client_encoding(Some(&asked.to_owned())).unwrap(), confirmed);
        }
    }
}
