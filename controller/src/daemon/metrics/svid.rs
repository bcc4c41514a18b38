//! How it stands with the gateway's own SVID and with those of its peers.

use super::encode::{counter, gauge, labels};
use crate::daemon::Shared;
use crate::daemon::enroll::Refused;
use crate::svid::{Reason, SourceState};
use prometheus::proto::MetricFamily;

/// Nothing without a source of SVIDs.
pub(super) fn families(shared: &Shared) -> Vec<MetricFamily> {
    let Some(svid) = &shared.svid else { return Vec::new() };
    let status = svid.status();
    let seconds = |end: jiff::Timestamp| (Vec::new(), end.as_second() as f64);
    let refused = Reason::ALL.iter().map(|r| (labels(&[("reason", r.name())]), svid.refused().of(*r)));
    vec![
        gauge(
            "tidegate_svid_not_after_seconds",
            "The end of the gateway's own SVID, in seconds since 1970.",
            status.not_after.into_iter().map(seconds),
        ),
        gauge(
            "tidegate_svid_source_current",
            "Whether the gateway's SVID and bundles are the newest that their source has.",
            [(Vec::new(), f64::from(u8::from(status.state == SourceState::Current)))].into_iter(),
        ),
        counter(
            "tidegate_svid_updates_total",
            "SVIDs and bundles that came from their source.",
            [(Vec::new(), status.updates)].into_iter(),
        ),
        counter(
            "tidegate_svid_source_failures_total",
            "How often the source of the SVID was away, or what came from it was refused.",
            [(Vec::new(), status.failures)].into_iter(),
        ),
        gauge(
            "tidegate_svid_trust_domains",
            "Trust domains whose bundles the gateway has.",
            [(Vec::new(), status.trust_domains.len() as f64)].into_iter(),
        ),
        counter(
            "tidegate_svid_refused_total",
            "Handshakes that were refused for the peer's certificate, by reason.",
            refused,
        ),
    ]
}

/// What came of enrolments.
pub(super) fn enrolments(shared: &Shared) -> [MetricFamily; 2] {
    let counts = &shared.enrolments;
    let done = counts.done().map(|(outcome, n)| (labels(&[("outcome", outcome)]), n));
    let refused = Refused::ALL.map(|why| (labels(&[("reason", why.name())]), counts.refused(why)));
    [
        counter(
            "tidegate_enrolment_total",
            "Leases on their addresses that workloads got, renewed and gave back.",
            done.into_iter(),
        ),
        counter(
            "tidegate_enrolment_refused_total",
            "Enrolments that were refused, by reason.",
            refused.into_iter(),
        ),
    ]
}
