//! SQLite's grammar for the parser, with what the parser's own idea of it lacks.

use std::any::TypeId;

use sqlparser::ast::{Expr, Statement};
use sqlparser::dialect::{Dialect, SQLiteDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// The parser's SQLite, and `<<`, `>>`, `x IS y`, `INSERT INTO t AS u`.
#[derive(Debug, Default)]
pub(super) struct Sqlite(SQLiteDialect);

impl Sqlite {
    /// What may follow IS that the parser itself knows.
    const BEHIND_IS: &[Keyword] = &[
        Keyword::NULL,
        Keyword::TRUE,
        Keyword::FALSE,
        Keyword::UNKNOWN,
        Keyword::DISTINCT,
        Keyword::JSON,
        Keyword::NORMALIZED,
    ];
}

impl Dialect for Sqlite {
    fn dialect(&self) -> TypeId {
        self.0.dialect()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.0.is_delimited_identifier_start(ch)
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.0.identifier_quote_style(identifier)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        self.0.supports_filter_during_aggregation()
    }

    fn supports_start_transaction_modifier(&self) -> bool {
        self.0.supports_start_transaction_modifier()
    }

    fn supports_in_empty_list(&self) -> bool {
        self.0.supports_in_empty_list()
    }

    fn supports_limit_comma(&self) -> bool {
        self.0.supports_limit_comma()
    }

    fn supports_asc_desc_in_column_definition(&self) -> bool {
        self.0.supports_asc_desc_in_column_definition()
    }

    fn supports_dollar_placeholder(&self) -> bool {
        self.0.supports_dollar_placeholder()
    }

    fn supports_notnull_operator(&self) -> bool {
        self.0.supports_notnull_operator()
    }

    fn supports_comma_separated_trim(&self) -> bool {
        self.0.supports_comma_separated_trim()
    }

    fn supports_numeric_literal_underscores(&self) -> bool {
        self.0.supports_numeric_literal_underscores()
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }

    fn supports_insert_table_alias(&self) -> bool {
        true
    }

    fn parse_statement(&self, parser: &mut Parser<'_>) -> Option<Result<Statement, ParserError>> {
        self.0.parse_statement(parser)
    }

    fn parse_infix(&self, parser: &mut Parser<'_>, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        if let Some(parsed) = self.0.parse_infix(parser, expr, precedence) {
            return Some(parsed);
        }
        let keyword = |ahead: usize| match &parser.peek_nth_token_ref(ahead).token {
            Token::Word(word) => word.keyword,
            _ => Keyword::NoKeyword,
        };
        if keyword(0) != Keyword::IS {
            return None;
        }
        let negated = keyword(1) == Keyword::NOT;
        let words = 1 + usize::from(negated);
        if Self::BEHIND_IS.contains(&keyword(words)) {
            return None;
        }
        for _ in 0..words {
            parser.next_token();
        }
        let left = Box::new(expr.clone());
        Some(parser.parse_subexpr(precedence).map(|right| match negated {
            true => Expr::IsDistinctFrom(left, Box::new(right)),
            false => Expr::IsNotDistinctFrom(left, Box::new(right)),
        }))
    }
}
