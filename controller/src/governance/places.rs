//! At how many addresses an identity is at once: a credential that is used at one more may be stolen.

use super::compare::{Departure, End, Role, Seen};
use super::signal::Signal;
use crate::policy::intent::Intent;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Addresses of an identity by leases that hold, and until when; without an end where it has none.
pub type Places = BTreeMap<IpAddr, Option<Timestamp>>;

/// Whether the intents of an identity say at how many addresses it is: the first that does.
pub fn limit<'s>(intents: &'s [Intent], own: &End) -> Option<(&'s Intent, u32)> {
    let mut of = intents.iter().filter(|intent| own.is_any_of(&intent.identities));
    of.find_map(|intent| Some((intent, intent.instances?)))
}

/// At how many addresses an identity is that is at this one.
pub fn count(places: &Places, here: IpAddr) -> usize {
    places.len() + usize::from(!places.contains_key(&here))
}

/// That an identity which was given a lease is at too many addresses. `places` are where it was then, by leases that held. The peer of
/// `seen` is how sure it is who is at the address.
pub fn one_more<'s>(intents: &'s [Intent], seen: &'s Seen, places: &Places) -> Option<Departure<'s>> {
    let End::Identified { id, address, .. } = &seen.client else { return None };
    let (intent, most) = limit(intents, &seen.client)?;
    let here = address.to_ip();
    let many = count(places, here);
    if many <= most as usize {
        return None;
    }
    let told = |(address, until): (&IpAddr, &Option<Timestamp>)| match until {
        Some(until) => format!("{address} until {until:.0}"),
        None => address.to_string(),
    };
    let mut there: Vec<_> =
        places.iter().filter(|(address, _)| **address != here).take(4).map(told).collect();
    if many - 1 > there.len() {
        there.push("others".into());
    }
    let detail = format!("one of {many}, with leases at {}", there.join(", "));
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
