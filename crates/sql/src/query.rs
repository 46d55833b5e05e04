//! Tokens of a query into sqlparser's tree, in the shape that DataFusion plans.
use datafusion::sql::sqlparser::ast::{Expr, Query};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use crate::dialect::StreamingDialect;
use crate::error::{Mistake, Result};
use crate::lex::{self, Tokens, is_word, word};
use crate::{refuse, rewrite};

/// The pseudo function that carries `PARTITION BY` of a session window.
pub(crate) const PARTITION_BY: &str = "__partition_by";

/// sqlparser's own limit, which it counts per nested construct and not per operator.
const RECURSION: usize = 120;

/// Parses a query, refuses what no stream can do, and rewrites the dialects' own forms.
pub(crate) fn parse_query(tokens: &[TokenWithSpan]) -> Result<Query> {
    let tokens = table_arguments(tokens);
    let mut query = run(&tokens, |parser| parser.parse_query().map(|q| *q))?;
    refuse::check_query(&query, &tokens)?;
    rewrite::rewrite_query(&mut query)?;
    Ok(query)
}

/// Parses an expression of a column or a watermark.
pub(crate) fn parse_expr(tokens: &[TokenWithSpan]) -> Result<Expr> {
    let mut expr = run(tokens, |parser| parser.parse_expr())?;
    refuse::check_expr(&expr, tokens)?;
    rewrite::rewrite_expr(&mut expr);
    Ok(expr)
}

/// Words that begin a table's version can be its alias where there are no versions.
fn dialect(tokens: &[TokenWithSpan]) -> &'static StreamingDialect {
    match tokens.iter().any(|t| is_word(&t.token, "SYSTEM_TIME")) {
        true => &StreamingDialect { table_versions: true },
        false => &StreamingDialect { table_versions: false },
    }
}

fn run<T>(
    tokens: &[TokenWithSpan],
    parse: impl FnOnce(&mut Parser<'_>) -> std::result::Result<T, ParserError>,
) -> Result<T> {
    let mut parser =
        Parser::new(dialect(tokens)).with_recursion_limit(RECURSION).with_tokens_with_locations(tokens.to_vec());
    let end = tokens.last().map_or(Location { line: 0, column: 0 }, |t| t.span.end);
    let parsed = parse(&mut parser).map_err(|e| syntax(&e, end, tokens))?;
    let next = parser.peek_token();
    if next.token == Token::EOF {
        return Ok(parsed);
    }
    let mistake = Mistake::new(next.span.start, format!("unexpected '{}'", next.token));
    Err(match refuse::clause(&next.token) {
        Some((what, instead)) => {
            Mistake::new(next.span.start, format!("{what} is not supported on streams")).hint(instead)
        }
        None => mistake,
    })
}

/// sqlparser puts the place at the end of its message.
fn syntax(error: &ParserError, end: Location, tokens: &[TokenWithSpan]) -> Mistake {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => {
            return Mistake::new(tokens.first().map(|t| t.span.start), "the query is nested too deep")
                .hint("split it with CREATE VIEW");
        }
    };
    let (message, at) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => {
            let numbers = place.split_once(", Column: ").and_then(|(l, c)| Some((l.parse().ok()?, c.parse().ok()?)));
            (message, numbers.map_or(end, |(line, column)| Location { line, column }))
        }
        None => (text, end),
    };
    let message = message.replace("found: EOF", "found the end of the statement").replace("found: ", "found ");
    let message = message.replace("Expected: ", "expected ");
    let mut chars = message.chars();
    let message = chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default();
    Mistake { message, hint: None, at: Some(at) }
}

/// `TUMBLE(TABLE t, …)` → `TUMBLE(t, …)`, and `TABLE t PARTITION BY (a, b), …` → `t, __partition_by(a, b), …`: forms that
/// sqlparser does not know.
fn table_arguments(tokens: &[TokenWithSpan]) -> Tokens {
    let mut out = Tokens::with_capacity(tokens.len());
    let mut i = 0;
    while let Some(token) = tokens.get(i) {
        let next = tokens.get(i + 1).map(|t| &t.token);
        let before = out.last().map(|t| &t.token);
        let is_argument = matches!(before, Some(Token::LParen | Token::Comma | Token::RArrow));
        let names_table = match next {
            Some(Token::LParen) => {
                tokens.get(i + 2).is_some_and(|t| is_word(&t.token, "SELECT") || is_word(&t.token, "WITH"))
            }
            Some(next) => word(next).is_some(),
            None => false,
        };
        if is_word(&token.token, "TABLE") && is_argument && names_table {
            i += 1;
            continue;
        }
        let after_table = matches!(before, Some(Token::Word(_) | Token::RParen));
        if is_word(&token.token, "PARTITION") && after_table && next.is_some_and(|t| is_word(t, "BY")) {
            let span = token.span;
            let at = |token: Token| TokenWithSpan { token, span };
            out.push(at(Token::Comma));
            out.push(lex::identifier(PARTITION_BY, token));
            i += 2;
            if tokens.get(i).is_none_or(|t| t.token != Token::LParen) {
                out.push(at(Token::LParen));
                while let Some(token) = tokens.get(i).filter(|t| !matches!(t.token, Token::Comma | Token::RParen)) {
                    out.push(token.clone());
                    i += 1;
                }
                out.push(at(Token::RParen));
            }
            continue;
        }
        out.push(token.clone());
        i += 1;
    }
    out
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn shown(sql: &str) -> String {
        let tokens = lex::statements(sql).unwrap().remove(0);
        table_arguments(&tokens).iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn table_arguments_become_expressions() {
        assert_eq!(shown("TABLE(TUMBLE(TABLE t, 1))"), "TABLE ( TUMBLE ( t , 1 ) )");
        assert_eq!(shown("F(DATA => TABLE t)"), "F ( DATA => t )");
        assert_eq!(shown("F(TABLE (SELECT 1), 2)"), "F ( ( SELECT 1 ) , 2 )");
        assert_eq!(shown("F(TABLE t PARTITION BY k, 1)"), "F ( t , __partition_by ( k ) , 1 )");
        assert_eq!(shown("F(TABLE t PARTITION BY (a, b), 1)"), "F ( t , __partition_by ( a , b ) , 1 )");
        assert_eq!(shown("x OVER (PARTITION BY a)"), "x OVER ( PARTITION BY a )");
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let tokens = lex::statements("SELECT a\nFROM t WHERE").unwrap().remove(0);
        let mistake = parse_query(&tokens).unwrap_err();
        assert_eq!(mistake.at.map(|l| l.line), Some(2), "{mistake:?}");
    }
}
