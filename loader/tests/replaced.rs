//! The report of a connection that gives way to another of its key: by what all CPUs have counted.

use datapath::abi::{ClosedEvent, Config, Tally};
use etherparse::{PacketBuilder, TcpHeader};
use loader::{CpuPin, Kernel, LoadOptions, RunResult, Sizes};

const CLIENT: ([u8; 4], u16) = ([10, 1, 0, 2], 40_000);
const SERVER: ([u8; 4], u16) = ([10, 2, 0, 3], 443);

/// A segment with the letters of its flags, at a place in its stream, behind all that the other has sent.
fn segment(from_client: bool, flags: &str, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = if from_client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let mut tcp = TcpHeader::new(src.1, dst.1, seq, 64_000);
    tcp.syn = flags.contains('S');
    tcp.fin = flags.contains('F');
    tcp.ack = flags.contains('A');
    tcp.acknowledgment_number = if tcp.ack { ack } else { 0 };
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(src.0, dst.0, 64).tcp_header(tcp);
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// Sends frames on a CPU, each so many times; returns the IP bytes of all.
fn send(kernel: &Kernel, cpu: usize, frames: &[(Vec<u8>, u32)]) -> u64 {
    let _pin = CpuPin::to(cpu).unwrap();
    let mut bytes = 0;
    for (frame, times) in frames {
        for _ in 0..*times {
            assert_eq!(kernel.run_xdp(frame, 1).unwrap().action, RunResult::XDP_PASS);
        }
        bytes += (frame.len() as u64 - 14) * u64::from(*times);
    }
    bytes
}

fn reports(kernel: &Kernel) -> Vec<ClosedEvent> {
    let mut reports = Vec::new();
    kernel.maps().events().unwrap().drain(|bytes| {
        reports.extend(bytemuck::try_pod_read_unaligned::<ClosedEvent>(bytes).ok());
    });
    reports
}

fn kernel() -> Kernel {
    let options =
        LoadOptions { sizes: Sizes::small(), fixed_now_ns: Some(1_000_000_000), ..LoadOptions::default() };
    let kernel = Kernel::load(&options).unwrap();
    kernel.maps().config.update(|config| config.flags |= Config::ENFORCE | Config::DEFAULT_ALLOW).unwrap();
    kernel
}

/// The first two CPUs, or one twice where there is one.
fn two() -> [usize; 2] {
    let cpus = CpuPin::allowed().unwrap();
    [cpus[0], *cpus.last().unwrap()]
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_connection_that_two_cpus_have_counted_is_reported_with_what_both_have() {
    let kernel = kernel();
    let [one, other] = two();
    let data = [7; 100];
    let mut client = send(&kernel, one, &[(segment(true, "S", 1_000, 0, b""), 1)]);
    let mut server = send(&kernel, other, &[(segment(false, "SA", 9_000, 1_001, b""), 1)]);
    client += send(
        &kernel,
        one,
        &[(segment(true, "A", 1_001, 9_001, b""), 1), (segment(true, "A", 1_001, 9_001, &data), 30)],
    );
    // The same side on both CPUs, and the other side too.
    client += send(&kernel, other, &[(segment(true, "A", 1_001, 9_001, &data), 20)]);
    server += send(&kernel, other, &[(segment(false, "A", 9_001, 1_101, &data), 50)]);
    server += send(&kernel, one, &[(segment(false, "A", 9_001, 1_101, b""), 5)]);
    client += send(&kernel, one, &[(segment(true, "FA", 1_101, 9_101, b""), 1)]);
    server += send(&kernel, other, &[(segment(false, "FA", 9_101, 1_102, b""), 1)]);
    assert_eq!(reports(&kernel).len(), 0);

    send(&kernel, other, &[(segment(true, "S", 77_000, 0, b""), 1)]);
    let reports = reports(&kernel);
    assert_eq!(reports.len(), 1);
    let of = |pair: [u64; 2]| if reports[0].connection.originator == 0 { pair } else { [pair[1], pair[0]] };
    assert_eq!(of(reports[0].flow.packets), [1 + 1 + 30 + 20 + 1, 1 + 50 + 5 + 1]);
    assert_eq!(of(reports[0].flow.bytes), [client, server]);
    assert_eq!(datapath::track::conn_state(&reports[0].connection, 6), "SF");
    assert_eq!(kernel.maps().tally(Tally::Replaced).unwrap(), 1);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn an_attempt_that_another_replaces_is_reported_with_what_was_counted_of_it() {
    let kernel = kernel();
    let [one, other] = two();
    for cpu in [one, other, one] {
        send(&kernel, cpu, &[(segment(true, "S", 1_000, 0, b""), 1)]);
    }
    kernel.set_now(20_000_000_000).unwrap();
    send(&kernel, other, &[(segment(true, "S", 77_000, 0, b""), 1)]);
    let reports = reports(&kernel);
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].flow.packets.iter().sum::<u64>(), 3);
    assert_eq!(reports[0].flow.first_ns, 1_000_000_000);
    assert_eq!(reports[0].connection.syn_retransmits, 2);
}
