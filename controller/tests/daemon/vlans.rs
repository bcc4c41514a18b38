//! Who somebody is on one VLAN and not on another, by frames with tags.

use crate::lab::{Lab, ORDERS, POLICY, json, until};
use etherparse::{PacketBuilder, VlanId};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, send, socket,
};
use std::os::fd::AsRawFd;

/// `orders` has its address on one VLAN.
fn on(vlan: u16) -> String {
    let (first, rest) = POLICY.split_once("---\n").expect("documents");
    let scope = format!("addresses: [10.1.0.2/32], interface: eth1, vlan: {vlan}");
    format!("{}---\n{rest}", first.replace("addresses: [10.1.0.2/32]", &scope))
}

/// A SYN of the left to the right, from a port of its own, on a VLAN if on any.
fn syn(vlan: Option<u16>, port: u16) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [2; 6]);
    let ip = match vlan {
        Some(id) => {
            ethernet.single_vlan(VlanId::try_new(id).expect("a VLAN")).ipv4([10, 1, 0, 2], [10, 2, 0, 2], 64)
        }
        None => ethernet.ipv4([10, 1, 0, 2], [10, 2, 0, 2], 64),
    };
    let mut frame = Vec::new();
    ip.tcp(port, 8443, 1, 64_000).syn().write(&mut frame, &[]).expect("a frame");
    frame
}

/// Sends a frame as it is, from the left.
fn send_frame(lab: &Lab, frame: &[u8]) {
    lab.on_left(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).expect("a socket");
        let address = getifaddrs()
            .expect("interfaces")
            .filter(|one| one.interface_name == "eth1")
            .filter_map(|one| one.address)
            .find(|address| address.family() == Some(AddressFamily::Packet))
            .expect("eth1");
        bind(socket.as_raw_fd(), address.as_link_addr().expect("a link address")).expect("bound");
        assert_eq!(send(socket.as_raw_fd(), frame, MsgFlags::empty()).expect("sent"), frame.len());
    });
}

#[test]
#[ignore = "needs root"]
fn a_binding_of_a_vlan_holds_on_frames_of_that_vlan() {
    for ingress in ["tc", "xdp"] {
        let lab = Lab::new();
        let (ten, twenty) = (lab.file("ten.yaml", &on(10)), lab.file("twenty.yaml", &on(20)));
        let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "--ingress", ingress, "-p", &ten]);
        // Who sent the SYN from this port, what became of it, and why.
        let judged = |vlan, port: u16| {
            send_frame(&lab, &syn(vlan, port));
            let find = || lab.flows().into_iter().find(|flow| flow["l4"]["TCP"]["source_port"] == port);
            until(|| find().is_some());
            let flow = find().expect("the flow");
            (flow["source"]["spiffe_id"].clone(), flow["verdict"].clone(), flow["reason"].clone())
        };
        let why = |vlan: &str| {
            let asked = ["why", "10.1.0.2", "10.2.0.2", "8443", "--interface", "eth1", "--vlan", vlan];
            let why = &lab.json(&asked)[0];
            (why["source"]["spiffe_id"].clone(), why["verdict"].clone())
        };
        let orders = || (json(ORDERS), json("FORWARDED"));
        let nobody = (json(serde_json::Value::Null), json("DROPPED"), json("INVALID_IDENTITY"));
        let (who, verdict, _) = judged(Some(10), 40_010);
        assert_eq!((who, verdict), orders(), "{ingress}");
        assert_eq!(judged(Some(20), 40_020), nobody, "{ingress}");
        assert_eq!(judged(None, 40_000), nobody, "{ingress}");
        assert_eq!(why("10"), orders());
        assert_ne!(why("20").1, json("FORWARDED"));

        lab.ok(&["policy", "apply", &twenty]);
        assert_eq!(judged(Some(10), 41_010), nobody, "{ingress}");
        let (who, verdict, _) = judged(Some(20), 41_020);
        assert_eq!((who, verdict), orders(), "{ingress}");
        assert_eq!(why("20"), orders());
    }
}
