//! Spelling of names. An unquoted name keeps its case, as in Flink and Spark; where no such name exists but exactly one
//! differs from it only in case, that one is meant, as in Spark.
use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, Fields};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::lex::{Tokens, is_word, word};

/// Every name that a script has declared so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Lowercase to spellings.
    known: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    pub fn add(&mut self, name: &str) {
        self.known.entry(name.to_lowercase()).or_default().insert(name.to_owned());
    }

    /// The names of columns, and of the fields inside them.
    pub fn add_fields(&mut self, fields: &Fields) {
        for field in fields {
            self.add(field.name());
            self.add_type(field.data_type());
        }
    }

    /// The names of the fields inside a type.
    pub fn add_type(&mut self, data_type: &DataType) {
        match data_type {
            DataType::Struct(fields) => self.add_fields(fields),
            DataType::List(item) => self.add_type(item.data_type()),
            DataType::Map(entries, _) => self.add_type(entries.data_type()),
            _ => {}
        }
    }

    /// The declared spelling of an unquoted name.
    pub fn spelling<'a>(&'a self, name: &'a str) -> &'a str {
        match self.known.get(&name.to_lowercase()) {
            Some(spellings) if spellings.len() == 1 => spellings.first().map_or(name, String::as_str),
            _ => name,
        }
    }

    /// Replaces the unquoted names of a query by their declared spellings. Names that the query itself gives (`AS x`) count.
    pub fn respell(&self, tokens: &[TokenWithSpan]) -> Tokens {
        let mut names = self.clone();
        let definitions = definitions(tokens);
        for (i, pair) in tokens.windows(2).enumerate() {
            if is_word(&pair[0].token, "AS")
                && !definitions.iter().any(|d| d.contains(&i))
                && let Some(alias) = word(&pair[1].token)
            {
                names.add(&alias.value);
            }
        }
        // `WITH x AS (`
        for three in tokens.windows(3) {
            if let Some(name) = word(&three[0].token)
                && is_word(&three[1].token, "AS")
                && three[2].token == Token::LParen
            {
                names.add(&name.value);
            }
        }
        for name in pattern_variables(tokens) {
            names.add(name);
        }
        let mut respelled = tokens.to_vec();
        for i in 0..respelled.len() {
            let is_call = respelled.get(i + 1).is_some_and(|next| next.token == Token::LParen);
            if let Token::Word(word) = &mut respelled[i].token
                && word.quote_style.is_none()
                && !is_call
            {
                let spelling = names.spelling(&word.value);
                if spelling != word.value {
                    word.value = spelling.to_owned();
                }
            }
        }
        respelled
    }
}

/// Where the DEFINE clauses of MATCH_RECOGNIZE stand: there AS names nothing.
fn definitions(tokens: &[TokenWithSpan]) -> Vec<std::ops::Range<usize>> {
    let Some(clause) = tokens.iter().position(|t| is_word(&t.token, "MATCH_RECOGNIZE")) else { return Vec::new() };
    let begins = (clause..tokens.len()).filter(|i| is_word(&tokens[*i].token, "DEFINE"));
    let ends = |from: usize| {
        let mut depth = 1;
        (from..tokens.len()).find(|i| {
            match tokens[*i].token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            depth == 0
        })
    };
    begins.map(|from| from..ends(from).unwrap_or(tokens.len())).collect()
}

/// The words of `PATTERN (…)` in MATCH_RECOGNIZE.
fn pattern_variables(tokens: &[TokenWithSpan]) -> Vec<&str> {
    let mut found = Vec::new();
    let Some(clause) = tokens.iter().position(|t| is_word(&t.token, "MATCH_RECOGNIZE")) else { return found };
    let mut depth = 0;
    for pair in tokens[clause..].windows(2) {
        match &pair[1].token {
            Token::LParen if depth > 0 || is_word(&pair[0].token, "PATTERN") => depth += 1,
            Token::RParen if depth > 0 => depth -= 1,
            token if depth > 0 => found.extend(word(token).map(|w| w.value.as_str())),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::lex::statements;

    #[test]
    fn a_name_is_respelled_when_only_one_can_be_meant() {
        let mut names = Names::default();
        for name in ["dateTime", "price", "Price"] {
            names.add(name);
        }
        let tokens =
            statements("SELECT DATETIME, price, PRICE, `datetime`, datetime(1), x AS Total, TOTAL").unwrap().remove(0);
        let text: Vec<String> = names.respell(&tokens).iter().map(|t| t.token.to_string()).collect();
        // Variables of a pattern keep theirs.
        names.add("a");
        let pattern = "t MATCH_RECOGNIZE (MEASURES A.PRIce AS x PATTERN (A (A | B)) DEFINE b AS DATETIME > 1)";
        let respelled = names.respell(&statements(pattern).unwrap().remove(0));
        let shown: Vec<String> = respelled.iter().map(|t| t.token.to_string()).collect();
        assert!(shown.join(" ").contains("PATTERN ( A ( A | B ) ) DEFINE B AS dateTime"), "{shown:?}");
        assert_eq!(
            text.join(" "),
            "SELECT dateTime , price , PRICE , `datetime` , datetime ( 1 ) , x AS Total , Total"
        );
    }
}
