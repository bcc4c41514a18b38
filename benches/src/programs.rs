//! The small XDP programs of the benches: a bare drop, a bare pass, a sender, and a walker over many flows.
//!
//! The longest has 22 instructions, so they are written as instructions here and put into an ELF object in memory: no
//! further crate for the BPF compiler, and what a bare drop costs cannot depend on a compiler.

use crate::scene;
use anyhow::{Context, Result, ensure};
use loader::{Kernel, PeerXdp, PinnedXdp, RunResult};
use object::write::{Object, Relocation, StandardSection, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

/// One BPF instruction.
#[derive(Clone, Copy)]
struct Insn {
    opcode: u8,
    dst: u8,
    src: u8,
    offset: i16,
    immediate: i32,
}

const MOV_IMMEDIATE: u8 = 0xb7;
const MOV_REGISTER: u8 = 0xbf;
const MOV32_REGISTER: u8 = 0xbc;
const ADD_IMMEDIATE: u8 = 0x07;
const ADD32_IMMEDIATE: u8 = 0x04;
const AND32_IMMEDIATE: u8 = 0x54;
const OR32_REGISTER: u8 = 0x4c;
const TO_BIG_ENDIAN: u8 = 0xdc;
const LOAD_WORD: u8 = 0x61;
const STORE_WORD: u8 = 0x63;
const STORE_IMMEDIATE: u8 = 0x62;
const LOAD_MAP: u8 = 0x18;
const JUMP_IF_ABOVE: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const BPF_GET_PRANDOM_U32: i32 = 7;
const BPF_TAIL_CALL: i32 = 12;
const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;
/// R_BPF_64_64 of the kernel's Documentation/bpf/llvm_reloc.rst: the address of a map.
const R_BPF_64_64: u32 = 1;
const NEXT: &str = "next";

fn insn(opcode: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
    Insn { opcode, dst, src, offset, immediate }
}

impl Insn {
    fn bytes(self) -> [u8; 8] {
        let [o0, o1] = self.offset.to_le_bytes();
        let [i0, i1, i2, i3] = self.immediate.to_le_bytes();
        [self.opcode, (self.src << 4) | self.dst, o0, o1, i0, i1, i2, i3]
    }
}

/// Which of a word's bits a walker counts in: the word at `at`, big-endian, in steps of `step`, as far as `mask` goes.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Where in the frame the word is.
    pub at: u16,
    /// What is added for a packet.
    pub step: u32,
    /// The bits that change.
    pub mask: u32,
}

impl Walk {
    /// Over as many IPv4 source addresses, a power of two.
    pub fn sources(count: u32) -> Self {
        Self { at: 14 + 12, step: 1, mask: count - 1 }
    }

    /// Over as many IPv4 destination addresses, a power of two.
    pub fn destinations(count: u32) -> Self {
        Self { at: 14 + 16, step: 1, mask: count - 1 }
    }

    /// Over all pairs of ports of a TCP segment or datagram in IPv4 without options: [`scene::nth_blocked`] tells them.
    pub fn ports() -> Self {
        Self { at: 14 + 20, step: scene::PORTS_STEP, mask: u32::MAX }
    }

    /// Packet by packet another value, then the next program.
    fn program(self) -> Vec<Insn> {
        let at = self.at as i16;
        vec![
            insn(LOAD_WORD, 2, 1, 0, 0),
            insn(LOAD_WORD, 3, 1, 4, 0),
            insn(MOV_REGISTER, 4, 2, 0, 0),
            insn(ADD_IMMEDIATE, 4, 0, 0, i32::from(at) + 4),
            // To the last two: a frame that is too short passes.
            insn(JUMP_IF_ABOVE, 4, 3, 13, 0),
            insn(LOAD_WORD, 5, 2, at, 0),
            insn(TO_BIG_ENDIAN, 5, 0, 0, 32),
            insn(MOV32_REGISTER, 6, 5, 0, 0),
            insn(ADD32_IMMEDIATE, 5, 0, 0, self.step as i32),
            insn(AND32_IMMEDIATE, 5, 0, 0, self.mask as i32),
            insn(AND32_IMMEDIATE, 6, 0, 0, !self.mask as i32),
            insn(OR32_REGISTER, 5, 6, 0, 0),
            insn(TO_BIG_ENDIAN, 5, 0, 0, 32),
            insn(STORE_WORD, 2, 5, at, 0),
            // Two slots wide.
            insn(LOAD_MAP, 2, 0, 0, 0),
            insn(0, 0, 0, 0, 0),
            insn(MOV_IMMEDIATE, 3, 0, 0, 0),
            insn(CALL, 0, 0, 0, BPF_TAIL_CALL),
            insn(MOV_IMMEDIATE, 0, 0, 0, RunResult::XDP_PASS as i32),
            insn(EXIT, 0, 0, 0, 0),
        ]
    }
}

/// A program that returns an action and does nothing else. `frags`: it takes frames of several buffers.
pub fn bare(action: u32, frags: bool) -> Result<PeerXdp> {
    let name = "tg_bench_bare";
    let instructions = [insn(MOV_IMMEDIATE, 0, 0, 0, action as i32), insn(EXIT, 0, 0, 0, 0)];
    Ok(PeerXdp::load(&elf(name, &instructions, frags)?, name)?)
}

/// A program that sends every frame back where it came from: with live frames, a packet generator.
///
/// `random_at`: it writes a random word there first, such as both ports. A count in the frame would not do here: live
/// frames come from as many buffers as a batch has, and each would count for itself.
pub fn sender(random_at: Option<u16>) -> Result<PeerXdp> {
    let name = "tg_bench_send";
    let mut program = Vec::new();
    if let Some(at) = random_at {
        let at = at as i16;
        program = vec![
            insn(MOV_REGISTER, 6, 1, 0, 0),
            insn(CALL, 0, 0, 0, BPF_GET_PRANDOM_U32),
            insn(LOAD_WORD, 2, 6, 0, 0),
            insn(LOAD_WORD, 3, 6, 4, 0),
            insn(MOV_REGISTER, 4, 2, 0, 0),
            insn(ADD_IMMEDIATE, 4, 0, 0, i32::from(at) + 4),
            insn(JUMP_IF_ABOVE, 4, 3, 1, 0),
            insn(STORE_WORD, 2, 0, at, 0),
        ];
    }
    program.extend([insn(MOV_IMMEDIATE, 0, 0, 0, RunResult::XDP_TX as i32), insn(EXIT, 0, 0, 0, 0)]);
    Ok(PeerXdp::load(&elf(name, &program, false)?, name)?)
}

/// A sender of an IPv4 frame that is forwarded: a router writes hardware addresses, hop count and checksum into the
/// buffer, and the kernel takes it again for a later frame. This one writes them anew every time.
pub fn sender_to_router(frame: &[u8]) -> Result<PeerXdp> {
    const END: i32 = 14 + 20;
    let name = "tg_bench_send";
    let mut program = vec![
        insn(LOAD_WORD, 2, 1, 0, 0),
        insn(LOAD_WORD, 3, 1, 4, 0),
        insn(MOV_REGISTER, 4, 2, 0, 0),
        insn(ADD_IMMEDIATE, 4, 0, 0, END),
        // Behind the words.
        insn(JUMP_IF_ABOVE, 4, 3, 4, 0),
    ];
    for at in [0usize, 4, 8, 14 + 8] {
        let word = frame.get(at..).and_then(|rest| rest.first_chunk()).context("the frame is too short")?;
        program.push(insn(STORE_IMMEDIATE, 2, 0, at as i16, i32::from_le_bytes(*word)));
    }
    program.extend([insn(MOV_IMMEDIATE, 0, 0, 0, RunResult::XDP_TX as i32), insn(EXIT, 0, 0, 0, 0)]);
    Ok(PeerXdp::load(&elf(name, &program, false)?, name)?)
}

/// What comes behind a walker.
pub enum Target<'a> {
    /// Ours.
    Kernel(&'a Kernel),
    /// Somebody else's.
    Pinned(&'a PinnedXdp),
}

/// A program that changes every packet and then runs another one on it. Values that it counts are in the frame, which
/// a test-run keeps from one run to the next.
pub fn walker(walk: Walk, target: &Target<'_>) -> Result<PeerXdp> {
    // The kernel lets a tail call end only in a program that is as much as its caller made for frames of several
    // buffers: xdp-filter's own may be either, by its version.
    set_up(walk, target, true).or_else(|_| set_up(walk, target, false))
}

fn set_up(walk: Walk, target: &Target<'_>, frags: bool) -> Result<PeerXdp> {
    let name = "tg_bench_walk";
    let mut program = PeerXdp::load(&elf(name, &walk.program(), frags)?, name)?;
    match target {
        Target::Kernel(kernel) => program.continue_in(NEXT, kernel)?,
        Target::Pinned(pinned) => program.continue_in_pinned(NEXT, pinned)?,
    }
    Ok(program)
}

/// An object with one program, and a map for its tail call if it has one.
fn elf(name: &str, instructions: &[Insn], frags: bool) -> Result<Vec<u8>> {
    ensure!(!instructions.is_empty(), "a program without instructions");
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = if frags { "xdp.frags" } else { "xdp" };
    let text = object.add_section(Vec::new(), section.into(), SectionKind::Text);
    let code: Vec<u8> = instructions.iter().flat_map(|insn| insn.bytes()).collect();
    object.append_section_data(text, &code, 8);
    let symbol = |name: &str, size: usize, kind, section| Symbol {
        name: name.into(),
        value: 0,
        size: size as u64,
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    };
    object.add_symbol(symbol(name, code.len(), SymbolKind::Text, text));
    let license = object.add_section(Vec::new(), "license".into(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    if let Some(load) = instructions.iter().position(|insn| insn.opcode == LOAD_MAP) {
        // struct bpf_map_def: type, key size, value size, entries, flags.
        let definition: Vec<u8> =
            [BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1, 0].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        let maps = object.add_section(Vec::new(), "maps".into(), SectionKind::Data);
        object.append_section_data(maps, &definition, 4);
        let map = object.add_symbol(symbol(NEXT, definition.len(), SymbolKind::Data, maps));
        let relocation = Relocation {
            offset: load as u64 * 8,
            symbol: map,
            addend: 0,
            flags: RelocationFlags::Elf { r_type: R_BPF_64_64 },
        };
        object.add_relocation(text, relocation).context("placing the map")?;
    }
    // aya wants one, be it empty.
    object.section_id(StandardSection::Text);
    object.write().context("writing the object")
}

#[cfg(test)]
mod tests {
    use super::*;
    use loader::LoadOptions;

    #[test]
    #[ignore = "needs root: loads BPF programs"]
    fn a_bare_program_returns_its_action() {
        for action in [RunResult::XDP_DROP, RunResult::XDP_PASS, RunResult::XDP_TX] {
            let program = bare(action, action == RunResult::XDP_PASS).unwrap();
            assert_eq!(program.run(&[0; 64], 1).unwrap().action, action);
        }
    }

    #[test]
    #[ignore = "needs root: loads BPF programs"]
    fn a_walker_shows_the_next_program_another_flow_each_time() {
        use crate::frames::Segment;
        let kernel = Kernel::load(&LoadOptions::default()).unwrap();
        scene::load(&kernel).unwrap();
        let walker = walker(Walk::sources(scene::CROWD_SIZE), &Target::Kernel(&kernel)).unwrap();
        let frame = scene::crowd(0).frame(Segment::Syn).unwrap();
        assert_eq!(walker.run(&frame, 100).unwrap().action, RunResult::XDP_PASS);
        let flows = kernel.maps().flow_records().unwrap();
        assert_eq!(flows.len(), 100);
        assert!(flows.iter().all(|flow| flow.record.packets[0] + flow.record.packets[1] == 1));
    }
}
