//! Join tokens as people pass them on: drawn at random, never stored, known to the cluster by their hash alone.
//!
//! ```text
//!  mainstay-join-1-<64 hexadecimal digits: 32 random bytes>
//! ```

use std::fmt;
use std::str::FromStr;

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

const PREFIX: &str = "mainstay-join-1-";
const SECRET_BYTES: usize = 32;

/// A secret that lets one node join. Shown only by [`JoinToken::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken([u8; SECRET_BYTES]);

/// Text that is no join token. It does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a join token is {PREFIX} and 64 hexadecimal digits")]
pub struct MalformedToken;

impl JoinToken {
    /// Draws one.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn draw() -> Result<JoinToken, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(JoinToken(secret))
    }

    /// The text to pass on.
    pub fn reveal(&self) -> String {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}{digits}")
    }

    /// What the cluster knows it by.
    pub fn hash(&self) -> Vec<u8> {
        sha256(&self.0)
    }
}

impl FromStr for JoinToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<JoinToken, MalformedToken> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(MalformedToken)?.as_bytes();
        let mut secret = [0; SECRET_BYTES];
        if digits.len() != 2 * SECRET_BYTES {
            return Err(MalformedToken);
        }
        for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |place: usize| pair.get(place).and_then(|digit| char::from(*digit).to_digit(16));
            let (high, low) = digit(0).zip(digit(1)).ok_or(MalformedToken)?;
            *byte = u8::try_from(high << 4 | low).map_err(|_| MalformedToken)?;
        }
        Ok(JoinToken(secret))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken")
    }
}

/// SHA-256: what secrets of members and tokens are kept as. They are random and long, so that they need no salt.
pub fn sha256(secret: &[u8]) -> Vec<u8> {
    let common = match &TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls12(suite) => &suite.common,
        SupportedCipherSuite::Tls13(suite) => &suite.common,
    };
    common.hash_provider.hash(secret).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_shown() {
        let token = JoinToken::draw().unwrap();
        assert_ne!(token, JoinToken::draw().unwrap());
        assert_eq!(token.reveal().parse(), Ok(token.clone()));
        assert_eq!(format!(" {}\n", token.reveal()).parse(), Ok(token.clone()));
        assert_eq!(token.hash().len(), 32);
        assert_eq!(format!("{token:?}"), "JoinToken");
        let golden = JoinToken([0xab; 32]).reveal();
        assert_eq!(golden, format!("mainstay-join-1-{}", "ab".repeat(32)));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let text = JoinToken([0xab; 32]).reveal();
        for text in ["", "mainstay-join-1-", &text[1..], &text[..text.len() - 1], &format!("{text}0")] {
            assert_eq!(text.parse::<JoinToken>(), Err(MalformedToken), "{text}");
        }
        assert_eq!(text.replace('b', "g").parse::<JoinToken>(), Err(MalformedToken));
        assert_eq!(text.replace("ab", "é").parse::<JoinToken>(), Err(MalformedToken));
    }

    #[test]
    fn the_hash_is_the_one_that_everybody_computes() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc").iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
    }
}
