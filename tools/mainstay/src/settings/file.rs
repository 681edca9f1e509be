//! The configuration file: TOML, read so that every problem is found in one go, with its line.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Origin, Problem, Raw, Setting, Settings, TABLE};

/// A configuration file is small; whatever is larger was named by mistake.
const LIMIT_BYTES: u64 = 1 << 20;

/// Reads the file into `settings` and adds what is wrong with it to `problems`.
pub(super) fn read(path: &Path, settings: &mut Settings, problems: &mut Vec<Problem>) {
    match read_text(path) {
        Ok(text) => {
            let mut found = Vec::new();
            Reader { path, text: &text, settings, problems: &mut found }.table();
            // The parser hands out keys in no useful order.
            found.sort_by_key(|problem| match problem.origin {
                Origin::File { line, .. } => line,
                _ => None,
            });
            problems.append(&mut found);
        }
        Err(error) => problems.push(Problem {
            origin: Origin::File { path: path.to_owned(), line: None, key: None },
            what: format!("cannot be read: {error}"),
        }),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read_bytes = File::open(path)?.take(LIMIT_BYTES + 1).read_to_string(&mut text)?;
    if read_bytes as u64 > LIMIT_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {LIMIT_BYTES} bytes")));
    }
    Ok(text)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    settings: &'a mut Settings,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn table(&mut self) {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            self.problem(error.span(), None, format!("not TOML: {}", error.message().replace('\n', ", ")));
        }
        // What follows a syntax error is guesswork; its unknown names would only distract.
        if !errors.is_empty() {
            return;
        }
        for (name, value) in table.get_ref() {
            match value.get_ref() {
                DeValue::Table(section) if is_section(name.get_ref()) => {
                    for (inner, value) in section {
                        self.entry(&format!("{}.{}", name.get_ref(), inner.get_ref()), inner.span(), value);
                    }
                }
                _ => self.entry(name.get_ref(), name.span(), value),
            }
        }
    }

    fn entry(&mut self, key: &str, span: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let Some(setting) = Setting::find(key) else {
            let what = match value.get_ref() {
                DeValue::Table(_) => "no such section".to_owned(),
                _ if is_section(key) => "is a section, not a setting".to_owned(),
                _ => "no such setting".to_owned(),
            };
            return self.problem(Some(span), Some(key), what);
        };
        let result = match raw(value.get_ref()) {
            Ok(raw) => setting.set(self.settings, raw),
            Err(what) => Err(what),
        };
        if let Err(what) = result {
            self.problem(Some(value.span()), Some(key), what);
        }
    }

    fn problem(&mut self, span: Option<Range<usize>>, key: Option<&str>, what: String) {
        let line = span.map(|span| {
            let before = self.text.as_bytes().iter().take(span.start);
            before.filter(|byte| **byte == b'\n').count() + 1
        });
        let origin = Origin::File { path: self.path.to_owned(), line, key: key.map(str::to_owned) };
        self.problems.push(Problem { origin, what });
    }
}

fn is_section(name: &str) -> bool {
    TABLE.iter().any(|setting| !setting.section.is_empty() && setting.section == name)
}

fn raw(value: &DeValue<'_>) -> Result<Raw, String> {
    match value {
        DeValue::String(text) => Ok(Raw::Text(text.clone().into_owned())),
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
            .map(Raw::Integer)
            .map_err(|_| format!("{} is far too large", integer.as_str())),
        DeValue::Boolean(boolean) => Ok(Raw::Boolean(*boolean)),
        other => Err(format!("is of type {}; must be a number or text", other.type_str())),
    }
}
