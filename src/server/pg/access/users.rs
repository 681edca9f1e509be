//! The file of users: who may connect, and how they prove that they are themselves.
//!
//! A line per user, as in the file of pgbouncer's `auth_file`; blank lines and those that begin with `#` or `;` are passed
//! over. A quotation mark inside quotation marks is doubled.
//!
//! ```text
//! "NAME" "SCRAM-SHA-256$4096:…$…:…" [superuser]
//! "NAME" "password in plain text"   [superuser]      only in a file that nobody else can read
//! ```
//!
//! Nobody learns from outside who is in it: for a name that is not, an exchange goes its whole way, with a verifier that
//! looks like those of the others and stays the same while the server runs.

use std::collections::HashMap;
use std::fmt;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use super::verifier::{ITERATIONS, KEY_BYTES, PasswordError, SALT_BYTES, Verifier, sign};
use crate::net::files::{self, Watched};

/// The most users.
const USERS_LIMIT: usize = 10_000;
/// The most passwords in plain text: each is hashed when the file is read.
const PLAIN_LIMIT: usize = 100;
/// The longest name.
const NAME_LIMIT_BYTES: usize = 63;

/// What is wrong with a file of users. It never quotes the file.
#[derive(Debug, thiserror::Error)]
#[error("users file {path}: {place}{what}", path = path.display(), place = at_line(*line))]
pub struct UsersError {
    /// Which.
    pub path: PathBuf,
    /// On which line, counted from 1; `None` if it is about the whole.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub what: String,
}

fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!("line {line}: "))
}

/// A user.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) verifier: Verifier,
    pub(super) superuser: bool,
}

/// The users of a file, which is read again when it changes.
#[derive(Debug)]
pub(super) struct UsersFile {
    path: PathBuf,
    disguise: Disguise,
    users: Watched<Users>,
}

impl UsersFile {
    /// Reads the file. May block.
    ///
    /// # Errors
    /// [`UsersError`].
    pub(super) fn load(path: &Path) -> Result<UsersFile, UsersError> {
        let disguise = Disguise::new().map_err(|error| wrong(path, error.to_string()))?;
        let users = Watched::load("users", vec![path.to_owned()], || Users::read(path, &disguise))?;
        Ok(UsersFile { path: path.to_owned(), disguise, users })
    }

    /// The names of all users, and which are superusers, in no order. May block.
    pub(super) fn names(&self) -> Vec<(String, bool)> {
        let users = self.users.current(|| Users::read(&self.path, &self.disguise));
        users.by_name.iter().map(|(name, user)| (name.clone(), user.superuser)).collect()
    }

    /// The user of that name and whether there is one: for a name that nobody has, a user whom no password fits. May block.
    pub(super) fn find(&self, name: &str) -> (User, bool) {
        let users = self.users.current(|| Users::read(&self.path, &self.disguise));
        // Made in any case, so that both take the same time.
        let nobody = self.disguise.nobody(name, &users.forms);
        match users.by_name.get(name) {
            Some(user) => (user.clone(), true),
            None => (nobody, false),
        }
    }
}

/// What was in a file.
struct Users {
    by_name: HashMap<String, User>,
    /// Iterations and lengths of salts that are in use, once per user.
    forms: Vec<(std::num::NonZeroU32, usize)>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.by_name.len()).finish_non_exhaustive()
    }
}

impl Users {
    fn read(path: &Path, disguise: &Disguise) -> Result<Users, UsersError> {
        let (bytes, metadata) = files::read(path).map_err(|error| wrong(path, format!("cannot be read: {error}")))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong(path, "is not UTF-8".to_owned()))?;
        Users::parse(text, &metadata, disguise).map_err(|(line, what)| UsersError {
            path: path.to_owned(),
            line: Some(line),
            what,
        })
    }

    fn parse(text: &str, metadata: &Metadata, disguise: &Disguise) -> Result<Users, (usize, String)> {
        let (mut by_name, mut forms, mut plain) = (HashMap::new(), Vec::new(), 0);
        for (index, line) in text.lines().enumerate() {
            let at_line = |what: String| (index + 1, what);
            let Some(Line { name, secret, superuser }) = line_of(line).map_err(at_line)? else { continue };
            let verifier = if Verifier::is_meant(&secret) {
                let malformed = || at_line("the verifier is malformed".to_owned());
                Verifier::parse(&secret).ok_or_else(malformed)?
            } else {
                plain += 1;
                if let Some(mode) = files::open_to_others(metadata) {
                    return Err(at_line(format!(
                        "a password in plain text, in a file that others can read: its mode is {mode}, not 600. Make it \
                         private, or replace the password by a verifier (`mainstay user`)"
                    )));
                }
                if plain > PLAIN_LIMIT {
                    return Err(at_line(format!("more than {PLAIN_LIMIT} passwords in plain text; use verifiers")));
                }
                disguise.verifier(&name, &secret).map_err(|error| at_line(error.to_string()))?
            };
            forms.push((verifier.iterations, verifier.salt.len()));
            if by_name.insert(name, User { verifier, superuser }).is_some() {
                return Err(at_line("a user for the second time".to_owned()));
            }
            if by_name.len() > USERS_LIMIT {
                return Err(at_line(format!("more than {USERS_LIMIT} users")));
            }
        }
        Ok(Users { by_name, forms })
    }
}

fn wrong(path: &Path, what: String) -> UsersError {
    UsersError { path: path.to_owned(), line: None, what }
}

/// A user's line.
struct Line {
    name: String,
    secret: String,
    superuser: bool,
}

/// What a line says; nothing if it is blank or a comment.
fn line_of(line: &str) -> Result<Option<Line>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    let shape = || "is not \"NAME\" \"SECRET\" [superuser]".to_owned();
    let (name, rest) = quoted(line).ok_or_else(shape)?;
    let (secret, rest) = quoted(rest.trim_start()).ok_or_else(shape)?;
    let superuser = match rest.trim() {
        "" => false,
        "superuser" if rest.starts_with(char::is_whitespace) => true,
        _ => return Err(shape()),
    };
    if !(1..=NAME_LIMIT_BYTES).contains(&name.len()) {
        return Err(format!("the name is empty or longer than {NAME_LIMIT_BYTES} bytes"));
    }
    if secret.is_empty() {
        return Err(PasswordError::Empty.to_string());
    }
    Ok(Some(Line { name, secret, superuser }))
}

/// The text in quotation marks that a line begins with, and what is behind it.
fn quoted(line: &str) -> Option<(String, &str)> {
    let inner = line.strip_prefix('"')?;
    let (mut text, mut rest) = (String::new(), inner);
    loop {
        let (before, behind) = rest.split_once('"')?;
        text.push_str(before);
        match behind.strip_prefix('"') {
            Some(more) => {
                text.push('"');
                rest = more;
            }
            None => return Some((text, behind)),
        }
    }
}

/// The line of a user for the file.
pub fn users_line(name: &str, verifier: &Verifier, superuser: bool) -> String {
    let word = if superuser { " superuser" } else { "" };
    format!("\"{}\" \"{}\"{word}", name.replace('"', "\"\""), verifier.to_text())
}

/// Makes up what nobody can tell from the real: salts that belong to names for as long as the server runs.
struct Disguise([u8; KEY_BYTES]);

impl fmt::Debug for Disguise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disguise")
    }
}

impl Disguise {
    fn new() -> Result<Disguise, PasswordError> {
        let mut secret = [0; KEY_BYTES];
        getrandom::fill(&mut secret).map_err(|_| PasswordError::NoRandomness)?;
        Ok(Disguise(secret))
    }

    fn derive(&self, what: &str, name: &str) -> [u8; KEY_BYTES] {
        sign(&self.0, format!("{what} {name}").as_bytes())
    }

    fn salt(&self, name: &str, length: usize) -> Vec<u8> {
        let mut salt = self.derive("salt", name).to_vec();
        while salt.len() < length {
            salt.extend(sign(&self.0, &salt));
        }
        salt.truncate(length);
        salt
    }

    /// That of a password in plain text. Its salt stays when the file is read again, as that of nobody does.
    fn verifier(&self, name: &str, password: &str) -> Result<Verifier, PasswordError> {
        Verifier::with_salt(password, self.salt(name, SALT_BYTES), ITERATIONS)
    }

    /// One of a form that some user's has, and that no password fits.
    fn nobody(&self, name: &str, forms: &[(std::num::NonZeroU32, usize)]) -> User {
        let [high, low, ..] = self.derive("form", name);
        let chosen = usize::from(u16::from_be_bytes([high, low])).checked_rem(forms.len());
        let (iterations, length) =
            chosen.and_then(|chosen| forms.get(chosen)).copied().unwrap_or((ITERATIONS, SALT_BYTES));
        let (stored_key, server_key) = (self.derive("stored", name), self.derive("server", name));
        let salt = self.salt(name, length);
        User { verifier: Verifier { iterations, salt, stored_key, server_key }, superuser: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn file(text: &str, mode: u32) -> (tempfile::TempDir, Result<UsersFile, UsersError>) {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let loaded = UsersFile::load(&path);
        (directory, loaded)
    }

    fn line(name: &str) -> String {
        users_line(name, &Verifier::new("secret").unwrap(), false)
    }

    #[cfg(unix)]
    #[test]
    fn a_file_names_its_users() {
        let text = format!("# comment\n; another\n\n{}\n  \"two\"  \"plain text\"\tsuperuser \n", line("o\"ne"));
        let (_directory, users) = file(&text, 0o600);
        let users = users.unwrap();
        let (one, known) = users.find("o\"ne");
        assert!(known && !one.superuser);
        let (two, known) = users.find("two");
        assert!(known && two.superuser);
        assert_eq!(two.verifier, users.disguise.verifier("two", "plain text").unwrap());
        let (nobody, known) = users.find("three");
        assert!(!known && !nobody.superuser);
    }

    #[cfg(unix)]
    #[test]
    fn plain_passwords_are_refused_where_others_can_read_them_and_verifiers_are_not() {
        for mode in [0o644, 0o604, 0o660] {
            let (_directory, refused) = file("\"two\" \"plain text\"\n", mode);
            let message = refused.unwrap_err().to_string();
            assert!(
                message.contains("line 1: a password in plain text") && message.contains(&format!("{mode:o}")),
                "{message}"
            );
            assert!(!message.contains("plain text\""), "{message}");
            file(&line("one"), mode).1.unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn malformed_files_are_refused_by_line_and_not_quoted() {
        let (good, long) = (line("one"), "n".repeat(64));
        for (text, what) in [
            ("hunter2", "line 1: is not"),
            ("\"one\"", "line 1: is not"),
            ("\n\"one\" \"hunter2", "line 2: is not"),
            ("\"one\" \"hunter2\" admin", "line 1: is not"),
            ("\"one\" \"hunter2\"superuser", "line 1: is not"),
            ("\"\" \"hunter2\"", "line 1: the name is empty"),
            (&format!("\"{long}\" \"hunter2\""), "line 1: the name is empty or longer"),
            ("\"one\" \"\"", "line 1: the password is empty"),
            ("\"one\" \"SCRAM-SHA-256$hunter2\"", "line 1: the verifier is malformed"),
            (&format!("{good}\n{good}"), "line 2: a user for the second time"),
            (&(0..=100).map(|n| format!("\"{n}\" \"hunter2\"\n")).collect::<String>(), "line 101: more than 100"),
        ] {
            let message = file(text, 0o600).1.unwrap_err().to_string();
            assert!(message.contains(what) && !message.contains("hunter2"), "{text}: {message}");
        }
        assert!(UsersFile::load(Path::new("/nowhere")).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn nobody_looks_like_somebody() {
        let disguise = Disguise::new().unwrap();
        let forms = [(ITERATIONS, 16), (ITERATIONS.saturating_add(1), 40)];
        let of = |name: &str| disguise.nobody(name, &forms).verifier;
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a").salt, of("b").salt);
        let found: std::collections::HashSet<_> = (0..64)
            .map(|n| {
                let v = of(&n.to_string());
                (v.iterations, v.salt.len())
            })
            .collect();
        assert_eq!(found, forms.into_iter().collect());
        assert_eq!(disguise.nobody("a", &[]).verifier.salt.len(), SALT_BYTES);
        assert_ne!(Disguise::new().unwrap().nobody("a", &forms).verifier.salt, of("a").salt);
    }
}
