//! `--pcap` records what crosses the gateway's links, also what it drops.

mod common;

use std::fs;
use std::path::Path;

use common::{Residue, json, output};

/// The frames of a pcap file with nanoseconds, in the byte order of this machine.
fn frames(file: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(file).expect("a recording");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize;
    assert_eq!(word(0), 0xa1b2_3c4d);
    assert_eq!(word(20), 1, "Ethernet");
    let mut frames = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let (captured, whole) = (word(at + 8), word(at + 12));
        assert_eq!(captured, whole, "frame {} is cut", frames.len());
        frames.push(bytes[at + 16..at + 16 + captured].to_vec());
        at += 16 + captured;
    }
    assert_eq!(at, bytes.len(), "the last record is whole");
    frames
}

/// IPv4 without options, TCP to this port, with exactly these flags.
fn is_tcp(frame: &[u8], port: u16, flags: u8) -> bool {
    frame.len() >= 54
        && frame[12..15] == [8, 0, 0x45]
        && frame[23] == 6
        && frame[36..38] == port.to_be_bytes()
        && frame[47] == flags
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_recording_holds_every_syn() {
    let _alone = common::alone();
    let before = Residue::now();
    let folder = tempfile::tempdir().expect("a folder");
    let pcap = folder.path().join("pcap");
    let topology = format!("{}/../topologies/routing.yaml", env!("CARGO_MANIFEST_DIR"));
    let output = output(&["run", &topology, "-o", "json", "--pcap", &pcap.display().to_string()]);
    assert_eq!(json(&output)["passed"], true);
    let mut files: Vec<_> =
        fs::read_dir(&pcap).expect("recordings").map(|e| e.expect("entry").file_name()).collect();
    files.sort();
    assert_eq!(files, ["router-eth1.pcap", "router-eth2.pcap", "router-eth3.pcap"]);
    // A refused connection on its way in and out, and a SYN that nobody answers, not even by a reset.
    let syn = 2;
    for (file, port, count) in
        [("router-eth1.pcap", 9999, 1), ("router-eth2.pcap", 9999, 1), ("router-eth3.pcap", 80, 1)]
    {
        let found = frames(&pcap.join(file)).iter().filter(|f| is_tcp(f, port, syn)).count();
        assert!(found >= count, "{file}: {found} SYNs to {port}");
    }
    let resets = |f: &Vec<u8>| f.len() >= 54 && f[12..15] == [8, 0, 0x45] && f[23] == 6 && f[47] & 4 != 0;
    assert_eq!(frames(&pcap.join("router-eth3.pcap")).iter().filter(|f| resets(f)).count(), 0);
    assert_eq!(Residue::now(), before);
}
