//! Which interfaces are judged, which slot of the counters each has, and by which of them XDP may send.

use crate::error::Result;
use crate::maps::Maps;
use crate::netdev;
use bytemuck::Zeroable;
use datapath::abi::{JudgedPort, PortCounters};

/// Registers an interface: TC leaves alone what comes in by it, and its counters have a slot if it is free.
pub(crate) fn claim(maps: &Maps, ifindex: u32) -> Result<()> {
    forget_gone(maps)?;
    let slot = PortCounters::slot(ifindex);
    let owner = owner(maps, slot)?;
    let owner_is_judged = owner != 0 && maps.judged_ports.get(&owner)?.is_some();
    if owner != ifindex && !owner_is_judged {
        maps.ports.set_all(slot, &PortCounters { ifindex, ..PortCounters::zeroed() })?;
    }
    maps.judged_ports.insert(&ifindex, &judged(ifindex)?)
}

/// Undoes [`claim`].
pub(crate) fn release(maps: &Maps, ifindex: u32) -> Result<()> {
    maps.redirect.remove(ifindex)?;
    maps.judged_ports.remove(&ifindex)?;
    let slot = PortCounters::slot(ifindex);
    if owner(maps, slot)? == ifindex {
        maps.ports.set_all(slot, &PortCounters::zeroed())?;
    }
    Ok(())
}

/// Follows what changes of interfaces while they are judged: hardware addresses, and whether XDP may send by them. A frame
/// that a driver does not take is lost, so only those that take frames now are where XDP sends.
pub fn refresh_ports(maps: &Maps) -> Result<()> {
    let sends = maps.redirect.all()?;
    for (ifindex, before) in maps.judged_ports.entries()? {
        // One that is gone since has left the devices by itself, and its number is released with the next claim.
        let Ok(now) = judged(ifindex) else { continue };
        if now != before {
            maps.judged_ports.insert(&ifindex, &now)?;
        }
        let may_send = netdev::xdp_sends(ifindex)?.unwrap_or(false);
        match (may_send, sends.contains(&ifindex)) {
            (true, false) => maps.redirect.insert(ifindex)?,
            (false, true) => maps.redirect.remove(ifindex)?,
            _ => {}
        }
    }
    Ok(())
}

fn judged(ifindex: u32) -> Result<JudgedPort> {
    Ok(JudgedPort { mac: netdev::link(ifindex)?.mac, _pad: [0; 2] })
}

fn owner(maps: &Maps, slot: u32) -> Result<u32> {
    Ok(maps.ports.get(slot)?.iter().map(|cpu| cpu.ifindex).max().unwrap_or(0))
}

/// Interfaces that are gone must not lend their number to a later one that nobody judges.
fn forget_gone(maps: &Maps) -> Result<()> {
    for ifindex in maps.judged_ports.entries()?.into_keys() {
        if netdev::name(ifindex).is_none() {
            release(maps, ifindex)?;
        }
    }
    Ok(())
}
