//! The statements about the cluster, and what they are in.
//!
//! ```text
//! SHOW CLUSTER | NODES | NODE <id> | SETTINGS | EVENTS | RAFT GROUPS | RAFT GROUP <id>
//! ALTER SYSTEM SET <name> {TO | =} {<value> | DEFAULT}
//! ALTER SYSTEM RESET <name>
//! ALTER RAFT GROUP <id> {ADD | REMOVE} NODE <id>
//! REMOVE NODE <id>
//! ```
//!
//! Words are those of PostgreSQL's lexical rules: comments and the case of keywords do not matter, a quoted word is none.

use mainstay::ident::{GroupId, NodeId};
use mainstay::server::pg::{SqlError, SqlState};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

/// A statement about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    Show(Shown),
    Change(Change),
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Cluster,
    Nodes,
    Node(NodeId),
    Settings,
    Events,
    RaftGroups,
    RaftGroup(GroupId),
}

/// What is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Set { name: String, value: String },
    Reset { name: String },
    SetVote { group: GroupId, node: NodeId, votes: bool },
    RemoveNode(NodeId),
}

/// The words with which a statement about the cluster can begin.
const FIRST_WORDS: [&str; 3] = ["SHOW", "ALTER", "REMOVE"];
/// No statement about the cluster is longer.
const LIMIT_BYTES: usize = 4096;

/// The statement, if it is one about the cluster.
///
/// # Errors
/// It begins like one and goes on otherwise (42601).
pub fn parse(sql: &str) -> Result<Option<Statement>, SqlError> {
    let sql = sql.trim_start();
    let end = sql.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(sql.len());
    let (first, _) = sql.split_at(end);
    let may_be = first.is_empty() || FIRST_WORDS.iter().any(|word| word.eq_ignore_ascii_case(first));
    if !may_be || sql.len() > LIMIT_BYTES {
        return Ok(None);
    }
    // What cannot be cut into words belongs to the engine, which says so.
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else { return Ok(None) };
    let is_empty = |token: &Token| matches!(token, Token::Whitespace(_) | Token::EOF);
    let mut tokens: Vec<Token> = tokens.into_iter().filter(|token| !is_empty(token)).collect();
    tokens.pop_if(|last| *last == Token::SemiColon);
    let mut words = Words { tokens: &tokens };
    let statement = match words.keyword().as_deref() {
        Some("SHOW") => words.show()?.map(Statement::Show),
        Some("ALTER") => words.alter()?.map(Statement::Change),
        Some("REMOVE") if words.take("NODE") => Some(Statement::Change(Change::RemoveNode(words.node()?))),
        _ => None,
    };
    match (statement, words.tokens.first()) {
        (Some(_), Some(_)) => Err(words.unexpected()),
        (statement, _) => Ok(statement),
    }
}

/// What is left of a statement.
struct Words<'a> {
    tokens: &'a [Token],
}

impl Words<'_> {
    fn advance(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or_default();
    }

    /// The next word in capitals, if it is an unquoted one.
    fn peek(&self) -> Option<String> {
        match self.tokens.first() {
            Some(Token::Word(word)) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
            _ => None,
        }
    }

    fn keyword(&mut self) -> Option<String> {
        let word = self.peek()?;
        self.advance();
        Some(word)
    }

    fn take(&mut self, keyword: &str) -> bool {
        let found = self.peek().is_some_and(|word| word == keyword);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, keyword: &str) -> Result<(), SqlError> {
        if self.take(keyword) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> SqlError {
        let message = self.tokens.first().map_or_else(
            || "syntax error at end of input".to_owned(),
            |token| format!("syntax error at or near \"{token}\""),
        );
        SqlError::new(SqlState::SYNTAX_ERROR, message)
    }

    fn number(&mut self) -> Result<u64, SqlError> {
        let number = match self.tokens.first() {
            Some(Token::Number(digits, _)) => digits.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.unexpected())?;
        self.advance();
        Ok(number)
    }

    fn node(&mut self) -> Result<NodeId, SqlError> {
        self.number().map(NodeId::new)
    }

    fn group(&mut self) -> Result<GroupId, SqlError> {
        self.number().map(GroupId::new)
    }

    fn show(&mut self) -> Result<Option<Shown>, SqlError> {
        let shown = match self.peek().as_deref() {
            Some("CLUSTER") => Shown::Cluster,
            Some("NODES") => Shown::Nodes,
            Some("SETTINGS") => Shown::Settings,
            Some("EVENTS") => Shown::Events,
            Some("NODE") => {
                self.advance();
                return self.node().map(Shown::Node).map(Some);
            }
            Some("RAFT") => {
                self.advance();
                if self.take("GROUPS") {
                    return Ok(Some(Shown::RaftGroups));
                }
                self.expect("GROUP")?;
                return self.group().map(Shown::RaftGroup).map(Some);
            }
            // A setting of the session.
            _ => return Ok(None),
        };
        self.advance();
        Ok(Some(shown))
    }

    fn alter(&mut self) -> Result<Option<Change>, SqlError> {
        if self.take("RAFT") {
            self.expect("GROUP")?;
            let group = self.group()?;
            let votes = self.take("ADD");
            if !votes {
                self.expect("REMOVE")?;
            }
            self.expect("NODE")?;
            return Ok(Some(Change::SetVote { group, node: self.node()?, votes }));
        }
        if !self.take("SYSTEM") {
            return Ok(None);
        }
        if self.take("RESET") {
            return Ok(Some(Change::Reset { name: self.name()? }));
        }
        self.expect("SET")?;
        let name = self.name()?;
        if matches!(self.tokens.first(), Some(Token::Eq)) {
            self.advance();
        } else {
            self.expect("TO")?;
        }
        if self.take("DEFAULT") {
            return Ok(Some(Change::Reset { name }));
        }
        Ok(Some(Change::Set { name, value: self.value()? }))
    }

    /// Words with dots between them. Settings are in lower case, unless they are quoted.
    fn name(&mut self) -> Result<String, SqlError> {
        let mut name = String::new();
        loop {
            match self.tokens.first() {
                Some(Token::Word(word)) if word.quote_style.is_some() => name.push_str(&word.value),
                Some(Token::Word(word)) => name.push_str(&word.value.to_ascii_lowercase()),
                _ => return Err(self.unexpected()),
            }
            self.advance();
            if !matches!(self.tokens.first(), Some(Token::Period)) {
                return Ok(name);
            }
            self.advance();
            name.push('.');
        }
    }

    /// A text, a number or a word.
    fn value(&mut self) -> Result<String, SqlError> {
        let value = match self.tokens.first() {
            Some(Token::SingleQuotedString(text)) => text.clone(),
            Some(Token::Number(digits, _)) => digits.clone(),
            Some(Token::Word(word)) => word.value.clone(),
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Statement {
        Statement::Change(Change::Set { name: name.into(), value: value.into() })
    }

    #[test]
    fn statements_about_the_cluster_are_understood() {
        let (group, node) = (GroupId::new(0), NodeId::new(3));
        let vote = |votes| Statement::Change(Change::SetVote { group, node, votes });
        for (sql, statement) in [
            ("SHOW CLUSTER", Statement::Show(Shown::Cluster)),
            ("  show /* all */ nodes ;", Statement::Show(Shown::Nodes)),
            ("-- who\nSHOW NODE 3", Statement::Show(Shown::Node(node))),
            ("show settings", Statement::Show(Shown::Settings)),
            ("show events", Statement::Show(Shown::Events)),
            ("SHOW RAFT GROUPS", Statement::Show(Shown::RaftGroups)),
            ("SHOW RAFT GROUP 0", Statement::Show(Shown::RaftGroup(group))),
            ("ALTER SYSTEM SET kv.quota_bytes = '512 MiB'", set("kv.quota_bytes", "512 MiB")),
            ("alter system set KV.Max_Leases to 7", set("kv.max_leases", "7")),
            ("ALTER SYSTEM SET a TO b", set("a", "b")),
            ("ALTER SYSTEM SET a.b = DEFAULT", Statement::Change(Change::Reset { name: "a.b".into() })),
            ("ALTER SYSTEM RESET a.b", Statement::Change(Change::Reset { name: "a.b".into() })),
            ("ALTER RAFT GROUP 0 ADD NODE 3", vote(true)),
            ("alter raft /* its vote */ group 0 Remove Node 3;", vote(false)),
            ("REMOVE NODE 3", Statement::Change(Change::RemoveNode(node))),
        ] {
            assert_eq!(parse(sql).unwrap(), Some(statement), "{sql}");
        }
    }

    #[test]
    fn what_is_the_engines_is_left_to_it() {
        let long = format!("SHOW CLUSTER /* {} */", "x".repeat(LIMIT_BYTES));
        for sql in [
            "",
            ";",
            "SELECT 1",
            "SHOW wal",
            "SHOW \"nodes\"",
            "ALTER TABLE system ADD COLUMN a int",
            "SHOW",
            "REMOVE x",
            "select 'SHOW NODES'",
            "SHOW 'unclosed",
            "REMOVED NODE 3",
            &long,
        ] {
            assert_eq!(parse(sql).unwrap(), None, "{sql}");
        }
    }

    #[test]
    fn what_goes_on_otherwise_is_a_syntax_error() {
        for (sql, near) in [
            ("SHOW NODE", "end of input"),
            ("SHOW NODE x", "\"x\""),
            ("SHOW NODE -1", "\"-\""),
            ("SHOW NODE 1.5", "\"1.5\""),
            ("SHOW NODE 99999999999999999999", "\"99999999999999999999\""),
            ("SHOW NODES 3", "\"3\""),
            ("SHOW NODES; SHOW CLUSTER", "\";\""),
            ("SHOW RAFT", "end of input"),
            ("ALTER SYSTEM", "end of input"),
            ("ALTER SYSTEM SET a", "end of input"),
            ("ALTER SYSTEM SET a = 1, 2", "\",\""),
            ("ALTER SYSTEM SET a. = 1", "\"=\""),
            ("ALTER RAFT GROUP 1 DROP NODE 2", "\"DROP\""),
            ("ALTER RAFT GROUP", "end of input"),
            ("ALTER RAFT GROUP metadata ADD NODE 2", "\"metadata\""),
            ("ALTER RAFT GROUP 0 ADD", "end of input"),
            ("ALTER RAFT GROUP 0 REMOVE 2", "\"2\""),
            ("ALTER RAFT GROUP 0 REMOVE NODE", "end of input"),
            ("ALTER RAFT GROUP 0 ADD NODE 2 3", "\"3\""),
            ("REMOVE NODE", "end of input"),
        ] {
            let error = parse(sql).unwrap_err();
            assert_eq!(error.state, SqlState::SYNTAX_ERROR, "{sql}");
            assert!(error.message.ends_with(near), "{sql}: {}", error.message);
        }
    }
}
