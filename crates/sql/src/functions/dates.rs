//! Dates and times as texts, and the other way: `DATE_FORMAT`, `FROM_UNIXTIME`, `UNIX_TIMESTAMP`, `TO_TIMESTAMP`, `TO_DATE`,
//! `TO_TIMESTAMP_LTZ`, `CONVERT_TZ`.
//!
//! Of Flink and Spark alike: what does not read as a date or time is null, and instants are shown in the pipeline's zone. They differ in what
//! `TO_TIMESTAMP` gives: Flink's is a local `TIMESTAMP(3)`, Spark's an instant.
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, StringBuilder, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};

use super::pattern::{Pattern, Read, read_default};
use super::plain::{Call, Kind, Plain, at, long, text, text_at, written};
use super::zone::Zone;
use Kind::{Integer, Text, Time, TimeOrSeconds};

const DAY: i64 = 86_400_000_000;

/// Functions that are the same in both dialects.
pub(super) fn common(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    let date_format =
        Plain::new("date_format", &[&[Time, Text]], text, date_format).checked(|a| pattern_at(a, 1, "date_format"));
    let from_unixtime = Plain::new("from_unixtime", &[&[Integer], &[Integer, Text]], text, from_unixtime)
        .checked(|a| pattern_at(a, 1, "from_unixtime"));
    let to_date = Plain::new("to_date", &[&[Time], &[Text, Text]], |_, _| Ok(DataType::Date32), to_date)
        .checked(|a| pattern_at(a, 1, "to_date"));
    let ltz: &[&[Kind]] = &[&[Integer], &[Integer, Integer], &[Time], &[Text, Text], &[Text, Text, Text]];
    let to_timestamp_ltz = Plain::new("to_timestamp_ltz", ltz, instants_ms, to_timestamp_ltz)
        .checked(|a| if written(a, 0).is_none() { Ok(()) } else { pattern_at(a, 1, "to_timestamp_ltz") });
    let seconds = Plain::new("timestamp_seconds", &[&[Integer]], instants, |c| since(c, 1_000_000));
    let millis = Plain::new("timestamp_millis", &[&[Integer]], instants, |c| since(c, 1_000));
    let micros = Plain::new("timestamp_micros", &[&[Integer]], instants, |c| since(c, 1));
    let convert_tz = Plain::new("convert_tz", &[&[Text, Text, Text]], text, convert_tz);
    [date_format, from_unixtime, to_date, to_timestamp_ltz, seconds, millis, micros, convert_tz]
        .map(|p| p.function(zone))
        .to_vec()
}

pub(super) fn flink(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    let takes: &[&[Kind]] = &[&[TimeOrSeconds], &[Text, Text]];
    let gives = |_: &ReturnFieldArgs<'_>, _: &Zone| Ok(DataType::Timestamp(TimeUnit::Millisecond, None));
    let to_timestamp =
        Plain::new("to_timestamp", takes, gives, to_timestamp).checked(|a| pattern_at(a, 1, "to_timestamp"));
    // A text may be longer than its pattern, as for Java's SimpleDateFormat.
    let unix = Plain::new("unix_timestamp", &[&[Text], &[Text, Text]], long, |c| unix_timestamp(c, true))
        .checked(|a| pattern_at(a, 1, "unix_timestamp"));
    [to_timestamp, unix].map(|p| p.function(zone)).to_vec()
}

pub(super) fn spark(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    let takes: &[&[Kind]] = &[&[TimeOrSeconds], &[Text, Text]];
    let plain = Plain::new("to_timestamp", takes, instants, to_timestamp).checked(|a| pattern_at(a, 1, "to_timestamp"));
    let tried =
        Plain::new("try_to_timestamp", takes, instants, to_timestamp).checked(|a| pattern_at(a, 1, "try_to_timestamp"));
    let takes: &[&[Kind]] = &[&[Time], &[Text, Text], &[Time, Text]];
    let unix = Plain::new("unix_timestamp", takes, long, |c| unix_timestamp(c, false))
        .checked(|a| pattern_at(a, 1, "unix_timestamp"));
    let to_unix = Plain::new("to_unix_timestamp", takes, long, |c| unix_timestamp(c, false))
        .checked(|a| pattern_at(a, 1, "to_unix_timestamp"));
    [plain, tried, unix, to_unix].map(|p| p.function(zone)).to_vec()
}

fn instants(_: &ReturnFieldArgs<'_>, zone: &Zone) -> Result<DataType> {
    Ok(zone.instants(TimeUnit::Microsecond))
}

fn instants_ms(_: &ReturnFieldArgs<'_>, zone: &Zone) -> Result<DataType> {
    Ok(zone.instants(TimeUnit::Millisecond))
}

fn pattern_at(args: &ReturnFieldArgs<'_>, i: usize, function: &str) -> Result<()> {
    written(args, i).map_or(Ok(()), |p| Pattern::parse(p, function).map(|_| ()))
}

/// The pattern of each row; the last one is kept, as they are constant nearly always.
#[derive(Default)]
struct Patterns {
    last: Option<Pattern>,
    /// How many there were.
    count: usize,
}

impl Patterns {
    fn get(&mut self, source: &str, function: &str) -> Result<&Pattern> {
        match &mut self.last {
            Some(known) if known.source() == source => {}
            other => {
                *other = Some(Pattern::parse(source, function)?);
                self.count += 1;
            }
        }
        match &self.last {
            Some(known) => Ok(known),
            None => exec_err!("{function}: no pattern"),
        }
    }
}

const SECONDS: &str = "yyyy-MM-dd HH:mm:ss";

/// Writes each local time by the pattern of its row.
fn write(
    call: &Call<'_>,
    locals: &TimestampMicrosecondArray,
    pattern: Option<usize>,
    function: &str,
) -> Result<ArrayRef> {
    let own = pattern.map(|i| call.text(i)).transpose()?;
    let mut patterns = Patterns::default();
    let mut out = StringBuilder::with_capacity(call.rows(), call.rows() * 10);
    // Neighbouring rows are mostly of the same day or minute: the text is kept with its time and offset.
    let (mut buffer, mut last) = (String::new(), None);
    // Only instants have an offset to be written.
    let offsets = match call.args.args[0].data_type() {
        DataType::Timestamp(_, None) | DataType::Utf8 => None,
        _ => Some(call.zone.clock()),
    };
    for row in 0..call.rows() {
        let source = own.as_ref().map_or(Some(SECONDS), |own| text_at(own, row));
        let (Some(local), Some(source)) = (at(locals, row), source) else {
            out.append_null();
            continue;
        };
        let offset = offsets.as_ref().map_or(0, |c| c.offset(c.instant(local)));
        let step = patterns.get(source, function)?.step();
        let known = (patterns.count, local.div_euclid(step), offset);
        if last != Some(known) {
            buffer.clear();
            last = patterns.get(source, function)?.write(local, offset, &mut buffer).then_some(known);
        }
        match last {
            Some(_) => out.append_value(&buffer),
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn date_format(call: &Call<'_>) -> Result<ArrayRef> {
    write(call, &call.locals(0)?, Some(1), "date_format")
}

fn from_unixtime(call: &Call<'_>) -> Result<ArrayRef> {
    let clock = call.zone.clock();
    let seconds = call.integers(0)?;
    let locals = seconds.unary_opt(|s| s.checked_mul(1_000_000).map(|m| clock.local(m)));
    write(call, &locals, (call.count() > 1).then_some(1), "from_unixtime")
}

/// What the texts of argument 0 say by the patterns of argument 1.
fn read(call: &Call<'_>, longer: bool, function: &str) -> Result<Vec<Option<Read>>> {
    let (texts, sources) = (call.text(0)?, call.text(1)?);
    let mut patterns = Patterns::default();
    let each = |row| match (text_at(&texts, row), text_at(&sources, row)) {
        (Some(text), Some(source)) => Ok(patterns.get(source, function)?.read(text, longer)),
        _ => Ok(None),
    };
    (0..call.rows()).map(each).collect()
}

/// Microseconds of what was read: local ones in `zone` where the text has no offset.
fn instant_of(read: Read, clock: &super::zone::Clock) -> i64 {
    match read.offset {
        Some(offset) => read.local - i64::from(offset) * 1_000_000,
        None => clock.instant(read.local),
    }
}

/// Instants, or local times of the pipeline's zone, by what the function gives.
fn to_timestamp(call: &Call<'_>) -> Result<ArrayRef> {
    let is_instant = matches!(call.gives(), DataType::Timestamp(_, Some(_)));
    let clock = call.zone.clock();
    let micros: TimestampMicrosecondArray = match call.count() {
        1 if is_instant => call.instants(0)?,
        1 => call.locals(0)?,
        _ => {
            let value = |r: Read| match (is_instant, r.offset) {
                (true, _) => instant_of(r, &clock),
                (false, Some(_)) => clock.local(instant_of(r, &clock)),
                (false, None) => r.local,
            };
            read(call, false, "to_timestamp")?.into_iter().map(|r| r.map(value)).collect()
        }
    };
    give(call, micros)
}

/// Microseconds as what the function gives.
pub(super) fn give(call: &Call<'_>, micros: TimestampMicrosecondArray) -> Result<ArrayRef> {
    let DataType::Timestamp(unit, zone) = call.gives() else { return exec_err!("not a timestamp") };
    let micros: ArrayRef = Arc::new(micros.with_timezone_opt(zone.clone()));
    Ok(cast(&micros, &DataType::Timestamp(*unit, zone.clone()))?)
}

fn to_date(call: &Call<'_>) -> Result<ArrayRef> {
    let locals: TimestampMicrosecondArray = match call.count() {
        1 => call.locals(0)?,
        _ => read(call, false, "to_date")?.into_iter().map(|r| r.map(|r| r.local)).collect(),
    };
    let days = locals.iter().map(|l| l.and_then(|l| i32::try_from(l.div_euclid(DAY)).ok()));
    Ok(Arc::new(days.collect::<Date32Array>()))
}

fn unix_timestamp(call: &Call<'_>, longer: bool) -> Result<ArrayRef> {
    let clock = call.zone.clock();
    let is_text = call.args.args[0].data_type() == DataType::Utf8;
    let micros: TimestampMicrosecondArray = match call.count() {
        2 if is_text => {
            let reads = read(call, longer, "unix_timestamp")?;
            reads.into_iter().map(|r| r.map(|r| instant_of(r, &clock))).collect()
        }
        _ => call.instants(0)?,
    };
    let seconds = micros.iter().map(|m| m.map(|m| m.div_euclid(1_000_000)));
    Ok(Arc::new(seconds.collect::<Int64Array>()))
}

/// From numbers of this many microseconds.
fn since(call: &Call<'_>, micros: i64) -> Result<ArrayRef> {
    give(call, call.integers(0)?.unary_opt(|v| v.checked_mul(micros)))
}

fn to_timestamp_ltz(call: &Call<'_>) -> Result<ArrayRef> {
    if call.args.args[0].data_type() == DataType::Int64 {
        let precision = if call.count() > 1 { call.constant_integer(1) } else { Some(3) };
        return match precision {
            Some(0) => since(call, 1_000_000),
            Some(3) => since(call, 1_000),
            Some(6) => since(call, 1),
            _ => exec_err!("to_timestamp_ltz: the precision of a number is 0 (seconds), 3 (milliseconds) or 6"),
        };
    }
    let micros: TimestampMicrosecondArray = match call.count() {
        1 => call.instants(0)?,
        count => {
            let zones = if count > 2 { Some(call.text(2)?) } else { None };
            let own = call.zone.clock();
            let reads = read(call, false, "to_timestamp_ltz")?;
            let each = reads.into_iter().enumerate().map(|(row, read)| match &zones {
                None => read.map(|r| instant_of(r, &own)),
                Some(zones) => {
                    let zone = Zone::parse(text_at(zones, row)?)?;
                    read.map(|r| instant_of(r, &zone.clock()))
                }
            });
            each.collect()
        }
    };
    give(call, micros)
}

fn convert_tz(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, from, to) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let pattern = Pattern::parse(SECONDS, "convert_tz")?;
    let mut out = StringBuilder::new();
    let mut buffer = String::new();
    for row in 0..call.rows() {
        let converted = (|| {
            let local = read_default(text_at(&texts, row)?)?.local;
            let instant = Zone::parse(text_at(&from, row)?)?.clock().instant(local);
            Some(Zone::parse(text_at(&to, row)?)?.clock().local(instant))
        })();
        buffer.clear();
        match converted.filter(|local| pattern.write(*local, 0, &mut buffer)) {
            Some(_) => out.append_value(&buffer),
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}
