//! What identities do by themselves: they are given leases or refused them, and where they run on this host, they execute programs and
//! open sockets.

use super::Watch;
use crate::daemon::enroll::Refused;
use crate::daemon::inlet::{Called, Judged, Knocked, Lent, Local};
use crate::daemon::{Shared, lock};
use crate::governance::{Deed, End, Role, Seen, Signal, departs, places, processes};
use crate::policy::intent::Intent;

impl Shared {
    pub(super) fn look_at_exec(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        judged: &Judged,
        (Local { id, address, pid }, path): (&Local, &str),
    ) {
        lock(&self.governance.deeds).note(id, Deed::Executes(path.into()), judged.time);
        let seen = Seen::on_host(watch.declared.own(id, *address));
        let departure = processes::undeclared(intents, &seen, path, *pid);
        departure.iter().for_each(|departure| self.note(departure, &seen, judged));
        self.ask_rules(watch, intents, &seen, judged);
    }

    pub(super) fn look_at_connect(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        judged: &Judged,
        (Local { id, address, pid }, name, to): (&Local, &str, Called),
    ) {
        let server = watch.declared.end(&judged.names, to.identity, to.address);
        let client = watch.declared.own(id, *address);
        lock(&self.governance.deeds).note(id, Deed::Opens(name.into()), judged.time);
        let seen = Seen { client, server, proto: to.proto, port: to.port };
        let departure = processes::opener(intents, &seen, name, *pid);
        departure.iter().for_each(|departure| self.note(departure, &seen, judged));
        self.ask_rules(watch, intents, &seen, judged);
    }

    /// A lease was given or renewed until then.
    pub(super) fn look_at_lease(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        judged: &Judged,
        Lent { id, address, until, certificate, places, is_contested }: &Lent,
    ) {
        watch.terms.note(id, judged.time, *until);
        let own = watch.declared.own(id, *address);
        watch.roles.certify(&own, certificate.as_deref(), judged.time);
        // Who is at an address that somebody else claims too, nobody knows.
        let peer = if *is_contested { End::Ambiguous(*address) } else { own.clone() };
        if !is_contested {
            let many = places::count(places, address.to_ip());
            lock(&self.governance.deeds).note(id, Deed::Addresses(many), judged.time);
        }
        let seen = Seen { server: peer, ..Seen::alone(own) };
        let departure = places::one_more(intents, &seen, places);
        departure.iter().for_each(|departure| self.note(departure, &seen, judged));
        self.ask_rules(watch, intents, &seen, judged);
    }

    /// An enrolment was refused.
    pub(super) fn look_at_refusal(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        judged: &Judged,
        Knocked { id, is_proven, address, why, detail }: &Knocked,
    ) {
        let Some(id) = id else { return };
        let seen = Seen::alone(watch.declared.own(id, *address));
        // That it was revoked is said to who proved who he is, and to nobody else.
        let (signal, detail) = if *why == Refused::Revoked {
            (Signal::RevokedLease, Some(format!("{detail}, and another was asked for")))
        } else {
            let detail = watch.refusals.note(id, *is_proven, (why.name(), judged.time));
            (Signal::EnrolmentRefused, detail)
        };
        if detail.is_some() {
            let departure = departs(intents, &seen, Role::Client, (signal, detail));
            departure.iter().for_each(|departure| self.note(departure, &seen, judged));
        }
        self.ask_rules(watch, intents, &seen, judged);
    }
}
