//! Which interfaces are judged, and which slot of the counters each has.

use crate::error::Result;
use crate::maps::Maps;
use crate::netdev;
use bytemuck::Zeroable;
use datapath::abi::PortCounters;

/// Registers an interface: TC leaves alone what comes in by it, and its counters have a slot if it is free.
pub(crate) fn claim(maps: &Maps, ifindex: u32) -> Result<()> {
    forget_gone(maps)?;
    let slot = PortCounters::slot(ifindex);
    let owner = owner(maps, slot)?;
    let owner_is_judged = owner != 0 && maps.judged_ports.get(&owner)?.is_some();
    if owner != ifindex && !owner_is_judged {
        maps.ports.set_all(slot, &PortCounters { ifindex, ..PortCounters::zeroed() })?;
    }
    maps.judged_ports.insert(&ifindex, &1)
}

/// Undoes [`claim`].
pub(crate) fn release(maps: &Maps, ifindex: u32) -> Result<()> {
    maps.judged_ports.remove(&ifindex)?;
    let slot = PortCounters::slot(ifindex);
    if owner(maps, slot)? == ifindex {
        maps.ports.set_all(slot, &PortCounters::zeroed())?;
    }
    Ok(())
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
