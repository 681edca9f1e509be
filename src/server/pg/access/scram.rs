//! Pure: the server's side of SCRAM-SHA-256 (RFC 5802, 7677), with and without channel binding.
//!
//! Written here and not taken from `pgwire`: its exchange brings some twenty crates, cannot say which of its errors is a wrong
//! password, and lets a client choose the mechanism with channel binding and then leave the binding out. What is
//! cryptography in it comes from `ring`.
//!
//! ```text
//! client-first   n,,n=,r=NONCE                     gs2 header: n no binding, y the server has none, p=TYPE binding
//! server-first   r=NONCE+OURS,s=SALT,i=ITERATIONS
//! client-final   c=BINDING,r=NONCE+OURS,p=PROOF    BINDING: gs2 header and the bound data
//! server-final   v=SIGNATURE
//! ```
//!
//! The user's name in there is empty or ignored, as in PostgreSQL: the one of the startup packet counts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};

use super::verifier::{KEY_BYTES, SCRAM_SHA_256, Verifier, hash, sign};

/// The mechanism with channel binding.
const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The only channel binding that PostgreSQL's clients know: a hash of the server's certificate.
const BINDING_HEADER: &str = "p=tls-server-end-point,,";

/// Why an exchange ends. None of them says anything of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// What the client sent is not SCRAM, or asks for what is not there.
    Malformed(&'static str),
    /// Somebody may stand between the client and this server.
    Binding,
    /// The proof is not that of the user's password.
    Proof,
}

/// The mechanisms that are offered, the best one first.
pub(super) fn mechanisms(has_binding: bool) -> Vec<String> {
    let plus = has_binding.then(|| SCRAM_SHA_256_PLUS.to_owned());
    plus.into_iter().chain([SCRAM_SHA_256.to_owned()]).collect()
}

/// An exchange whose first message was answered.
pub(super) struct Exchange {
    verifier: Verifier,
    /// What the client's last message must say of the binding.
    binding: String,
    /// Both nonces.
    nonce: String,
    client_first_bare: String,
    server_first: String,
    /// Whether the user exists; one that does not cannot have the right proof.
    is_known: Choice,
}

impl Exchange {
    /// Takes the client's first message. `bound` is the hash of the certificate that this connection's TLS has shown, if it
    /// has and if that was offered.
    ///
    /// # Errors
    /// [`Refused::Malformed`] or [`Refused::Binding`].
    pub(super) fn begin(
        mechanism: &str,
        client_first: &[u8],
        bound: Option<&[u8]>,
        (verifier, is_known): (Verifier, bool),
        our_nonce: &str,
    ) -> Result<Exchange, Refused> {
        let message = text(client_first)?;
        let plus = mechanism == SCRAM_SHA_256_PLUS;
        if !plus && mechanism != SCRAM_SHA_256 {
            return Err(Refused::Malformed("client selected an invalid SASL authentication mechanism"));
        }
        let (header, bound) = match (plus, bound) {
            (true, Some(bound)) if message.starts_with(BINDING_HEADER) => (BINDING_HEADER, bound),
            (true, _) => return Err(Refused::Malformed("channel binding without its data")),
            (false, None) if message.starts_with("y,,") => ("y,,", &[][..]),
            // The client thinks that there is none, though it was offered: somebody took the offer away.
            (false, Some(_)) if message.starts_with('y') => return Err(Refused::Binding),
            (false, _) if message.starts_with("n,,") => ("n,,", &[][..]),
            (false, _) => return Err(Refused::Malformed("neither a known channel binding nor none")),
        };
        let bare = message.get(header.len()..).unwrap_or_default();
        let mut attributes = bare.split(',');
        // An extension that must be understood would stand before the name.
        let name = attributes.next().filter(|name| name.starts_with("n="));
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).filter(|nonce| is_nonce(nonce));
        let (Some(_), Some(nonce)) = (name, nonce) else {
            return Err(Refused::Malformed("no name and nonce"));
        };
        let nonce = format!("{nonce}{our_nonce}");
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        Ok(Exchange {
            verifier,
            binding: STANDARD.encode([header.as_bytes(), bound].concat()),
            nonce,
            client_first_bare: bare.to_owned(),
            server_first,
            is_known: u8::from(is_known).into(),
        })
    }

    /// What the client is told first.
    pub(super) fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Takes the client's last message, and answers what the client is told last: that this server knows the verifier.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn finish(&self, client_final: &[u8]) -> Result<String, Refused> {
        let message = text(client_final)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(Refused::Malformed("no proof"))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|binding| binding.strip_prefix("c="));
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        if nonce != Some(self.nonce.as_str()) {
            return Err(Refused::Malformed("nonce does not match"));
        }
        if binding != Some(self.binding.as_str()) {
            return Err(Refused::Binding);
        }
        let proof = STANDARD.decode(proof).ok().and_then(|proof| <[u8; KEY_BYTES]>::try_from(proof).ok());
        let mut client_key = proof.ok_or(Refused::Malformed("not a proof"))?;
        let signed = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = sign(&self.verifier.stored_key, signed.as_bytes());
        client_key.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        let right = hash(&client_key).ct_eq(&self.verifier.stored_key) & self.is_known;
        let server_signature = sign(&self.verifier.server_key, signed.as_bytes());
        if bool::from(right) { Ok(format!("v={}", STANDARD.encode(server_signature))) } else { Err(Refused::Proof) }
    }
}

fn text(message: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(message).map_err(|_| Refused::Malformed("not text"))
}

fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
#[path = "scram_test.rs"]
mod tests;
