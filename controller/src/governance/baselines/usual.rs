//! What is unusual about a count, beside those of other windows.

use crate::governance::terms::USUAL_S;
use crate::policy::time::duration_text;
use std::collections::BTreeMap;

/// Of the same hour of the day so many days are enough to know what is usual.
const SAME_HOUR: usize = 5;
/// Where there are fewer, so many hours of any day are; so many windows of leases are too.
const ANY: usize = 24;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// That it opens.
    Connections,
    /// That it opens them to.
    Peers,
    /// Of connections that are over.
    Bytes,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Connections, Self::Peers, Self::Bytes];

    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Peers => "peers",
            Self::Bytes => "bytes",
        }
    }

    /// Less than that is no matter, whatever is usual.
    fn least(self) -> u64 {
        match self {
            Self::Connections => 100,
            Self::Peers => 10,
            Self::Bytes => 10 << 20,
        }
    }
}

/// What is unusual about a count, in words: it is beyond six times the usual spread above the middle, and three times the middle.
pub fn unusual(
    measure: Measure,
    slots: &BTreeMap<i64, u64>,
    (slot, seconds): (i64, i64),
    count: u64,
) -> Option<String> {
    if count < measure.least() {
        return None;
    }
    let is_hour = seconds == USUAL_S;
    let same_hour = slots.iter().filter(|(other, _)| is_hour && (slot - **other) % 24 == 0);
    let same: Vec<u64> = same_hour.map(|(_, n)| *n).collect();
    let (samples, of) = match (same.len() >= SAME_HOUR, slots.len() >= ANY) {
        (true, _) => (same, "the same hour of as many days"),
        (false, true) if is_hour => (slots.values().copied().collect(), "as many hours"),
        (false, true) => (slots.values().copied().collect(), "as many times"),
        (false, false) => return None,
    };
    let middle = median(samples.clone());
    let spread = median(samples.iter().map(|n| n.abs_diff(middle)).collect());
    // The median of distances is two thirds of a standard deviation where numbers scatter evenly; six of them are nine of it.
    let limit = (middle + 9 * spread).max(3 * middle);
    let span = if is_hour {
        "an hour".to_owned()
    } else {
        format!("{} of a lease", duration_text(seconds.unsigned_abs()))
    };
    (count > limit).then(|| {
        let many = samples.len();
        format!(
            "{count} {name} in {span}; the middle of {many} ({of}) is {middle}, and half are within {spread} of it",
            name = measure.name()
        )
    })
}

fn median(mut numbers: Vec<u64>) -> u64 {
    let middle = numbers.len() / 2;
    if numbers.is_empty() { 0 } else { *numbers.select_nth_unstable(middle).1 }
}
