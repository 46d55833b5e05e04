//! Arithmetic in units of the calendar: `TIMESTAMPADD`, `TIMESTAMPDIFF`, `FLOOR(ts TO unit)` and `CEIL(ts TO unit)`.
//!
//! Days and longer are counted on the clock of the zone that an instant is shown in, shorter ones in time that has passed.
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};

use super::dates::give;
use super::plain::{Call, Kind, Plain, at, int, long, written};
use super::zone::Zone;
use Kind::{Integer, Stamp, Text, Time};

pub(super) fn common(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    let add = Plain::new("timestampadd", &[&[Text, Integer, Stamp]], |a, _| like(a, 2), add).checked(check);
    let floor = Plain::new("date_floor", &[&[Text, Stamp]], |a, _| like(a, 1), |c| round(c, false)).checked(check);
    let ceil = Plain::new("date_ceil", &[&[Text, Stamp]], |a, _| like(a, 1), |c| round(c, true)).checked(check);
    [add, floor, ceil].map(|p| p.function(zone)).to_vec()
}

/// INT in Flink.
pub(super) fn flink(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    vec![Plain::new("timestampdiff", &[&[Text, Time, Time]], int, difference).checked(check).function(zone)]
}

/// BIGINT in Spark.
pub(super) fn spark(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    vec![Plain::new("timestampdiff", &[&[Text, Time, Time]], long, difference).checked(check).function(zone)]
}

/// The type of an argument that is a time.
fn like(args: &ReturnFieldArgs<'_>, i: usize) -> Result<DataType> {
    match args.arg_fields.get(i) {
        Some(field) if matches!(field.data_type(), DataType::Timestamp(..)) => Ok(field.data_type().clone()),
        Some(_) => Ok(DataType::Timestamp(TimeUnit::Millisecond, None)),
        None => plan_err!("an argument is missing"),
    }
}

/// A unit: so many microseconds, or so many months.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Micros(i64),
    /// Whole days on the clock; a week begins on Sunday, as in Flink.
    Days(i64),
    Months(i32),
}

const DAY: i64 = 86_400_000_000;

impl Unit {
    fn parse(text: &str) -> Option<Self> {
        let lower = text.to_lowercase();
        let name = lower.strip_prefix("sql_tsi_").unwrap_or(&lower);
        Some(match name.strip_suffix('s').unwrap_or(name) {
            "microsecond" => Self::Micros(1),
            "millisecond" => Self::Micros(1_000),
            "second" => Self::Micros(1_000_000),
            "minute" => Self::Micros(60_000_000),
            "hour" => Self::Micros(3_600_000_000),
            "day" | "dayofyear" => Self::Days(1),
            "week" => Self::Days(7),
            "month" => Self::Months(1),
            "quarter" => Self::Months(3),
            "year" => Self::Months(12),
            _ => return None,
        })
    }
}

fn check(args: &ReturnFieldArgs<'_>) -> Result<()> {
    match written(args, 0) {
        Some(unit) if Unit::parse(unit).is_some() => Ok(()),
        Some(unit) => plan_err!(
            "'{unit}' is not a unit of time: write YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND, MILLISECOND or MICROSECOND"
        ),
        None => plan_err!("the unit of time is a word that is written in the query"),
    }
}

fn unit(call: &Call<'_>) -> Result<Unit> {
    match call.constant(0).flatten().and_then(Unit::parse) {
        Some(unit) => Ok(unit),
        None => exec_err!("the unit of time is not known"),
    }
}

fn calendar(local: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(local).map(|t| t.naive_utc())
}

fn micros(at: NaiveDateTime) -> i64 {
    at.and_utc().timestamp_micros()
}

fn plus(local: i64, unit: Unit, count: i64) -> Option<i64> {
    match unit {
        Unit::Micros(each) => local.checked_add(each.checked_mul(count)?),
        Unit::Days(days) => local.checked_add(days.checked_mul(count)?.checked_mul(DAY)?),
        Unit::Months(months) => {
            let months = i64::from(months).checked_mul(count)?;
            let by = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
            let at = calendar(local)?;
            let moved = if months < 0 { at.checked_sub_months(by) } else { at.checked_add_months(by) };
            moved.map(micros)
        }
    }
}

fn add(call: &Call<'_>) -> Result<ArrayRef> {
    let unit = unit(call)?;
    let counts = call.integers(1)?;
    let (times, clock) = call.times(2)?;
    let moved = (0..call.rows()).map(|row| {
        let (time, count) = (at(&times, row)?, at(&counts, row)?);
        match (&clock, unit) {
            (Some(clock), Unit::Days(_) | Unit::Months(_)) => {
                plus(clock.local(time), unit, count).map(|local| clock.instant(local))
            }
            _ => plus(time, unit, count),
        }
    });
    give(call, moved.collect::<TimestampMicrosecondArray>())
}

/// Whole units from `a` to `b`.
fn between(a: i64, b: i64, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Micros(each) => Some(b.checked_sub(a)? / each),
        Unit::Days(days) => Some(b.checked_sub(a)? / (days * DAY)),
        Unit::Months(each) => {
            let (from, to) = (calendar(a)?, calendar(b)?);
            let months = i64::from(to.year() - from.year()) * 12 + i64::from(to.month()) - i64::from(from.month());
            let rest = |t: NaiveDateTime| (t.day(), t.time());
            let whole = match months.signum() {
                1 if rest(to) < rest(from) => months - 1,
                -1 if rest(to) > rest(from) => months + 1,
                _ => months,
            };
            Some(whole / i64::from(each))
        }
    }
}

fn difference(call: &Call<'_>) -> Result<ArrayRef> {
    let unit = unit(call)?;
    let (from, to) = match unit {
        Unit::Micros(_) => (call.instants(1)?, call.instants(2)?),
        Unit::Days(_) | Unit::Months(_) => (call.locals(1)?, call.locals(2)?),
    };
    let each = (0..call.rows()).map(|row| between(at(&from, row)?, at(&to, row)?, unit));
    Ok(match call.gives() {
        DataType::Int32 => Arc::new(each.map(|n| n.and_then(|n| i32::try_from(n).ok())).collect::<Int32Array>()),
        _ => Arc::new(each.collect::<Int64Array>()),
    })
}

fn floor(local: i64, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Micros(each) => Some(local.div_euclid(each) * each),
        Unit::Days(1) => Some(local.div_euclid(DAY) * DAY),
        // 1970-01-01 was a Thursday.
        Unit::Days(_) => Some(((local.div_euclid(DAY) + 4).div_euclid(7) * 7 - 4) * DAY),
        Unit::Months(each) => {
            let at = calendar(local)?;
            let month = (at.month0() as i32).div_euclid(each) * each;
            let first = NaiveDate::from_ymd_opt(at.year(), u32::try_from(month).ok()? + 1, 1)?;
            Some(micros(first.and_hms_opt(0, 0, 0)?))
        }
    }
}

fn round(call: &Call<'_>, up: bool) -> Result<ArrayRef> {
    let unit = unit(call)?;
    let (times, clock) = call.times(1)?;
    let each = (0..call.rows()).map(|row| {
        let time = at(&times, row)?;
        let local = clock.as_ref().map_or(time, |c| c.local(time));
        let low = floor(local, unit)?;
        let rounded = if up && low < local { plus(low, unit, 1)? } else { low };
        Some(clock.as_ref().map_or(rounded, |c| c.instant(rounded)))
    });
    give(call, each.collect::<TimestampMicrosecondArray>())
}
