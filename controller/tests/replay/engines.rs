//! Both engines say the same, byte for byte.

use super::build::Scene;
use super::run::{HOST, Run};
use super::{policies, scenes};
use std::path::Path;
use tidegate::replay::capture::Capture;
use tidegate::replay::host::HostEngine;
use tidegate::replay::kernel::KernelEngine;
use tidegate::replay::output::{self, Format};
use tidegate::replay::session::{Prepared, Reading, replay};
use tidegate::replay::setup::Setup;
use tidegate::replay::{EngineChoice, Mode};

#[path = "../../../fuzz/inputs.rs"]
#[allow(dead_code)]
mod inputs;

const KERNEL: Run = Run { engine: EngineChoice::Kernel, ..HOST };

/// Records of frames and of connections, by a kernel engine that is there already or natively.
pub fn print(capture: &[u8], setup: &Setup, kernel: Option<&mut KernelEngine>) -> String {
    let mut packets = Vec::new();
    let reading = Reading::default();
    let prepare = |_| {
        let rules = setup.rule_names();
        Ok(match kernel {
            Some(kernel) => Prepared { engine: Box::new(kernel), rules, enforce: true, reading },
            None => Prepared { engine: Box::new(HostEngine::new(setup)), rules, enforce: true, reading },
        })
    };
    let capture = match Capture::open(capture) {
        Ok(capture) => capture,
        Err(error) => return error.to_string(),
    };
    let outcome =
        replay(capture, prepare, |record| Ok(output::packet(&mut packets, Format::Json, &record)?)).unwrap();
    output::connections(&mut packets, Format::Json, &outcome.connections).unwrap();
    assert_eq!(outcome.lost_events, 0);
    String::from_utf8(packets).unwrap()
}

#[test]
#[ignore = "needs root"]
fn every_made_capture_reads_the_same_from_both_engines() {
    let setup = Setup::read(&[], true, 0).unwrap();
    let mut kernel = KernelEngine::new(&setup, 65_536).unwrap();
    for (name, capture) in scenes::all() {
        kernel.forget().unwrap();
        let (native, loaded) = (print(&capture, &setup, None), print(&capture, &setup, Some(&mut kernel)));
        assert_eq!(native, loaded, "{name}");
    }
}

/// The inputs of a fuzz target that were worth keeping.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
#[ignore = "needs root"]
fn both_engines_read_the_fuzzers_corpus_the_same() {
    let setup = Setup::read(&[], true, 0).unwrap();
    let mut kernel = KernelEngine::new(&setup, 65_536).unwrap();
    let capture = |frames: Vec<Vec<u8>>| Scene::default().frames(frames).pcap();
    let frames = corpus("frames").into_iter().map(|input| capture(inputs::frames(&input).1));
    let tracking = corpus("tracking").into_iter().map(|input| capture(inputs::conversation(&input)));
    let mut records = 0;
    for (n, capture) in frames.chain(tracking).chain(corpus("capture")).enumerate() {
        kernel.forget().unwrap();
        let (native, loaded) = (print(&capture, &setup, None), print(&capture, &setup, Some(&mut kernel)));
        assert_eq!(native, loaded, "input {n}");
        records += native.lines().count();
    }
    println!("{records} records of frames and connections are the same");
}

#[test]
#[ignore = "needs root"]
fn the_command_prints_the_same_with_both_engines() {
    let capture = scenes::incarnations().pcap();
    for (host, kernel) in [(HOST, KERNEL), (HOST.packets(), KERNEL.packets())] {
        let (host, kernel) = (host.text(&capture), kernel.text(&capture));
        assert!(kernel.1.is_none(), "{:?}", kernel.1);
        assert_eq!(host.0, kernel.0);
        assert!(!host.0.is_empty());
    }
}

#[test]
#[ignore = "needs root"]
fn a_policy_and_its_leases_hold_the_same_in_both_engines() {
    for mode in [Mode::Enforce, Mode::Monitor] {
        for packets in [false, true] {
            let host = Run { policy: Some(policies::POLICY), mode, packets, ..HOST };
            let kernel = Run { engine: EngineChoice::Kernel, ..host };
            let capture = policies::traffic().pcap();
            let (host, kernel) = (host.text(&capture), kernel.text(&capture));
            assert!(kernel.1.is_none(), "{:?}", kernel.1);
            assert_eq!(host.0, kernel.0);
        }
    }
}
