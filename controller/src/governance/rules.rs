//! The rules of intents, asked of an event.

use super::compare::{Departure, End, Role, Seen, Signal};
use crate::policy::intent::Intent;
use crate::policy::intent::facts::Facts;
use crate::policy::intent::rules::{Condition, Rule};
use crate::policy::ports::protocol_name;
use cel::{Context, Program, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Their expressions, compiled once.
#[derive(Debug, Default)]
pub struct Rules {
    programs: HashMap<Condition, Option<Program>>,
    /// Rules of the intents that count, by intent and name.
    failing: BTreeMap<(String, String), (u64, String)>,
    /// How often a rule failed on an event, and so said nothing of it.
    pub failed: u64,
}

/// A rule that fails on events: what it looks for may happen unseen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailingRule {
    /// Whose it is.
    pub intent: String,
    /// Its name.
    pub rule: String,
    /// On how many events, since these intents count.
    pub times: u64,
    /// Why, the last time.
    pub error: String,
}

impl Rules {
    /// Other intents count from now on.
    pub fn clear(&mut self) {
        self.programs.clear();
        self.failing.clear();
    }

    /// Those that failed on events.
    pub fn failing(&self) -> Vec<FailingRule> {
        let failing = self.failing.iter().map(|((intent, rule), (times, error))| FailingRule {
            intent: intent.clone(),
            rule: rule.clone(),
            times: *times,
            error: error.clone(),
        });
        failing.collect()
    }

    /// What a rule says of an event; nothing where it fails on it, which is counted.
    fn says(&mut self, (intent, rule): (&Intent, &Rule), context: &Context<'_, '_>) -> bool {
        let program = self.programs.entry(rule.when.clone()).or_insert_with(|| rule.when.program());
        let said = match program {
            Some(program) => {
                program.execute(context).map(|said| said == Value::Bool(true)).map_err(|e| e.to_string())
            }
            None => Err("it is no expression".to_owned()),
        };
        said.unwrap_or_else(|error| {
            self.failed += 1;
            let key = (intent.name.clone(), rule.name.clone());
            let (times, last) = self.failing.entry(key).or_default();
            (*times, *last) = (*times + 1, error);
            false
        })
    }

    /// What the rules of both ends find. `told` has what the event tells beside its ends.
    pub fn look<'s>(&mut self, intents: &'s [Intent], seen: &'s Seen, told: &Facts) -> Vec<Departure<'s>> {
        let mut departures = Vec::new();
        let ends = [(Role::Client, &seen.client, &seen.server), (Role::Server, &seen.server, &seen.client)];
        // What an identity does by itself it does on one side.
        for (role, own, peer) in ends.into_iter().take(if seen.is_alone() { 1 } else { 2 }) {
            let End::Identified { id, .. } = own else { continue };
            let of = |intent: &&Intent| !intent.rules.is_empty() && own.is_any_of(&intent.identities);
            let mut context = None;
            for intent in intents.iter().filter(of) {
                let context = context.get_or_insert_with(|| facts(seen, role, told).context());
                context.add_variable_from_value("workload", intent.workload.name().to_owned());
                for rule in &intent.rules {
                    if self.says((intent, rule), context) {
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
    let facts =
        Facts { role: name, identity: id(own), address: own.address().to_ip().to_string(), ..told.clone() };
    if seen.is_alone() {
        return facts;
    }
    Facts {
        peer: id(peer),
        peer_address: peer.address().to_ip().to_string(),
        proto: protocol_name(seen.proto),
        port: seen.port,
        ..facts
    }
}
