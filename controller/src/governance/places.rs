//! At how many addresses an identity is at once: a credential that is used at one more may be stolen.

use super::compare::{Departure, End, Role, Seen};
use super::signal::Signal;
use crate::policy::intent::Intent;
use jiff::Timestamp;
use std::net::IpAddr;

/// An address of an identity, and until when its lease holds; without an end where it has none.
pub type Lease = (IpAddr, Option<Timestamp>);

/// Whether the intents of an identity say at how many addresses it is: the first that does.
pub fn limit<'s>(intents: &'s [Intent], own: &End) -> Option<(&'s Intent, u32)> {
    let mut of = intents.iter().filter(|intent| own.is_any_of(&intent.identities));
    of.find_map(|intent| Some((intent, intent.instances?)))
}

/// That an identity which was given a lease is at too many addresses. `others` are those of its leases that hold elsewhere; they count as
/// long as they do. The peer of `seen` is how sure it is who is at the address.
pub fn one_more<'s>(intents: &'s [Intent], seen: &'s Seen, mut others: Vec<Lease>) -> Option<Departure<'s>> {
    let End::Identified { id, .. } = &seen.client else { return None };
    let (intent, most) = limit(intents, &seen.client)?;
    if others.len() < most as usize {
        return None;
    }
    others.sort();
    let told = |(address, until): &Lease| match until {
        Some(until) => format!("{address} until {until:.0}"),
        None => address.to_string(),
    };
    let mut there: Vec<_> = others.iter().take(4).map(told).collect();
    if others.len() > there.len() {
        there.push("others".into());
    }
    let detail = format!("one of {}, with leases at {}", others.len() + 1, there.join(", "));
    Some(Departure {
        intent,
        id,
        own: &seen.client,
        role: Role::Client,
        peer: &seen.server,
        signal: Signal::Instances,
        detail: Some(detail),
        rule: None,
    })
}
