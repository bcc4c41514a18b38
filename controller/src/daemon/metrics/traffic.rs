//! Packets and bytes, by interface, direction and reason.

use super::encode::{counter, labels};
use crate::exit_code::Result;
use crate::view::drops::{answers, counters};
use datapath::abi::Reason;
use loader::Maps;
use prometheus::proto::MetricFamily;
use std::collections::BTreeMap;

pub(super) fn traffic(maps: &Maps) -> Result<Vec<MetricFamily>> {
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
