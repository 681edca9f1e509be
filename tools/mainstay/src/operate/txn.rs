//! Transactions as people write them, one step a line.

use mainstay::meta::client::{Keys, ops};
use mainstay::meta::proto::compare::Target;
use mainstay::meta::proto::op_done::Kind as Done;
use mainstay::meta::proto::{Compare, Op, Relation, Txn, TxnDone};
use serde_json::{Value, json};

use super::kv;
use super::outcome::{Failed, Outcome};
use super::show::{self, printable};

/// What help says of it.
pub const HELP: &str = "\
Compare, and do one thing or another, at once.

One step a line, in any order; lines that begin with # do not count. All comparisons have to hold for the steps of \"then\",
otherwise those of \"else\" are done.

    if KEY version|created|modified|lease|value =|!=|<|> WHAT
    then|else put KEY VALUE
    then|else get KEY
    then|else delete KEY

A key that does not exist has version 0. Words with spaces are put in double quotes, in which \\\" \\\\ \\n \\t and \\xHH are
known. Put a value only if nobody else did:

    if lock version = 0
    then put lock mine
    else get lock";

/// Understands a transaction.
///
/// # Errors
/// Which line makes no sense, and why.
pub fn parse(text: &str) -> Result<Txn, String> {
    let mut txn = Txn::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        step(&mut txn, line).map_err(|what| format!("line {}: {what}", number + 1))?;
    }
    if txn.then.is_empty() && txn.otherwise.is_empty() {
        return Err("the transaction does nothing: it has no \"then\" and no \"else\"".to_owned());
    }
    Ok(txn)
}

fn step(txn: &mut Txn, line: &str) -> Result<(), String> {
    let mut words = words(line)?.into_iter();
    let first = words.next().unwrap_or_default();
    let rest: Vec<Vec<u8>> = words.collect();
    match &first[..] {
        b"if" => txn.compares.push(compare(rest)?),
        b"then" => txn.then.push(op(rest)?),
        b"else" => txn.otherwise.push(op(rest)?),
        other => return Err(format!("it begins with {}, not with if, then or else", printable(other))),
    }
    Ok(())
}

fn compare(words: Vec<Vec<u8>>) -> Result<Compare, String> {
    let [key, what, relation, target]: [Vec<u8>; 4] =
        words.try_into().map_err(|_| "a comparison is: if KEY version|created|modified|lease|value =|!=|<|> WHAT")?;
    let relation = match &relation[..] {
        b"=" => Relation::Equal,
        b"!=" => Relation::NotEqual,
        b"<" => Relation::Less,
        b">" => Relation::Greater,
        other => return Err(format!("{} is none of = != < >", printable(other))),
    };
    let number = || {
        let number = std::str::from_utf8(&target).ok().and_then(|text| text.parse::<u64>().ok());
        number.ok_or_else(|| format!("{} is no number", printable(&target)))
    };
    let target = match &what[..] {
        b"version" => Target::Version(number()?),
        b"created" => Target::CreateRevision(number()?),
        b"modified" => Target::ModRevision(number()?),
        b"lease" => Target::Lease(number()?),
        b"value" => Target::Value(target),
        other => return Err(format!("{} is none of version, created, modified, lease, value", printable(other))),
    };
    Ok(Compare { key, relation: relation.into(), target: Some(target) })
}

fn op(words: Vec<Vec<u8>>) -> Result<Op, String> {
    match &words[..] {
        [verb, key, value] if verb == b"put" => Ok(ops::put(key.clone(), value.clone())),
        [verb, key] if verb == b"get" => Ok(ops::get(Keys::One(key.clone()))),
        [verb, key] if verb == b"delete" => Ok(ops::delete(Keys::One(key.clone()))),
        _ => Err("a step is: put KEY VALUE, get KEY or delete KEY".to_owned()),
    }
}

/// The words of a line.
fn words(line: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let word;
        (word, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let (word, rest) = rest.split_at(end);
                if word.contains('"') {
                    return Err(format!("a quote in the middle of the word {}", printable(word.as_bytes())));
                }
                (word.as_bytes().to_vec(), rest)
            }
        };
        if rest.starts_with(|character: char| !character.is_whitespace()) {
            return Err("a word in quotes is followed by a space".to_owned());
        }
        words.push(word);
        rest = rest.trim_start();
    }
    Ok(words)
}

/// What stands in quotes, and what comes behind them.
fn unquote(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut word = Vec::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Ok((word, characters.as_str())),
            '\\' => match characters.next() {
                Some('n') => word.push(b'\n'),
                Some('t') => word.push(b'\t'),
                Some(same @ ('"' | '\\')) => word.extend(same.to_string().bytes()),
                Some('x') => {
                    let mut digit = || characters.next().and_then(|character| character.to_digit(16));
                    let (high, low) = digit().zip(digit()).ok_or("\\x is followed by two hexadecimal digits")?;
                    word.push(u8::try_from(high << 4 | low).unwrap_or_default());
                }
                _ => return Err("a backslash is followed by \", \\, n, t or xHH".to_owned()),
            },
            character => word.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    Err("a quote is not closed".to_owned())
}

/// Shows what a transaction came to.
///
/// # Errors
/// Whoever reads it has gone.
pub fn show(done: &TxnDone, json: bool) -> Result<Outcome, Failed> {
    let found = |kind: &Done| match kind {
        Done::Put(put) => json!({"put": {"revision": put.revision}}),
        Done::Delete(delete) => json!({"delete": {"deleted": delete.deleted}}),
        Done::Get(get) => json!({"get": get.pairs.iter().map(kv::object).collect::<Vec<_>>()}),
    };
    let kinds = done.ops.iter().filter_map(|op| op.kind.as_ref());
    if json {
        let ops: Vec<Value> = kinds.map(found).collect();
        show::json(&json!({"succeeded": done.succeeded, "revision": done.revision, "steps": ops}))?;
    } else {
        show::line(if done.succeeded { "then" } else { "else" })?;
        for kind in kinds {
            show::line(match kind {
                Done::Put(put) => format!("put: revision {}", put.revision),
                Done::Delete(delete) => format!("delete: {} deleted", delete.deleted),
                Done::Get(get) => match get.pairs.first() {
                    Some(pair) => format!("get: {} = {}", printable(&pair.key), printable(&pair.value)),
                    None => "get: no such key".to_owned(),
                },
            })?;
        }
    }
    Ok(if done.succeeded { Outcome::Done } else { Outcome::NotFound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_understood() {
        let txn = parse(
            "# a lock\n  if lock version = 0\nif \"a b\" value != \"x\\n\\x00\\\"\"\nthen put lock \"\"\nelse get lock\nelse delete b\n",
        )
        .unwrap();
        assert_eq!(txn.compares[0].target, Some(Target::Version(0)));
        assert_eq!(txn.compares[1].key, b"a b");
        assert_eq!(txn.compares[1].target, Some(Target::Value(b"x\n\0\"".to_vec())));
        assert_eq!(txn.then, [ops::put("lock", "")]);
        assert_eq!(txn.otherwise, [ops::get("lock"), ops::delete("b")]);
    }

    #[test]
    fn what_makes_no_sense_is_said_with_its_line() {
        for (text, what) in [
            ("", "does nothing"),
            ("if a version = 0", "does nothing"),
            ("then put a", "line 1: a step is"),
            ("\nwhen x", "line 2: it begins with when"),
            ("if a version = b", "b is no number"),
            ("if a size = 1", "size is none of"),
            ("if a version == 1", "== is none of"),
            ("then put a \"b", "not closed"),
            ("then put a \"b\"c", "followed by a space"),
            ("then put a b\"c", "in the middle"),
            ("then put a \"\\q\"", "a backslash"),
            ("then put a \"\\xg0\"", "two hexadecimal"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
