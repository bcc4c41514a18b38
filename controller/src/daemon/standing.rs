//! What is known of one identity: who it is here, what it reached, whether that was expected, whether its credential is to be trusted.

use super::{Shared, lock};
use crate::bindings::{labels, labels_of};
use crate::exit_code::{Code, Failure, Result};
use crate::governance::{Confidence, Decision, End, Finding, PairSeen, Role, Seen, With, compare};
use crate::policy::intent::{Intent, Sensitivity};
use crate::policy::spiffe::{SpiffeId, SpiffePattern};
use crate::state::State;
use crate::view::standing::{Acting, BoundAt, Given, Reached, Standing, Trust};
use datapath::abi::Addr;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

type Labels<'s> = HashMap<&'s SpiffeId, &'s BTreeMap<String, String>>;

impl Shared {
    /// What is known of an identity; an error where nothing is.
    pub(super) fn standing(&self, id: &SpiffeId) -> Result<Standing> {
        let now = Timestamp::now();
        let pattern: SpiffePattern = id.as_str().parse().map_err(|e| Failure::failed("the SPIFFE ID", e))?;
        let pairs = self.governance.observed(&pattern).pairs;
        let is_open = |finding: &Finding| finding.state.is_open(now) && finding.identities.contains(id);
        let findings: Vec<_> = self.governance.findings().into_iter().filter(is_open).collect();
        let waiting =
            lock(&self.approvals).all().filter(|r| r.waits() && r.identity == *id).cloned().collect();
        let revoked = self.revoked(id);
        let standing = self.with_state(|state| {
            let mut standing = of_state(state, id, now);
            let labels = labels(&state.documents().workloads);
            let intents = &state.documents().intents[..];
            let itself = end(id, &labels, None);
            standing.intents = own(intents, &itself).map(|intent| intent.name.clone()).collect();
            standing.peers = pairs.into_iter().map(|seen| reached(intents, &labels, seen)).collect();
            standing
        });
        let mut standing = Standing { findings, approvals: waiting, ..standing };
        if standing.bindings.is_empty() && standing.peers.is_empty() && standing.findings.is_empty() {
            let message = format!("nothing is known of {id}");
            return Err(Failure::new(Code::NotFound, message).hint("`tidegate identity list` shows who is"));
        }
        judge(&mut standing, revoked, now);
        Ok(standing)
    }
}

fn of_state(state: &State, id: &SpiffeId, now: Timestamp) -> Standing {
    let files = state.documents().workloads.iter().filter(|w| w.spiffe_id == *id).flat_map(|w| {
        w.addresses.iter().map(move |address| BoundAt {
            address: format!("{address}{}", w.scope),
            by: w.place.to_string(),
            lease: w.lease,
            evidence: BTreeMap::new(),
        })
    });
    let sources = state.bindings.iter().filter(|(_, claim)| claim.spiffe_id == *id).map(|(source, claim)| {
        let (address, by) = (claim.slot().to_string(), source.to_string());
        BoundAt { address, by, lease: claim.lease, evidence: claim.evidence.clone() }
    });
    let labels = labels_of(&state.documents().workloads, id);
    let effective = state.effective(now);
    let about = effective.quarantines.iter();
    let about = about.filter(|q| q.identities.iter().any(|selector| selector.matches_workload(id, labels)));
    let given = state.grants_at(now).into_iter();
    let given = given.filter(|grant| grant.from.iter().any(|selector| selector.matches_workload(id, labels)));
    Standing {
        spiffe_id: id.clone(),
        identity: state.numbering.identity_number(id),
        trust: Trust::Trusted,
        because: Vec::new(),
        bindings: files.chain(sources).collect(),
        intents: Vec::new(),
        peers: Vec::new(),
        findings: Vec::new(),
        acts: about
            .map(|q| Acting {
                name: q.name.clone(),
                act: q.act.to_string(),
                not_after: q.not_after,
                reason: q.reason.clone(),
            })
            .collect(),
        approvals: Vec::new(),
        grants: given
            .map(|grant| Given {
                name: grant.name.clone(),
                to: crate::policy::selector::selectors_text(&grant.to),
                not_after: grant.not_after,
                reason: grant.reason.clone(),
            })
            .collect(),
    }
}

fn own<'i>(intents: &'i [Intent], end: &'i End) -> impl Iterator<Item = &'i Intent> {
    intents.iter().filter(move |intent| end.is_any_of(&intent.identities))
}

/// An end, by the labels that its workload has now.
fn end(id: &SpiffeId, labels: &Labels<'_>, address: Option<IpAddr>) -> End {
    let labels = labels.get(id).map(|labels| (*labels).clone()).unwrap_or_default();
    let address = Addr::from(address.unwrap_or(Ipv6Addr::UNSPECIFIED.into()));
    End::Identified { id: id.clone(), labels, address, is_shared: false }
}

/// Whether a pair is what intents declare now: the same comparison that the loop makes.
fn reached(intents: &[Intent], labels: &Labels<'_>, seen: PairSeen) -> Reached {
    let pair = &seen.pair;
    let own_end = end(&pair.identity, labels, None);
    let peer = match &pair.peer {
        With::SpiffeId(id) => end(id, labels, None),
        With::Address(address) => End::Unidentified((*address).into()),
        With::Ambiguous(address) => End::Ambiguous((*address).into()),
    };
    let is_declared = own(intents, &own_end).any(|intent| match pair.role {
        Role::Client => intent.client.is_some(),
        Role::Server => intent.server.is_some(),
    });
    let (client, server) = match pair.role {
        Role::Client => (own_end, peer),
        Role::Server => (peer, own_end),
    };
    let connection = Seen { client, server, proto: pair.proto, port: pair.port };
    let departs = compare(intents, &connection).iter().any(|departure| departure.role == pair.role);
    Reached { seen, expected: is_declared.then_some(!departs) }
}

/// Whether to trust it: the gravest of what speaks against it decides, and all of it is said.
fn judge(standing: &mut Standing, revoked: Option<String>, now: Timestamp) {
    let mut said: Vec<(Trust, String)> = revoked.map(|why| (Trust::Denied, why)).into_iter().collect();
    let until = |bound: &BoundAt| bound.lease.map_or(Timestamp::MAX, |lease| lease.not_after);
    let last = standing.bindings.iter().map(until).max();
    match last {
        None => said.push((Trust::Denied, "nothing is bound to it: its packets are nobody's".into())),
        Some(last) if last <= now => said.push((Trust::Denied, format!("its last lease ended at {last:.0}"))),
        Some(_) => {}
    }
    for act in &standing.acts {
        let trust = if act.act == "quarantine" { Trust::Denied } else { Trust::Review };
        let end = act.not_after.map(|end| format!(" until {end:.0}")).unwrap_or_default();
        said.push((trust, format!("{} holds{end}", act.act)));
    }
    for finding in &standing.findings {
        let is_grave = finding.severity == Sensitivity::High
            || finding.confidence == Confidence::High
            || matches!(finding.decision, Decision::Contain { .. });
        if is_grave {
            said.push((Trust::Review, format!("finding {} is open", finding.id)));
        }
    }
    for request in &standing.approvals {
        said.push((Trust::Review, format!("approval {} waits", request.id)));
    }
    if said.is_empty() {
        let lease = match last.filter(|last| *last < Timestamp::MAX) {
            None => "it is bound without an end".to_owned(),
            Some(last) => format!("it has a lease until {last:.0}"),
        };
        said.push((Trust::Trusted, format!("{lease}, and nothing that was seen speaks against it")));
    }
    standing.trust = said.iter().map(|(trust, _)| *trust).max().unwrap_or(Trust::Trusted);
    standing.because = said.into_iter().map(|(_, why)| why).collect();
}
