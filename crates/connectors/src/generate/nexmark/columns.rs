//! Events straight into Arrow columns: only the columns and the fields of `person`, `auction` and `bid` that are asked for are made.
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, StructArray};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use millstream_plan::options::did_you_mean;

use super::event::{Auction, Bid, Generator, Kind, Person};
use super::json::credit_card;
use crate::ConnectorError;
use crate::generate::times::{is_timestamp, timestamps};

const PERSON: [&str; 8] = ["id", "name", "emailAddress", "creditCard", "city", "state", "dateTime", "extra"];
const AUCTION: [&str; 10] =
    ["id", "itemName", "description", "initialBid", "reserve", "dateTime", "expires", "seller", "category", "extra"];
const BID: [&str; 7] = ["auction", "bidder", "price", "channel", "url", "dateTime", "extra"];

/// Which columns are made, compiled once from the schema.
#[derive(Clone, Debug)]
pub struct Columns {
    schema: SchemaRef,
    wanted: Vec<Wanted>,
    /// Types of events that give a row.
    kinds: [bool; 3],
}

#[derive(Clone, Debug)]
enum Wanted {
    EventType { wide: bool },
    Record { kind: Kind, fields: Fields, members: Vec<Member> },
}

/// Index of a field in [`PERSON`], [`AUCTION`] or [`BID`], and what it holds.
#[derive(Clone, Copy, Debug)]
struct Member {
    index: usize,
    holds: Holds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Number,
    Time,
    Text,
}

impl Holds {
    fn of(kind: Kind, index: usize) -> Self {
        let names: &[&str] = names(kind);
        match (names[index], kind) {
            ("dateTime" | "expires", _) => Self::Time,
            ("id" | "initialBid" | "reserve" | "seller" | "category" | "auction" | "bidder" | "price", _) => {
                Self::Number
            }
            _ => Self::Text,
        }
    }

    fn fits(self, data_type: &DataType) -> bool {
        match self {
            Self::Number => *data_type == DataType::Int64,
            Self::Text => *data_type == DataType::Utf8,
            Self::Time => is_timestamp(data_type),
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Number => "BIGINT",
            Self::Text => "STRING",
            Self::Time => "TIMESTAMP(3)",
        }
    }
}

fn names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Person => &PERSON,
        Kind::Auction => &AUCTION,
        Kind::Bid => &BID,
    }
}

impl Columns {
    /// Columns of `schema` for the events of these types.
    ///
    /// # Errors
    /// A column or field that Nexmark does not have, or has with another type.
    pub fn new(table: &str, schema: &SchemaRef, kinds: [bool; 3]) -> Result<Self, ConnectorError> {
        let wanted = schema.fields().iter().map(|f| Wanted::new(table, f, kinds)).collect::<Result<_, _>>()?;
        Ok(Self { schema: Arc::clone(schema), wanted, kinds })
    }

    /// True if events of this type give a row.
    #[inline]
    pub fn takes(&self, kind: Kind) -> bool {
        self.kinds[kind as usize]
    }

    /// Rows for `events`, which are of types that this [takes](Self::takes): (number, event time in milliseconds).
    pub fn rows(&self, generator: &Generator, events: &[(u64, i64)]) -> Result<RecordBatch, ArrowError> {
        let arrays = self.wanted.iter().map(|w| w.array(generator, events)).collect::<Result<_, _>>()?;
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(events.len()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
    }
}

impl Wanted {
    fn new(table: &str, field: &Field, kinds: [bool; 3]) -> Result<Self, ConnectorError> {
        let name = field.name().as_str();
        let kind = match name {
            "event_type" => {
                let wide = *field.data_type() == DataType::Int64;
                return match field.data_type() {
                    DataType::Int32 | DataType::Int64 => Ok(Self::EventType { wide }),
                    other => Err(wrong_type(table, name, "INT", other)),
                };
            }
            "person" => Kind::Person,
            "auction" => Kind::Auction,
            "bid" => Kind::Bid,
            _ => return Err(unknown(table, name, &["event_type", "person", "auction", "bid"])),
        };
        let DataType::Struct(fields) = field.data_type() else {
            return Err(wrong_type(table, name, "ROW<…>", field.data_type()));
        };
        let others = (0..3).any(|k| k != kind as usize && kinds[k]);
        if others && !field.is_nullable() {
            return Err(ConnectorError::user(
                format!("table '{table}': column '{name}' is NOT NULL, but it is null in events of another type"),
                "declare it without NOT NULL",
            ));
        }
        let member = |f: &Arc<Field>| {
            let path = format!("{name}.{}", f.name());
            let Some(index) = names(kind).iter().position(|n| n == f.name()) else {
                return Err(unknown(table, &path, names(kind)));
            };
            let holds = Holds::of(kind, index);
            match holds.fits(f.data_type()) {
                true => Ok(Member { index, holds }),
                false => Err(wrong_type(table, &path, holds.sql(), f.data_type())),
            }
        };
        let members = fields.iter().map(member).collect::<Result<_, _>>()?;
        Ok(Self::Record { kind, fields: fields.clone(), members })
    }

    fn array(&self, generator: &Generator, events: &[(u64, i64)]) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::EventType { wide: false } => {
                Ok(Arc::new(Int32Array::from_iter_values(events.iter().map(|(k, _)| Generator::kind(*k) as i32))))
            }
            Self::EventType { wide: true } => {
                Ok(Arc::new(Int64Array::from_iter_values(events.iter().map(|(k, _)| Generator::kind(*k) as i64))))
            }
            Self::Record { kind, fields, members } => {
                let mut columns: Vec<Column> = members.iter().map(|m| Column::new(m.holds, events.len())).collect();
                for (k, time_ms) in events {
                    if Generator::kind(*k) == *kind {
                        append(&mut columns, members, generator, *kind, *k, *time_ms);
                    } else {
                        columns.iter_mut().for_each(Column::skip);
                    }
                }
                let valid = BooleanBuffer::collect_bool(events.len(), |i| Generator::kind(events[i].0) == *kind);
                let nulls = Some(NullBuffer::new(valid)).filter(|n| n.null_count() > 0);
                let arrays = columns
                    .into_iter()
                    .zip(fields)
                    .map(|(c, f)| c.finish(f, nulls.as_ref()))
                    .collect::<Result<_, _>>()?;
                Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), arrays, nulls, events.len())?))
            }
        }
    }
}

fn append(columns: &mut [Column], members: &[Member], generator: &Generator, kind: Kind, k: u64, time_ms: i64) {
    let members = columns.iter_mut().zip(members);
    match kind {
        Kind::Person => {
            let person = generator.person(k);
            members.for_each(|(c, m)| person_field(c, m.index, &person, time_ms));
        }
        Kind::Auction => {
            let auction = generator.auction(k, time_ms);
            members.for_each(|(c, m)| auction_field(c, m.index, &auction, time_ms));
        }
        Kind::Bid => {
            let bid = generator.bid(k);
            members.for_each(|(c, m)| bid_field(c, m.index, &bid, time_ms));
        }
    }
}

fn person_field(column: &mut Column, index: usize, p: &Person, time_ms: i64) {
    match index {
        0 => column.number(p.id),
        1 => column.texts(&[p.first_name, " ", p.last_name]),
        2 => column.text(|out| {
            p.email_user.write(out);
            out.push(b'@');
            p.email_host.write(out);
            out.extend_from_slice(b".com");
        }),
        3 => column.text(|out| credit_card(p.credit_card, out)),
        4 => column.texts(&[p.city]),
        5 => column.texts(&[p.state]),
        6 => column.number(time_ms),
        _ => column.text(|out| p.extra.write(out)),
    }
}

fn auction_field(column: &mut Column, index: usize, a: &Auction, time_ms: i64) {
    match index {
        0 => column.number(a.id),
        1 => column.text(|out| a.item_name.write(out)),
        2 => column.text(|out| a.description.write(out)),
        3 => column.number(a.initial_bid),
        4 => column.number(a.reserve),
        5 => column.number(time_ms),
        6 => column.number(a.expires_ms),
        7 => column.number(a.seller),
        8 => column.number(a.category),
        _ => column.text(|out| a.extra.write(out)),
    }
}

#[inline]
fn bid_field(column: &mut Column, index: usize, b: &Bid<'_>, time_ms: i64) {
    match index {
        0 => column.number(b.auction),
        1 => column.number(b.bidder),
        2 => column.number(b.price.value()),
        3 => column.texts(&[&b.channel.name]),
        4 => column.texts(&[&b.channel.url]),
        5 => column.number(time_ms),
        _ => column.text(|out| b.extra.write(out)),
    }
}

/// Values of one field so far.
enum Column {
    Numbers(Vec<i64>),
    Texts { bytes: Vec<u8>, ends: Vec<i32> },
}

impl Column {
    fn new(holds: Holds, rows: usize) -> Self {
        match holds {
            Holds::Number | Holds::Time => Self::Numbers(Vec::with_capacity(rows)),
            Holds::Text => {
                let mut ends = Vec::with_capacity(rows + 1);
                ends.push(0);
                Self::Texts { bytes: Vec::with_capacity(rows * 64), ends }
            }
        }
    }

    #[inline]
    fn number(&mut self, n: i64) {
        if let Self::Numbers(numbers) = self {
            numbers.push(n);
        }
    }

    #[inline]
    fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Self::Texts { bytes, ends } = self {
            write(bytes);
            // A batch of 8192 rows of at most 1 KiB each.
            ends.push(bytes.len() as i32);
        }
    }

    #[inline]
    fn texts(&mut self, parts: &[&str]) {
        self.text(|out| parts.iter().for_each(|p| out.extend_from_slice(p.as_bytes())));
    }

    /// A row without this field.
    #[inline]
    fn skip(&mut self) {
        match self {
            Self::Numbers(numbers) => numbers.push(0),
            Self::Texts { bytes, ends } => ends.push(bytes.len() as i32),
        }
    }

    /// The array; a field of a null record is null itself, so that whoever takes it out of the record need not look at the record's nulls.
    fn finish(self, field: &Field, nulls: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
        let nulls = nulls.cloned().filter(|_| field.is_nullable());
        match self {
            Self::Numbers(numbers) if *field.data_type() == DataType::Int64 => {
                Ok(Arc::new(Int64Array::try_new(numbers.into(), nulls)?))
            }
            Self::Numbers(millis) => timestamps(millis, field.data_type(), nulls),
            Self::Texts { bytes, ends } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                Ok(Arc::new(StringArray::try_new(offsets, bytes.into(), nulls)?))
            }
        }
    }
}

fn unknown(table: &str, name: &str, known: &[&str]) -> ConnectorError {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hint = match did_you_mean(last, known.iter().copied()) {
        Some(similar) => format!("did you mean '{similar}'? There are {}", known.join(", ")),
        None => format!("there are {}", known.join(", ")),
    };
    ConnectorError::user(format!("table '{table}': nexmark has no column '{name}'"), hint)
}

fn wrong_type(table: &str, name: &str, want: &str, got: &DataType) -> ConnectorError {
    ConnectorError::user(
        format!("table '{table}': column '{name}' of nexmark cannot be {got}"),
        format!("declare it as {want}"),
    )
}
