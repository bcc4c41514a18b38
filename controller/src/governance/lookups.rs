//! Names that an identity asks for, against those that it is expected to.

use super::compare::{Departure, Role, Seen, departs};
use super::signal::Signal;
use crate::policy::intent::Intent;

/// That the client asks for a name which none of its intents has, where one of them says something of names.
pub fn undeclared<'s>(intents: &'s [Intent], seen: &'s Seen, name: &str) -> Option<Departure<'s>> {
    let of = |intent: &&Intent| intent.dns.is_some() && seen.client.is_any_of(&intent.identities);
    let first = intents.iter().find(of)?;
    let mut names = intents.iter().filter(of).flat_map(|intent| intent.dns.iter().flatten());
    if names.any(|pattern| pattern.matches(name)) {
        return None;
    }
    let signal = (Signal::NewName, Some(format!("asked for {name}")));
    departs(intents, seen, Role::Client, signal).map(|departure| Departure { intent: first, ..departure })
}
