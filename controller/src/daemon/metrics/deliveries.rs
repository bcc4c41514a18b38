//! What became of events that are sent elsewhere.

use super::encode::{counter, gauge, labels};
use crate::daemon::Shared;
use prometheus::proto::MetricFamily;
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn families(shared: &Shared) -> [MetricFamily; 3] {
    let deliveries = &shared.deliveries;
    let of = |name: &'static str| labels(&[("receiver", name)]);
    let outcomes = deliveries.counts.iter().flat_map(|(name, counts)| {
        [("delivered", &counts.delivered), ("refused", &counts.refused), ("lost", &counts.lost)]
            .map(|(outcome, n)| (labels(&[("receiver", name), ("outcome", outcome)]), n.load(Relaxed)))
    });
    let retries = deliveries.counts.iter().map(|(name, counts)| (of(name), counts.retries.load(Relaxed)));
    let waiting =
        deliveries.counts.iter().map(|(name, counts)| (of(name), deliveries.waiting(counts) as f64));
    [
        counter(
            "tidegate_event_delivery_total",
            "Events that a receiver took, refused, or that were in no file any more when their turn came.",
            outcomes,
        ),
        counter(
            "tidegate_event_delivery_retries_total",
            "Attempts that failed and were made again.",
            retries,
        ),
        gauge("tidegate_event_delivery_waiting", "Events that a receiver has not come to yet.", waiting),
    ]
}
