//! What the bytes of a fuzzer's input mean. The targets read them so, seeds are written so, and a test runs the corpus
//! through both engines.

/// The gateway only monitors.
pub const MONITORS: u8 = 1 << 0;
/// What no rule allows is dropped.
pub const DENIES: u8 = 1 << 1;
/// Tunnels of every kind are looked into.
pub const INSPECTS: u8 = 1 << 2;
/// Some bindings hold at a place only.
pub const SCOPED: u8 = 1 << 3;
/// The rule asks for TLS, and has a rate and a lifetime.
pub const LIMITS: u8 = 1 << 4;
/// What is denied is answered.
pub const REJECTS: u8 = 1 << 5;
/// No connection is taken up in mid-stream.
pub const FROM_THE_BEGINNING: u8 = 1 << 6;

/// A byte of the bits above, then frames, each behind its length in two bytes of which four bits are not looked at.
#[allow(dead_code)]
pub fn frames(data: &[u8]) -> (u8, Vec<Vec<u8>>) {
    let Some((&bits, mut rest)) = data.split_first() else { return (0, Vec::new()) };
    let mut frames = Vec::new();
    while let [low, high, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high]) & 0x0fff);
        let (frame, after) = tail.split_at(length.min(tail.len()));
        frames.push(frame.to_vec());
        rest = after;
    }
    (bits, frames)
}

/// The responder speaks.
pub const RESPONDER: u8 = 1 << 0;
/// TCP: with a FIN.
pub const FIN: u8 = 1 << 1;
/// TCP: with a RST.
pub const RST: u8 = 1 << 2;
/// TCP: from where the one before began.
pub const AGAIN: u8 = 1 << 3;
/// TCP: a few bytes further on than the stream is.
pub const AHEAD: u8 = 1 << 4;

/// One connection: a byte whose lowest bit says TCP (after a handshake) or UDP; then payloads, each behind a byte of the
/// bits above and its length in two.
#[allow(dead_code)]
pub fn conversation(data: &[u8]) -> Vec<Vec<u8>> {
    let Some((&kind, mut rest)) = data.split_first() else { return Vec::new() };
    let is_tcp = kind & 1 == 0;
    let mut seq = [1000u32, 9000];
    let mut frames = Vec::new();
    if is_tcp {
        frames.push(tcp(0, 0x02, seq, &[]));
        frames.push(tcp(1, 0x12, seq, &[]));
        seq = [1001, 9001];
        frames.push(tcp(0, 0x10, seq, &[]));
    }
    while let [bits, low, high, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high]) & 0x0fff);
        let (payload, after) = tail.split_at(length.min(tail.len()));
        rest = after;
        let side = usize::from(bits & RESPONDER);
        if !is_tcp {
            frames.push(udp(side, payload));
            continue;
        }
        let mut at = seq;
        if bits & AHEAD != 0 {
            at[side] = at[side].wrapping_add(7);
        } else if bits & AGAIN != 0 {
            at[side] = at[side].wrapping_sub(payload.len() as u32);
        }
        let flags = 0x10 | u8::from(bits & FIN != 0) | (u8::from(bits & RST != 0) << 2);
        frames.push(tcp(side, flags, at, payload));
        seq[side] = at[side].wrapping_add(payload.len() as u32 + u32::from(bits & FIN != 0));
    }
    frames
}

fn tcp(side: usize, flags: u8, seq: [u32; 2], payload: &[u8]) -> Vec<u8> {
    let ports = [40_000u16, 443];
    let mut segment = [ports[side].to_be_bytes(), ports[1 - side].to_be_bytes()].concat();
    segment.extend(seq[side].to_be_bytes());
    segment.extend(seq[1 - side].to_be_bytes());
    segment.extend([0x50, flags, 0xfa, 0, 0, 0, 0, 0]);
    segment.extend(payload);
    ipv4(side, 6, &segment)
}

fn udp(side: usize, payload: &[u8]) -> Vec<u8> {
    let ports = [40_000u16, 443];
    let mut datagram = [ports[side].to_be_bytes(), ports[1 - side].to_be_bytes()].concat();
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    ipv4(side, 17, &datagram)
}

fn ipv4(side: usize, proto: u8, payload: &[u8]) -> Vec<u8> {
    let ends = [[10, 0, 0, 1], [10, 0, 0, 2]];
    let mut frame = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0].to_vec();
    frame.extend([0x45, 0]);
    frame.extend((20 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, proto, 0, 0]);
    frame.extend([ends[side], ends[1 - side]].concat());
    frame.extend(payload);
    frame
}
