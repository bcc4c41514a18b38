//! Every metric there is, and how many series it can have at most, whoever sends what: docs/metrics.md says the same.

use super::kept::{CHANGES, DURATIONS, PAIRS};
use super::sources::SOURCES;
use super::state::IDENTITIES;
use crate::daemon::enroll::Refused;
use crate::policy::act::ActName;
use crate::svid::Reason;
use datapath::abi::{Answered, HandshakeStats, PortCounters};

/// Kinds and outcomes of handshakes, and stages of their durations.
const KINDS: usize = 3;
const OUTCOMES: usize = 11;
/// Inferred or not.
const PROOFS: usize = 2;
const STAGES: usize = 3;
/// Slots that have counters: one an interface, and those that share one.
const SLOTS: usize = PortCounters::SLOTS as usize;
const BY_REASON: usize = SLOTS * 2 * PortCounters::AUDITED;
/// One bucket an octave, the first, the one without end, sum and count.
const HISTOGRAM: usize = HandshakeStats::OCTAVES + 4;
/// `loader::Sizes::judged_ports`.
const ATTACHED: usize = 1024;

/// A webhook and a collector, and what can become of an event.
const RECEIVERS: usize = 2;
const RESULTS: usize = 3;

const CATALOGUE: [(&str, usize); 52] = [
    ("tidegate_drop_count_total", BY_REASON),
    ("tidegate_drop_bytes_total", BY_REASON),
    ("tidegate_audit_count_total", BY_REASON),
    ("tidegate_reject_count_total", SLOTS * Answered::ALL.len()),
    ("tidegate_forward_count_total", SLOTS * 2),
    ("tidegate_forward_bytes_total", SLOTS * 2),
    ("tidegate_redirect_count_total", SLOTS),
    ("tidegate_handshake_total", (PAIRS + 1) * KINDS * OUTCOMES * PROOFS),
    ("tidegate_handshake_duration_seconds", (DURATIONS + KINDS * OUTCOMES * STAGES) * HISTOGRAM),
    ("tidegate_lost_events_total", 8),
    ("tidegate_state_reserve_lacking_bytes", 1),
    ("tidegate_bpf_map_pressure", 20),
    ("tidegate_connections_opened_total", 1),
    ("tidegate_connections_closed_total", 2),
    ("tidegate_connections_evicted_total", 1),
    ("tidegate_connections", 2),
    ("tidegate_identity_connections", IDENTITIES * 2),
    ("tidegate_identities", 1),
    ("tidegate_interface_attached", ATTACHED),
    ("tidegate_policy_unconfirmed", 1),
    ("tidegate_policy_revision", 1),
    ("tidegate_build_info", 1),
    ("tidegate_bindings", SOURCES + 1),
    ("tidegate_ambiguous_bindings", 1),
    ("tidegate_identity_reloads_total", 2),
    ("tidegate_identity_files_wrong", 1),
    ("tidegate_feed_prefixes", 1),
    ("tidegate_feed_reloads_total", 2),
    ("tidegate_feeds_wrong", 1),
    ("tidegate_shadow_pending", 1),
    ("tidegate_shadow_same_total", 1),
    ("tidegate_shadow_difference_total", CHANGES + 1),
    ("tidegate_svid_not_after_seconds", 1),
    ("tidegate_svid_source_current", 1),
    ("tidegate_svid_updates_total", 1),
    ("tidegate_svid_source_failures_total", 1),
    ("tidegate_svid_trust_domains", 1),
    ("tidegate_svid_refused_total", Reason::ALL.len()),
    ("tidegate_enrolment_total", 3),
    ("tidegate_enrolment_refused_total", Refused::ALL.len()),
    ("tidegate_open_findings", 3),
    ("tidegate_containments_total", ActName::ALL.len()),
    ("tidegate_containments_held_back_total", 1),
    ("tidegate_governance_shed_total", 1),
    ("tidegate_governance_forgotten_total", 1),
    ("tidegate_rule_failures_total", 1),
    ("tidegate_approvals_waiting", 1),
    ("tidegate_governance_paused", 1),
    ("tidegate_event_delivery_total", RECEIVERS * RESULTS),
    ("tidegate_event_delivery_retries_total", RECEIVERS),
    ("tidegate_event_delivery_waiting", RECEIVERS),
    ("tidegate_exported_series", 1),
];

/// Name and bound of each row of the table.
fn documented() -> Vec<(&'static str, usize)> {
    let page = include_str!("../../../../docs/metrics.md");
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        let name = cells[0].trim_end_matches('`');
        let bound = cells[2].replace(',', "").parse().expect("the third cell is a number");
        name.starts_with("tidegate_").then_some((name, bound))
    };
    page.lines().filter_map(row).collect()
}

#[test]
fn docs_name_every_metric_with_its_bound() {
    assert_eq!(documented(), CATALOGUE);
}
