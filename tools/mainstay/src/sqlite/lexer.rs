//! SQL cut into tokens as SQLite cuts it: enough to find where statements end and what they begin with.
//!
//! Nothing here decides what a statement means; SQLite does, through its authorizer.

/// What a token is. Blanks and comments are not tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or plain name.
    Word,
    /// A name in `"…"`, `` `…` `` or `[…]`.
    Quoted,
    /// Text in `'…'`.
    Text,
    /// A number.
    Number,
    /// Any other single character.
    Symbol(char),
}

/// A piece of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    /// As written, quotes included.
    pub(super) text: &'a str,
    /// Where it starts, in bytes.
    start: usize,
}

impl Token<'_> {
    /// Where it starts and ends in the text, in bytes.
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.text.len()
    }

    /// Whether it is this keyword, in any case. A quoted name never is.
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Whether it is that character.
    pub(super) fn is_symbol(&self, symbol: char) -> bool {
        self.kind == Kind::Symbol(symbol)
    }

    /// The name it stands for: folded to lower case as PostgreSQL does, unless quoted. `None` if it is no name.
    pub(super) fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_ascii_lowercase()),
            Kind::Quoted | Kind::Text => {
                let quote = self.text.chars().next()?;
                let inner = self.text.get(1..)?;
                let close = if quote == '[' { ']' } else { quote };
                let inner = inner.strip_suffix(close)?;
                Some(inner.replace(&String::from_iter([quote, quote]), &quote.to_string()))
            }
            Kind::Number | Kind::Symbol(_) => None,
        }
    }
}

/// The tokens of `sql`, in order.
pub(super) fn tokens(sql: &str) -> Tokens<'_> {
    Tokens { sql, at: 0 }
}

/// See [`tokens`].
#[derive(Clone)]
pub(super) struct Tokens<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn rest(&self) -> &'a str {
        self.sql.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = self.rest();
            let blank = blank_length(rest);
            let skipped = if blank > 0 {
                blank
            } else if rest.starts_with("--") {
                rest.find('\n').map_or(rest.len(), |end| end + 1)
            } else if rest.starts_with("/*") {
                rest.get(2..).and_then(|body| body.find("*/")).map_or(rest.len(), |end| end + 4)
            } else {
                return;
            };
            self.at += skipped;
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks_and_comments();
        let rest = self.rest();
        let first = rest.chars().next()?;
        let (kind, length) = match first {
            '\'' => (Kind::Text, quoted_length(rest, first)),
            '"' | '`' => (Kind::Quoted, quoted_length(rest, first)),
            '[' => (Kind::Quoted, rest.find(']').map_or(rest.len(), |end| end + 1)),
            '0'..='9' => (Kind::Number, run_length(rest, |c| is_word(c) || c == '.')),
            c if is_word(c) => (Kind::Word, run_length(rest, is_word)),
            c => (Kind::Symbol(c), c.len_utf8()),
        };
        let start = self.at;
        self.at += length;
        Some(Token { kind, text: rest.get(..length)?, start })
    }
}

/// The blanks that SQLite sees at the beginning of `text`: a vertical tab is one only behind another.
fn blank_length(text: &str) -> usize {
    match text.chars().next() {
        Some(' ' | '\t' | '\n' | '\r' | '\x0C') => {
            run_length(text, |c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C'))
        }
        Some(mark @ '\u{FEFF}') => mark.len_utf8(),
        _ => 0,
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

fn run_length(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// Up to the closing quote, a doubled one being part of the text; to the end if it never closes.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut at = quote.len_utf8();
    while let Some(found) = text.get(at..).and_then(|rest| rest.find(quote)) {
        at += found + quote.len_utf8();
        if !text.get(at..).is_some_and(|rest| rest.starts_with(quote)) {
            return at;
        }
        at += quote.len_utf8();
    }
    text.len()
}

/// Cuts a query string into statements, without their semicolons. `CREATE TRIGGER … END` stays whole: it ends at
/// a semicolon that follows `; END`, the rule of SQLite's own `sqlite3_complete`, kept here in one pass over the text.
pub fn split(sql: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut current: Option<Statement> = None;
    for token in tokens(sql) {
        let statement = current.get_or_insert_with(|| Statement::new(token.start));
        if token.kind == Kind::Symbol(';') && statement.ends_here() {
            statements.extend(sql.get(statement.start..statement.end).filter(|text| !text.is_empty()));
            current = None;
        } else {
            statement.add(&token);
        }
    }
    if let Some(statement) = current {
        statements.extend(sql.get(statement.start..statement.end));
    }
    statements
}

/// A statement while its end is being looked for.
struct Statement {
    start: usize,
    /// Where its last token ends.
    end: usize,
    head: Head,
    /// Within a trigger: how much of `; END` was just seen.
    seen_semicolon: bool,
    seen_end: bool,
}

/// What its first words say of a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    Start,
    Explain,
    Create,
    Trigger,
    Other,
}

impl Statement {
    fn new(start: usize) -> Statement {
        Statement { start, end: start, head: Head::Start, seen_semicolon: false, seen_end: false }
    }

    fn ends_here(&self) -> bool {
        self.head != Head::Trigger || self.seen_end
    }

    fn add(&mut self, token: &Token<'_>) {
        self.end = token.start + token.text.len();
        self.head = match self.head {
            Head::Start if token.is("explain") => Head::Explain,
            Head::Start | Head::Explain if token.is("create") => Head::Create,
            Head::Explain if token.is("query") || token.is("plan") => Head::Explain,
            Head::Create if token.is("temp") || token.is("temporary") => Head::Create,
            Head::Create if token.is("trigger") => Head::Trigger,
            Head::Trigger => Head::Trigger,
            _ => Head::Other,
        };
        self.seen_end = self.seen_semicolon && token.is("end");
        self.seen_semicolon = token.kind == Kind::Symbol(';');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_at_semicolons_that_count() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" ;; -- nothing\n /* ; */ ;", &[]),
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"]),
            ("/* a */ SELECT ';' -- ; b\n; x", &["SELECT ';'", "x"]),
            ("SELECT 'it''s;', \"a;\"\";\", [b;], `c;`; y", &["SELECT 'it''s;', \"a;\"\";\", [b;], `c;`", "y"]),
            ("SELECT 'open; never closed", &["SELECT 'open; never closed"]),
            ("SELECT 1 /* open ; ", &["SELECT 1"]),
            ("end; begin", &["end", "begin"]),
            ("SELECT 'ß;ü'; é", &["SELECT 'ß;ü'", "é"]),
        ];
        for (sql, expected) in cases {
            assert_eq!(split(sql), *expected, "{sql}");
        }
    }

    #[test]
    fn a_trigger_stays_whole() {
        let trigger = "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET b = CASE WHEN 1 THEN 2 END; \
                       SELECT 1; -- end;\n END";
        assert_eq!(split(&format!("{trigger}; SELECT 2")), [trigger, "SELECT 2"]);
        let plain = "CREATE TRIGGER \"end\" AFTER INSERT ON a BEGIN DELETE FROM b;END";
        assert_eq!(split(&format!("SELECT 1;{plain};")), ["SELECT 1", plain]);
        assert_eq!(split("CREATE TABLE trigger (a); END;"), ["CREATE TABLE trigger (a)", "END"]);
    }

    #[test]
    fn names_fold_unless_quoted() {
        let names = |sql| tokens(sql).map(|token| token.name()).collect::<Vec<_>>();
        assert_eq!(names("Ab \"C\"\"d\" [e] `F`"), ["ab", "C\"d", "e", "F"].map(|name| Some(name.to_owned())));
        assert_eq!(names("1 ;"), [None, None]);
    }
}
