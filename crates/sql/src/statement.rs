//! The statements of a pipeline, parsed from tokens. Queries and expressions stay tokens: DataFusion's parser reads them later,
//! when names are known.
use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::tokenizer::{Location, Token};
use millstream_plan::options::did_you_mean;

use crate::cursor::{Cursor, Name};
use crate::error::{Mistake, Result};
use crate::lex::{self, Tokens};
use crate::types;

/// One statement.
#[derive(Clone, Debug)]
pub(crate) enum Statement {
    Set { key: Name, value: Name },
    Reset { key: Option<Name> },
    CreateTable(TableDef),
    CreateView(ViewDef),
    Insert(InsertDef),
}

/// `CREATE TABLE`.
#[derive(Clone, Debug)]
pub(crate) struct TableDef {
    pub name: Name,
    pub if_not_exists: bool,
    pub columns: Vec<ColumnDef>,
    pub watermark: Option<WatermarkDef>,
    pub primary_key: Vec<Name>,
    pub partitioned_by: Vec<Name>,
    /// `WITH`, in the order of the text.
    pub options: Vec<(Name, Name)>,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(crate) struct ColumnDef {
    pub name: Name,
    pub kind: ColumnKind,
}

#[derive(Clone, Debug)]
pub(crate) enum ColumnKind {
    /// Part of the record.
    Physical { data_type: DataType, nullable: bool },
    /// From beside the record; a sink skips it if it is virtual.
    Metadata { data_type: DataType, key: Name, is_virtual: bool },
    /// `name AS expr`.
    Computed { expr: Tokens },
}

/// `WATERMARK FOR column AS expr`.
#[derive(Clone, Debug)]
pub(crate) struct WatermarkDef {
    pub column: Name,
    pub expr: Tokens,
}

/// `CREATE VIEW`.
#[derive(Clone, Debug)]
pub(crate) struct ViewDef {
    pub name: Name,
    pub if_not_exists: bool,
    /// `OR REPLACE`.
    pub replaces: bool,
    pub columns: Vec<Name>,
    pub query: Tokens,
}

/// `INSERT INTO`.
#[derive(Clone, Debug)]
pub(crate) struct InsertDef {
    pub at: Location,
    pub table: Name,
    pub columns: Option<Vec<Name>>,
    pub query: Tokens,
}

/// Parses a whole file.
pub(crate) fn parse_script(sql: &str) -> Result<Vec<Statement>> {
    let mut parsed = Vec::new();
    // Flink's `EXECUTE STATEMENT SET BEGIN insert; insert; END;`
    let mut set_from = None;
    for tokens in lex::statements(sql)? {
        let mut cursor = Cursor::new(&tokens);
        let at = cursor.at();
        if cursor.take_words(&["EXECUTE", "STATEMENT", "SET", "BEGIN"])
            || cursor.take_words(&["BEGIN", "STATEMENT", "SET"])
        {
            if set_from.replace(at).is_some() {
                return Err(Mistake::new(at, "a statement set inside a statement set"));
            }
            if cursor.is_done() {
                continue;
            }
        } else if set_from.is_some() && cursor.take_words(&["END"]) && cursor.is_done() {
            set_from = None;
            continue;
        }
        let at = cursor.at();
        let statement = parse_one(&mut cursor)?;
        if set_from.is_some() && !matches!(statement, Statement::Insert(_)) {
            return Err(Mistake::new(at, "only INSERT INTO can stand in a statement set"));
        }
        parsed.push(statement);
    }
    match set_from {
        Some(at) => Err(Mistake::new(at, "this statement set has no END").hint("write END; after its last INSERT")),
        None => Ok(parsed),
    }
}

const STARTS: &[&str] = &["SET", "RESET", "CREATE", "INSERT"];

fn parse_one(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let at = cursor.at();
    if cursor.take_words(&["SET"]) {
        return set(cursor);
    }
    if cursor.take_words(&["RESET"]) {
        let key = if cursor.is_done() { None } else { Some(option_name(cursor)?) };
        end(cursor)?;
        return Ok(Statement::Reset { key });
    }
    if cursor.take_words(&["CREATE"]) {
        return create(cursor);
    }
    if cursor.take_words(&["INSERT", "INTO"]) {
        cursor.take_words(&["TABLE"]);
        return insert(cursor, at);
    }
    if cursor.take_words(&["EXECUTE", "INSERT", "INTO"]) {
        return insert(cursor, at);
    }
    Err(not_a_statement(cursor, at))
}

fn not_a_statement(cursor: &Cursor<'_>, at: Location) -> Mistake {
    let first = match cursor.peek() {
        Token::Word(word) => word.value.to_uppercase(),
        other => other.to_string(),
    };
    match first.as_str() {
        "SELECT" | "WITH" | "VALUES" | "TABLE" => Mistake::new(at, "a query must say where its rows go")
            .hint("write INSERT INTO a table before it; a table WITH ('connector' = 'print') shows rows"),
        "INSERT" => Mistake::new(at, "only INSERT INTO is possible: what has been written is not overwritten")
            .hint("write INSERT INTO"),
        "EXPLAIN" => {
            Mistake::new(at, "EXPLAIN is not a statement of a pipeline").hint("run `millstream explain -f FILE`")
        }
        "DROP" | "ALTER" | "USE" | "SHOW" | "DESCRIBE" | "ADD" | "LOAD" | "UPDATE" | "DELETE" | "MERGE"
        | "TRUNCATE" | "ANALYZE" | "CALL" => Mistake::new(at, format!("{first} is not possible in a pipeline"))
            .hint("a pipeline consists of SET, CREATE TABLE, CREATE VIEW and INSERT INTO"),
        other => {
            let mistake = Mistake::new(at, format!("expected a statement, found '{other}'"));
            match did_you_mean(other, STARTS.iter().copied()) {
                Some(like) => mistake.hint(format!("did you mean {like}?")),
                None => mistake.hint("a pipeline consists of SET, CREATE TABLE, CREATE VIEW and INSERT INTO"),
            }
        }
    }
}

fn end(cursor: &Cursor<'_>) -> Result<()> {
    if cursor.is_done() { Ok(()) } else { Err(cursor.expected("';'")) }
}

/// `'a.b' = 'c'`, or both without quotes.
fn set(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let key = option_name(cursor)?;
    cursor.expect(&Token::Eq)?;
    let at = cursor.at();
    let value = match cursor.peek() {
        Token::SingleQuotedString(_) => cursor.string("a value")?,
        Token::EOF => return Err(cursor.expected("a value")),
        _ => {
            // Without quotes the value is everything up to the semicolon: 500 ms, s3://bucket would not be one token.
            let text: Vec<String> = cursor.rest().iter().map(|t| t.token.to_string()).collect();
            while !cursor.is_done() {
                cursor.advance();
            }
            Name { text: text.join(if text.len() == 2 { " " } else { "" }), at }
        }
    };
    end(cursor)?;
    Ok(Statement::Set { key, value })
}

/// A quoted name, or words with dots and dashes.
fn option_name(cursor: &mut Cursor<'_>) -> Result<Name> {
    if let Token::SingleQuotedString(_) = cursor.peek() {
        return cursor.string("the name of an option");
    }
    let mut name = cursor.name("the name of an option in single quotes")?;
    loop {
        let joint = match cursor.peek() {
            Token::Period => '.',
            Token::Minus => '-',
            _ => return Ok(name),
        };
        cursor.advance();
        name.text.push(joint);
        name.text.push_str(&cursor.name("the rest of the option's name")?.text);
    }
}

fn create(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let replaces = cursor.take_words(&["OR", "REPLACE"]);
    let _temporary = cursor.take_words(&["TEMPORARY"]) || cursor.take_words(&["TEMP"]);
    let at = cursor.at();
    let is_table = cursor.take_words(&["TABLE"]);
    if !is_table && !cursor.take_words(&["VIEW"]) {
        let mut mistake = cursor.expected("TABLE or VIEW");
        if lex::is_word(cursor.peek(), "MATERIALIZED") {
            mistake = Mistake::new(at, "materialized views are not supported");
        }
        return Err(
            mistake.hint("write CREATE TABLE … WITH ('connector' = …) for sources and sinks, CREATE VIEW for queries")
        );
    }
    if replaces && is_table {
        return Err(Mistake::new(at, "a table cannot be replaced").hint("write CREATE TABLE without OR REPLACE"));
    }
    let if_not_exists = cursor.take_words(&["IF", "NOT", "EXISTS"]);
    let name = simple_name(cursor, if is_table { "the name of a table" } else { "the name of a view" })?;
    if is_table { table(cursor, name, if_not_exists) } else { view(cursor, name, if_not_exists, replaces) }
}

/// A name without a catalog or database before it.
fn simple_name(cursor: &mut Cursor<'_>, what: &str) -> Result<Name> {
    let name = cursor.name(what)?;
    if cursor.peek() == &Token::Period {
        return Err(
            Mistake::new(cursor.at(), "tables have no database before their name").hint("write the last name alone")
        );
    }
    Ok(name)
}

fn view(cursor: &mut Cursor<'_>, name: Name, if_not_exists: bool, replaces: bool) -> Result<Statement> {
    let columns = if cursor.peek() == &Token::LParen { cursor.names("a column's name")? } else { Vec::new() };
    if cursor.take_words(&["COMMENT"]) {
        cursor.string("a comment in single quotes")?;
    }
    cursor.expect_words(&["AS"])?;
    Ok(Statement::CreateView(ViewDef { name, if_not_exists, replaces, columns, query: query(cursor)? }))
}

fn insert(cursor: &mut Cursor<'_>, at: Location) -> Result<Statement> {
    let table = simple_name(cursor, "the name of a table")?;
    if lex::is_word(cursor.peek(), "PARTITION") {
        return Err(Mistake::new(cursor.at(), "INSERT INTO … PARTITION is not supported")
            .hint("select the partition's columns like the others"));
    }
    // `(a, b) SELECT` is a list of columns, `(SELECT …)` a query in brackets.
    let starts_query =
        |t: &Token| ["SELECT", "WITH", "FROM", "VALUES"].iter().any(|w| lex::is_word(t, w)) || *t == Token::LParen;
    let columns = match (cursor.peek(), cursor.peek_at(1)) {
        (Token::LParen, next) if !starts_query(next) => Some(cursor.names("a column's name")?),
        _ => None,
    };
    Ok(Statement::Insert(InsertDef { at, table, columns, query: query(cursor)? }))
}

fn query(cursor: &Cursor<'_>) -> Result<Tokens> {
    match cursor.rest() {
        [] => Err(cursor.expected("a query")),
        rest => Ok(rest.to_vec()),
    }
}

fn table(cursor: &mut Cursor<'_>, name: Name, if_not_exists: bool) -> Result<Statement> {
    let mut table = TableDef {
        name,
        if_not_exists,
        columns: Vec::new(),
        watermark: None,
        primary_key: Vec::new(),
        partitioned_by: Vec::new(),
        options: Vec::new(),
    };
    if lex::is_word(cursor.peek(), "LIKE") || lex::is_word(cursor.peek(), "AS") {
        return Err(cursor.expected("'(' and the table's columns").hint("declare the columns"));
    }
    cursor.expect(&Token::LParen)?;
    loop {
        table_item(cursor, &mut table)?;
        if !cursor.take(&Token::Comma) {
            break;
        }
    }
    if cursor.peek() != &Token::RParen {
        return Err(cursor.expected("',' or ')' after a column"));
    }
    cursor.advance();
    loop {
        if cursor.take_words(&["COMMENT"]) {
            cursor.string("a comment in single quotes")?;
        } else if cursor.take_words(&["PARTITIONED", "BY"]) {
            table.partitioned_by = cursor.names("a column's name")?;
        } else if cursor.take_words(&["USING"]) {
            let connector = cursor.name("a connector")?;
            table.options.push((Name { text: "connector".into(), at: connector.at }, connector));
        } else if cursor.take_words(&["WITH"])
            || cursor.take_words(&["OPTIONS"])
            || cursor.take_words(&["TBLPROPERTIES"])
        {
            options(cursor, &mut table.options)?;
        } else {
            break;
        }
    }
    if !cursor.is_done() {
        let mistake = cursor.expected("WITH, PARTITIONED BY or ';'");
        return Err(match lex::is_word(cursor.peek(), "LIKE") || lex::is_word(cursor.peek(), "DISTRIBUTED") {
            true => mistake.hint("declare the columns and options of this table"),
            false => mistake,
        });
    }
    Ok(Statement::CreateTable(table))
}

fn options(cursor: &mut Cursor<'_>, options: &mut Vec<(Name, Name)>) -> Result<()> {
    cursor.expect(&Token::LParen)?;
    if cursor.take(&Token::RParen) {
        return Ok(());
    }
    loop {
        let key = match cursor.peek() {
            // Double quotes are for names in SQL, but here nothing else can be meant.
            Token::Word(w) if w.quote_style.is_some() => cursor.name("an option")?,
            _ => option_name(cursor)?,
        };
        cursor.expect(&Token::Eq)?;
        let at = cursor.at();
        let value = match cursor.peek() {
            Token::Number(digits, _) => Name { text: digits.clone(), at },
            Token::Word(w)
                if w.quote_style.is_some()
                    || w.value.eq_ignore_ascii_case("true")
                    || w.value.eq_ignore_ascii_case("false") =>
            {
                Name { text: w.value.clone(), at }
            }
            Token::SingleQuotedString(text) => Name { text: text.clone(), at },
            _ => return Err(cursor.expected("the option's value in single quotes")),
        };
        cursor.advance();
        if options.iter().any(|(k, _)| k.text == key.text) {
            return Err(
                Mistake::new(key.at, format!("option '{}' is given twice", key.text)).hint("keep one of the two")
            );
        }
        options.push((key, value));
        if !cursor.take(&Token::Comma) {
            break;
        }
    }
    if cursor.take(&Token::RParen) { Ok(()) } else { Err(cursor.expected("',' or ')' after an option")) }
}

fn table_item(cursor: &mut Cursor<'_>, table: &mut TableDef) -> Result<()> {
    let at = cursor.at();
    if lex::is_word(cursor.peek(), "WATERMARK") && lex::is_word(cursor.peek_at(1), "FOR") {
        cursor.take_words(&["WATERMARK", "FOR"]);
        let column = cursor.name("the watermark's column")?;
        if cursor.peek() == &Token::Period {
            return Err(Mistake::new(cursor.at(), "a watermark belongs to a column, not to a field of one").hint(
                format!("declare a column, such as: event_time AS {}.…, and WATERMARK FOR event_time", column.text),
            ));
        }
        cursor.expect_words(&["AS"])?;
        if table.watermark.is_some() {
            return Err(Mistake::new(at, "a table has one watermark").hint("remove one of the two WATERMARK FOR"));
        }
        table.watermark = Some(WatermarkDef { column, expr: cursor.item("an expression")?.to_vec() });
        return Ok(());
    }
    if cursor.take_words(&["CONSTRAINT"]) {
        cursor.name("the constraint's name")?;
        return primary_key(cursor, table, at);
    }
    if lex::is_word(cursor.peek(), "PRIMARY") && lex::is_word(cursor.peek_at(1), "KEY") {
        return primary_key(cursor, table, at);
    }
    column(cursor, table)
}

fn primary_key(cursor: &mut Cursor<'_>, table: &mut TableDef, at: Location) -> Result<()> {
    if lex::is_word(cursor.peek(), "UNIQUE")
        || lex::is_word(cursor.peek(), "FOREIGN")
        || lex::is_word(cursor.peek(), "CHECK")
    {
        return Err(cursor.expected("PRIMARY KEY").hint("other constraints are not supported"));
    }
    cursor.expect_words(&["PRIMARY", "KEY"])?;
    if !table.primary_key.is_empty() {
        return Err(Mistake::new(at, "a table has one primary key"));
    }
    table.primary_key = cursor.names("a column's name")?;
    not_enforced(cursor)
}

fn not_enforced(cursor: &mut Cursor<'_>) -> Result<()> {
    if cursor.take_words(&["NOT", "ENFORCED"]) {
        return Ok(());
    }
    Err(cursor
        .expected("NOT ENFORCED")
        .hint("a primary key says how rows are keyed, it is not checked: write PRIMARY KEY (…) NOT ENFORCED"))
}

fn column(cursor: &mut Cursor<'_>, table: &mut TableDef) -> Result<()> {
    let name = cursor.name("a column")?;
    if table.columns.iter().any(|c| c.name.text == name.text) {
        return Err(Mistake::new(name.at, format!("column '{}' is declared twice", name.text)));
    }
    if cursor.take_words(&["AS"]) {
        let expr = cursor.item("an expression")?;
        // `COMMENT 'text'` may follow the expression.
        let expr = match expr {
            [expr @ .., comment, text]
                if !expr.is_empty()
                    && lex::is_word(&comment.token, "COMMENT")
                    && matches!(text.token, Token::SingleQuotedString(_)) =>
            {
                expr
            }
            expr => expr,
        };
        table.columns.push(ColumnDef { name, kind: ColumnKind::Computed { expr: expr.to_vec() } });
        return Ok(());
    }
    let data_type = types::parse(cursor)?;
    let mut nullable = true;
    let mut metadata = None;
    loop {
        let at = cursor.at();
        if cursor.take_words(&["NOT", "NULL"]) {
            nullable = false;
        } else if cursor.take_words(&["NULL"]) {
            nullable = true;
        } else if cursor.take_words(&["METADATA"]) {
            let key = if cursor.take_words(&["FROM"]) {
                cursor.string("a metadata key in single quotes")?
            } else {
                name.clone()
            };
            metadata = Some((key, cursor.take_words(&["VIRTUAL"])));
        } else if cursor.take_words(&["PRIMARY", "KEY"]) {
            if !table.primary_key.is_empty() {
                return Err(Mistake::new(at, "a table has one primary key"));
            }
            table.primary_key = vec![name.clone()];
            not_enforced(cursor)?;
        } else if cursor.take_words(&["COMMENT"]) {
            cursor.string("a comment in single quotes")?;
        } else {
            break;
        }
    }
    let kind = match metadata {
        Some((key, is_virtual)) => ColumnKind::Metadata { data_type, key, is_virtual },
        None => ColumnKind::Physical { data_type, nullable },
    };
    if !matches!(cursor.peek(), Token::Comma | Token::RParen) {
        return Err(cursor.expected("',' or ')' after a column"));
    }
    table.columns.push(ColumnDef { name, kind });
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn table_of(sql: &str) -> TableDef {
        match parse_script(sql).unwrap().remove(0) {
            Statement::CreateTable(table) => table,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_table_in_full() {
        let table = table_of(
            "CREATE TEMPORARY TABLE IF NOT EXISTS `t` (
               id BIGINT NOT NULL COMMENT 'the id', r ROW<a INT, b ROW<c STRING>>, kafka_ts TIMESTAMP(3) METADATA FROM 'timestamp' VIRTUAL,
               `partition` INT METADATA, ts AS TO_TIMESTAMP(r.b.c, 3) COMMENT 'x', proc AS PROCTIME(),
               WATERMARK FOR ts AS ts - INTERVAL '10' SECOND, PRIMARY KEY (id) NOT ENFORCED
             ) COMMENT 'orders' PARTITIONED BY (id) WITH ('connector' = 'kafka', 'n' = 5, flag = true)",
        );
        assert_eq!(table.columns.len(), 6);
        assert!(table.if_not_exists);
        assert!(matches!(&table.columns[0].kind, ColumnKind::Physical { nullable: false, .. }));
        assert!(
            matches!(&table.columns[2].kind, ColumnKind::Metadata { key, is_virtual: true, .. } if key.text == "timestamp")
        );
        assert!(
            matches!(&table.columns[3].kind, ColumnKind::Metadata { key, is_virtual: false, .. } if key.text == "partition")
        );
        assert!(matches!(&table.columns[4].kind, ColumnKind::Computed { expr } if expr.len() == 10));
        assert_eq!(table.watermark.unwrap().column.text, "ts");
        assert_eq!((table.primary_key.len(), table.partitioned_by.len()), (1, 1));
        let options: Vec<_> = table.options.iter().map(|(k, v)| (k.text.as_str(), v.text.as_str())).collect();
        assert_eq!(options, [("connector", "kafka"), ("n", "5"), ("flag", "true")]);
    }

    #[test]
    fn sets_with_and_without_quotes() {
        for (sql, key, value) in [
            ("SET 'pipeline.name' = 'a b'", "pipeline.name", "a b"),
            ("set checkpoint.interval = 10 s", "checkpoint.interval", "10 s"),
            ("SET log-x.y = 5", "log-x.y", "5"),
        ] {
            match parse_script(sql).unwrap().remove(0) {
                Statement::Set { key: k, value: v } => assert_eq!((k.text.as_str(), v.text.as_str()), (key, value)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn statement_sets_hold_inserts() {
        let sql = "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1; INSERT INTO b (x, y) SELECT 1, 2; END;";
        let statements = parse_script(sql).unwrap();
        assert_eq!(statements.len(), 2);
        assert!(matches!(&statements[1], Statement::Insert(i) if i.columns.as_ref().is_some_and(|c| c.len() == 2)));
    }
}
