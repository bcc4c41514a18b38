//! `1000/s`, `10MB/s`, `1MiB`: amounts and rates.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Something that is counted.
pub trait Amount: Copy + fmt::Display + FromStr<Err = QuantityError> {
    /// What is accepted.
    const ACCEPTED: &'static str;
    /// What is accepted for a rate of it.
    const RATE_ACCEPTED: &'static str;
    /// A rate of it.
    const RATE_EXAMPLE: &'static str;
    /// What one packet may have: a bucket that holds less would stop it for ever.
    const LEAST: u64;
    /// So many.
    fn of(n: u64) -> Self;
    /// How many.
    fn get(&self) -> u64;
}

/// A text that is no amount or rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {noun}")]
pub struct QuantityError {
    text: String,
    noun: &'static str,
}

fn refuse<T>(text: &str, noun: &'static str) -> Result<T, QuantityError> {
    Err(QuantityError { text: text.to_owned(), noun })
}

/// A number above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Count(u64);

impl Amount for Count {
    const ACCEPTED: &'static str = "accepted: a whole number from 1";
    const RATE_ACCEPTED: &'static str =
        "accepted: a whole number a second, minute or hour: 1000/s, 600/m, 20/h";
    const RATE_EXAMPLE: &'static str = "1000/s";
    const LEAST: u64 = 1;

    fn of(n: u64) -> Self {
        Self(n)
    }

    fn get(&self) -> u64 {
        self.0
    }
}

impl FromStr for Count {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        match text.parse() {
            Ok(n @ 1..=MOST) => Ok(Self(n)),
            _ => refuse(text, "number"),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Size(u64);

/// So that amounts times nanoseconds stay within a word: more than any link carries in an hour.
const MOST: u64 = 1 << 50;
/// Units of bytes, the largest first of those that divide alike.
const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

impl Amount for Size {
    const ACCEPTED: &'static str = "accepted: a whole number of B, kB, MB, GB, KiB, MiB, GiB, such as 10MB";
    const RATE_ACCEPTED: &'static str =
        "accepted: a whole number of B, kB, MB, GB, KiB, MiB, GiB a second, minute or hour, such as 10MB/s";
    const RATE_EXAMPLE: &'static str = "10MB/s";
    /// The largest IP packet.
    const LEAST: u64 = 65_535;

    fn of(n: u64) -> Self {
        Self(n)
    }

    fn get(&self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unit = SIZES.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
        let bytes = unit.and_then(|(n, bytes)| n.parse::<u64>().ok()?.checked_mul(bytes));
        match bytes {
            Some(n @ 1..=MOST) => Ok(Self(n)),
            _ => refuse(text, "size"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZES.iter().filter(|(_, bytes)| self.0 != 0 && self.0.is_multiple_of(*bytes));
        let (unit, bytes) = whole.max_by_key(|(_, bytes)| *bytes).unwrap_or(&SIZES[6]);
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

/// An amount in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RateOf<A> {
    /// How much.
    pub amount: A,
    /// In how long.
    pub period: Period,
}

/// The period of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Period {
    const LETTERS: [(&str, Self); 3] = [("s", Self::Second), ("m", Self::Minute), ("h", Self::Hour)];

    fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }

    /// Its length.
    pub fn ns(self) -> u64 {
        self.seconds() * 1_000_000_000
    }
}

impl<A: Amount> RateOf<A> {
    /// What comes together in a second, at least one.
    pub fn per_second(&self) -> u64 {
        (self.amount.get() / self.period.seconds()).max(1)
    }
}

impl<A: Amount> FromStr for RateOf<A> {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parts = text.split_once('/').and_then(|(amount, letter)| {
            let (_, period) = Period::LETTERS.iter().find(|(l, _)| *l == letter)?;
            Some(Self { amount: amount.parse().ok()?, period: *period })
        });
        parts.map_or_else(|| refuse(text, "rate"), Ok)
    }
}

impl<A: fmt::Display> fmt::Display for RateOf<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = Period::LETTERS.iter().find(|(_, p)| *p == self.period).map_or("s", |(l, _)| l);
        write!(f, "{}/{letter}", self.amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_back_as_they_were_written() {
        for text in ["1000/s", "600/m", "20/h"] {
            assert_eq!(text.parse::<RateOf<Count>>().expect(text).to_string(), text);
        }
        for text in ["10MB/s", "1MiB/m", "1500B/s", "64KiB/h"] {
            assert_eq!(text.parse::<RateOf<Size>>().expect(text).to_string(), text);
        }
        assert_eq!("600/m".parse::<RateOf<Count>>().expect("rate").per_second(), 10);
        assert_eq!("20/h".parse::<RateOf<Count>>().expect("rate").per_second(), 1);
        assert_eq!("10MB/s".parse::<RateOf<Size>>().expect("rate").per_second(), 10_000_000);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for wrong in ["", "10", "0/s", "10/d", "10 /s", "-1/s", "1.5/s", "/s", "10MB/s", "1125899906842625/s"]
        {
            assert!(wrong.parse::<RateOf<Count>>().is_err(), "{wrong}");
        }
        for wrong in ["10/s", "10mb/s", "0MB/s", "MB/s", "10Mbit/s", "2097152GiB/s"] {
            assert!(wrong.parse::<RateOf<Size>>().is_err(), "{wrong}");
        }
    }
}
