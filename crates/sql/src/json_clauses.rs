//! The clauses of SQL's JSON functions, which sqlparser does not read, as arguments, in tokens:
//!
//! - `JSON_VALUE(j, p RETURNING t DEFAULT d ON EMPTY)` → `JSON_VALUE(j, p, CAST(NULL AS t), 'default', d, 'null', NULL)`
//! - `JSON_QUERY(j, p WITH WRAPPER)` → `JSON_QUERY(j, p, 'unconditional', 'null', 'null')`
//! - `JSON_EXISTS(j, p TRUE ON ERROR)` → `JSON_EXISTS(j, p, 'true')`
//! - `JSON_OBJECT(KEY k VALUE v ABSENT ON NULL)` → `JSON_OBJECT('absent', k, v)`, `JSON_ARRAY` likewise
//! - `x IS JSON OBJECT` → `x IS NOT DISTINCT FROM __is_json('object')`
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use crate::cursor::Cursor;
use crate::error::{Mistake, Result};
use crate::lex::{self, Tokens, is_word, word};
use crate::types;

/// The pseudo function that carries what `IS JSON` asks for.
pub(crate) const IS_JSON: &str = "__is_json";

const FUNCTIONS: [&str; 5] = ["json_value", "json_query", "json_exists", "json_object", "json_array"];

/// The tokens with all clauses made arguments.
pub(crate) fn as_arguments(tokens: &[TokenWithSpan]) -> Result<Tokens> {
    // Nearly no statement has any.
    let concerns = |t: &TokenWithSpan| word(&t.token).is_some_and(|w| w.value.to_lowercase().starts_with("json"));
    match tokens.iter().any(concerns) {
        true => rewritten(tokens),
        false => Ok(tokens.to_vec()),
    }
}

fn rewritten(tokens: &[TokenWithSpan]) -> Result<Tokens> {
    let mut out = Tokens::with_capacity(tokens.len() + 8);
    let mut i = 0;
    while let Some(token) = tokens.get(i) {
        let name = word(&token.token).filter(|w| w.quote_style.is_none()).map(|w| w.value.to_lowercase());
        let function = name.and_then(|n| FUNCTIONS.into_iter().find(|f| *f == n));
        let is_call = tokens.get(i + 1).is_some_and(|t| t.token == Token::LParen);
        if let (Some(function), true) = (function, is_call)
            && let Some(close) = closing(tokens, i + 1)
        {
            out.extend_from_slice(&tokens[i..i + 2]);
            let writer = &mut Writer { out: &mut out, span: token.span };
            call(function, &tokens[i + 2..close], writer)?;
            out.push(tokens[close].clone());
            i = close + 1;
            continue;
        }
        if let Some((negated, after)) = is_json(tokens, i) {
            let kinds = ["value", "scalar", "array", "object"];
            let asked = tokens.get(after).and_then(|t| kinds.into_iter().find(|k| is_word(&t.token, k)));
            let mut writer = Writer { out: &mut out, span: token.span };
            let words: &[&str] = if negated { &["IS", "DISTINCT", "FROM"] } else { &["IS", "NOT", "DISTINCT", "FROM"] };
            words.iter().for_each(|w| writer.word(w));
            writer.word(IS_JSON);
            writer.token(Token::LParen);
            writer.text(asked.unwrap_or("value"));
            writer.token(Token::RParen);
            i = after + usize::from(asked.is_some());
            continue;
        }
        out.push(token.clone());
        i += 1;
    }
    Ok(out)
}

/// Whether `IS [NOT] JSON` stands here: negated, and where it ends.
fn is_json(tokens: &[TokenWithSpan], i: usize) -> Option<(bool, usize)> {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|t| is_word(&t.token, text));
    match is(i, "IS") {
        true if is(i + 1, "JSON") => Some((false, i + 2)),
        true if is(i + 1, "NOT") && is(i + 2, "JSON") => Some((true, i + 3)),
        _ => None,
    }
}

fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return Some(i),
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Places of the tokens outside inner brackets.
fn outer(tokens: &[TokenWithSpan]) -> Vec<usize> {
    let mut depth = 0_usize;
    let mut places = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
            _ if depth == 0 => places.push(i),
            _ => {}
        }
    }
    places
}

/// Appends tokens that stand where `span` is.
struct Writer<'a> {
    out: &'a mut Tokens,
    span: Span,
}

impl Writer<'_> {
    fn token(&mut self, token: Token) {
        self.out.push(TokenWithSpan { token, span: self.span });
    }

    fn word(&mut self, text: &str) {
        let keyword = match text {
            "IS" => Keyword::IS,
            "NOT" => Keyword::NOT,
            "DISTINCT" => Keyword::DISTINCT,
            "FROM" => Keyword::FROM,
            "NULL" => Keyword::NULL,
            "CAST" => Keyword::CAST,
            "AS" => Keyword::AS,
            _ => Keyword::NoKeyword,
        };
        self.token(Token::Word(Word { value: text.to_owned(), quote_style: None, keyword }));
    }

    fn text(&mut self, text: &str) {
        self.token(Token::SingleQuotedString(text.to_owned()));
    }

    /// `, 'text'`
    fn argument(&mut self, text: &str) {
        self.token(Token::Comma);
        self.text(text);
    }
}

fn call(function: &str, inside: &[TokenWithSpan], writer: &mut Writer<'_>) -> Result<()> {
    if matches!(function, "json_object" | "json_array") {
        return constructor(function == "json_object", inside, writer);
    }
    let places = outer(inside);
    let comma = places.iter().copied().find(|i| inside[*i].token == Token::Comma);
    // The path is one token or a call; what follows begins with one of these.
    let begins = [
        "RETURNING",
        "NULL",
        "ERROR",
        "DEFAULT",
        "EMPTY",
        "WITH",
        "WITHOUT",
        "TRUE",
        "FALSE",
        "UNKNOWN",
        "PASSING",
        "KEEP",
        "OMIT",
    ];
    let clauses = places.iter().copied().find(|i| {
        let after_path = comma.is_some_and(|c| *i > c + 1);
        after_path && begins.iter().any(|b| is_word(&inside[*i].token, b))
    });
    let Some(at) = clauses else {
        writer.out.extend(rewritten(inside)?);
        return Ok(());
    };
    writer.out.extend(rewritten(&inside[..at])?);
    let mut cursor = Cursor::new(&inside[at..]);
    match function {
        "json_value" => value_clauses(&mut cursor, writer)?,
        "json_query" => query_clauses(&mut cursor, writer)?,
        _ => exists_clauses(&mut cursor, writer)?,
    }
    if cursor.is_done() { Ok(()) } else { Err(cursor.expected("')'")) }
}

fn value_clauses(cursor: &mut Cursor<'_>, writer: &mut Writer<'_>) -> Result<()> {
    let returning =
        if cursor.take_words(&["RETURNING"]) { types::name(&types::parse(cursor)?) } else { "STRING".to_owned() };
    writer.token(Token::Comma);
    writer.word("CAST");
    writer.token(Token::LParen);
    writer.word("NULL");
    writer.word("AS");
    for token in lex::statements(&returning)?.into_iter().flatten() {
        writer.token(token.token);
    }
    writer.token(Token::RParen);
    for event in ["EMPTY", "ERROR"] {
        let at = cursor.at();
        if cursor.take_words(&["NULL", "ON", event]) {
            writer.argument("null");
        } else if cursor.take_words(&["ERROR", "ON", event]) {
            writer.argument("error");
        } else if let Some(default) = default_on(cursor, event) {
            if default.is_empty() {
                return Err(Mistake::new(at, "expected a value after DEFAULT"));
            }
            writer.argument("default");
            writer.token(Token::Comma);
            writer.token(Token::LParen);
            writer.out.extend(rewritten(default)?);
            writer.token(Token::RParen);
            continue;
        } else {
            writer.argument("null");
        }
        writer.token(Token::Comma);
        writer.word("NULL");
    }
    Ok(())
}

/// `DEFAULT … ON event`: what stands between.
fn default_on<'a>(cursor: &mut Cursor<'a>, event: &str) -> Option<&'a [TokenWithSpan]> {
    let rest = cursor.rest();
    if !rest.first().is_some_and(|t| is_word(&t.token, "DEFAULT")) {
        return None;
    }
    let on = outer(rest).into_iter().find(|i| is_word(&rest[*i].token, "ON"))?;
    if !rest.get(on + 1).is_some_and(|t| is_word(&t.token, event)) {
        return None;
    }
    (0..on + 2).for_each(|_| cursor.advance());
    Some(&rest[1..on])
}

fn query_clauses(cursor: &mut Cursor<'_>, writer: &mut Writer<'_>) -> Result<()> {
    if cursor.take_words(&["RETURNING"]) {
        let at = cursor.at();
        if types::parse(cursor)? != arrow::datatypes::DataType::Utf8 {
            return Err(Mistake::new(at, "JSON_QUERY gives a text").hint("read it with from_json(…, 'ARRAY<STRING>')"));
        }
    }
    let wrapper = if cursor.take_words(&["WITHOUT"]) {
        "without"
    } else if cursor.take_words(&["WITH"]) {
        match cursor.take_words(&["CONDITIONAL"]) {
            true => "conditional",
            false => {
                cursor.take_words(&["UNCONDITIONAL"]);
                "unconditional"
            }
        }
    } else {
        ""
    };
    if !wrapper.is_empty() {
        cursor.take_words(&["ARRAY"]);
        cursor.expect_words(&["WRAPPER"])?;
    }
    writer.argument(if wrapper.is_empty() { "without" } else { wrapper });
    for event in ["EMPTY", "ERROR"] {
        let instead = [
            ("null", &["NULL"][..]),
            ("empty array", &["EMPTY", "ARRAY"]),
            ("empty object", &["EMPTY", "OBJECT"]),
            ("error", &["ERROR"]),
        ];
        let found = instead.into_iter().find(|(_, words)| {
            let words: Vec<&str> = words.iter().copied().chain(["ON", event]).collect();
            cursor.take_words(&words)
        });
        writer.argument(found.map_or("null", |(name, _)| name));
    }
    Ok(())
}

fn exists_clauses(cursor: &mut Cursor<'_>, writer: &mut Writer<'_>) -> Result<()> {
    for (name, word) in [("true", "TRUE"), ("false", "FALSE"), ("unknown", "UNKNOWN"), ("error", "ERROR")] {
        if cursor.take_words(&[word, "ON", "ERROR"]) {
            writer.argument(name);
            return Ok(());
        }
    }
    Err(cursor.expected("TRUE, FALSE, UNKNOWN or ERROR ON ERROR"))
}

/// `KEY k VALUE v, …` or values, then what becomes of nulls.
fn constructor(is_object: bool, inside: &[TokenWithSpan], writer: &mut Writer<'_>) -> Result<()> {
    let ends = |first: &str| {
        let from = inside.len().checked_sub(3)?;
        let words = [first, "ON", "NULL"];
        let all = words.iter().zip(&inside[from..]).all(|(w, t)| is_word(&t.token, w));
        all.then_some(from)
    };
    let (mode, inside) = match (ends("NULL"), ends("ABSENT")) {
        (Some(at), _) => ("null", &inside[..at]),
        (_, Some(at)) => ("absent", &inside[..at]),
        _ => (if is_object { "null" } else { "absent" }, inside),
    };
    writer.text(mode);
    if inside.is_empty() {
        return Ok(());
    }
    writer.token(Token::Comma);
    let mut from = 0;
    // KEY and VALUE may also be names of columns: they are words of this syntax only where it has them.
    let mut after_key = false;
    let separates = |i: usize| inside.get(i).is_some_and(|t| is_word(&t.token, "VALUE") || t.token == Token::Colon);
    for i in outer(inside).into_iter().filter(|_| is_object) {
        let token = &inside[i].token;
        let begins = i == 0 || inside[i - 1].token == Token::Comma;
        if *token == Token::Comma {
            after_key = false;
        } else if begins && is_word(token, "KEY") && !separates(i + 1) {
            writer.out.extend(rewritten(&inside[from..i])?);
            from = i + 1;
        } else if !begins && !after_key && separates(i) {
            writer.out.extend(rewritten(&inside[from..i])?);
            writer.token(Token::Comma);
            (from, after_key) = (i + 1, true);
        }
    }
    writer.out.extend(rewritten(&inside[from..])?);
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn shown(sql: &str) -> String {
        let tokens = as_arguments(&lex::statements(sql).unwrap().remove(0)).unwrap();
        tokens.iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn clauses_become_arguments() {
        for (sql, out) in [
            ("JSON_VALUE(a, '$.b')", "JSON_VALUE ( a , '$.b' )"),
            (
                "JSON_VALUE(a, '$.b' RETURNING INT DEFAULT f(1, 2) + 1 ON EMPTY ERROR ON ERROR)",
                "JSON_VALUE ( a , '$.b' , CAST ( NULL AS INT ) , 'default' , ( f ( 1 , 2 ) + 1 ) , 'error' , NULL )",
            ),
            (
                "json_value(JSON_VALUE(a, 'x' NULL ON EMPTY), p DEFAULT 'd' ON ERROR)",
                "json_value ( JSON_VALUE ( a , 'x' , CAST ( NULL AS STRING ) , 'null' , NULL , 'null' , NULL ) , p , CAST ( NULL AS STRING ) , 'null' , NULL , 'default' , ( 'd' ) )",
            ),
            (
                "JSON_QUERY(a, '$' WITH CONDITIONAL ARRAY WRAPPER EMPTY ARRAY ON ERROR)",
                "JSON_QUERY ( a , '$' , 'conditional' , 'null' , 'empty array' )",
            ),
            ("JSON_QUERY(a, '$' WITH WRAPPER)", "JSON_QUERY ( a , '$' , 'unconditional' , 'null' , 'null' )"),
            ("JSON_EXISTS(a, 'lax $.b' TRUE ON ERROR)", "JSON_EXISTS ( a , 'lax $.b' , 'true' )"),
            (
                "a IS JSON OBJECT AND b IS NOT JSON",
                "a IS NOT DISTINCT FROM __is_json ( 'object' ) AND b IS DISTINCT FROM __is_json ( 'value' )",
            ),
            ("JSON_OBJECT()", "JSON_OBJECT ( 'null' )"),
            (
                "JSON_OBJECT(KEY 'a' VALUE 1, 'b' VALUE JSON_ARRAY(x, NULL NULL ON NULL) ABSENT ON NULL)",
                "JSON_OBJECT ( 'absent' , 'a' , 1 , 'b' , JSON_ARRAY ( 'null' , x , NULL ) )",
            ),
            ("JSON_OBJECT('a': 1)", "JSON_OBJECT ( 'null' , 'a' , 1 )"),
            ("JSON_OBJECT(key VALUE value, KEY key VALUE 1)", "JSON_OBJECT ( 'null' , key , value , key , 1 )"),
        ] {
            assert_eq!(shown(sql), out);
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        for (sql, part) in [
            ("JSON_VALUE(a, '$' RETURNING STRNG)", "unknown type"),
            ("JSON_VALUE(a, '$' NULL ON ERROR NULL ON EMPTY)", "expected ')'"),
            ("JSON_VALUE(a, '$' DEFAULT ON EMPTY)", "after DEFAULT"),
            ("JSON_VALUE(a, '$.x' PASSING 1 AS y)", "expected ')'"),
            ("JSON_QUERY(a, '$' RETURNING ARRAY<STRING>)", "gives a text"),
            ("JSON_EXISTS(a, '$' NULL ON ERROR)", "TRUE, FALSE"),
        ] {
            let mistake = as_arguments(&lex::statements(sql).unwrap().remove(0)).unwrap_err();
            assert!(mistake.message.contains(part) && mistake.at.is_some(), "{sql}: {mistake:?}");
        }
    }
}
