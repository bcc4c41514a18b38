//! The mark that TC leaves on what comes in and passes.

use datapath::abi::{Addr, Binding, BindingVersions, Config, Direction};
use etherparse::{PacketBuilder, TcpHeader};
use loader::{Beside, CpuPin, Kernel, LoadOptions, RunResult, Sizes};

const CLIENT: [u8; 4] = [10, 1, 0, 2];
const SERVER: [u8; 4] = [10, 2, 0, 2];
const MASK: u32 = 0x0ff0;

fn segment(src: [u8; 4], flags: &str, payload: &[u8]) -> Vec<u8> {
    let (dst, ports) = if src == SERVER { (CLIENT, (443, 4000)) } else { (SERVER, (4000, 443)) };
    let mut tcp = TcpHeader::new(ports.0, ports.1, 1, 64_000);
    (tcp.syn, tcp.ack) = (flags.contains('S'), flags.contains('A'));
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(src, dst, 64).tcp_header(tcp);
    builder.write(&mut frame, payload).unwrap();
    frame
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn bits_of_the_mask_say_who_sent_a_packet_that_comes_in_and_all_others_stay() {
    let options = LoadOptions { sizes: Sizes::small(), tc_ingress: true, ..LoadOptions::default() };
    let kernel = Kernel::load(&options).unwrap();
    let _pin = CpuPin::here().unwrap();
    let maps = kernel.maps();
    for (addr, identity) in [(CLIENT, 5), (SERVER, 0xff), ([10, 1, 0, 9], 0x100)] {
        let new = Binding { identity, class: 1, ..Binding::NONE };
        let versions = BindingVersions { since: 0, _pad: 0, old: Binding::NONE, new };
        maps.bindings.insert(&Addr::v4(addr), 128, &versions).unwrap();
    }
    let send = |direction, frame: &[u8], mark| {
        let mut beside = Beside { mark, ..Beside::default() };
        let run = kernel.run_tc_as(direction, frame, &mut beside).unwrap();
        assert_eq!(run.action, RunResult::TC_NEXT);
        beside.mark
    };
    let comes_in = |src, flags: &str, payload: &[u8]| {
        let frame = segment(src, flags, payload);
        [0, u32::MAX].map(|mark| send(Direction::Ingress, &frame, mark))
    };
    assert_eq!(comes_in(CLIENT, "S", b""), [0, u32::MAX], "nobody asked for marks");
    for trace in [0, Config::TRACE] {
        let enforce = Config::ENFORCE | Config::DEFAULT_ALLOW;
        maps.config.update(|config| (config.mark_mask, config.flags) = (MASK, enforce | trace)).unwrap();
        assert_eq!(comes_in(CLIENT, "S", b""), [0x50, 0xffff_f05f]);
        assert_eq!(comes_in(SERVER, "SA", b""), [0xff0, u32::MAX]);
        // The last of each is on the fast lane, if nobody traces.
        for _ in 0..3 {
            assert_eq!(comes_in(CLIENT, "A", b"question"), [0x50, 0xffff_f05f]);
            assert_eq!(comes_in(SERVER, "A", b"answer"), [0xff0, u32::MAX]);
        }
        assert_eq!(comes_in([10, 1, 0, 8], "S", b""), [0, 0xffff_f00f], "nobody");
        assert_eq!(comes_in([10, 1, 0, 9], "S", b""), [0, 0xffff_f00f], "a number without room");
        let leaves = segment(CLIENT, "A", b"question");
        assert_eq!(send(Direction::Egress, &leaves, 7), 7, "what leaves keeps its mark");
    }
}
