//! `/metrics`: what the maps hold, in Prometheus' form. Everything is read when it is asked for.

use super::Shared;
use crate::exit_code::{Failure, Result};
use crate::names::Names;
use crate::view::drops::{answers, counters};
use crate::view::status::pressure;
use datapath::abi::{HandshakeKind, HandshakeOutcome, HandshakeStage, HandshakeStats, Lost, Reason, Tally};
use datapath::holdings::Held;
use loader::Maps;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Pairs of identities that get labels of their own; the rest add up under `other`.
const PAIRS: usize = 500;
/// The same for histograms, of which each is 23 series.
const TIMED_PAIRS: usize = 50;

/// The whole page.
pub fn page(shared: &Shared) -> Result<String> {
    let maps = &shared.maps;
    let mut families = traffic(maps)?;
    families.extend(handshakes(shared)?);
    families.extend(state(shared)?);
    families.extend(shadow(shared)?);
    families.retain(|family| !family.get_metric().is_empty()); // the encoder refuses them
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).map_err(|e| Failure::failed("encode metrics", e))?;
    String::from_utf8(text).map_err(|e| Failure::failed("encode metrics", e))
}

fn traffic(maps: &Maps) -> Result<Vec<MetricFamily>> {
    let counters = counters(maps)?;
    let answers = answers(maps)?;
    let mut forwarded: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    let mut drops = Vec::new();
    let mut audits = Vec::new();
    for c in &counters {
        let port = [("direction", c.direction.name()), ("interface", c.interface.as_str())];
        if c.audited || c.reason.passes() {
            let sum = forwarded.entry((c.direction, c.interface.as_str())).or_default();
            sum.0 += c.packets;
            sum.1 += c.bytes;
        }
        let with_reason = [("reason", c.reason.name()), port[0], port[1]];
        if c.audited {
            audits.push((labels(&with_reason), c.packets));
        } else if !c.reason.passes() {
            drops.push((labels(&with_reason), c.packets, c.bytes));
        }
    }
    let redirected: Vec<_> = counters
        .iter()
        .filter(|c| c.reason == Reason::Redirected)
        .map(|c| (labels(&[("interface", c.interface.as_str())]), c.packets))
        .collect();
    let port = |((direction, interface), _): &(&(datapath::abi::Direction, &str), &(u64, u64))| {
        labels(&[("direction", direction.name()), ("interface", interface)])
    };
    Ok(vec![
        counter(
            "tidegate_drop_count_total",
            "Packets dropped, by reason (docs/drops.md).",
            drops.iter().map(|(l, packets, _)| (l.clone(), *packets)),
        ),
        counter(
            "tidegate_drop_bytes_total",
            "Bytes of dropped packets.",
            drops.iter().map(|(l, _, bytes)| (l.clone(), *bytes)),
        ),
        counter(
            "tidegate_audit_count_total",
            "Packets that passed although they would have been dropped, by reason.",
            audits.into_iter(),
        ),
        counter(
            "tidegate_reject_count_total",
            "Dropped packets that were answered, by the kind of answer.",
            answers
                .iter()
                .map(|(interface, how, n)| (labels(&[("answer", how.name()), ("interface", interface)]), *n)),
        ),
        counter(
            "tidegate_forward_count_total",
            "Packets that passed.",
            forwarded.iter().map(|entry| (port(&entry), entry.1.0)),
        ),
        counter(
            "tidegate_forward_bytes_total",
            "Bytes of packets that passed.",
            forwarded.iter().map(|entry| (port(&entry), entry.1.1)),
        ),
        counter(
            "tidegate_redirect_count_total",
            "Packets that XDP sent itself, by the interface they left by; among the forwarded.",
            redirected.into_iter(),
        ),
    ])
}

/// Kind, outcome, stage, source, destination.
type Labels<'a> = [&'a str; 5];

fn handshakes(shared: &Shared) -> Result<Vec<MetricFamily>> {
    let names = shared.names();
    let name = |identity: u32| names.identity(identity).unwrap_or("unidentified");
    let (mut counted, mut timed) = (Pairs::new(PAIRS), Pairs::new(TIMED_PAIRS));
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
            let (source, destination) = counted.place(pair);
            let labels = [kind.name(), outcome.name(), stage.name(), source, destination];
            *totals.entry(labels).or_default() += stats.count;
        }
        // What time alone ends lasts as long as is waited for it.
        if stats.buckets.iter().all(|n| *n == 0) {
            continue;
        }
        let (source, destination) = timed.place(pair);
        let labels = [kind.name(), outcome.name(), stage.name(), source, destination];
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

/// The first pairs of identities; those that are too many add up under `other`.
struct Pairs<'a> {
    known: std::collections::BTreeSet<(&'a str, &'a str)>,
    room: usize,
}

impl<'a> Pairs<'a> {
    fn new(room: usize) -> Self {
        Self { known: std::collections::BTreeSet::new(), room }
    }

    fn place(&mut self, pair: (&'a str, &'a str)) -> (&'a str, &'a str) {
        let known = self.known.contains(&pair) || (self.known.len() < self.room && self.known.insert(pair));
        if known { pair } else { ("other", "other") }
    }
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

/// What a candidate policy would change.
fn shadow(shared: &Shared) -> Result<Vec<MetricFamily>> {
    let names = shared.names();
    let counted = crate::view::shadow::counted(&shared.maps)?;
    let pending = shared.with_state(|state| state.shadow.is_some());
    let changes = counted.changes.iter().map(|(key, n)| {
        let [(old, old_reason), (new, new_reason)] = key.verdicts();
        let pair = [
            ("old_rule", crate::view::shadow::rule(&names, key.old_rule)),
            ("old_verdict", old.name()),
            ("old_reason", old_reason.name()),
            ("new_rule", crate::view::shadow::rule(&names, key.new_rule)),
            ("new_verdict", new.name()),
            ("new_reason", new_reason.name()),
        ];
        (labels(&pair), *n)
    });
    Ok(vec![
        gauge(
            "tidegate_shadow_pending",
            "Whether a candidate policy is judged beside the one that counts.",
            [(vec![], f64::from(u8::from(pending)))].into_iter(),
        ),
        counter(
            "tidegate_shadow_same_total",
            "Judgements of the sample on which the candidate agrees.",
            [(vec![], counted.same)].into_iter(),
        ),
        counter(
            "tidegate_shadow_difference_total",
            "Judgements of the sample on which the candidate says otherwise.",
            changes,
        ),
    ])
}

fn state(shared: &Shared) -> Result<Vec<MetricFamily>> {
    // Before the tables are counted, and what is closed after them: what comes or goes meanwhile is not evicted.
    let opened = shared.maps.tally(Tally::Opened)?;
    let maps = &shared.maps;
    let (revision, identities) =
        shared.with_state(|state| (state.revision, state.documents().workloads.len()));
    let pressure = pressure(maps)?;
    let entries = |map: &str| pressure.iter().find(|p| p.map == map).map_or(0, |p| p.entries) as f64;
    let full = pressure
        .iter()
        .map(|p| (labels(&[("map_name", p.map)]), p.entries as f64 / f64::from(p.max_entries.max(1))));
    let connections = [
        (labels(&[("state", "answered")]), entries(datapath::abi::MapName::CONNECTIONS)),
        (labels(&[("state", "half_open")]), entries(datapath::abi::MapName::HALF_OPEN)),
    ];
    let lost = [
        (labels(&[("source", "ring_buffer")]), maps.lost_events(Lost::NoRoom)?),
        (labels(&[("source", "event_limit")]), maps.lost_events(Lost::Limited)?),
        (labels(&[("source", "hello_ring_buffer")]), maps.lost_events(Lost::Hello)?),
        (labels(&[("source", "observer_queue")]), shared.hub.lost.load(Ordering::Relaxed)),
    ];
    let living: f64 = connections.iter().map(|(_, n)| n).sum();
    let replaced = maps.tally(Tally::Replaced)?;
    let expired = maps.tally(Tally::Expired)?;
    let closed = [(labels(&[("how", "replaced")]), replaced), (labels(&[("how", "expired")]), expired)];
    let evicted = opened.saturating_sub(replaced + expired + living as u64);
    let held = holdings(shared)?;
    let version = labels(&[("version", env!("CARGO_PKG_VERSION"))]);
    Ok(vec![
        counter(
            "tidegate_lost_events_total",
            "Events that found no room, or were more of a kind than --event-limit.",
            lost.into_iter(),
        ),
        gauge("tidegate_bpf_map_pressure", "How full a map is, from 0 to 1.", full),
        counter(
            "tidegate_connections_opened_total",
            "Connections that were opened.",
            [(vec![], opened)].into_iter(),
        ),
        counter(
            "tidegate_connections_closed_total",
            "Connections that are over and were reported: gave way to another of their key, or by time.",
            closed.into_iter(),
        ),
        counter(
            "tidegate_connections_evicted_total",
            "Connections that a full table dropped without a report: opened, not closed, not tracked any more.",
            [(vec![], evicted)].into_iter(),
        ),
        gauge("tidegate_connections", "Connections that are tracked.", connections.into_iter()),
        gauge(
            "tidegate_identity_connections",
            "Connections of identities whose limit counts them, by the 50 that have most.",
            held.into_iter(),
        ),
        gauge(
            "tidegate_identities",
            "Workloads with an identity.",
            [(vec![], identities as f64)].into_iter(),
        ),
        gauge("tidegate_policy_revision", "Commits so far.", [(vec![], revision as f64)].into_iter()),
        gauge("tidegate_build_info", "The version of the daemon.", [(version, 1.0)].into_iter()),
    ])
}

/// As many identities have labels of their own.
const IDENTITIES: usize = 50;

/// What identities with a limit of it have, most first.
fn holdings(shared: &Shared) -> Result<Vec<(Vec<LabelPair>, f64)>> {
    let now_ns = loader::boot_ns();
    let all = shared.maps.holdings.entries()?.into_iter().map(|(id, holdings)| (id, holdings.at(now_ns)));
    let mut all: Vec<_> = all.filter(|(_, held)| *held != Held::default()).collect();
    all.sort_by_key(|(id, held)| (std::cmp::Reverse(held.attempts + held.answered), *id));
    all.truncate(IDENTITIES);
    let names = shared.with_state(Names::of);
    let one = |(id, held): &(u32, Held)| {
        let identity = names.identity(*id).unwrap_or("unidentified").to_owned();
        let of = |state, count: u64| (labels(&[("identity", &identity), ("state", state)]), count as f64);
        [of("answered", held.answered), of("half_open", held.attempts)]
    };
    Ok(all.iter().flat_map(one).collect())
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let mut labels: Vec<_> = pairs
        .iter()
        .map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        })
        .collect();
    labels.sort();
    labels
}

fn family(name: &str, help: &str, kind: MetricType) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family
}

fn counter(name: &str, help: &str, values: impl Iterator<Item = (Vec<LabelPair>, u64)>) -> MetricFamily {
    let metric = |(labels, value): (Vec<LabelPair>, u64)| {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = Metric::from_label(labels);
        metric.set_counter(counter);
        metric
    };
    let mut family = family(name, help, MetricType::COUNTER);
    family.set_metric(values.map(metric).collect());
    family
}

fn gauge(name: &str, help: &str, values: impl Iterator<Item = (Vec<LabelPair>, f64)>) -> MetricFamily {
    let metric = |(labels, value): (Vec<LabelPair>, f64)| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(labels);
        metric.set_gauge(gauge);
        metric
    };
    let mut family = family(name, help, MetricType::GAUGE);
    family.set_metric(values.map(metric).collect());
    family
}
