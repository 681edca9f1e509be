//! Asking a client for its password, over its connection.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use pgwire::messages::startup::Authentication;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::backend::ClientInfo;
use super::super::error::{SqlError, SqlState};
use super::super::listener::ClientCertificates;
use super::super::wire::Wire;
use super::super::work::session_fault;
use super::super::{frame, message, outbox};
use super::scram::{self, Exchange, Refused};
use super::throttle::Throttle;
use super::users::{User, UsersFile};
use super::{Access, Roles, binding};

/// Length of the server's part of a nonce, before it is written in base64; as in PostgreSQL.
const NONCE_BYTES: usize = 18;

/// Lets a client in that may be let in, and notes as whom.
///
/// # Errors
/// What the client is told before it is disconnected.
pub(in super::super) async fn admit(
    access: &Access,
    wire: &mut Wire,
    client: &mut ClientInfo,
    peer: IpAddr,
    deadline: Instant,
) -> Result<(), SqlError> {
    if wire.endpoint().is_none() {
        access.check_plaintext(peer)?;
    }
    let Some(users) = &access.users else {
        client.is_superuser = true;
        return Ok(());
    };
    client.roles = Roles::of(users);
    if access.certificates != ClientCertificates::VerifyCa && wire.certified() != Some(client.user.as_str()) {
        return Err(not_certified(wire, &client.user, peer, "its common name is not the user's"));
    }
    if access.certificates == ClientCertificates::Cert {
        let (User { superuser, .. }, is_known) = find(users, &client.user).await?;
        if !is_known {
            return Err(not_certified(wire, &client.user, peer, "there is no such user"));
        }
        metrics::counter!("mainstay_sql_logins_total", "outcome" => "ok").increment(1);
        (client.is_superuser, client.is_authenticated) = (superuser, true);
        return Ok(());
    }
    let proof = authenticate(users, &access.throttle, wire, &client.user, peer, deadline);
    client.is_superuser = timeout_at(deadline, proof).await.map_err(|_| too_late())??;
    client.is_authenticated = true;
    Ok(())
}

/// The certificate of a client does not make it that user. It is told no more than PostgreSQL tells: who he is, he knows.
fn not_certified(wire: &Wire, user: &str, peer: IpAddr, why: &str) -> SqlError {
    tracing::info!(%peer, user, common_name = wire.certified(), why, "a login by certificate failed");
    metrics::counter!("mainstay_sql_logins_total", "outcome" => "failed").increment(1);
    let message = format!("certificate authentication failed for user \"{user}\"");
    SqlError::fatal(SqlState::INVALID_AUTHORIZATION, message)
}

/// Looks a user up where that may block.
async fn find(users: &Arc<UsersFile>, name: &str) -> Result<(User, bool), SqlError> {
    let (file, name) = (Arc::clone(users), name.to_owned());
    spawn_blocking(move || file.find(&name)).await.map_err(|error| session_fault(&error))
}

fn too_late() -> SqlError {
    SqlError::fatal(SqlState::QUERY_CANCELED, "canceling authentication due to timeout")
}

/// Finds out whether a client is the user that it says it is; answers whether that is a superuser.
///
/// # Errors
/// What the client is told before it is disconnected.
async fn authenticate(
    users: &Arc<UsersFile>,
    throttle: &Throttle,
    wire: &mut Wire,
    user: &str,
    peer: IpAddr,
    deadline: Instant,
) -> Result<bool, SqlError> {
    let bound = wire.endpoint().and_then(|endpoint| binding::of_certificate(&endpoint.certificate));
    send(wire, &Authentication::SASL(scram::mechanisms(bound.is_some()))).await?;
    let (mechanism, first) = message::read_sasl_initial(receive(wire).await?)?;

    let (User { verifier, superuser }, is_known) = find(users, user).await?;
    let nonce = nonce()?;
    let refused = |refused| explain(refused, user);
    let exchange = Exchange::begin(&mechanism, &first, bound.as_deref(), (verifier, is_known), &nonce);
    let exchange = exchange.map_err(refused)?;
    send(wire, &Authentication::SASLContinue(Bytes::copy_from_slice(exchange.server_first().as_bytes()))).await?;
    let last = receive(wire).await?;

    let Some(turn) = throttle.turn(peer, Instant::now(), deadline) else {
        tracing::info!(%peer, user, "a login was refused unseen: too many from its address failed");
        metrics::counter!("mainstay_sql_logins_total", "outcome" => "throttled").increment(1);
        let message = "too many failed logins from this address";
        return Err(SqlError::fatal(SqlState::INVALID_AUTHORIZATION, message).with_hint("Try again in a moment."));
    };
    if turn.at > Instant::now() {
        sleep_until(turn.at).await;
    }
    // Nothing is waited for from here until a failure is noted, so that no burst of attempts goes unnoticed.
    match exchange.finish(&last) {
        Ok(answer) => {
            throttle.succeeded(&turn, Instant::now());
            metrics::counter!("mainstay_sql_logins_total", "outcome" => "ok").increment(1);
            send(wire, &Authentication::SASLFinal(answer.into())).await?;
            Ok(superuser)
        }
        Err(why) => {
            throttle.failed(&turn, Instant::now());
            tracing::info!(%peer, user, "a login failed");
            metrics::counter!("mainstay_sql_logins_total", "outcome" => "failed").increment(1);
            Err(refused(why))
        }
    }
}

async fn send(wire: &mut Wire, message: &Authentication) -> Result<(), SqlError> {
    let mut bytes = BytesMut::new();
    outbox::put(&mut bytes, message)?;
    wire.write_all(&bytes).await.map_err(|_| gone())
}

async fn receive(wire: &mut Wire) -> Result<Bytes, SqlError> {
    loop {
        if let Some(body) = frame::take_password(&mut wire.input)? {
            return Ok(body);
        }
        if matches!(wire.read_more().await, Ok(0) | Err(_)) {
            return Err(gone());
        }
    }
}

/// A client that leaves to ask its user for a password is no failure.
fn gone() -> SqlError {
    SqlError::fatal(SqlState::CONNECTION_FAILURE, "the client left before it was authenticated")
}

fn nonce() -> Result<String, SqlError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)
        .map_err(|error| SqlError::fatal(SqlState::INTERNAL_ERROR, format!("no randomness for a nonce: {error}")))?;
    Ok(STANDARD.encode(nonce))
}

fn explain(refused: Refused, user: &str) -> SqlError {
    match refused {
        Refused::Malformed(what) => {
            SqlError::fatal(SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message").with_detail(what)
        }
        Refused::Binding => SqlError::fatal(SqlState::INVALID_AUTHORIZATION, "SCRAM channel binding check failed"),
        Refused::Proof => {
            let message = format!("password authentication failed for user \"{user}\"");
            SqlError::fatal(SqlState::INVALID_PASSWORD, message)
        }
    }
}
