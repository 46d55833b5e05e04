//! The pipeline's time zone: between instants and the clock on the wall.
//!
//! Both are microseconds here: an *instant* since 1970 in UTC, a *local* time as if the wall clock were in UTC. Where clocks are put back, the
//! earlier of two instants is meant; a local time that clocks skip is as much later as they skip. So do Java, Flink and Spark.
use std::fmt;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, Duration, LocalResult, NaiveDateTime, Offset, TimeZone};

const UTC: &str = "UTC";

/// A time zone by its name; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Zone(Arc<str>);

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Zone {
    pub fn utc() -> Self {
        Self(UTC.into())
    }

    /// `Europe/Berlin`, `UTC`, `Z`, `+02:00`, `GMT+2`, `UTC-03:30`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if ["z", "utc", "gmt", "etc/utc", "default"].iter().any(|u| text.eq_ignore_ascii_case(u)) {
            return Some(Self::utc());
        }
        let offset = ["UTC", "GMT", "UT"].iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text);
        if let Some(sign @ ('+' | '-')) = offset.chars().next() {
            let (hours, minutes) = match offset[1..].split_once(':') {
                Some((hours, minutes)) => (hours, minutes),
                None if offset.len() == 5 => offset[1..].split_at(2),
                None => (&offset[1..], "0"),
            };
            let number = |t: &str| if t.bytes().all(|b| b.is_ascii_digit()) { t.parse::<u8>().ok() } else { None };
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            return match (hours, minutes) {
                (0, 0) => Some(Self::utc()),
                (0..=18, 0..=59) => Some(Self(format!("{sign}{hours:02}:{minutes:02}").into())),
                _ => None,
            };
        }
        text.parse::<Tz>().ok().map(|_| Self(text.into()))
    }

    pub fn is_utc(&self) -> bool {
        &*self.0 == UTC
    }

    pub fn name(&self) -> &Arc<str> {
        &self.0
    }

    /// TIMESTAMP_LTZ of this zone.
    pub fn instants(&self, unit: TimeUnit) -> DataType {
        DataType::Timestamp(unit, Some(self.0.clone()))
    }

    /// Converts many values.
    pub fn clock(&self) -> Clock {
        Clock::of(Some(&self.0))
    }

    /// The type in which a query sees a column: instants in this zone. Those inside other types stay in UTC, so that no more of them is
    /// decoded than is used.
    pub fn shown(&self, data_type: &DataType) -> DataType {
        match data_type {
            DataType::Timestamp(unit, Some(_)) => self.instants(*unit),
            other => other.clone(),
        }
    }

    /// `data_type` with its instants, also those inside it, shown in this zone.
    pub fn zoned(&self, data_type: &DataType) -> DataType {
        use arrow::datatypes::Field;
        let field = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(self.zoned(f.data_type())));
        match data_type {
            DataType::Timestamp(unit, Some(_)) => self.instants(*unit),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
            DataType::List(item) => DataType::List(field(item)),
            DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
            other => other.clone(),
        }
    }
}

/// A zone, ready to convert.
pub(crate) struct Clock(Option<Tz>);

impl Clock {
    /// Of an Arrow type's zone; without one, or with one that is not known, UTC.
    pub fn of(zone: Option<&Arc<str>>) -> Self {
        Self(zone.filter(|z| &***z != UTC).and_then(|z| z.parse().ok()))
    }

    /// Seconds east of UTC at an instant.
    pub fn offset(&self, micros: i64) -> i32 {
        match (&self.0, DateTime::from_timestamp_micros(micros)) {
            (Some(tz), Some(at)) => tz.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc(),
            _ => 0,
        }
    }

    /// The local time of an instant.
    pub fn local(&self, micros: i64) -> i64 {
        match &self.0 {
            None => micros,
            Some(_) => micros.saturating_add(i64::from(self.offset(micros)) * 1_000_000),
        }
    }

    /// The instant of a local time.
    pub fn instant(&self, local: i64) -> i64 {
        let (Some(tz), Some(at)) = (&self.0, DateTime::from_timestamp_micros(local)) else { return local };
        let at = at.naive_utc();
        let seconds = |at: &NaiveDateTime| match tz.offset_from_local_datetime(at) {
            LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => Some(offset.fix().local_minus_utc()),
            LocalResult::None => None,
        };
        // No clock skips more than a day, and before the gap the old offset holds.
        let before = || at.checked_sub_signed(Duration::days(1)).and_then(|b| seconds(&b));
        local.saturating_sub(i64::from(seconds(&at).or_else(before).unwrap_or_default()) * 1_000_000)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_and_offsets() {
        for (text, zone) in [
            ("Europe/Berlin", Some("Europe/Berlin")),
            ("utc", Some("UTC")),
            ("Z", Some("UTC")),
            ("+00:00", Some("UTC")),
            ("GMT+8", Some("+08:00")),
            ("UTC-03:30", Some("-03:30")),
            ("-0800", Some("-08:00")),
            ("Europe/Atlantis", None),
            ("+99:00", None),
            ("+", None),
            ("", None),
        ] {
            assert_eq!(Zone::parse(text).map(|z| z.to_string()).as_deref(), zone, "{text}");
        }
    }

    #[test]
    fn clocks_that_are_put_forward_and_back() {
        let berlin = Zone::parse("Europe/Berlin").unwrap().clock();
        let micros = |t: &str| NaiveDateTime::parse_from_str(t, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros();
        for (local, utc, back) in [
            ("2024-01-01 00:00", "2023-12-31 23:00", "2024-01-01 00:00"),
            ("2024-07-01 00:00", "2024-06-30 22:00", "2024-07-01 00:00"),
            ("2024-03-31 02:30", "2024-03-31 01:30", "2024-03-31 03:30"), // skipped
            ("2024-10-27 02:30", "2024-10-27 00:30", "2024-10-27 02:30"), // twice
        ] {
            assert_eq!(berlin.instant(micros(local)), micros(utc), "{local}");
            assert_eq!(berlin.local(micros(utc)), micros(back), "{local}");
        }
    }
}
