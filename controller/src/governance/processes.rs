//! Programs that an identity executes on its host, and processes that open its connections, against what it is expected to execute.

use super::compare::{Departure, Role, Seen, departs};
use super::signal::Signal;
use crate::policy::intent::Intent;
use crate::policy::intent::files::FilePattern;

/// That a program is executed which none of the identity's intents has, where one of them says something of programs.
pub fn undeclared<'s>(intents: &'s [Intent], seen: &'s Seen, path: &str, pid: u32) -> Option<Departure<'s>> {
    let detail = format!("{path} (process {pid})");
    unless(intents, seen, |file| file.matches(path), (Signal::NewProcess, Some(detail)))
}

/// That a process opens a connection whose name is that of no such program.
pub fn opener<'s>(intents: &'s [Intent], seen: &'s Seen, name: &str, pid: u32) -> Option<Departure<'s>> {
    let detail = format!("by {name} (process {pid})");
    unless(intents, seen, |file| file.may_be_named(name), (Signal::NewOpener, Some(detail)))
}

fn unless<'s>(
    intents: &'s [Intent],
    seen: &'s Seen,
    is_expected: impl Fn(&FilePattern) -> bool,
    signal: (Signal, Option<String>),
) -> Option<Departure<'s>> {
    let of = |intent: &&Intent| intent.processes.is_some() && seen.client.is_any_of(&intent.identities);
    let first = intents.iter().find(of)?;
    if intents.iter().filter(of).flat_map(|intent| intent.processes.iter().flatten()).any(is_expected) {
        return None;
    }
    departs(intents, seen, Role::Client, signal).map(|departure| Departure { intent: first, ..departure })
}
