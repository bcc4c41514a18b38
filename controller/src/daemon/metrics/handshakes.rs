//! Handshakes by the identities of their ends.

use super::encode::{counter, family, labels};
use super::kept::OTHER;
use crate::daemon::{Shared, lock};
use crate::exit_code::Result;
use datapath::abi::{HandshakeKind, HandshakeOutcome, HandshakeStage, HandshakeStats};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use std::collections::BTreeMap;

/// Identities without a place of their own.
const OTHERS: (&str, &str) = (OTHER, OTHER);

/// Kind, outcome, stage, source, destination.
type Labels<'a> = [&'a str; 5];

pub(super) fn handshakes(shared: &Shared) -> Result<Vec<MetricFamily>> {
    let names = shared.names();
    let name = |identity: u32| names.identity(identity).unwrap_or("unidentified");
    let mut kept = lock(&shared.labels);
    let mut totals: BTreeMap<Labels<'_>, u64> = BTreeMap::new();
    let mut durations: BTreeMap<Labels<'_>, HandshakeStats> = BTreeMap::new();
    for (key, stats) in shared.maps.handshake_stats()? {
        let (Some(kind), Some(outcome), Some(stage)) = (
            HandshakeKind::from_u8(key.kind),
            HandshakeOutcome::from_u8(key.outcome),
            HandshakeStage::from_u8(key.stage),
        ) else {
            continue;
        };
        let pair = (name(key.orig_identity), name(key.resp_identity));
        if stage == HandshakeStage::Whole {
            let (source, destination) = if kept.pairs.has_place(&[pair.0, pair.1]) { pair } else { OTHERS };
            let labels = [kind.name(), outcome.name(), stage.name(), source, destination];
            *totals.entry(labels).or_default() += stats.count;
        }
        // What time alone ends lasts as long as is waited for it.
        if stats.buckets.iter().all(|n| *n == 0) {
            continue;
        }
        let mut labels = [kind.name(), outcome.name(), stage.name(), pair.0, pair.1];
        if !kept.durations.has_place(&labels) {
            (labels[3], labels[4]) = OTHERS;
        }
        durations.entry(labels).and_modify(|sum| sum.merge(&stats)).or_insert(stats);
    }
    let of = |[kind, outcome, _, source, destination]: &Labels<'_>| {
        labels(&[("kind", kind), ("outcome", outcome), ("source", source), ("destination", destination)])
    };
    let total = counter(
        "tidegate_handshake_total",
        "TCP, TLS and QUIC handshakes by outcome and by the identities of their ends.",
        totals.iter().map(|(key, count)| (of(key), *count)),
    );
    let mut duration =
        family("tidegate_handshake_duration_seconds", "How long handshakes took.", MetricType::HISTOGRAM);
    duration.set_metric(durations.iter().map(|(l, stats)| histogram(l, stats)).collect());
    Ok(vec![total, duration])
}

/// Buckets of the maps that make one of the page: four parts of a power of two would make four times the series.
fn histogram([kind, outcome, stage, source, destination]: &Labels<'_>, stats: &HandshakeStats) -> Metric {
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
