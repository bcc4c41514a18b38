//! What can be done about an identity for a while: each is a quarantine of a kind, in the state, with its end. So it is listed, undone
//! and recorded as one, and ended by the kernel, all but a revoked lease.

use super::Shared;
use crate::bindings::labels_of;
use crate::exit_code::Result;
use crate::governance::Finding;
use crate::policy::Place;
use crate::policy::act::{Act, ActName};
use crate::policy::intent::Intent;
use crate::policy::ports::PortMatch;
use crate::policy::quarantine::Quarantine;
use crate::policy::selector::Selector;
use crate::policy::spiffe::SpiffeId;
use crate::policy::target::Target;
use crate::state::{Author, State, manual_act};
use jiff::Timestamp;

impl Shared {
    /// Does something about an identity until then.
    pub(super) fn act_until(
        &self,
        id: &SpiffeId,
        act: &Act,
        reason: &str,
        (now, until): (Timestamp, Timestamp),
        by: &Author,
    ) -> Result<u64> {
        self.commit(by, |state| {
            let quarantine = Quarantine {
                // As `tidegate quarantine add` names it: `quarantine del` undoes it.
                name: manual_act(act.name(), &id.to_string()),
                identities: vec![Selector::SpiffeId(id.clone())],
                except: if *act == Act::Restrict { declared(state, id) } else { Vec::new() },
                act: act.clone(),
                since: Some(now),
                reason: Some(reason.to_owned()),
                not_after: Some(until),
                place: Place { file: reason.into(), line: 1, column: 1 },
            };
            add(state, quarantine);
        })
    }

    /// Whether somebody has undone what the finding led to last, before its time was over: that is not done again.
    pub(super) fn is_undone(&self, finding: &Finding, id: &SpiffeId, now: Timestamp) -> bool {
        let last = finding.containments.iter().rfind(|done| done.identity == *id);
        last.filter(|last| last.until > now).is_some_and(|last| {
            let name = manual_act(last.act, &id.to_string());
            !self.with_state(|state| state.quarantines.iter().any(|q| q.name == name))
        })
    }

    /// Until when nobody is given a lease for an identity, since it was revoked; nothing where it was not.
    pub(super) fn revoked(&self, id: &SpiffeId) -> Option<String> {
        let now = Timestamp::now();
        self.with_state(|state| {
            let holds =
                |q: &&Quarantine| q.act == Act::RevokeLease && q.not_after.is_none_or(|end| end > now);
            // Nearly always there is none, and workloads can be very many.
            let mut revoked = state.quarantines.iter().filter(holds).peekable();
            revoked.peek()?;
            let labels = labels_of(&state.documents().workloads, id);
            let fits = |s: &Selector| s.matches_workload(id, labels);
            let revoked = revoked.find(|q| q.identities.iter().any(fits))?;
            let until = revoked.not_after.map(|end| format!(" until {end:.0}")).unwrap_or_default();
            Some(format!("the lease of {id} is revoked{until}"))
        })
    }

    /// Takes out what is over and what the kernel cannot take out itself: leases that were revoked, and bits that no limit needs.
    pub(super) fn let_acts_end(&self) -> Result<()> {
        let now = Timestamp::now();
        let is_over = |q: &&Quarantine| !q.act.cuts_off() && q.not_after.is_some_and(|end| end <= now);
        let over = self.with_state(|state| {
            state.quarantines.iter().filter(is_over).map(|q| q.name.clone()).collect::<Vec<_>>()
        });
        if !over.is_empty() {
            self.commit(&Author::daemon(format!("over: {}", over.join(", "))), |_| {})?;
        }
        Ok(())
    }
}

/// What the intents of an identity declare, on both sides.
fn declared(state: &State, id: &SpiffeId) -> Vec<Target> {
    let labels = labels_of(&state.documents().workloads, id);
    let is_its = |intent: &&Intent| intent.identities.iter().any(|s| s.matches_workload(id, labels));
    let intents = state.documents().intents.iter().filter(is_its);
    let expected = intents.flat_map(|intent| intent.client.iter().chain(&intent.server).flatten());
    expected
        .flat_map(|expected| {
            let ports = |selector: Option<Selector>| match &selector {
                Some(_) if expected.ports.contains(&PortMatch::Any) => Target { selector, ports: Vec::new() },
                _ => Target { selector, ports: expected.ports.clone() },
            };
            let peer = |peer: &Selector| (*peer != Selector::Any).then(|| peer.clone());
            expected.peers.iter().map(move |selector| ports(peer(selector))).collect::<Vec<_>>()
        })
        .collect()
}

/// One that somebody set and that holds longer stays as it is.
fn add(state: &mut State, quarantine: Quarantine) {
    let longer = |q: &Quarantine| {
        q.name == quarantine.name && q.not_after.is_none_or(|end| Some(end) >= quarantine.not_after)
    };
    if !state.quarantines.iter().any(longer) || quarantine.act.name() == ActName::CutFlows {
        state.quarantines.retain(|q| q.name != quarantine.name);
        state.quarantines.push(quarantine);
    }
}
