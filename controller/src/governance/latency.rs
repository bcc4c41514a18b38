//! How long handshakes take: whether that has shifted from what is usual for their class.
//!
//! A class is an intent, as for handshakes that fail. What is compared is the middle of the last minutes with the upper end of the hour
//! before: when half of them take longer than nineteen of twenty did, no single slow one is the reason.

use super::compare::{Departure, Seen, departs};
use super::minutes::{Class, Classes, Minutes, spans};
use super::signal::Signal;
use crate::policy::intent::Intent;
use crate::view::table;
use datapath::abi::HandshakeKind;
use jiff::Timestamp;

/// With fewer handshakes in the last minutes, the middle is an accident.
const FEWEST: u32 = 20;
/// With fewer before, nobody knows what is usual.
const BASELINE: u32 = 60;
/// What is twice as long and still less than this, nobody waits for.
const LEAST_NS: u64 = 2_000_000;
/// Half octaves from 64 microseconds to more than a minute.
const BUCKETS: usize = 42;
const FIRST_NS: u64 = 1 << 16;

/// How long handshakes of a minute took.
#[derive(Debug)]
struct Timed {
    counts: Box<[u16; BUCKETS]>,
    /// Whether a shift was said in it.
    said: bool,
}

impl Default for Timed {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), said: false }
    }
}

/// Durations by class.
#[derive(Debug, Default)]
pub struct Latencies {
    classes: Classes<Timed>,
}

impl Latencies {
    /// Classes that were forgotten.
    pub fn forgotten(&self) -> u64 {
        self.classes.forgotten
    }

    /// Counts how long a handshake took that was completed, for both ends, and says where that has shifted: once in the minutes that
    /// are compared.
    pub fn look<'s>(
        &mut self,
        intents: &'s [Intent],
        seen: &'s Seen,
        (kind, duration_ns): (HandshakeKind, u64),
        at: Timestamp,
    ) -> Vec<Departure<'s>> {
        let mut departures = Vec::new();
        for (role, class) in Class::of_ends(intents, seen, kind) {
            let minutes = self.classes.of(class);
            minutes.at(at).count(duration_ns);
            if minutes.recent().any(|minute| minute.said) {
                continue;
            }
            let Some(shift) = shift(minutes) else { continue };
            minutes.at(at).said = true;
            let detail = Some(format!("{} {shift}", kind.name().to_uppercase()));
            departures.extend(departs(intents, seen, role, (Signal::LatencyShift, detail)));
        }
        departures
    }
}

impl Timed {
    fn count(&mut self, duration_ns: u64) {
        let count = &mut self.counts[bucket(duration_ns)];
        *count = count.saturating_add(1);
    }
}

/// What it is, in words: half of them take longer than 19 of 20 did before, and twice what half did.
fn shift(minutes: &Minutes<Timed>) -> Option<String> {
    let (recent, before) = (sum(minutes.recent()), sum(minutes.before()));
    let (many, many_before) = (recent.iter().sum::<u32>(), before.iter().sum::<u32>());
    if many < FEWEST || many_before < BASELINE {
        return None;
    }
    let (middle, usual, upper) = (quantile(&recent, 50), quantile(&before, 50), quantile(&before, 95));
    if middle <= upper || middle < usual + 2 || lower_ns(middle) < LEAST_NS {
        return None;
    }
    let [middle, usual, upper] = [lower_ns(middle), upper_ns(usual), upper_ns(upper)].map(table::duration);
    let (minutes, hour) = spans();
    Some(format!(
        "half of {many} took {middle} or longer in {minutes}; of {many_before} in {hour} before half took less than {usual}, 19 of \
             20 less than {upper}"
    ))
}

/// Half octaves: 1, 1.5, 2, 3, 4, 6 ...
fn bucket(duration_ns: u64) -> usize {
    let Some(octave) = (duration_ns / FIRST_NS).checked_ilog2() else { return 0 };
    let half = usize::from(duration_ns >> (octave + 15) & 1 == 1);
    (1 + 2 * octave as usize + half).min(BUCKETS - 1)
}

fn lower_ns(bucket: usize) -> u64 {
    let Some(n) = bucket.checked_sub(1) else { return 0 };
    let octave = FIRST_NS << (n / 2);
    octave + if n % 2 == 1 { octave / 2 } else { 0 }
}

fn upper_ns(bucket: usize) -> u64 {
    lower_ns(bucket + 1)
}

fn sum<'c>(minutes: impl Iterator<Item = &'c Timed>) -> [u32; BUCKETS] {
    minutes.fold([0; BUCKETS], |mut all, minute| {
        all.iter_mut().zip(minute.counts.iter()).for_each(|(all, one)| *all += u32::from(*one));
        all
    })
}

/// In which bucket so many of a hundred are reached.
fn quantile(counts: &[u32; BUCKETS], percent: u64) -> usize {
    let wanted = (counts.iter().map(|n| u64::from(*n)).sum::<u64>() * percent).div_ceil(100);
    let mut reached = 0;
    let is_reached = |n: &u32| {
        reached += u64::from(*n);
        reached >= wanted
    };
    counts.iter().position(is_reached).unwrap_or(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn take(minutes: &mut Minutes<Timed>, minute: i64, many: usize, duration_ns: u64) {
        let minute = minutes.at(Timestamp::from_second(60 * minute).expect("a time"));
        (0..many).for_each(|_| minute.count(duration_ns));
    }

    #[test]
    fn every_duration_lies_between_the_ends_of_its_bucket() {
        for duration_ns in [0, 1, 65_535, 65_536, 98_303, 98_304, 131_072, 5 * MS, 900 * MS, 60_000 * MS] {
            let bucket = bucket(duration_ns);
            let within = lower_ns(bucket)..upper_ns(bucket);
            assert!(within.contains(&duration_ns), "{duration_ns} in {within:?}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn half_that_take_longer_than_nineteen_of_twenty_did_are_a_shift() {
        let mut usual = Minutes::default();
        take(&mut usual, 0, 995, 3 * MS);
        take(&mut usual, 0, 5, 40 * MS);
        take(&mut usual, 30, 19, 20 * MS);
        assert_eq!(shift(&usual), None, "nineteen are too few");
        take(&mut usual, 31, 1, 20 * MS);
        assert_eq!(
            shift(&usual).as_deref(),
            Some(
                "half of 20 took 16.8 ms or longer in 5m00s; of 1000 in 1h00m before half took less than 3.1 ms, 19 of 20 less than 3.1 ms"
            )
        );
        take(&mut usual, 31, 21, 3 * MS);
        assert_eq!(shift(&usual), None, "less than half are slow");
        // What goes on becomes usual.
        take(&mut usual, 40, 100, 20 * MS);
        assert!(shift(&usual).is_some());
        take(&mut usual, 50, 100, 20 * MS);
        assert_eq!(shift(&usual), None);
    }

    #[test]
    fn what_nobody_waits_for_is_no_shift_and_what_is_not_known_is_none() {
        let mut quick = Minutes::default();
        take(&mut quick, 0, 100, MS / 10);
        take(&mut quick, 30, 100, MS);
        assert_eq!(shift(&quick), None, "a millisecond is not noticed");
        let mut new = Minutes::default();
        take(&mut new, 0, 59, MS);
        take(&mut new, 30, 100, 50 * MS);
        assert_eq!(shift(&new), None, "what is usual is not known");
        take(&mut new, 1000, 1, MS);
        assert_eq!(new.recent().chain(new.before()).count(), 65, "old minutes are forgotten");
    }
}
