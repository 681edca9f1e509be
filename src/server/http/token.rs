//! The token of who may drain the node.

use std::path::Path;

use subtle::ConstantTimeEq;

use super::HttpError;
use crate::net::files;

/// Lengths of a token that cannot be guessed, and that fits into a request's head.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=1024;
/// What stands before it in the header.
const SCHEME: &[u8] = b"bearer ";

/// A token. It is not shown anywhere.
pub(super) struct DrainToken(Vec<u8>);

impl DrainToken {
    pub(super) fn read(path: &Path) -> Result<DrainToken, HttpError> {
        let unusable = |what: String| HttpError::Token { path: path.to_owned(), what };
        let (bytes, metadata) = files::read(path).map_err(|error| unusable(error.to_string()))?;
        if let Some(mode) = files::open_to_others(&metadata) {
            return Err(unusable(format!("is a secret that others can read: its mode is {mode}, not 600")));
        }
        let token = bytes.trim_ascii();
        if !LENGTHS.contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic) {
            let (least, most) = (LENGTHS.start(), LENGTHS.end());
            return Err(unusable(format!("must hold {least} to {most} visible characters without spaces")));
        }
        Ok(DrainToken(token.to_vec()))
    }

    /// Whether an Authorization header shows it. How long that takes tells nothing but its length.
    pub(super) fn is_shown_by(&self, header: &[u8]) -> bool {
        match header.split_at_checked(SCHEME.len()) {
            Some((scheme, token)) => scheme.eq_ignore_ascii_case(SCHEME) && bool::from(token.ct_eq(&self.0)),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<DrainToken, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        DrainToken::read(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_is_shown_as_a_whole_or_not_at_all() {
        let token = read("0123456789abcdef\n", 0o600).ok().unwrap();
        assert!(token.is_shown_by(b"Bearer 0123456789abcdef"));
        assert!(token.is_shown_by(b"bearer 0123456789abcdef"));
        for wrong in ["", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdeF", "Basic  0123456789abcdef"] {
            assert!(!token.is_shown_by(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_refused() {
        for (text, mode, what) in [
            ("0123456789abcdef", 0o644, "others can read"),
            ("short", 0o600, "16 to 1024"),
            ("0123456789 abcdef", 0o600, "without spaces"),
        ] {
            let error = read(text, mode).err().unwrap();
            assert!(error.contains(what) && !error.contains(text), "{error}");
        }
        assert!(matches!(DrainToken::read(Path::new("/no/such")), Err(HttpError::Token { .. })));
    }
}
