//! Events as JSON objects, byte for byte as the reference generator writes them.
use super::event::{Generator, Kind};

impl Generator {
    /// Appends event `k` with the event time `time_ms` as one JSON object, without a line end.
    pub fn write_json(&self, k: u64, time_ms: i64, out: &mut Vec<u8>) {
        match Self::kind(k) {
            Kind::Person => self.person_json(k, time_ms, out),
            Kind::Auction => self.auction_json(k, time_ms, out),
            Kind::Bid => self.bid_json(k, time_ms, out),
        }
    }

    fn person_json(&self, k: u64, time_ms: i64, out: &mut Vec<u8>) {
        let p = self.person(k);
        out.extend_from_slice(br#"{"event_type":0,"person":{"id":"#);
        number(p.id, out);
        text(out, &[r#","name":""#, p.first_name, " ", p.last_name, r#"","emailAddress":""#]);
        p.email_user.write(out);
        out.push(b'@');
        p.email_host.write(out);
        text(out, &[r#".com","creditCard":""#]);
        credit_card(p.credit_card, out);
        text(out, &[r#"","city":""#, p.city, r#"","state":""#, p.state, r#"","dateTime":""#]);
        timestamp(time_ms, out);
        text(out, &[r#"","extra":""#]);
        p.extra.write(out);
        text(out, &[r#""},"auction":null,"bid":null}"#]);
    }

    fn auction_json(&self, k: u64, time_ms: i64, out: &mut Vec<u8>) {
        let a = self.auction(k, time_ms);
        text(out, &[r#"{"event_type":1,"person":null,"auction":{"id":"#]);
        number(a.id, out);
        text(out, &[r#","itemName":""#]);
        a.item_name.write(out);
        text(out, &[r#"","description":""#]);
        a.description.write(out);
        text(out, &[r#"","initialBid":"#]);
        number(a.initial_bid, out);
        text(out, &[r#","reserve":"#]);
        number(a.reserve, out);
        text(out, &[r#","dateTime":""#]);
        timestamp(time_ms, out);
        text(out, &[r#"","expires":""#]);
        timestamp(a.expires_ms, out);
        text(out, &[r#"","seller":"#]);
        number(a.seller, out);
        text(out, &[r#","category":"#]);
        number(a.category, out);
        text(out, &[r#","extra":""#]);
        a.extra.write(out);
        text(out, &[r#""},"bid":null}"#]);
    }

    fn bid_json(&self, k: u64, time_ms: i64, out: &mut Vec<u8>) {
        let b = self.bid(k);
        text(out, &[r#"{"event_type":2,"person":null,"auction":null,"bid":{"auction":"#]);
        number(b.auction, out);
        text(out, &[r#","bidder":"#]);
        number(b.bidder, out);
        text(out, &[r#","price":"#]);
        number(b.price.value(), out);
        text(out, &[r#","channel":""#, &b.channel.name, r#"","url":""#, &b.channel.url, r#"","dateTime":""#]);
        timestamp(time_ms, out);
        text(out, &[r#"","extra":""#]);
        b.extra.write(out);
        text(out, &[r#""}}"#]);
    }
}

fn text(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|p| out.extend_from_slice(p.as_bytes()));
}

/// A number that is not negative.
fn number(n: i64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = n.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The groups of a credit card's number with spaces between.
pub(super) fn credit_card(groups: [u16; 4], out: &mut Vec<u8>) {
    for (i, group) in groups.into_iter().enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        fixed(u32::from(group), 4, out);
    }
}

/// The lowest `width` digits of `n`.
fn fixed(n: u32, width: u32, out: &mut Vec<u8>) {
    out.extend((0..width).rev().map(|d| b'0' + (n / 10u32.pow(d) % 10) as u8));
}

/// `2015-07-15 00:00:00.000` of milliseconds since 1970 UTC.
fn timestamp(ms: i64, out: &mut Vec<u8>) {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) as u32);
    let (year, month, day) = civil(days);
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b' '),
        (of_day / 3_600_000, 2, b':'),
        (of_day / 60_000 % 60, 2, b':'),
        (of_day / 1000 % 60, 2, b'.'),
    ];
    for (n, width, after) in parts {
        fixed(n, width, out);
        out.push(after);
    }
    fixed(of_day % 1000, 3, out);
}

/// Year (0 to 9999), month and day of a day since 1970, in the proleptic Gregorian calendar (H. Hinnant, "chrono-compatible low-level date
/// algorithms").
fn civil(days: i64) -> (u32, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}
