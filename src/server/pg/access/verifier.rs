//! What is kept of a password: PostgreSQL's verifier, `SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER`.
//!
//! It lets the server check a password and prove to the client that it could, and nobody else learns the password from it
//! but by guessing. Salt and keys are in base64; the keys are those of RFC 5802.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// The name of the mechanism, which verifiers begin with.
pub(super) const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// Length of SHA-256's output.
pub(super) const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;
/// Length of salts made here, as in PostgreSQL.
pub(super) const SALT_BYTES: usize = 16;
/// The longest salt that is taken.
const SALT_LIMIT_BYTES: usize = 1024;
/// So often a password is hashed, as in PostgreSQL.
pub(super) const ITERATIONS: NonZeroU32 = match NonZeroU32::new(4096) {
    Some(iterations) => iterations,
    None => NonZeroU32::MIN,
};
/// The most iterations that are asked of a client.
const ITERATIONS_LIMIT: u32 = i32::MAX as u32;
/// The longest password. Drivers have their own limits, all above this.
const PASSWORD_LIMIT_BYTES: usize = 1024;

/// What is kept of a password. It is printed only by [`Verifier::to_text`].
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) iterations: NonZeroU32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: [u8; KEY_BYTES],
    pub(super) server_key: [u8; KEY_BYTES],
}

/// Why there is no verifier of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Your mistake.
    #[error("the password is empty")]
    Empty,
    /// Your mistake.
    #[error("the password is longer than {PASSWORD_LIMIT_BYTES} bytes")]
    TooLong,
    /// Retry here.
    #[error("the system has no randomness to give")]
    NoRandomness,
}

impl Verifier {
    /// Makes one with a random salt.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn new(password: &str) -> Result<Verifier, PasswordError> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| PasswordError::NoRandomness)?;
        Verifier::with_salt(password, salt.to_vec(), ITERATIONS)
    }

    /// Makes one with that salt.
    pub(super) fn with_salt(password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Result<Verifier, PasswordError> {
        if password.is_empty() {
            return Err(PasswordError::Empty);
        }
        if password.len() > PASSWORD_LIMIT_BYTES {
            return Err(PasswordError::TooLong);
        }
        // As PostgreSQL and its clients do it: what cannot be prepared is taken as it is.
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let mut salted = [0; KEY_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, prepared.as_bytes(), &mut salted);
        let client_key = sign(&salted, b"Client Key");
        Ok(Verifier { iterations, salt, stored_key: hash(&client_key), server_key: sign(&salted, b"Server Key") })
    }

    /// Reads one in PostgreSQL's form; `None` if the text is none.
    pub fn parse(text: &str) -> Option<Verifier> {
        let rest = text.strip_prefix(SCRAM_SHA_256)?.strip_prefix('$')?;
        let (salting, keys) = rest.split_once('$')?;
        let (iterations, salt) = salting.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|count| *count <= ITERATIONS_LIMIT)?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| (1..=SALT_LIMIT_BYTES).contains(&salt.len()))?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        let (stored_key, server_key) = (key(stored_key)?, key(server_key)?);
        Some(Verifier { iterations: NonZeroU32::new(iterations)?, salt, stored_key, server_key })
    }

    /// Whether a text means to be one.
    pub(super) fn is_meant(text: &str) -> bool {
        text.starts_with(SCRAM_SHA_256)
    }

    /// In PostgreSQL's form. Whoever has it can guess at the password undisturbed, and pass for the server.
    pub fn to_text(&self) -> String {
        format!(
            "{SCRAM_SHA_256}${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key)
        )
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// HMAC-SHA-256.
pub(super) fn sign(key: &[u8], message: &[u8]) -> [u8; KEY_BYTES] {
    fixed(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref())
}

/// SHA-256.
pub(super) fn hash(bytes: &[u8]) -> [u8; KEY_BYTES] {
    fixed(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn fixed(output: &[u8]) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    // Both are 32 bytes long.
    key.iter_mut().zip(output).for_each(|(to, from)| *to = *from);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the password and salt in the example of RFC 7677.
    const OF_PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn it_is_what_postgresql_makes_of_a_password() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let made = Verifier::with_salt("pencil", salt, ITERATIONS).unwrap();
        assert_eq!(made.to_text(), OF_PENCIL);
        assert_eq!(Verifier::parse(OF_PENCIL).unwrap(), made);
        assert_ne!(Verifier::new("pencil").unwrap().salt, Verifier::new("pencil").unwrap().salt);
    }

    #[test]
    fn passwords_are_prepared_before_they_are_hashed() {
        let of = |password: &str| Verifier::with_salt(password, vec![1], ITERATIONS).unwrap();
        // A soft hyphen is nothing, and a Roman nine is two letters.
        assert_eq!(of("I\u{ad}X"), of("\u{2168}"));
        assert_ne!(of("IX"), of("ix"));
        assert_eq!(Verifier::new("").unwrap_err(), PasswordError::Empty);
        assert_eq!(Verifier::new(&"x".repeat(1025)).unwrap_err(), PasswordError::TooLong);
    }

    #[test]
    fn what_is_no_verifier_is_not_taken_for_one() {
        for text in [
            "",
            "SCRAM-SHA-256",
            "SCRAM-SHA-256$4096:c2FsdA==",
            &OF_PENCIL.replace("4096", "0"),
            &OF_PENCIL.replace("4096", "4294967295"),
            &OF_PENCIL.replace("SHA-256", "SHA-1"),
            &OF_PENCIL.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            &OF_PENCIL[..OF_PENCIL.len() - 4],
        ] {
            assert_eq!(Verifier::parse(text), None, "{text}");
        }
    }

    #[test]
    fn it_is_not_printed_by_accident() {
        let verifier = Verifier::parse(OF_PENCIL).unwrap();
        let printed = format!("{verifier:?}");
        assert!(!printed.contains("wfPL") && !printed.contains(&format!("{}", verifier.stored_key[0])), "{printed}");
    }
}
