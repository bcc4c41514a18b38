//! Rules that would have let a connection pass, but for one thing.

use super::compile::precedence;
use super::document::{Documents, Open, Policy, Rule, RuleAction};
use super::explain::{Flow, MissKind, NearMiss, Side};
use super::grant::Grant;
use super::ports::{PortMatch, protocol_name};
use super::selector::selectors_text;
use jiff::Timestamp;

/// As many near misses as help.
const MAX_MISSES: usize = 3;

/// Rules that would allow it, had not a deny come first.
pub(super) fn overridden(
    documents: &Documents,
    (flow, now): (&Flow, Timestamp),
    src: &Side<'_>,
    dst: &Side<'_>,
) -> Vec<NearMiss> {
    let order = precedence(documents);
    let fits = |rule: &Rule| fits(rule, (flow, now), src, dst);
    let allowing = order.iter().position(|(_, rule)| rule.action == RuleAction::Allow && fits(rule));
    let told = |n: usize| {
        let (policy, rule) = order[n];
        let text = match passed_by(&order[..n], policy.tier, fits) {
            Some(pass) => format!("would allow it, but {pass} passes its tier by"),
            None => "would allow it, but is asked later".into(),
        };
        miss(MissKind::Overridden, policy, rule, text)
    };
    allowing.map(told).into_iter().collect()
}

/// Grants that let it pass and are over.
pub(super) fn ended(
    documents: &Documents,
    (flow, now): (&Flow, Timestamp),
    src: &Side<'_>,
    dst: &Side<'_>,
) -> Vec<NearMiss> {
    let is_about = |grant: &&Grant| {
        let ports = grant.ports.iter().any(|p| p.matches(flow.proto, flow.port));
        grant.not_after <= now && ports && src.matches(&grant.from) && dst.matches(&grant.to)
    };
    let told = |grant: &Grant| {
        let name = format!("grant/{}", grant.name);
        let text = format!("{name} let it pass until {:.0} ({})", grant.not_after, grant.place);
        NearMiss { kind: MissKind::GrantExpired, rule: Some(name), place: Some(grant.place.clone()), text }
    };
    documents.grants.iter().filter(is_about).map(told).take(MAX_MISSES).collect()
}

/// Whether a rule is there and about a connection.
fn fits(rule: &Rule, (flow, now): (&Flow, Timestamp), src: &Side<'_>, dst: &Side<'_>) -> bool {
    let ports = rule.ports.iter().any(|p| p.matches(flow.proto, flow.port));
    ports && src.matches(&rule.from) && dst.matches(&rule.to) && rule.open(now) != Open::Shut
}

/// Which of the rules before one passes its tier by.
fn passed_by(before: &[(&Policy, &Rule)], tier: u32, fits: impl Fn(&Rule) -> bool) -> Option<String> {
    let passes = |(policy, rule): &&(&Policy, &Rule)| {
        policy.tier == tier && rule.action == RuleAction::Pass && fits(rule)
    };
    before.iter().find(passes).map(|(policy, rule)| Documents::rule_key(&policy.name, &rule.name))
}

/// The allow rules of which only one thing does not fit.
pub(super) fn rules_nearby(
    documents: &Documents,
    (flow, now): (&Flow, Timestamp),
    src: &Side<'_>,
    dst: &Side<'_>,
) -> Vec<NearMiss> {
    let mut found: Vec<(MissKind, u32, NearMiss)> = Vec::new();
    let order = precedence(documents);
    let fits = |rule: &Rule| fits(rule, (flow, now), src, dst);
    for (n, (policy, rule)) in order.iter().copied().enumerate() {
        if rule.action != RuleAction::Allow {
            continue;
        }
        if fits(rule)
            && let Some(pass) = passed_by(&order[..n], policy.tier, fits)
        {
            let text = format!("would allow it, but {pass} passes its tier by");
            found.push((MissKind::Overridden, 0, miss(MissKind::Overridden, policy, rule, text)));
            continue;
        }
        let Some((kind, distance, text)) = nearly(rule, (flow, now), src, dst) else { continue };
        found.push((kind, distance, miss(kind, policy, rule, text)));
    }
    found.sort_by_key(|(kind, distance, _)| (*kind, *distance));
    found.into_iter().take(MAX_MISSES).map(|(.., miss)| miss).collect()
}

fn nearly(
    rule: &Rule,
    (flow, now): (&Flow, Timestamp),
    src: &Side<'_>,
    dst: &Side<'_>,
) -> Option<(MissKind, u32, String)> {
    let ports = rule.ports.iter().any(|p| p.matches(flow.proto, flow.port));
    let (from, to) = (src.matches(&rule.from), dst.matches(&rule.to));
    let listed = rule.ports.iter().map(PortMatch::to_string).collect::<Vec<_>>().join(", ");
    match (from, to, ports) {
        (true, true, true) => {
            let hours = rule.hours.as_ref().filter(|hours| !hours.contain(now))?;
            Some((MissKind::Hours, 0, format!("would allow it {hours}; now it is {}", hours.told(now))))
        }
        (true, true, false) => Some(match rule.ports.iter().filter_map(|p| port_distance(p, flow)).min() {
            Some(distance) => (MissKind::Port, distance, format!("would allow it on {listed}")),
            None => {
                let text = format!("allows {listed} between them, not {}", protocol_name(flow.proto));
                (MissKind::Protocol, 0, text)
            }
        }),
        (_, _, true) if dst.matches(&rule.from) && src.matches(&rule.to) => {
            let text =
                format!("allows the other direction: {} may open it to {}", dst.address(), src.address());
            Some((MissKind::Direction, 0, text))
        }
        (false, true, true) => {
            Some((MissKind::Source, 0, format!("allows it from {}", selectors_text(&rule.from))))
        }
        (true, false, true) => {
            Some((MissKind::Destination, 0, format!("allows it to {}", selectors_text(&rule.to))))
        }
        _ => None,
    }
}

/// How far a port is from a range of the same protocol.
fn port_distance(ports: &PortMatch, flow: &Flow) -> Option<u32> {
    match *ports {
        PortMatch::Protocol { proto, first, last } if proto == flow.proto => {
            Some(u32::from(first.saturating_sub(flow.port).max(flow.port.saturating_sub(last))))
        }
        _ => None,
    }
}

fn miss(kind: MissKind, policy: &Policy, rule: &Rule, text: String) -> NearMiss {
    let name = Documents::rule_key(&policy.name, &rule.name);
    let text = format!("{name} {text} ({})", rule.place);
    NearMiss { kind, rule: Some(name), place: Some(rule.place.clone()), text }
}
