//! For whom a client's certificate speaks: the common name of its subject, as PostgreSQL's `cert` has it.
//!
//! ```text
//! SET { SEQUENCE { OBJECT IDENTIFIER 2.5.4.3, UTF8String | PrintableString | IA5String } … } …
//! ```
//!
//! A certificate with none, with several, or with one that is no plain text, speaks for nobody: clients and servers must not
//! be able to take it for different names.

use rustls::pki_types::CertificateDer;

use super::der::element;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// 2.5.4.3
const COMMON_NAME: &[u8] = b"\x55\x04\x03";

/// The one common name in the subject of a certificate.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    name_in(certificate.subject())
}

fn name_in(mut subject: &[u8]) -> Option<String> {
    let mut name = None;
    while !subject.is_empty() {
        let (kind, mut relative, behind) = element(subject)?;
        if kind != SET {
            return None;
        }
        subject = behind;
        while !relative.is_empty() {
            let (kind, attribute, behind) = element(relative)?;
            relative = behind;
            let (identifier_kind, identifier, value) = element(attribute)?;
            if kind != SEQUENCE || identifier_kind != OBJECT_IDENTIFIER {
                return None;
            }
            if identifier == COMMON_NAME && name.replace(text(value)?).is_some() {
                return None;
            }
        }
    }
    name
}

/// The text of a value, which must be all there is.
fn text(value: &[u8]) -> Option<String> {
    let (kind, text, behind) = element(value)?;
    let is_plain = [UTF8_STRING, PRINTABLE_STRING, IA5_STRING].contains(&kind) && behind.is_empty();
    let text = std::str::from_utf8(text).ok().filter(|_| is_plain)?;
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    fn named(names: &[(DnType, DnValue)]) -> Option<String> {
        let mut params = CertificateParams::new(["other.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        common_name(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn the_common_name_is_found_among_others() {
        let long = "n".repeat(200);
        for name in ["ann", "Ünal", "a b", long.as_str()] {
            let names = [
                (DnType::OrganizationName, utf8("x")),
                (DnType::CommonName, utf8(name)),
                (DnType::CountryName, utf8("y")),
            ];
            assert_eq!(named(&names).as_deref(), Some(name));
        }
        let printable = DnValue::PrintableString("ann".try_into().unwrap());
        assert_eq!(named(&[(DnType::CommonName, printable)]).as_deref(), Some("ann"));
    }

    #[test]
    fn what_is_not_clear_names_nobody() {
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[(DnType::OrganizationName, utf8("ann"))]), None);
        for name in ["", "ann\0", "ann\n"] {
            assert_eq!(named(&[(DnType::CommonName, utf8(name))]), None, "{name:?}");
        }
        let bmp = DnValue::BmpString("ann".try_into().unwrap());
        assert_eq!(named(&[(DnType::CommonName, bmp)]), None);
        // Two of them, which the generator does not make.
        let one = b"\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03ann";
        assert_eq!(name_in(one).as_deref(), Some("ann"));
        let two = [one.as_slice(), one.as_slice()].concat();
        assert_eq!(name_in(&two), None);
        for end in 1..one.len() {
            assert_eq!(name_in(&one[..end]), None, "{end}");
        }
        assert_eq!(common_name(&CertificateDer::from(b"nonsense".as_slice())), None);
    }
}
