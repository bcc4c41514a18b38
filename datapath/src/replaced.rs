//! A connection gives way to a new one of its key: what all CPUs have counted of it is reported.

use crate::abi::{Direction, FlowKey, FlowRecord, Limits, Packet};
use crate::event;
use crate::policy::Moment;
use crate::reset::MAX_CPUS;
use crate::stage::Stages;
use crate::tables::{Draft, Plane, Slots, Spill, Table, Tables};

/// Reports the connection in the draft, whose record there is this CPU's or the attempt's own.
///
/// On a machine with more than 256 CPUs what the others have counted is left out.
#[inline(always)]
pub fn report<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    packet: &Packet,
    moment: &Moment,
    index: u32,
) {
    let Some(over) = plane.draft.attempt() else {
        return;
    };
    let conn = &mut over.connection;
    let total = &mut over.record;
    if total.incarnation != conn.incarnation {
        *total = bytemuck::Zeroable::zeroed();
        total.incarnation = conn.incarnation;
        total.first_ns = u64::MAX;
    }
    total.packets = [0, 0];
    total.bytes = [0, 0];
    if let Some(attempt) = plane.half_open.get(&packet.key) {
        add(total, &attempt.record);
    }
    for cpu in 0..MAX_CPUS {
        if F::add_up(&mut plane.slots, &mut plane.spill, total, &packet.key, index, cpu) == 0 {
            break;
        }
    }
    if total.first_ns == u64::MAX {
        total.first_ns = 0;
    }
    event::closed(&mut plane.sink, frame, direction, packet, moment.now_ns, conn, total);
    if u32::from(conn.limits) & Limits::IDENTITY_HELD != 0 {
        frame.recount(&plane.rules, &mut plane.buckets, conn, packet, moment.now_ns, true);
    }
}

/// Adds what a CPU has counted of the connection that `total` is of. Returns 0 where there is no such CPU.
#[inline(always)]
pub fn add_up<S: Slots, P: Spill>(
    slots: &mut S,
    spill: &mut P,
    total: &mut FlowRecord,
    key: &FlowKey,
    index: u32,
    cpu: u32,
) -> u32 {
    let Some(slot) = slots.slot_of(cpu, index) else {
        return 0;
    };
    if slot.key == *key {
        add(total, &slot.record);
    }
    if let Some(record) = spill.of(cpu, key) {
        add(total, record);
    }
    1
}

/// Adds a record, if it is of the same connection.
#[inline(always)]
fn add(total: &mut FlowRecord, record: &FlowRecord) {
    if record.incarnation != total.incarnation {
        return;
    }
    total.packets[0] += record.packets[0];
    total.packets[1] += record.packets[1];
    total.bytes[0] += record.bytes[0];
    total.bytes[1] += record.bytes[1];
    if record.first_ns < total.first_ns {
        total.first_ns = record.first_ns;
    }
    if record.last_ns > total.last_ns {
        total.last_ns = record.last_ns;
    }
}
