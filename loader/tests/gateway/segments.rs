//! Segments that stay whole on the gateway count for the frames that the next link carries.

use crate::lab::{Lab, counted, run, wait_for};
use datapath::abi::{Direction, Reason};
use loader::{Ingress, Kernel, TcModeChoice};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

/// What the left host sends in one connection.
const BULK: usize = 8 << 20;
const PORT: u16 = 5001;
/// Ethernet, without a tag.
const LINK: u64 = 14;

/// Packets and bytes.
type Count = (u64, u64);

/// Hosts that speak for themselves, and a gateway that judges at TC and cuts segments where they leave by `tg1`.
fn judged_at_tc() -> (Lab, Kernel) {
    let lab = Lab::enter();
    for (host, net) in [("left", 1), ("right", 2)] {
        lab.run_at(host, "ip", "link set end mtu 1500");
        lab.run_at(host, "ip", &format!("addr add 10.{net}.0.2/24 dev end"));
        lab.run_at(host, "ip", &format!("route add default via 10.{net}.0.1"));
        lab.run_at(host, "ip", &format!("neigh add 10.{net}.0.1 lladdr 02:00:00:00:0{net}:01 dev end"));
    }
    run("ethtool", "-K tg1 tso off gso off tx-udp-segmentation off");
    // With GRO on, veth does not count the bytes of the Ethernet header.
    lab.run_at("right", "ethtool", "-K end gro off");
    let mut kernel = lab.load(0);
    for interface in ["tg0", "tg1"] {
        kernel.attach(interface, Ingress::Tc, TcModeChoice::Auto).expect("the programs attach");
    }
    (lab, kernel)
}

/// What an interface of a host has received and sent, by the host.
fn statistics(lab: &Lab, host: &str) -> [Count; 2] {
    let text = lab.at(host, || std::fs::read_to_string("/proc/thread-self/net/dev").expect("statistics"));
    let line = text.lines().find_map(|line| line.trim().strip_prefix("end:")).expect("the interface");
    let words: Vec<u64> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    [(words[1], words[0]), (words[9], words[8])]
}

/// What the programs say has left by `tg1`, whatever it was.
fn left_by_tg1(kernel: &Kernel) -> Count {
    let sum = |sum: Count, count: Count| (sum.0 + count.0, sum.1 + count.1);
    Reason::ALL.iter().map(|reason| counted(kernel, "tg1", Direction::Egress, *reason)).fold((0, 0), sum)
}

/// What the right host has received and what the programs say has left for it, at one moment.
fn received(lab: &Lab, kernel: &Kernel) -> [Count; 2] {
    wait_for("the link is never silent", || {
        let before = statistics(lab, "right")[0];
        let left = left_by_tg1(kernel);
        (statistics(lab, "right")[0] == before).then_some([before, left])
    })
}

fn since(now: Count, before: Count) -> Count {
    (now.0 - before.0, now.1 - before.1)
}

/// What the gateway judged of the left host's packets, and what of it went on by `tg1`.
fn judged(kernel: &Kernel) -> [Count; 2] {
    let [first, more] = [Reason::Forwarded, Reason::Established]
        .map(|reason| counted(kernel, "tg0", Direction::Ingress, reason));
    let passed_on = counted(kernel, "tg1", Direction::Egress, Reason::JudgedAtIngress);
    [(first.0 + more.0, first.1 + more.1), passed_on]
}

/// Has `work` send, and holds all counters against what the right host received. Returns that, and how many buffers the left
/// host had sent for it.
fn agree(lab: &Lab, kernel: &Kernel, work: impl FnOnce()) -> (Count, u64) {
    let [received_before, left_before] = received(lab, kernel);
    let buffers_before = statistics(lab, "left")[1].0;
    work();
    let received = wait_for("the programs count what nobody received", || {
        let [received, left] = received(lab, kernel);
        let deltas = [since(received, received_before), since(left, left_before)];
        (deltas[0] == deltas[1]).then_some(deltas[0])
    });
    let [judged, passed_on] = judged(kernel);
    assert_eq!(judged, passed_on, "on their way in and on their way out");
    (received, statistics(lab, "left")[1].0 - buffers_before)
}

fn send_bulk(lab: &Lab) {
    let listener = lab.at("right", || TcpListener::bind(("10.2.0.2", PORT)).expect("a listener"));
    // Little is under way at once, so that the host behind the gateway has room for all of it.
    setsockopt(&listener, sockopt::RcvBuf, &65_536).expect("a buffer");
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut got = Vec::new();
            listener.accept().expect("the client").0.read_to_end(&mut got).expect("its bytes");
            got.len()
        });
        lab.at("left", || {
            let mut stream = TcpStream::connect(("10.2.0.2", PORT)).expect("the server answers");
            stream.write_all(&vec![7; BULK]).expect("all is taken");
        });
        assert_eq!(reading.join().expect("a thread"), BULK);
    });
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn bulk_over_tcp_counts_for_the_frames_that_the_next_host_receives() {
    let (lab, kernel) = judged_at_tc();
    let (received, buffers) = agree(&lab, &kernel, || send_bulk(&lab));
    assert!(received.0 > BULK as u64 / 1_460, "{received:?}");
    assert!(
        buffers * 4 < received.0,
        "{buffers} buffers for {} frames: segments did not stay whole",
        received.0
    );
    // The flow's record has the same, without link headers.
    let flows = kernel.maps().flow_records().expect("flows");
    let flow =
        flows.iter().find(|flow| flow.key.a_port == PORT || flow.key.b_port == PORT).expect("the flow");
    let sender = usize::from(flow.key.a_port == PORT);
    let [judged, _] = judged(&kernel);
    let (packets, bytes) = (flow.record.packets[sender], flow.record.bytes[sender]);
    assert_eq!((packets, bytes + LINK * packets), judged);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn datagrams_in_one_buffer_count_for_the_frames_that_the_next_host_receives() {
    let (lab, kernel) = judged_at_tc();
    let _listener = lab.at("right", || UdpSocket::bind(("10.2.0.2", PORT)).expect("a socket"));
    let (received, buffers) = agree(&lab, &kernel, || {
        lab.at("left", || {
            let socket = UdpSocket::bind("10.1.0.2:0").expect("a socket");
            setsockopt(&socket, sockopt::UdpGsoSegment, &500).expect("the kernel cuts datagrams");
            socket.connect(("10.2.0.2", PORT)).expect("a destination");
            for _ in 0..10 {
                // Forty, and one of a single byte.
                assert_eq!(socket.send(&[7; 20_001]).expect("sent"), 20_001);
            }
        });
    });
    assert!((410..420).contains(&received.0), "{received:?}");
    assert!(buffers < 20, "{buffers} buffers: they did not stay whole");
}
