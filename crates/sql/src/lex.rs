//! Text into statements of tokens, each with its place in the text. Comments and white space are gone after this.
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

use crate::dialect::StreamingDialect;
use crate::error::{Mistake, Result};

/// Deeper brackets are refused before any recursive parser sees them.
const MAX_DEPTH: usize = 40;
/// Longer statements are refused: every later step is at least linear in this.
const MAX_TOKENS: usize = 50_000;

/// One statement without its semicolon; never empty.
pub(crate) type Tokens = Vec<TokenWithSpan>;

/// Cuts `sql` at semicolons.
pub(crate) fn statements(sql: &str) -> Result<Vec<Tokens>> {
    let tokens = Tokenizer::new(&StreamingDialect { table_versions: false }, sql)
        .tokenize_with_location()
        .map_err(|e| Mistake::new(e.location, e.message.to_lowercase()))?;
    let mut statements = vec![Tokens::new()];
    let mut open: Vec<Location> = Vec::new();
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) | Token::EOF => continue,
            Token::LParen | Token::LBracket | Token::LBrace => {
                open.push(token.span.start);
                if open.len() > MAX_DEPTH {
                    let message = format!("brackets are nested more than {MAX_DEPTH} levels deep");
                    return Err(Mistake::new(token.span.start, message).hint("split the query with CREATE VIEW"));
                }
            }
            Token::RParen | Token::RBracket | Token::RBrace if open.pop().is_none() => {
                return Err(Mistake::new(token.span.start, format!("'{}' without an opening bracket", token.token)));
            }
            Token::SemiColon => {
                if let Some(at) = open.pop() {
                    return Err(Mistake::new(at, "this bracket is not closed before the statement's ';'"));
                }
                statements.push(Tokens::new());
                continue;
            }
            _ => {}
        }
        let Some(statement) = statements.last_mut() else { continue };
        if token.token == Token::ShiftRight {
            // `>>` closes two types; there is no shift operator.
            statement.extend([token.span; 2].map(|span| TokenWithSpan { token: Token::Gt, span }));
        } else {
            if statement.len() == MAX_TOKENS {
                return Err(Mistake::new(token.span.start, format!("a statement has more than {MAX_TOKENS} words")));
            }
            statement.push(token);
        }
    }
    if let Some(at) = open.pop() {
        return Err(Mistake::new(at, "this bracket is never closed"));
    }
    statements.retain(|s| !s.is_empty());
    Ok(statements)
}

/// The word, if the token is one.
pub(crate) fn word(token: &Token) -> Option<&Word> {
    match token {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

/// True for this word, unquoted, in any case.
pub(crate) fn is_word(token: &Token, text: &str) -> bool {
    word(token).is_some_and(|w| w.quote_style.is_none() && w.value.eq_ignore_ascii_case(text))
}

/// Where the first token of `tokens` that is the unquoted word `text` stands.
pub(crate) fn find_word(tokens: &[TokenWithSpan], text: &str) -> Option<Location> {
    tokens.iter().find(|t| is_word(&t.token, text)).map(|t| t.span.start)
}

/// An identifier token with this spelling.
pub(crate) fn identifier(value: &str, like: &TokenWithSpan) -> TokenWithSpan {
    let word = Word { value: value.to_owned(), quote_style: None, keyword: Keyword::NoKeyword };
    TokenWithSpan { token: Token::Word(word), span: like.span }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_and_lose_comments() {
        let found = statements("SET 'a' = 'b'; -- one\n/* two /* nested */ */ SELECT 1;;").unwrap();
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [4, 2]);
        assert_eq!((found[1][0].span.start.line, found[1][0].span.start.column), (2, 24));
    }

    #[test]
    fn brackets_must_match_and_stay_shallow() {
        for (sql, part) in
            [("SELECT (1", "never closed"), ("SELECT (1;)", "before the statement's"), ("SELECT 1)", "opening")]
        {
            assert!(statements(sql).unwrap_err().message.contains(part), "{sql}");
        }
        assert!(statements(&"(".repeat(100_000)).unwrap_err().message.contains("nested"));
    }
}
