//! What identities do by themselves: they are given leases or refused them, and where they run on this host, they execute programs and
//! open sockets.

use super::Watch;
use crate::daemon::enroll::Refused;
use crate::daemon::inlet::Judged;
use crate::daemon::{Shared, lock};
use crate::governance::{Deed, End, Role, Seen, Signal, departs, places, processes};
use crate::policy::intent::Intent;
use crate::policy::spiffe::SpiffeId;
use datapath::abi::Addr;
use jiff::Timestamp;

impl Shared {
    pub(super) fn look_at_exec(
        &self,
        watch: &Watch,
        intents: &[Intent],
        judged: &Judged,
        (id, path, pid): (&SpiffeId, &str, u32),
    ) {
        lock(&self.governance.deeds).note(id, Deed::Executes(path.into()), judged.time);
        let seen = Seen::on_host(watch.declared.own(id, self.address_of(id)));
        let departure = processes::undeclared(intents, &seen, path, pid);
        departure.iter().for_each(|departure| self.note(departure, &seen, judged));
    }

    pub(super) fn look_at_connect(
        &self,
        watch: &Watch,
        intents: &[Intent],
        judged: &Judged,
        (id, name, pid, (address, proto, port)): (&SpiffeId, &str, u32, (Addr, u8, u16)),
    ) {
        let peer = match self.who_is_at(address, &judged.names) {
            Some(peer) => watch.declared.own(&peer, address),
            None => End::Unidentified(address),
        };
        let own = watch.declared.own(id, self.address_of(id));
        lock(&self.governance.deeds).note(id, Deed::Opens(name.into()), judged.time);
        let seen = Seen { client: own, server: peer, proto, port };
        let departure = processes::opener(intents, &seen, name, pid);
        departure.iter().for_each(|departure| self.note(departure, &seen, judged));
    }

    /// A lease was given or renewed until then.
    pub(super) fn look_at_lease(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        judged: &Judged,
        (id, address, until): (&SpiffeId, Addr, Option<Timestamp>),
    ) {
        watch.terms.note(id, judged.time, until);
        let own = watch.declared.own(id, address);
        let (peer, others) = self.leases_of(id, address, own.clone());
        // Who is at an address that somebody else claims too, nobody knows.
        if matches!(peer, End::Identified { .. }) {
            lock(&self.governance.deeds).note(id, Deed::Addresses(others.len() + 1), judged.time);
        }
        let seen = Seen { server: peer, ..Seen::alone(own) };
        let departure = places::one_more(intents, &seen, others);
        departure.iter().for_each(|departure| self.note(departure, &seen, judged));
    }

    /// An enrolment was refused: of whom, if that was proven, and why.
    pub(super) fn look_at_refusal(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        judged: &Judged,
        (proven, address, why): (Option<&SpiffeId>, Addr, Refused),
    ) {
        let Some(id) = proven.cloned().or_else(|| self.who_is_at(address, &judged.names)) else { return };
        let seen = Seen::alone(watch.declared.own(&id, address));
        // That it was revoked is said to who proved who he is, and to nobody else.
        let (signal, detail) = if why == Refused::Revoked {
            let revoked = self.revoked(&id).map(|text| format!("{text}, and another was asked for"));
            (Signal::RevokedLease, revoked.or_else(|| Some("another was asked for".to_owned())))
        } else {
            let detail = watch.refusals.note(&id, proven.is_some(), (why.name(), judged.time));
            (Signal::EnrolmentRefused, detail)
        };
        if detail.is_some() {
            let departure = departs(intents, &seen, Role::Client, (signal, detail));
            departure.iter().for_each(|departure| self.note(departure, &seen, judged));
        }
    }
}
