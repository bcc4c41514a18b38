//! What the governance loop found and did.

use super::encode::{counter, gauge, labels};
use crate::daemon::Shared;
use crate::daemon::govern::Tally;
use crate::policy::act::ActName;
use crate::policy::intent::Sensitivity;
use prometheus::proto::MetricFamily;

pub(super) fn families(shared: &Shared) -> [MetricFamily; 8] {
    let Tally { open, contained, held_back, shed, forgotten, rules_failed, paused } =
        shared.governance.tally();
    let waiting = shared.requests().iter().filter(|request| request.waits()).count();
    let severities = [Sensitivity::Low, Sensitivity::Medium, Sensitivity::High];
    let open = severities.into_iter().zip(open);
    [
        gauge(
            "tidegate_open_findings",
            "Findings that wait for somebody, by how much harm they can do.",
            open.map(|(severity, n)| (labels(&[("severity", severity.name())]), n as f64)),
        ),
        counter(
            "tidegate_containments_total",
            "What was done about identities for findings.",
            ActName::ALL.into_iter().zip(contained).map(|(act, n)| (labels(&[("act", act.name())]), n)),
        ),
        counter(
            "tidegate_containments_held_back_total",
            "Containments that the brake, the bound an hour or a failure held back.",
            [(Vec::new(), held_back)].into_iter(),
        ),
        counter(
            "tidegate_governance_shed_total",
            "Events that were not compared, and departures without a finding: there was no room.",
            [(Vec::new(), shed)].into_iter(),
        ),
        counter(
            "tidegate_governance_forgotten_total",
            "Identities that were counted and forgotten: there was no room.",
            [(Vec::new(), forgotten)].into_iter(),
        ),
        counter(
            "tidegate_rule_failures_total",
            "Events on which a rule of an intent failed, and so said nothing.",
            [(Vec::new(), rules_failed)].into_iter(),
        ),
        gauge(
            "tidegate_approvals_waiting",
            "Containments that wait for people.",
            [(Vec::new(), waiting as f64)].into_iter(),
        ),
        gauge(
            "tidegate_governance_paused",
            "Whether nothing is contained without a person.",
            [(Vec::new(), f64::from(u8::from(paused)))].into_iter(),
        ),
    ]
}
