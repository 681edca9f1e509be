//! `format`, which SQLite has too, with other letters.

use mainstay::server::pg::catalog::definition::quote_ident;
use rusqlite::Result;

use super::functions::{Arguments, failed};

/// `format('%I.%s %L', …)`; NULL without a format.
pub(super) fn formatted(given: &Arguments<'_>) -> Result<Option<String>> {
    let Some(format) = given.text(0) else { return Ok(None) };
    let (mut text, mut next) = (String::new(), 1);
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let kind = characters.next();
        if kind == Some('%') {
            text.push('%');
            continue;
        }
        if next >= given.len() {
            return Err(failed("too few arguments for format()".to_owned()));
        }
        let value = given.text(next);
        next += 1;
        match (kind, value) {
            (Some('s'), value) => text.push_str(&value.unwrap_or_default()),
            (Some('L'), None) => text.push_str("NULL"),
            (Some('L'), Some(value)) => text.push_str(&format!("'{}'", value.replace('\'', "''"))),
            (Some('I'), Some(value)) => text.push_str(&quote_ident(&value)),
            (Some('I'), None) => return Err(failed("null values cannot be formatted as an SQL identifier".to_owned())),
            _ => return Err(failed("format() knows %s, %I, %L and %%".to_owned())),
        }
    }
    Ok(Some(text))
}
