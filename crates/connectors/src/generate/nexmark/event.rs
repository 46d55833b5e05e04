//! The events of Nexmark, as functions of their number.
//!
//! Event `k` is a person, an auction or a bid by `k mod 50` (1 : 3 : 46). Whatever is random in it comes from [`Draws`] of (seed, k), in an order
//! that is part of the format: the same seed gives the same bytes as the published reference generator. An event is taken apart here only
//! as far as is cheap; texts are [`Letters`] that whoever needs them writes.
use crate::generate::draws::{Draws, Letters};

pub const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
pub const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
pub const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
pub const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const COLD_CHANNELS: u64 = 10_000;

/// Events in which one person, three auctions and 46 bids happen.
const ROUND: u64 = 50;
const FIRST_ID: i64 = 1000;
/// Events from which the life of an auction is measured: 100 auctions' worth.
const HORIZON: f64 = 1666.0;

/// What decides the events of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct NexmarkConfig {
    pub seed: u64,
    /// Event time of event 0 in milliseconds.
    pub base_ms: i64,
    /// Events per second of event time. It decides how many events fall in a window.
    pub event_rate: f64,
    /// Event times are shuffled inside groups of this many events; 1: in order.
    pub group: u64,
}

impl Default for NexmarkConfig {
    fn default() -> Self {
        Self { seed: 1, base_ms: 1_436_918_400_000, event_rate: 10_000.0, group: 1 }
    }
}

/// Type of an event; the number is the column `event_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Person = 0,
    Auction = 1,
    Bid = 2,
}

/// Makes events.
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    base_ms: i64,
    delay_ms: f64,
    group: u64,
    horizon_ms: u64,
    channels: Vec<Channel>,
}

/// Name and address of a channel; the first ones are the hot ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub name: String,
    pub url: String,
}

pub struct Person {
    pub id: i64,
    pub first_name: &'static str,
    pub last_name: &'static str,
    pub email_user: Letters,
    pub email_host: Letters,
    /// Four groups of four digits.
    pub credit_card: [u16; 4],
    pub city: &'static str,
    pub state: &'static str,
    pub extra: Letters,
}

pub struct Auction {
    pub id: i64,
    pub item_name: Spaced,
    pub description: Spaced,
    pub initial_bid: i64,
    pub reserve: i64,
    pub expires_ms: i64,
    pub seller: i64,
    pub category: i64,
    pub extra: Letters,
}

pub struct Bid<'a> {
    pub auction: i64,
    pub bidder: i64,
    pub price: Price,
    pub channel: &'a Channel,
    pub extra: Letters,
}

/// A price that is not computed yet: 100 · 10^(6u).
#[derive(Clone, Copy)]
pub struct Price(f64);

impl Price {
    fn take(draws: &mut Draws) -> Self {
        Self(draws.unit())
    }

    #[inline]
    pub fn value(self) -> i64 {
        (10f64.powf(self.0 * 6.0) * 100.0 + 0.5).floor() as i64
    }
}

/// Letters with a space at the second place and every eighth after it.
#[derive(Clone, Copy)]
pub struct Spaced(Letters);

impl Spaced {
    fn take(draws: &mut Draws, max: u64) -> Self {
        let len = 3 + draws.below(max - 2) as usize;
        Self(Letters::take(draws, len))
    }

    pub fn write(self, out: &mut Vec<u8>) {
        let start = out.len();
        self.0.write(out);
        let inner = start + 1..out.len() - 1;
        out[inner].iter_mut().step_by(8).for_each(|b| *b = b' ');
    }
}

impl Generator {
    #[must_use]
    pub fn new(config: &NexmarkConfig) -> Self {
        let delay_ms = 1000.0 / config.event_rate;
        let hot = HOT_CHANNELS
            .iter()
            .zip(0..)
            .map(|(name, i)| Channel { name: (*name).to_owned(), url: url(&mut Draws::of(config.seed, -1 - i)) });
        let cold = (0..COLD_CHANNELS as i32).map(|i| {
            let mut draws = Draws::of(config.seed, -1000 - i64::from(i));
            let mut url = url(&mut draws);
            if draws.below(10) > 0 {
                url += &format!("&channel_id={}", i.reverse_bits().wrapping_abs());
            }
            Channel { name: format!("channel-{i}"), url }
        });
        Self {
            seed: config.seed,
            base_ms: config.base_ms,
            delay_ms,
            group: config.group.max(1),
            horizon_ms: (HORIZON * delay_ms) as u64,
            channels: hot.chain(cold).collect(),
        }
    }

    /// Type of event `k`.
    #[inline]
    #[must_use]
    pub fn kind(k: u64) -> Kind {
        match k % ROUND {
            0 => Kind::Person,
            1..4 => Kind::Auction,
            _ => Kind::Bid,
        }
    }

    /// Event time of event `k` in milliseconds.
    #[inline]
    #[must_use]
    pub fn event_time(&self, k: u64) -> i64 {
        let number = match self.group {
            1 => k,
            g => k / g * g + 953 * k % g,
        };
        self.base_ms + (number as f64 * self.delay_ms).floor() as i64
    }

    /// Event `k`, which must be a person.
    #[must_use]
    pub fn person(&self, k: u64) -> Person {
        let mut draws = Draws::of(self.seed, k as i64);
        let first_name = pick(&mut draws, &FIRST_NAMES);
        let last_name = pick(&mut draws, &LAST_NAMES);
        let email_user = Letters::take(&mut draws, 7);
        let email_host = Letters::take(&mut draws, 5);
        let credit_card = std::array::from_fn(|_| draws.below(10_000) as u16);
        let city = pick(&mut draws, &CITIES);
        let state = pick(&mut draws, &STATES);
        let email = email_user.len + email_host.len + "@.com".len();
        let used = first_name.len() + 1 + last_name.len() + email + 19 + city.len() + state.len() + 8;
        let extra = extra(&mut draws, used, 200);
        let id = (k / ROUND) as i64 + FIRST_ID;
        Person { id, first_name, last_name, email_user, email_host, credit_card, city, state, extra }
    }

    /// Event `k`, which must be an auction; it opens at `time_ms`.
    #[must_use]
    pub fn auction(&self, k: u64, time_ms: i64) -> Auction {
        let mut draws = Draws::of(self.seed, k as i64);
        let item_name = Spaced::take(&mut draws, 20);
        let description = Spaced::take(&mut draws, 100);
        let initial_bid = Price::take(&mut draws).value();
        let reserve = initial_bid + Price::take(&mut draws).value();
        let expires_ms = time_ms + 1 + draws.below((2 * self.horizon_ms).max(1)) as i64;
        let last_person = k / ROUND;
        let seller = match draws.below(4) {
            0 => someone(&mut draws, last_person),
            _ => last_person / 100 * 100,
        };
        let category = 10 + draws.below(5) as i64;
        let extra = extra(&mut draws, 8 + item_name.0.len + description.0.len + 40, 500);
        let id = last_auction(k) as i64 + FIRST_ID;
        let seller = seller as i64 + FIRST_ID;
        Auction { id, item_name, description, initial_bid, reserve, expires_ms, seller, category, extra }
    }

    /// Event `k`, which must be a bid.
    #[inline]
    #[must_use]
    pub fn bid(&self, k: u64) -> Bid<'_> {
        let mut draws = Draws::of(self.seed, k as i64);
        let last_auction = last_auction(k);
        let auction = match draws.below(2) {
            0 => {
                let oldest = last_auction.saturating_sub(100);
                oldest + draws.below(last_auction - oldest + 1 + 10)
            }
            _ => last_auction / 100 * 100,
        };
        let last_person = k / ROUND;
        let bidder = match draws.below(4) {
            0 => someone(&mut draws, last_person),
            _ => last_person / 100 * 100 + 1,
        };
        let price = Price::take(&mut draws);
        let channel = match draws.below(2) {
            0 => HOT_CHANNELS.len() + draws.below(COLD_CHANNELS) as usize,
            _ => draws.below(HOT_CHANNELS.len() as u64) as usize,
        };
        let extra = extra(&mut draws, 32, 100);
        let (auction, bidder) = (auction as i64 + FIRST_ID, bidder as i64 + FIRST_ID);
        Bid { auction, bidder, price, channel: &self.channels[channel], extra }
    }
}

/// Number of the newest auction when event `k` happens.
fn last_auction(k: u64) -> u64 {
    match (k / ROUND, k % ROUND) {
        (round, 0) => (3 * round).saturating_sub(1),
        (round, n) => 3 * round + (n - 1).min(2),
    }
}

/// One of the last 1000 people, or of ten that are still to come.
fn someone(draws: &mut Draws, last_person: u64) -> u64 {
    let people = last_person + 1;
    let active = people.min(1000);
    people - active + draws.below(active + 10)
}

fn pick<const N: usize>(draws: &mut Draws, from: &[&'static str; N]) -> &'static str {
    from[draws.below(N as u64) as usize]
}

/// Text that pads an event to its nominal size, ±20 %.
fn extra(draws: &mut Draws, used: usize, nominal: usize) -> Letters {
    let Some(want) = nominal.checked_sub(used) else { return Letters::take(draws, 0) };
    let delta = (want as f64 * 0.2 + 0.5).floor() as usize;
    let more = if delta == 0 { 0 } else { draws.below(2 * delta as u64) as usize };
    Letters::take(draws, want - delta + more)
}

fn url(draws: &mut Draws) -> String {
    let mut word = || -> String {
        let len = 3 + draws.below(3);
        (0..len).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz_"[draws.below(27) as usize])).collect()
    };
    format!("https://www.nexmark.com/{}/{}/{}/item.htm?query=1", word(), word(), word())
}
