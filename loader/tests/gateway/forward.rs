//! Forwarding by XDP: what goes out is what Linux would have sent, and all that is not plain is left to Linux.

use crate::lab::{Lab, Wire, counted, ip, macs, run, v4, v6};
use datapath::abi::{Config, Direction, Reason};
use etherparse::PacketBuilder;
use loader::Kernel;

/// What the test's own packets carry, and what the packet behind them does.
const MARK: &[u8] = b"tidegate";
const LAST: &[u8] = b"the last";

const UDP: u8 = 17;

/// From the left host to the gateway.
fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    let (gateway, host) = macs(1);
    PacketBuilder::ethernet2(host, gateway)
}

fn built<T>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), T>) -> Vec<u8>
where
    T: std::fmt::Debug,
{
    let mut frame = Vec::new();
    write(&mut frame).expect("a frame");
    frame
}

fn udp_to(destination: [u8; 4], ttl: u8, payload: &[u8]) -> Vec<u8> {
    built(|out| ethernet().ipv4(v4(1, 2), destination, ttl).udp(4000, 5000).write(out, payload))
}

fn udp(payload: &[u8]) -> Vec<u8> {
    udp_to(v4(2, 2), 64, payload)
}

fn udp_v6(destination: [u8; 16], hop_limit: u8) -> Vec<u8> {
    built(|out| ethernet().ipv6(v6(1, 2), destination, hop_limit).udp(4000, 5000).write(out, MARK))
}

/// The header's checksum, after a change.
fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let length = usize::from(frame[14] & 15) * 4;
    frame[24..26].fill(0);
    let words =
        frame[14..14 + length].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    frame
}

fn switch(kernel: &Kernel, on: bool) {
    let flag = if on { Config::FORWARD } else { 0 };
    kernel
        .maps()
        .config
        .update(|config| config.flags = config.flags & !Config::FORWARD | flag)
        .expect("flag");
}

fn redirected(kernel: &Kernel) -> (u64, u64) {
    counted(kernel, "tg1", Direction::Egress, Reason::Redirected)
}

fn by_linux(kernel: &Kernel) -> (u64, u64) {
    counted(kernel, "tg1", Direction::Egress, Reason::JudgedAtIngress)
}

/// Sends a frame, and one behind it that goes the same way; what came of the first.
fn sent(left: &Wire, right: &Wire, frame: &[u8]) -> Vec<Vec<u8>> {
    left.send(frame);
    left.send(&udp(LAST));
    right.until(LAST, MARK)
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn xdp_sends_what_linux_would_have_sent() {
    let lab = Lab::enter();
    let mut kernel = lab.load(0);
    lab.attach(&mut kernel);
    let (left, right) = (lab.wire("left"), lab.wire("right"));
    let (src, dst) = (v4(1, 2), v4(2, 2));
    let tcp_v4 =
        |out: &mut Vec<u8>| ethernet().ipv4(src, dst, 2).tcp(4001, 5000, 7, 1024).syn().write(out, MARK);
    let echo = |out: &mut Vec<u8>| ethernet().ipv4(src, dst, 255).icmpv4_echo_request(1, 2).write(out, MARK);
    let tcp_v6 = |out: &mut Vec<u8>| {
        ethernet().ipv6(v6(1, 2), v6(2, 2), 2).tcp(4001, 5000, 7, 1024).syn().write(out, MARK)
    };
    let mut class = udp(MARK);
    class[15] = 0xb8;
    let big = [MARK, &[7; 1400]].concat();
    let frames = [
        udp(MARK),
        udp(&big),
        with_checksum(class),
        built(tcp_v4),
        built(echo),
        udp_v6(v6(2, 2), 64),
        built(tcp_v6),
    ];
    for (at, frame) in frames.iter().enumerate() {
        switch(&kernel, false);
        let before = (redirected(&kernel), by_linux(&kernel));
        let linux = sent(&left, &right, frame);
        assert_eq!(redirected(&kernel), before.0, "{at}");
        assert_eq!(by_linux(&kernel).0, before.1.0 + 2, "{at}");
        switch(&kernel, true);
        let before = (redirected(&kernel), by_linux(&kernel));
        let xdp = sent(&left, &right, frame);
        let last = udp(LAST).len();
        let now = (before.0.0 + 2, before.0.1 + (frame.len() + last) as u64);
        assert_eq!((redirected(&kernel), by_linux(&kernel)), (now, before.1), "{at}");
        assert_eq!(xdp, linux, "{at}");
        let [out] = &xdp[..] else { panic!("{at}: {} frames", xdp.len()) };
        let (gateway, host) = macs(2);
        assert_eq!((&out[..6], &out[6..12]), (&host[..], &gateway[..]), "{at}");
        let hops = if frame[12] == 0x08 { 14 + 8 } else { 14 + 7 };
        assert_eq!(out[hops], frame[hops] - 1, "{at}");
        if frame[12] == 0x08 {
            assert_eq!(*out, with_checksum(out.clone()), "{at}: its checksum");
        }
        assert_eq!(out[26..], frame[26..], "{at}: all behind is as it was");
    }
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn all_that_is_not_plain_is_left_to_linux() {
    let lab = Lab::enter();
    let mut kernel = lab.load(Config::FORWARD);
    lab.attach(&mut kernel);
    let (left, right, aside) = (lab.wire("left"), lab.wire("right"), lab.wire("aside"));
    ip("route add 10.9.0.0/16 via 10.2.0.2 mtu lock 600");
    ip("route add 10.8.0.0/16 via 10.2.0.3");
    ip("route add blackhole 10.7.0.0/16");
    // What it is, and how many frames Linux makes of it on the right.
    let check = |what: &str, frame: &[u8], wanted: usize| {
        let before = (redirected(&kernel).0, by_linux(&kernel).0);
        let came = sent(&left, &right, frame).len();
        assert_eq!(came, wanted, "{what}");
        assert_eq!(redirected(&kernel).0, before.0 + 1, "{what}: only the one behind it goes by XDP");
        assert_eq!(by_linux(&kernel).0, before.1 + wanted as u64, "{what}");
    };
    let mut options = udp(MARK);
    options.splice(34..34, [1, 1, 1, 1]);
    (options[14], options[17]) = (0x46, options[17] + 4);
    check("options", &with_checksum(options), 1);
    let mut fragment = udp(MARK);
    fragment[20] = 0x20;
    check("a first fragment", &with_checksum(fragment), 1);
    check("the last hop", &udp_to(v4(2, 2), 1, MARK), 0);
    check("the last hop of IPv6", &udp_v6(v6(2, 2), 1), 0);
    let mut padded = udp_v6(v6(2, 2), 64);
    padded.splice(54..54, [UDP, 0, 1, 4, 0, 0, 0, 0]);
    (padded[19], padded[20]) = (padded[19] + 8, 0);
    check("hop-by-hop options", &padded, 1);
    check("beyond the MTU", &udp_to(v4(9, 2), 64, &[MARK, &[0; 580]].concat()), 0);
    check("several buffers", &udp(&[MARK, &[7; 6000]].concat()), 1);
    let mut tagged = udp(MARK);
    tagged.splice(12..12, [0x81, 0x00, 0, 5]);
    check("a VLAN tag", &tagged, 0);
    check("no neighbour", &udp_to(v4(2, 99), 64, MARK), 0);
    check("no route", &udp_to(v4(7, 1), 64, MARK), 0);
    check("a group", &udp_to([224, 1, 1, 1], 64, MARK), 0);
    check("a broadcast", &udp_to(v4(2, 255), 64, MARK), 0);
    check("the gateway itself", &udp_to(v4(2, 1), 64, MARK), 0);
    check("the way it came", &udp_to(v4(1, 3), 64, MARK), 0);
    let mut others = udp(MARK);
    others[5] = 99;
    check("another's hardware address", &others, 0);
    // By an interface that is not ours.
    check("an interface that is not ours", &udp_to(v4(3, 2), 64, MARK), 0);
    left.send(&udp_to(v4(3, 2), 64, LAST));
    assert_eq!(aside.until(LAST, MARK).len(), 1);

    // A route by another neighbour is followed.
    let before = redirected(&kernel).0;
    assert_eq!(sent(&left, &right, &udp_to(v4(8, 1), 64, MARK)).len(), 1);
    assert_eq!(redirected(&kernel).0, before + 2);
    // An address that changes.
    ip("link set tg0 address 02:00:00:00:01:07");
    loader::refresh_ports(kernel.maps()).unwrap();
    let before = (redirected(&kernel).0, by_linux(&kernel).0);
    let to_new = |mut frame: Vec<u8>| {
        frame[5] = 7;
        frame
    };
    left.send(&udp(MARK));
    left.send(&to_new(udp(LAST)));
    assert_eq!(right.until(LAST, MARK).len(), 0);
    assert_eq!((redirected(&kernel).0, by_linux(&kernel).0), (before.0 + 1, before.1));
    // Without forwarding there is none.
    std::fs::write("/proc/sys/net/ipv4/conf/tg0/forwarding", "0").unwrap();
    left.send(&to_new(udp(MARK)));
    let ingress = || counted(&kernel, "tg0", Direction::Ingress, Reason::Established).0;
    crate::lab::wait_for("it did not come in", || (ingress() > 0).then_some(()));
    std::fs::write("/proc/sys/net/ipv4/conf/tg0/forwarding", "1").unwrap();
    left.send(&to_new(udp(LAST)));
    assert_eq!(right.until(LAST, MARK).len(), 0);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn xdp_sends_only_by_interfaces_whose_driver_takes_frames() {
    let lab = Lab::enter();
    let mut kernel = lab.load(Config::FORWARD);
    lab.attach(&mut kernel);
    let (left, right) = (lab.wire("left"), lab.wire("right"));
    let devices = || kernel.maps().redirect.all().unwrap().len();
    let goes_by_xdp = || {
        let before = redirected(&kernel).0;
        assert_eq!(sent(&left, &right, &udp(MARK)).len(), 1, "either way it comes through");
        redirected(&kernel).0 == before + 2
    };
    assert_eq!(devices(), 2);
    assert!(goes_by_xdp());
    // veth takes frames only where its peer polls.
    lab.run_at("right", "ethtool", "-K end gro off");
    loader::refresh_ports(kernel.maps()).unwrap();
    assert_eq!(devices(), 1);
    assert!(!goes_by_xdp());
    lab.run_at("right", "ethtool", "-K end gro on");
    loader::refresh_ports(kernel.maps()).unwrap();
    assert!(goes_by_xdp());
    run("ip", "link set tg1 down");
    run("ip", "link set tg1 up");
    ip("neigh replace 10.2.0.2 lladdr 02:00:00:00:02:02 dev tg1");
    assert!(goes_by_xdp());
    // An interface that is gone is no way, and one that is taken off is none.
    ip("link del tg1");
    assert_eq!(devices(), 1);
    let pins = lab.pins();
    loader::detach(pins, "tg0").unwrap();
    assert_eq!(devices(), 0);
}
