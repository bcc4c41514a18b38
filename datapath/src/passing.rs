//! Frames that leave, and were judged when they came in: counted, and left alone.

use crate::abi::packet::Trace;
use crate::abi::{Direction, Reason};
use crate::frame::Frame;
use crate::judge::PARSED;
use crate::lane;
use crate::stage::Stages;
use crate::tables::{Plane, Sink, Tables};
use crate::weight::Weight;
use crate::wire::eth;

/// Counts a frame that was judged on its way in. What holds many segments is read for it, into `trace` if it is not plain.
#[inline(always)]
pub fn count<'a, F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: impl FnOnce() -> Option<&'a mut Trace>,
) {
    let mut packets = 1;
    let mut bytes = frame.len() as u64 + u64::from(frame.bytes_beside());
    if frame.gso().size != 0
        && let Some((weight, l3_offset)) = plain(frame).or_else(|| parsed(frame, trace()?))
    {
        packets = weight.packets;
        bytes = weight.frame_bytes(u32::from(l3_offset) + frame.bytes_beside());
    }
    plane.sink.count(frame.ifindex(), direction, Reason::JudgedAtIngress as u8, false, packets, bytes);
}

/// What a plain frame counts for, and where its IP header starts.
///
/// A function of its own in BPF, so that its ways out do not multiply.
#[inline(never)]
fn plain<F: Frame>(frame: &F) -> Option<(Weight, u16)> {
    let lane = match lane::link(frame)? {
        (eth::IPV4, at) => lane::ipv4(frame, at)?,
        (eth::IPV6, at) => lane::ipv6(frame, at)?,
        _ => return None,
    };
    Some((lane.weight, lane.l3_offset))
}

/// The same by the parser.
#[inline(always)]
fn parsed<F: Stages<T>, T: Tables>(frame: &F, trace: &mut Trace) -> Option<(Weight, u16)> {
    frame.network(trace);
    if trace.reason == PARSED {
        frame.transport(trace);
    }
    let packet = &trace.packet;
    if trace.reason == PARSED && packet.ip_bytes != 0 {
        Some((Weight::of(packet), packet.l3_offset))
    } else {
        None
    }
}
