//! One value into its column.
use arrow::datatypes::TimeUnit;

use super::cursor::{Cursor, MAX_DEPTH, too_deep};
use super::fault::{Fault, Parsed, excerpt};
use super::node::{FieldNode, ListNode, MapNode, Node, StructNode};
use crate::column::{Scalar, set_bool};
use crate::text::number::{scan, short_integer};

impl FieldNode {
    /// Decodes the value at the cursor into `row`, `depth` levels down. With `lenient`, a value that does not fit is
    /// null.
    #[inline]
    pub(crate) fn decode(&mut self, cursor: &mut Cursor<'_>, row: usize, depth: u32, lenient: bool) -> Parsed<()> {
        let start = cursor.at;
        let Err(fault) = self.decode_value(cursor, row, depth, lenient) else { return Ok(()) };
        if lenient && fault.is_value() {
            cursor.at = start;
            self.node.clear(row, row + 1);
            return cursor.skip_value(depth).map_err(|f| f.inside(self.field.name()));
        }
        Err(fault.inside(self.field.name()))
    }

    #[inline]
    fn decode_value(&mut self, cursor: &mut Cursor<'_>, row: usize, depth: u32, lenient: bool) -> Parsed<()> {
        if cursor.peek() == b'n' && cursor.take_null() {
            if self.node.is_set(row) {
                self.node.clear(row, row + 1);
            }
            return Ok(());
        }
        match &mut self.node {
            Node::Scalar(scalar) => scalar_value(scalar, &self.type_name, cursor, row, depth),
            Node::Struct(node) => {
                if cursor.peek() != b'{' {
                    return Err(cursor.wrong_type(&self.type_name));
                }
                if node.valid.get(row) {
                    node.clear(row, row + 1);
                }
                node.decode(cursor, row, depth, lenient)?;
                node.valid.set(row);
                Ok(())
            }
            Node::List(node) => {
                if cursor.peek() != b'[' {
                    return Err(cursor.wrong_type(&self.type_name));
                }
                if node.spans.valid.get(row) {
                    self.node.clear(row, row + 1);
                    return self.decode_value(cursor, row, depth, lenient);
                }
                node.decode(cursor, row, depth, lenient)
            }
            Node::Map(node) => {
                if cursor.peek() != b'{' {
                    return Err(cursor.wrong_type(&self.type_name));
                }
                if node.spans.valid.get(row) {
                    self.node.clear(row, row + 1);
                    return self.decode_value(cursor, row, depth, lenient);
                }
                node.decode(cursor, row, depth, lenient, &self.type_name)
            }
        }
    }

    #[cold]
    fn missing(&self, at: usize) -> Box<Fault> {
        Fault::value(at, format!("null or missing, but {} NOT NULL is declared", self.type_name))
            .inside(self.field.name())
    }
}

/// Takes a comma (true) or `close` (false).
#[inline]
pub(crate) fn goes_on(cursor: &mut Cursor<'_>, close: u8, expected: &str) -> Parsed<bool> {
    cursor.skip_space();
    let byte = cursor.peek();
    if byte != b',' && byte != close {
        return Err(cursor.unexpected(expected));
    }
    cursor.at += 1;
    if byte == b',' {
        cursor.skip_space();
    }
    Ok(byte == b',')
}

/// Takes the opening bracket at the cursor; false if `close` follows, which is taken too.
#[inline]
pub(crate) fn opens(cursor: &mut Cursor<'_>, close: u8) -> bool {
    cursor.at += 1;
    cursor.skip_space();
    let empty = cursor.peek() == close;
    cursor.at += usize::from(empty);
    !empty
}

impl StructNode {
    /// Decodes the object that begins at the cursor.
    fn decode(&mut self, cursor: &mut Cursor<'_>, row: usize, depth: u32, lenient: bool) -> Parsed<()> {
        if depth >= MAX_DEPTH {
            return Err(too_deep(cursor.at));
        }
        let mut slot = 0;
        let mut more = opens(cursor, b'}');
        while more {
            let field = self.keys.take(cursor, &mut slot)?;
            cursor.skip_space();
            match field {
                Some(field) => self.decode_field(field as usize, cursor, row, depth + 1, lenient)?,
                None => cursor.skip_value(depth + 1)?,
            }
            more = goes_on(cursor, b'}', "a comma or the end of the object")?;
        }
        self.check_required(row, cursor.at)
    }

    #[inline]
    pub(crate) fn decode_field(
        &mut self,
        field: usize,
        cursor: &mut Cursor<'_>,
        row: usize,
        depth: u32,
        lenient: bool,
    ) -> Parsed<()> {
        if let Some(seen) = self.seen.get_mut(field) {
            *seen = row + 1;
        }
        self.fields[field].decode(cursor, row, depth, lenient)
    }

    /// Checks what can only be known at the end of the object.
    #[inline]
    pub(crate) fn check_required(&self, row: usize, at: usize) -> Parsed<()> {
        if self.any_required
            && let Some(field) = self.fields.iter().find(|f| f.required && !f.node.is_set(row))
        {
            return Err(field.missing(at));
        }
        match self.seen.iter().position(|s| *s != row + 1) {
            Some(field) => Err(Fault::value(at, "the field is missing").inside(self.fields[field].field.name())),
            None => Ok(()),
        }
    }
}

impl ListNode {
    fn decode(&mut self, cursor: &mut Cursor<'_>, row: usize, depth: u32, lenient: bool) -> Parsed<()> {
        if depth >= MAX_DEPTH {
            return Err(too_deep(cursor.at));
        }
        let mut element = self.spans.begin(row);
        let mut more = opens(cursor, b']');
        while more {
            self.spans.touch(element + 1);
            self.element.decode(cursor, element, depth + 1, lenient)?;
            if self.element.required && !self.element.node.is_set(element) {
                return Err(self.element.missing(cursor.at));
            }
            element += 1;
            more = goes_on(cursor, b']', "a comma or the end of the array")?;
        }
        self.spans.end(row, element);
        Ok(())
    }
}

impl MapNode {
    fn decode(&mut self, cursor: &mut Cursor<'_>, row: usize, depth: u32, lenient: bool, name: &str) -> Parsed<()> {
        if depth >= MAX_DEPTH {
            return Err(too_deep(cursor.at));
        }
        let first = self.spans.begin(row);
        let mut end = first;
        self.keys.clear();
        let mut more = opens(cursor, b'}');
        while more {
            let at = cursor.at;
            if cursor.peek() != b'"' {
                return Err(cursor.unexpected("a key"));
            }
            cursor.at += 1;
            self.scratch.clear();
            cursor.take_string(&mut self.scratch)?;
            cursor.skip_space();
            if cursor.peek() != b':' {
                return Err(cursor.unexpected("a colon"));
            }
            cursor.at += 1;
            cursor.skip_space();
            if !self.keys.insert(self.scratch.clone()) {
                return Err(Fault::value(at, format!("duplicate key {} in a map", excerpt(&self.scratch))));
            }
            self.spans.touch(end + 1);
            self.key.set_text(end, &self.scratch).map_err(|m| Fault::misfit(at, m, name, &self.scratch))?;
            self.value.decode(cursor, end, depth + 1, lenient)?;
            if self.value.required && !self.value.node.is_set(end) {
                return Err(self.value.missing(cursor.at));
            }
            end += 1;
            more = goes_on(cursor, b'}', "a comma or the end of the object")?;
        }
        self.spans.end(row, end);
        Ok(())
    }
}

/// Decodes a value that is not null and not nested in the schema.
#[inline]
fn scalar_value(scalar: &mut Scalar, name: &str, cursor: &mut Cursor<'_>, row: usize, depth: u32) -> Parsed<()> {
    let first = cursor.peek();
    match scalar {
        Scalar::Int(range, words) if first.is_ascii_digit() => {
            if let Some((magnitude, end)) = short_integer(cursor.bytes, cursor.at)
                && let Ok(value) = range.fit(false, magnitude)
            {
                words.set(row, value);
                cursor.at = end;
                return Ok(());
            }
        }
        Scalar::Text(bytes) if first == b'"' => {
            cursor.at += 1;
            if let Some(text) = cursor.take_plain() {
                bytes.push(row, text);
                return Ok(());
            }
            bytes.begin(row);
            cursor.take_string(bytes.data())?;
            bytes.end(row);
            return Ok(());
        }
        Scalar::Timestamp(TimeUnit::Millisecond, cache, words) if first == b'"' => {
            if let Some(millis) = cache.millis(&cursor.bytes[cursor.at + 1..]) {
                words.set(row, millis);
                // The quotes and 23 characters.
                cursor.at += 25;
                return Ok(());
            }
        }
        _ => {}
    }
    any_scalar(scalar, name, cursor, row, depth)
}

/// As [`scalar_value`], for every form that is accepted.
#[inline(never)]
fn any_scalar(scalar: &mut Scalar, name: &str, cursor: &mut Cursor<'_>, row: usize, depth: u32) -> Parsed<()> {
    let start = cursor.at;
    match (cursor.peek(), scalar) {
        (b'"', scalar) => {
            cursor.at += 1;
            let mut unescaped = Vec::new();
            let text = match cursor.take_plain() {
                Some(text) => text,
                None => {
                    cursor.take_string(&mut unescaped)?;
                    &unescaped
                }
            };
            scalar.set_text(row, text).map_err(|m| Fault::misfit(start, m, name, text))
        }
        (b'-' | b'0'..=b'9', scalar) => {
            let Some(number) = scan(&cursor.bytes[start..]) else {
                return Err(Fault::syntax(start, "not a number as JSON has them"));
            };
            cursor.at += number.len;
            let token = &cursor.bytes[start..cursor.at];
            scalar.set_number(row, &number, token).map_err(|m| Fault::misfit(start, m, name, token))
        }
        (b't' | b'f', Scalar::Bool(values, valid)) => match cursor.take_bool() {
            Some(value) => {
                set_bool(values, valid, row, value);
                Ok(())
            }
            None => Err(cursor.unexpected("a value")),
        },
        (b't' | b'f' | b'{' | b'[', Scalar::Text(bytes)) => {
            cursor.skip_value(depth)?;
            let text = &cursor.bytes[start..cursor.at];
            if std::str::from_utf8(text).is_err() {
                return Err(Fault::value(start, "the text is not valid UTF-8"));
            }
            bytes.push(row, text);
            Ok(())
        }
        (_, _) => Err(cursor.wrong_type(name)),
    }
}
