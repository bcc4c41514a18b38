//! Expectations.

use std::net::IpAddr;
use std::time::Duration;

use datapath::abi::Reason;
use serde_saphyr::{Location, Spanned};

use super::traffic::{duration, split_target};
use super::{Checked, list, mistake, needs_svid, node_index};
use crate::topology::plan::{
    AuditSays, Contained, Expectation, Expectations, FindingSays, Node, Party, What,
};
use crate::topology::schema::{AuditExpect, DropExpect, Expect, FindingExpect, FlowExpect, HandshakeExpect};
use crate::topology::values::is_spiffe_id;

/// Those of a whole story: what is decided or done beside what it names fails it.
pub fn of_story(raw: &Expect, nodes: &[Node]) -> Checked<Expectations> {
    let mut expectations = expectations(raw, nodes)?;
    let none = |what| Expectation { what, from: None, to: None, min: 0, max: Some(0) };
    // What must not be there is no room for it.
    let wanted = || expectations.all.iter().filter(|e| e.max != Some(0));
    let records = wanted().filter_map(|e| match &e.what {
        What::Audit(says) => Some(says.clone()),
        _ => None,
    });
    let contained = wanted().filter_map(|e| match &e.what {
        What::Containment(id, _, Contained::Active | Contained::Ended) => Some(id.clone()),
        _ => None,
    });
    let (records, contained): (Vec<_>, Vec<_>) = (records.collect(), contained.collect());
    if raw.audit.is_some() {
        expectations.all.push(none(What::OtherDecision(records)));
    }
    if !raw.containment.is_empty() {
        expectations.all.push(none(What::OtherContainment(contained)));
    }
    Ok(expectations)
}

pub fn expectations(raw: &Expect, nodes: &[Node]) -> Checked<Expectations> {
    let within = raw.within.as_ref().map_or(Ok(Duration::from_secs(10)), duration)?;
    let mut all = Vec::new();
    let end = |e: &Option<Spanned<String>>| e.as_ref().map(|e| party(e, nodes)).transpose();
    for e in &raw.drops {
        let DropExpect { reason, rule, from, to, min, max } = e.value.clone();
        let dropping = Reason::ALL.iter().filter(|r| !r.passes()).map(|r| r.name());
        if !dropping.clone().any(|r| r == reason.value) {
            let known = list(dropping);
            return mistake(
                reason.referenced,
                format!("`{}` is no reason for a drop; accepted are {known}", reason.value),
            );
        }
        let what = What::Drop { reason: reason.value, rule };
        all.push(counted(what, end(&from)?, end(&to)?, min, max, e.referenced)?);
    }
    for e in &raw.flows {
        let FlowExpect { from, to, verdict, conn_state, tls, min, max } = e.value.clone();
        let what = What::Flow { verdict, conn_state, tls };
        all.push(counted(what, end(&from)?, end(&to)?, min, max, e.referenced)?);
    }
    for e in &raw.handshakes {
        let HandshakeExpect { from, to, kind, outcome, min, max } = e.value.clone();
        let what = What::Handshake { kind, outcome };
        all.push(counted(what, end(&from)?, end(&to)?, min, max, e.referenced)?);
    }
    all.extend(of_findings(raw.findings.as_deref(), nodes)?);
    all.extend(of_audit(raw.audit.as_deref(), nodes)?);
    for e in &raw.containment {
        let what = What::Containment(identity(&e.value.identity, nodes)?, e.value.act, e.value.state);
        all.push(Expectation { what, from: None, to: None, min: 1, max: None });
    }
    Ok(Expectations { within, all })
}

/// Where findings are named, all are.
fn of_findings(raw: Option<&[Spanned<FindingExpect>]>, nodes: &[Node]) -> Checked<Vec<Expectation>> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let (mut all, mut named) = (Vec::new(), Vec::new());
    for e in raw {
        let f = e.value.clone();
        let says = FindingSays {
            intent: f.intent,
            signal: f.signal,
            role: f.role,
            identity: f.identity.as_ref().map(|id| identity(id, nodes)).transpose()?,
            peer: f.peer.as_ref().map(|id| peer(id, nodes)).transpose()?,
            state: f.state,
            decision: f.decision,
            confidence: f.confidence,
            severity: f.severity,
            why: f.why,
            departures: f.departures.unwrap_or(1),
        };
        named.push(says.clone());
        all.push(counted(What::Finding(says), None, None, f.min, f.max, e.referenced)?);
    }
    all.push(Expectation { what: What::OtherFinding(named), from: None, to: None, min: 0, max: Some(0) });
    Ok(all)
}

fn of_audit(raw: Option<&[Spanned<AuditExpect>]>, nodes: &[Node]) -> Checked<Vec<Expectation>> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let mut all = vec![Expectation { what: What::WholeAudit, from: None, to: None, min: 1, max: None }];
    for e in raw {
        let AuditExpect { kind, who, how, identity: id, says, min, max } = e.value.clone();
        let identity = id.as_ref().map(|id| identity(id, nodes)).transpose()?;
        let what = What::Audit(AuditSays { kind, who, how, identity, says });
        all.push(counted(what, None, None, min, max, e.referenced)?);
    }
    Ok(all)
}

/// A SPIFFE ID as it is, or that of a node.
fn identity(text: &Spanned<String>, nodes: &[Node]) -> Checked<String> {
    let at = text.referenced;
    if text.value.starts_with("spiffe://") {
        return if is_spiffe_id(&text.value) {
            Ok(text.value.clone())
        } else {
            mistake(at, format!("`{}` is no SPIFFE ID: accepted is spiffe://trust.domain/path", text.value))
        };
    }
    let node = &nodes[node_index(nodes, &text.value, at)?];
    node.svid.as_ref().map_or_else(|| mistake(at, needs_svid(&node.name)), |svid| Ok(svid.spiffe_id.clone()))
}

/// What findings say of peers that are nobody, or that are many.
const NO_PEERS: [&str; 3] = ["unidentified", "ambiguous", "several"];

fn peer(text: &Spanned<String>, nodes: &[Node]) -> Checked<String> {
    if NO_PEERS.contains(&text.value.as_str()) { Ok(text.value.clone()) } else { identity(text, nodes) }
}

fn counted(
    what: What,
    from: Option<Party>,
    to: Option<Party>,
    min: Option<u64>,
    max: Option<u64>,
    at: Location,
) -> Checked<Expectation> {
    let min = min.unwrap_or(u64::from(max.is_none()));
    match max {
        Some(max) if max < min => mistake(at, format!("max {max} is below min {min}")),
        _ => Ok(Expectation { what, from, to, min, max }),
    }
}

fn party(text: &Spanned<String>, nodes: &[Node]) -> Checked<Party> {
    let at = text.referenced;
    let Some((host, port)) = split_target(&text.value) else {
        return mistake(
            at,
            format!("`{}`: accepted is a NODE or an address, with :PORT or without", text.value),
        );
    };
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => nodes[node_index(nodes, host, at)?].addresses().collect(),
    };
    Ok(Party { name: text.value.clone(), addresses, port })
}
