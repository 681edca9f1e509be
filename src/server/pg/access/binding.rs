//! The data of the channel binding `tls-server-end-point` (RFC 5929): a hash of the server's certificate, by the hash that
//! its signature uses.
//!
//! Of the certificate only the algorithm of its signature is read:
//!
//! ```text
//! SEQUENCE { SEQUENCE { … }, SEQUENCE { OBJECT IDENTIFIER, … }, BIT STRING }
//!            the certified   the algorithm                      the signature
//! ```

use ring::digest::{self, Algorithm};

use crate::net::der;

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// What the contents of the identifiers are, and the hash that goes with them. MD5 and SHA-1 are replaced by SHA-256.
const HASHES: &[(&[u8], &Algorithm)] = &[
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", &digest::SHA256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", &digest::SHA256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", &digest::SHA384),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", &digest::SHA512),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", &digest::SHA256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", &digest::SHA384),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", &digest::SHA512),
];

/// The hash of a certificate in DER; `None` if its signature has no hash of its own, as Ed25519, or one that is chosen in
/// parameters: clients could not bind to it either.
pub(super) fn of_certificate(certificate: &[u8]) -> Option<Vec<u8>> {
    let (contents, _) = element(certificate, SEQUENCE)?;
    let (_, behind) = element(contents, SEQUENCE)?;
    let (algorithm, _) = element(behind, SEQUENCE)?;
    let (identifier, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    let (_, hash) = HASHES.iter().find(|(known, _)| *known == identifier)?;
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// The contents of the first element, which must be of that kind, and what is behind it.
fn element(bytes: &[u8], kind: u8) -> Option<(&[u8], &[u8])> {
    let (found, contents, behind) = der::element(bytes)?;
    (found == kind).then_some((contents, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn hash_is_the_one_of_the_signature() {
        let (small, large) = (certificate(&rcgen::PKCS_ECDSA_P256_SHA256), certificate(&rcgen::PKCS_ECDSA_P384_SHA384));
        assert_eq!(of_certificate(&small).unwrap(), digest::digest(&digest::SHA256, &small).as_ref());
        assert_eq!(of_certificate(&large).unwrap(), digest::digest(&digest::SHA384, &large).as_ref());
        assert_eq!(of_certificate(&certificate(&rcgen::PKCS_ED25519)), None);
    }

    #[test]
    fn what_is_no_certificate_has_none() {
        let whole = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        for end in 0..whole.len() {
            assert_eq!(of_certificate(&whole[..end]), None, "{end}");
        }
        assert_eq!(of_certificate(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
    }
}
