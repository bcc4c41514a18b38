//! The rules of intents, asked of an event.

use super::compare::{Departure, End, Role, Seen, Signal};
use crate::policy::intent::Intent;
use crate::policy::intent::facts::Facts;
use crate::policy::intent::rules::Condition;
use crate::policy::ports::protocol_name;
use cel::{Program, Value};
use std::collections::HashMap;

/// Their expressions, compiled once.
#[derive(Debug, Default)]
pub struct Rules {
    programs: HashMap<Condition, Option<Program>>,
}

impl Rules {
    /// Other intents count from now on.
    pub fn clear(&mut self) {
        self.programs.clear();
    }

    /// What the rules of both ends find. `told` has what the event tells beside its ends.
    pub fn look<'s>(&mut self, intents: &'s [Intent], seen: &'s Seen, told: &Facts) -> Vec<Departure<'s>> {
        let mut departures = Vec::new();
        for (role, own, peer) in
            [(Role::Client, &seen.client, &seen.server), (Role::Server, &seen.server, &seen.client)]
        {
            let End::Identified { id, .. } = own else { continue };
            let of = |intent: &&Intent| !intent.rules.is_empty() && own.is_any_of(&intent.identities);
            let mut context = None;
            for intent in intents.iter().filter(of) {
                let context = context.get_or_insert_with(|| facts(seen, role, told).context());
                for rule in &intent.rules {
                    let program =
                        self.programs.entry(rule.when.clone()).or_insert_with(|| rule.when.program());
                    // What fails on an event says nothing of it.
                    let said = program.as_ref().and_then(|program| program.execute(context).ok());
                    if said == Some(Value::Bool(true)) {
                        let (signal, detail) = (Signal::Rule, Some(rule.message.clone()));
                        departures.push(Departure {
                            intent,
                            id,
                            own,
                            role,
                            peer,
                            signal,
                            detail,
                            rule: Some(rule),
                        });
                    }
                }
            }
        }
        departures
    }
}

fn facts(seen: &Seen, role: Role, told: &Facts) -> Facts {
    let (name, own, peer) = match role {
        Role::Client => ("client", &seen.client, &seen.server),
        Role::Server => ("server", &seen.server, &seen.client),
    };
    let id = |end: &End| match end {
        End::Identified { id, .. } => id.to_string(),
        End::Unidentified(_) | End::Ambiguous(_) => String::new(),
    };
    Facts {
        role: name,
        identity: id(own),
        address: own.address().to_ip().to_string(),
        peer: id(peer),
        peer_address: peer.address().to_ip().to_string(),
        proto: protocol_name(seen.proto),
        port: seen.port,
        ..told.clone()
    }
}
