//! Who is let in: TLS, passwords, and what is asked of whom.
//!
//! ```text
//! users       the file of users            verifier   what is kept of a password
//! scram       the exchange, pure           binding    to which certificate a proof is bound
//! throttle    failed logins slow down      authenticate   the exchange over a connection
//! slots       connections, some of them kept for superusers
//! roles       the users as the catalogs list them
//! ```
//!
//! - Without a users file everybody is let in, as a superuser; then the server listens on loopback addresses only, unless
//!   it was told otherwise in so many words.
//! - A client on another machine speaks TLS or is refused, before it is asked for a password.
//! - Whose certificate it is that a client shows is looked at only after TLS has checked it against the authorities.
//! - Nothing here logs a password, a verifier, a proof or a nonce.

mod authenticate;
mod binding;
mod roles;
mod scram;
mod slots;
mod throttle;
mod users;
mod verifier;

use std::net::IpAddr;
use std::sync::Arc;

use self::throttle::Throttle;
use self::users::UsersFile;
use super::error::{SqlError, SqlState};
use super::listener::{ClientCertificates, PgConfig, ServerError};
use crate::net::EndpointTlsConfig;
use crate::net::endpoint_tls::{Endpoint, EndpointTls};

pub(super) use self::authenticate::admit;
pub use self::roles::Roles;
pub(super) use self::slots::Slots;
pub use self::users::{UsersError, users_line};
pub use self::verifier::{PasswordError, Verifier};

/// What is spoken over TLS, as registered for ALPN.
const PROTOCOL: &str = "postgresql";

/// What is asked of clients.
pub(super) struct Access {
    users: Option<Arc<UsersFile>>,
    tls: Option<EndpointTls>,
    throttle: Throttle,
    allow_remote_plaintext: bool,
    certificates: ClientCertificates,
}

/// Reads the files that the settings name; answers what is wrong with each.
pub(super) fn check_files(config: &PgConfig) -> Vec<ServerError> {
    let users = load_users(config).err();
    let tls = load_tls(config).err();
    users.into_iter().chain(tls).collect()
}

fn load_users(config: &PgConfig) -> Result<Option<Arc<UsersFile>>, ServerError> {
    Ok(config.users_file.as_deref().map(UsersFile::load).transpose()?.map(Arc::new))
}

fn load_tls(config: &PgConfig) -> Result<Option<EndpointTls>, ServerError> {
    let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) else { return Ok(None) };
    Ok(Some(EndpointTls::load(EndpointTlsConfig {
        certificate: certificate.clone(),
        key: key.clone(),
        client_authorities: config.tls_client_authorities.clone(),
        protocol: Some(PROTOCOL),
    })?))
}

impl Access {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`ServerError::Users`] or [`ServerError::Tls`].
    pub(super) fn load(config: &PgConfig) -> Result<Access, ServerError> {
        Ok(Access {
            users: load_users(config)?,
            tls: load_tls(config)?,
            throttle: Throttle::default(),
            allow_remote_plaintext: config.allow_remote_plaintext,
            certificates: config.tls_client_certificates,
        })
    }

    /// What TLS of a new connection needs, if there is TLS.
    pub(super) fn tls(&self) -> Option<Arc<Endpoint>> {
        self.tls.as_ref().map(EndpointTls::current)
    }

    /// Whether a client there may go on without TLS.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn check_plaintext(&self, peer: IpAddr) -> Result<(), SqlError> {
        let refused = |message: &str| {
            let hint = "Connect with sslmode=require or, better, sslmode=verify-full.";
            Err(SqlError::fatal(SqlState::INVALID_AUTHORIZATION, message).with_hint(hint))
        };
        if self.tls.as_ref().is_some_and(EndpointTls::wants_certificates) {
            refused("connections without TLS are refused: clients have to show a certificate")
        } else if peer.to_canonical().is_loopback() || self.allow_remote_plaintext {
            Ok(())
        } else {
            refused("connections without TLS are refused from other machines")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_stays_on_this_machine_unless_allowed() {
        let mut access = Access::load(&PgConfig::default()).unwrap();
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            access.check_plaintext(local.parse().unwrap()).unwrap();
        }
        let remote = ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"].map(|text| text.parse().unwrap());
        for address in remote {
            let error = access.check_plaintext(address).unwrap_err();
            assert_eq!(error.state, SqlState::INVALID_AUTHORIZATION);
        }
        access.allow_remote_plaintext = true;
        for address in remote {
            access.check_plaintext(address).unwrap();
        }
    }
}
