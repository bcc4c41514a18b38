//! Handshakes by the identities of their ends.

use super::encode::{counter, family, labels};
use super::kept::{Labels, OTHER};
use crate::daemon::{Shared, lock};
use crate::exit_code::Result;
use crate::names::Names;
use datapath::abi::{HandshakeKey, HandshakeKind, HandshakeOutcome, HandshakeStage, HandshakeStats};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Kind, outcome, whether it is inferred or which stage, source, destination.
type Key = [String; 5];

/// What the page shows of handshakes.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    totals: BTreeMap<Key, u64>,
    durations: BTreeMap<Key, HandshakeStats>,
}

impl Counted {
    fn add(&mut self, kept: &mut Labels, names: &Names, key: &HandshakeKey, stats: &HandshakeStats) {
        let (Some(kind), Some(outcome), Some(stage)) = (
            HandshakeKind::from_u8(key.kind),
            HandshakeOutcome::from_u8(key.outcome),
            HandshakeStage::from_u8(key.stage),
        ) else {
            return;
        };
        let name = |identity: u32| names.identity(identity).unwrap_or("unidentified");
        let (source, destination) = (name(key.orig_identity), name(key.resp_identity));
        let labels = |second: &str, has_place: bool| {
            let (source, destination) = if has_place { (source, destination) } else { (OTHER, OTHER) };
            [kind.name(), outcome.name(), second, source, destination].map(str::to_owned)
        };
        if stage == HandshakeStage::Whole {
            let has_place = kept.pairs.has_place(&[source, destination]);
            let inferred = if key.inferred == 0 { "false" } else { "true" };
            *self.totals.entry(labels(inferred, has_place)).or_default() += stats.count;
        }
        // What time alone ends lasts as long as is waited for it.
        if stats.buckets.iter().all(|n| *n == 0) {
            return;
        }
        let own = labels(stage.name(), true);
        let has_place = kept.durations.has_place(&own.each_ref().map(String::as_str));
        let labels = if has_place { own } else { labels(stage.name(), false) };
        self.durations.entry(labels).and_modify(|sum| sum.merge(stats)).or_insert(*stats);
    }
}

pub(super) fn handshakes(shared: &Shared) -> Result<Vec<MetricFamily>> {
    let names = shared.names();
    let mut kept = lock(&shared.labels);
    let mut counted = kept.retired.clone();
    for (key, stats) in shared.maps.handshake_stats()? {
        counted.add(&mut kept, &names, &key, &stats);
    }
    let of = |[kind, outcome, inferred, source, destination]: &Key| {
        labels(&[
            ("kind", kind),
            ("outcome", outcome),
            ("inferred", inferred),
            ("source", source),
            ("destination", destination),
        ])
    };
    let total = counter(
        "tidegate_handshake_total",
        "TCP, TLS and QUIC handshakes by outcome and by the identities of their ends.",
        counted.totals.iter().map(|(key, count)| (of(key), *count)),
    );
    let mut duration =
        family("tidegate_handshake_duration_seconds", "How long handshakes took.", MetricType::HISTOGRAM);
    duration.set_metric(counted.durations.iter().map(|(l, stats)| histogram(l, stats)).collect());
    Ok(vec![total, duration])
}

/// When each entry of the table was counted last, as far as one look every ten seconds shows.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<HandshakeKey, (u64, Instant)>);

/// Pairs are looked at, and retire, where so many of eight places are taken.
const LOOKED_AT_FROM: usize = 4;
const RETIRED_FROM: usize = 6;
/// Who was counted since keeps its place.
const IDLE: Duration = Duration::from_secs(30);

impl Seen {
    /// Notes what the table holds now. Returns who has to retire for `room` to be enough: who was idle longest goes first.
    fn retiring(&mut self, now: Instant, counts: &[(HandshakeKey, u64)], room: usize) -> Vec<HandshakeKey> {
        let before = std::mem::take(&mut self.0);
        for (key, count) in counts {
            let since = before.get(key).filter(|(seen, _)| seen == count).map_or(now, |(_, since)| *since);
            self.0.insert(*key, (*count, since));
        }
        let mut idle: Vec<_> = self
            .0
            .iter()
            .map(|(key, (_, since))| (*since, *key))
            .filter(|(since, _)| now.saturating_duration_since(*since) >= IDLE)
            .collect();
        idle.sort_unstable();
        idle.truncate(counts.len().saturating_sub(room));
        idle.into_iter().map(|(_, key)| key).collect()
    }
}

/// Makes room in the table for pairs that come new. What was counted of those that go is on the page as before, until the daemon
/// ends.
pub(in crate::daemon) fn retire(shared: &Shared) -> Result<()> {
    let table = &shared.maps.handshakes;
    let places = table.max_entries() as usize;
    if table.len()? * 8 < places * LOOKED_AT_FROM {
        return Ok(());
    }
    let names = shared.names();
    let mut kept = lock(&shared.labels);
    let stats = shared.maps.handshake_stats()?;
    let counts: Vec<_> = stats.iter().map(|(key, stats)| (*key, stats.count)).collect();
    for key in kept.seen.retiring(Instant::now(), &counts, places * RETIRED_FROM / 8) {
        // As it is now: it may have been counted since.
        let Some(per_cpu) = table.get(&key)? else { continue };
        if table.remove(&key)? {
            let mut retired = std::mem::take(&mut kept.retired);
            per_cpu.iter().for_each(|stats| retired.add(&mut kept, &names, &key, stats));
            kept.retired = retired;
        }
    }
    Ok(())
}

/// Buckets of the maps that make one of the page: four parts of a power of two would make four times the series.
fn histogram([kind, outcome, stage, source, destination]: &Key, stats: &HandshakeStats) -> Metric {
    let mut cumulative = 0;
    let mut buckets = Vec::new();
    for (i, count) in stats.buckets.iter().enumerate() {
        cumulative += count;
        let ends_octave = i % HandshakeStats::SUB == 0;
        if let Some(bound) = HandshakeStats::bound_ns(i).filter(|_| ends_octave) {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound as f64 / 1e9);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(stats.count);
    histogram.set_sample_sum(stats.sum_ns as f64 / 1e9);
    let mut metric = Metric::from_label(labels(&[
        ("kind", kind),
        ("outcome", outcome),
        ("stage", stage),
        ("source", source),
        ("destination", destination),
    ]));
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_idle_longest_retires_and_who_was_counted_since_does_not() {
        let key = |n| HandshakeKey { orig_identity: n, ..HandshakeKey::default() };
        let (mut seen, start) = (Seen::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let table = |counts: [u64; 3]| [0, 1, 2].map(|n| (key(n), counts[n as usize]));
        assert_eq!(seen.retiring(at(0), &table([1, 1, 1]), 1), []);
        assert_eq!(seen.retiring(at(10), &table([1, 1, 2]), 1), []);
        assert_eq!(seen.retiring(at(20), &table([2, 1, 2]), 1), []);
        assert_eq!(seen.retiring(at(60), &table([2, 1, 2]), 3), [], "there is room");
        assert_eq!(seen.retiring(at(60), &table([2, 1, 2]), 1), [key(1), key(2)]);
        assert_eq!(seen.retiring(at(70), &table([2, 9, 2])[1..2], 0), []);
    }
}
