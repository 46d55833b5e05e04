//! Reading tokens one by one, for the statements that are parsed here and not by sqlparser.
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use crate::error::{Mistake, Result};
use crate::lex::{is_word, word};

/// A name or literal with its place.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub text: String,
    pub at: Location,
}

/// A position in a statement.
pub(crate) struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
    next: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(tokens: &'a [TokenWithSpan]) -> Self {
        Self { tokens, next: 0 }
    }

    pub fn peek(&self) -> &'a Token {
        self.peek_at(0)
    }

    pub fn peek_at(&self, ahead: usize) -> &'a Token {
        self.tokens.get(self.next + ahead).map_or(&Token::EOF, |t| &t.token)
    }

    /// Where the next token stands; after the last one at the end of the statement.
    pub fn at(&self) -> Location {
        match (self.tokens.get(self.next), self.tokens.last()) {
            (Some(token), _) => token.span.start,
            (None, Some(last)) => last.span.end,
            (None, None) => Location { line: 0, column: 0 },
        }
    }

    pub fn is_done(&self) -> bool {
        self.next >= self.tokens.len()
    }

    pub fn advance(&mut self) {
        self.next += 1;
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [TokenWithSpan] {
        &self.tokens[self.next.min(self.tokens.len())..]
    }

    /// Reads `token` if it is next.
    pub fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == token;
        self.next += usize::from(found);
        found
    }

    /// Reads these words if they are next.
    pub fn take_words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(i, w)| is_word(self.peek_at(i), w));
        if found {
            self.next += words.len();
        }
        found
    }

    pub fn expect(&mut self, token: &Token) -> Result<()> {
        if self.take(token) { Ok(()) } else { Err(self.expected(&format!("'{token}'"))) }
    }

    pub fn expect_words(&mut self, words: &[&str]) -> Result<()> {
        if self.take_words(words) { Ok(()) } else { Err(self.expected(&words.join(" "))) }
    }

    /// A mistake at the next token.
    pub fn expected(&self, what: &str) -> Mistake {
        let found = match self.peek() {
            Token::EOF => "the end of the statement".to_owned(),
            token => format!("'{token}'"),
        };
        Mistake::new(self.at(), format!("expected {what}, found {found}"))
    }

    /// An identifier.
    pub fn name(&mut self, what: &str) -> Result<Name> {
        let at = self.at();
        match word(self.peek()) {
            Some(word) => {
                let name = Name { text: word.value.clone(), at };
                self.advance();
                Ok(name)
            }
            None => Err(self.expected(what)),
        }
    }

    /// A string in single quotes.
    pub fn string(&mut self, what: &str) -> Result<Name> {
        let at = self.at();
        match self.peek() {
            Token::SingleQuotedString(text) => {
                self.advance();
                Ok(Name { text: text.clone(), at })
            }
            _ => Err(self.expected(what)),
        }
    }

    /// An unsigned whole number.
    pub fn number(&mut self, what: &str) -> Result<u64> {
        match self.peek() {
            Token::Number(digits, _) => match digits.parse() {
                Ok(number) => {
                    self.advance();
                    Ok(number)
                }
                Err(_) => Err(self.expected(what)),
            },
            _ => Err(self.expected(what)),
        }
    }

    /// The tokens up to the comma or closing bracket that ends the current item of a list. Not empty.
    pub fn item(&mut self, what: &str) -> Result<&'a [TokenWithSpan]> {
        let from = self.next;
        let mut depth = 0_usize;
        while let Some(token) = self.tokens.get(self.next) {
            match token.token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket if depth == 0 => break,
                Token::RParen | Token::RBracket => depth -= 1,
                Token::Comma if depth == 0 => break,
                _ => {}
            }
            self.next += 1;
        }
        if from == self.next { Err(self.expected(what)) } else { Ok(&self.tokens[from..self.next]) }
    }

    /// `( name, name, … )`
    pub fn names(&mut self, what: &str) -> Result<Vec<Name>> {
        self.expect(&Token::LParen)?;
        let mut names = vec![self.name(what)?];
        while self.take(&Token::Comma) {
            names.push(self.name(what)?);
        }
        self.expect(&Token::RParen)?;
        Ok(names)
    }
}
