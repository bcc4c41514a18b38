//! Seeds for the fuzz targets: the fixture table's frames, and captures made of them.

#[path = "../../datapath/tests/fixtures/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use all of it")]
mod fixtures;
#[path = "../../fuzz/inputs.rs"]
mod inputs;

use anyhow::{Context, Result};
use datapath::abi::{Config, Packet};
use datapath::frame::SliceFrame;
use datapath::wire;
use fixtures::Fixture;
use std::path::{Path, PathBuf};

/// Where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder; seeds of a target go into one of its name in there
    folder: PathBuf,
}

/// Writes a file a fixture and target.
pub fn run(args: &Args) -> Result<()> {
    let fixtures = fixtures::all();
    for (n, fixture) in fixtures.iter().enumerate() {
        write(&args.folder.join("frames"), n, &sequence(fixture))?;
        let capture = if n % 2 == 0 { pcap(fixture) } else { pcapng(fixture) };
        write(&args.folder.join("capture"), n, &capture)?;
        write(&args.folder.join("tracking"), n, &conversation(fixture))?;
        write(&args.folder.join("hello"), n, &pieces(fixture))?;
        write(&args.folder.join("dns"), n, payloads(fixture).1.first().map_or(&[], |payload| payload.bytes))?;
    }
    println!("{} seeds for each target in {}", fixtures.len(), args.folder.display());
    Ok(())
}

fn write(folder: &Path, n: usize, bytes: &[u8]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("fixture-{n:03}"));
    std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Frames as the target `frames` reads them: a byte of what the gateway is like, by what the fixture's own is, and each frame behind its
/// length in two bytes.
fn sequence(fixture: &Fixture) -> Vec<u8> {
    let setup = &fixture.setup;
    let flag = |flags: u32| setup.flags & flags != 0;
    let bit = |holds: bool, bit: u8| if holds { bit } else { 0 };
    let mut bytes = vec![
        bit(!flag(Config::ENFORCE), inputs::MONITORS)
            | bit(!flag(Config::DEFAULT_ALLOW), inputs::DENIES)
            | bit(flag(Config::INSPECT), inputs::INSPECTS)
            | bit(!setup.scoped.is_empty(), inputs::SCOPED)
            | bit(!setup.rules.is_empty(), inputs::LIMITS)
            | bit(flag(Config::REJECT), inputs::REJECTS)
            | bit(flag(Config::MIDSTREAM_DENY), inputs::FROM_THE_BEGINNING),
    ];
    for step in fixture.steps.iter().take(40) {
        let frame = &step.frame[..step.frame.len().min(0x0fff)];
        bytes.extend((frame.len() as u16).to_le_bytes());
        bytes.extend(frame);
    }
    bytes
}

/// What a frame of a fixture carries.
struct Payload<'f> {
    is_responders: bool,
    tcp_flags: u16,
    bytes: &'f [u8],
}

/// Whether a fixture is of TCP, and what its frames carry.
fn payloads(fixture: &Fixture) -> (bool, Vec<Payload<'_>>) {
    let mut is_tcp = false;
    let mut first = None;
    let payload = |step: &'_ fixtures::Step| {
        let mut packet = Packet::default();
        wire::parse(&SliceFrame { bytes: &step.frame, ifindex: 1 }, &mut packet).ok()?;
        packet.has(Packet::HAS_PORTS).then_some(packet)
    };
    let mut found = Vec::new();
    for step in fixture.steps.iter().take(40) {
        let Some(packet) = payload(step) else { continue };
        is_tcp |= packet.has(Packet::HAS_TCP);
        let opener = *first.get_or_insert(packet.side());
        let bytes = step.frame.get(usize::from(packet.payload_offset)..).unwrap_or_default();
        let bytes = &bytes[..bytes.len().min(packet.payload_bytes as usize).min(0x0fff)];
        if !bytes.is_empty() || packet.flag(Packet::FIN | Packet::RST) {
            let is_responders = packet.side() != opener;
            found.push(Payload { is_responders, tcp_flags: packet.tcp_flags, bytes });
        }
    }
    (is_tcp, found)
}

/// A connection as the target `tracking` reads it.
fn conversation(fixture: &Fixture) -> Vec<u8> {
    let (is_tcp, payloads) = payloads(fixture);
    let mut bytes = vec![u8::from(!is_tcp)];
    for Payload { is_responders, tcp_flags, bytes: payload } in payloads {
        let bit = |holds: bool, bit: u8| if holds { bit } else { 0 };
        bytes.push(
            bit(is_responders, inputs::RESPONDER)
                | bit(tcp_flags & Packet::FIN != 0, inputs::FIN)
                | bit(tcp_flags & Packet::RST != 0, inputs::RST),
        );
        bytes.extend((payload.len() as u16).to_le_bytes());
        bytes.extend(payload);
    }
    bytes
}

/// What the originator sends, as the target `hello` reads it.
fn pieces(fixture: &Fixture) -> Vec<u8> {
    let (is_tcp, payloads) = payloads(fixture);
    let (mut bytes, mut offset) = (vec![u8::from(!is_tcp)], 0u16);
    for Payload { bytes: payload, .. } in payloads.into_iter().filter(|payload| !payload.is_responders) {
        bytes.extend(offset.to_le_bytes());
        bytes.extend((payload.len() as u16).to_le_bytes());
        bytes.extend(payload);
        offset = if is_tcp { offset.wrapping_add(payload.len() as u16) } else { 0 };
    }
    bytes
}

const ETHERNET: u32 = 1;
const FRAMES: usize = 12;

fn pcap(fixture: &Fixture) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 65_535, ETHERNET] {
        bytes.extend(word.to_le_bytes());
    }
    for step in fixture.steps.iter().take(FRAMES) {
        let len = step.frame.len() as u32;
        let (seconds, ns) = ((step.at_ns / 1_000_000_000) as u32, (step.at_ns % 1_000_000_000) as u32);
        for word in [seconds, ns, len, len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&step.frame);
    }
    bytes
}

/// Section header, interface description, enhanced packets (draft-ietf-opsawg-pcapng).
fn pcapng(fixture: &Fixture) -> Vec<u8> {
    let mut bytes = Vec::new();
    block(&mut bytes, 0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    block(&mut bytes, 1, &[ETHERNET.to_le_bytes(), 65_535u32.to_le_bytes()].concat());
    for step in fixture.steps.iter().take(FRAMES) {
        let us = step.at_ns / 1000;
        let mut body = Vec::new();
        for word in [0, (us >> 32) as u32, us as u32, step.frame.len() as u32, step.frame.len() as u32] {
            body.extend(word.to_le_bytes());
        }
        body.extend(&step.frame);
        block(&mut bytes, 6, &body);
    }
    bytes
}

fn block(bytes: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let padded = body.len().next_multiple_of(4);
    let len = (padded + 12) as u32;
    bytes.extend(kind.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len() + padded - body.len(), 0);
    bytes.extend(len.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::replay::capture::Capture;

    #[test]
    fn a_conversation_carries_what_its_fixture_does() {
        let is_of_tls =
            |fixture: &Fixture| fixture.connections.iter().any(|known| known.tls == "established");
        let mut compared = 0;
        for fixture in fixtures::all().iter().filter(|fixture| is_of_tls(fixture)) {
            let (_, expected) = payloads(fixture);
            let expected: Vec<u8> = expected.into_iter().flat_map(|payload| payload.bytes.to_vec()).collect();
            let frames = inputs::conversation(&conversation(fixture));
            let mut found = Vec::new();
            for frame in &frames {
                let mut packet = Packet::default();
                wire::parse(&SliceFrame { bytes: frame, ifindex: 1 }, &mut packet).expect("a packet");
                found.extend_from_slice(&frame[usize::from(packet.payload_offset)..]);
            }
            assert_eq!(found, expected, "{}", fixture.name);
            compared += 1;
        }
        assert!(compared > 5);
    }

    #[test]
    fn a_sequence_holds_the_frames_of_its_fixture() {
        let mut kinds = std::collections::BTreeSet::new();
        for fixture in fixtures::all() {
            let (bits, frames) = inputs::frames(&sequence(&fixture));
            let expected: Vec<_> = fixture
                .steps
                .iter()
                .take(40)
                .map(|step| step.frame[..step.frame.len().min(0x0fff)].to_vec())
                .collect();
            assert_eq!(frames, expected, "{}", fixture.name);
            kinds.insert(bits);
        }
        assert!(kinds.len() > 6, "{kinds:?}");
    }

    #[test]
    fn captures_hold_the_frames_of_their_fixture() {
        for fixture in fixtures::all() {
            for bytes in [pcap(&fixture), pcapng(&fixture)] {
                let mut capture = Capture::open(bytes.as_slice()).expect("a capture");
                for step in fixture.steps.iter().take(FRAMES) {
                    let frame = capture.next_frame().expect("a frame").expect("not the end");
                    assert_eq!(frame.data, step.frame, "{}", fixture.name);
                }
                assert!(capture.next_frame().expect("an end").is_none());
            }
        }
    }
}
