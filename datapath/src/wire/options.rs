//! Options of IPv4 (RFC 791, section 3.1) and TCP (RFC 9293, section 3.1): kinds of one byte, and kinds with a length.
//!
//! An option's length is `(length byte, 0 where it is less than two) & AND[kind] | OR[kind]`, and 0 where the option is
//! malformed. Tables, so that all kinds go one way: with branches the verifier follows every sequence of kinds
//! (700,000 instructions on 6.18, where this takes a few thousand).

use super::{be16, byte};
use crate::abi::{Packet, Reason};
use crate::frame::Frame;

/// Both protocols have no more than ten words of options.
const MAX_BYTES: usize = 40;
/// The end of the list; all that follows is padding. The only other kind of one byte is 1, which fills up.
const END: u8 = 0;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
/// Loose and strict: the address is where the packet goes next, not where it ends (RFC 7126, section 4.3).
const SOURCE_ROUTES: [u8; 2] = [131, 137];

static AND: [u8; 256] = {
    let mut table = [0xff; 256];
    (table[0], table[1]) = (0, 0);
    table
};
static OR: [u8; 256] = {
    let mut table = [0; 256];
    (table[0], table[1]) = (1, 1);
    table
};
static LENGTH: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 2;
    while i < 256 {
        table[i] = i as u8;
        i += 1;
    }
    table
};

/// Kind and length of the option at `at`; the byte before it is there. `None` beyond the frame.
#[inline(always)]
fn option<F: Frame>(frame: &F, at: usize) -> Option<(u8, usize)> {
    let kind = byte(frame, at)?;
    // A last option of one byte may be the frame's last.
    let said = byte(frame, at + 1).unwrap_or_default();
    let i = usize::from(kind);
    Some((kind, usize::from(LENGTH[usize::from(said)] & AND[i] | OR[i])))
}

/// Holds the options of an IPv4 header against its length.
#[inline(always)]
pub(super) fn ipv4<F: Frame>(frame: &F, start: usize, len: usize, packet: &mut Packet) -> Result<(), Reason> {
    let mut done = 0;
    for _ in 0..MAX_BYTES {
        if done >= len {
            break;
        }
        let Some((kind, option_len)) = option(frame, start + done) else {
            return Err(Reason::Ipv4Options);
        };
        if kind == END {
            return Ok(());
        }
        if SOURCE_ROUTES.contains(&kind) {
            packet.has |= Packet::IS_SOURCE_ROUTED;
        }
        if option_len == 0 {
            return Err(Reason::Ipv4Options);
        }
        done += option_len;
    }
    if done == len { Ok(()) } else { Err(Reason::Ipv4Options) }
}

/// Reads the options of a SYN: what it announces counts for the whole connection.
///
/// On the way the packet holds where an option is, and only then what it says: so that the verifier has one way to go on
/// after each of them.
#[inline(always)]
pub(super) fn tcp<F: Frame>(frame: &F, start: usize, len: usize, packet: &mut Packet) -> Result<(), Reason> {
    let mut done = 0;
    for _ in 0..MAX_BYTES {
        if done >= len {
            break;
        }
        let Some((kind, option_len)) = option(frame, start + done) else {
            return Err(Reason::TcpOptions);
        };
        if kind == END {
            done = len;
            break;
        }
        if option_len == 0 {
            return Err(Reason::TcpOptions);
        }
        if kind == MSS {
            packet.tcp_mss = done as u16 + 1;
        }
        if kind == WINDOW_SCALE {
            packet.tcp_window_scale = done as u8 + 1;
        }
        done += option_len;
    }
    if done != len {
        return Err(Reason::TcpOptions);
    }
    announced_mss(frame, start, packet)?;
    announced_scale(frame, start, packet)
}

/// RFC 9293, section 3.7.1.
#[inline(always)]
fn announced_mss<F: Frame>(frame: &F, start: usize, packet: &mut Packet) -> Result<(), Reason> {
    let at = usize::from(packet.tcp_mss);
    if at == 0 {
        return Ok(());
    }
    packet.tcp_mss = 0;
    match frame.header::<4>(start + at - 1) {
        Some(h) if h[1] == 4 => packet.tcp_mss = be16(h[2], h[3]),
        _ => return Err(Reason::TcpOptions),
    }
    Ok(())
}

/// RFC 7323, section 2.2; a shift of more than 14 counts as 14 (section 2.3).
#[inline(always)]
fn announced_scale<F: Frame>(frame: &F, start: usize, packet: &mut Packet) -> Result<(), Reason> {
    let at = usize::from(packet.tcp_window_scale);
    if at == 0 {
        return Ok(());
    }
    packet.tcp_window_scale = 0;
    match frame.header::<3>(start + at - 1) {
        Some(h) if h[1] == 3 => {
            packet.tcp_window_scale = if h[2] > 14 { 14 } else { h[2] };
            packet.has |= Packet::HAS_WINDOW_SCALE;
        }
        _ => return Err(Reason::TcpOptions),
    }
    Ok(())
}
