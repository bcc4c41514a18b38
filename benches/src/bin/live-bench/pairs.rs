//! A veth pair with a generator on one end.

use crate::BATCH;
use anyhow::{Context, Result, ensure};
use loader::{PeerXdp, netdev};
use std::net::Ipv4Addr;
use tidegate_benches::inside::{read, rx_packets, sh};

/// The two ends.
pub struct Pair {
    /// Who drops there.
    pub name: &'static str,
    /// The end on which frames are made.
    sender_index: u32,
    /// The end that they come out of.
    pub receiver: String,
    /// Its index.
    pub receiver_index: u32,
}

impl Pair {
    /// Makes a pair, up, with GRO on at the receiving end: without that or an XDP program, veth takes no XDP frames.
    pub fn new(name: &'static str, number: u32) -> Result<Self> {
        let (sender, receiver) = (format!("tgsend{number}"), format!("tgdrop{number}"));
        sh("ip", &["link", "add", &sender, "type", "veth", "peer", "name", &receiver])?;
        for end in [&sender, &receiver] {
            // No neighbour discovery among the frames.
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1")
                .with_context(|| format!("switching IPv6 off on {end}"))?;
            sh("ip", &["link", "set", end, "up"])?;
        }
        sh("ethtool", &["-K", &receiver, "gro", "on"])?;
        let (sender_index, receiver_index) = (netdev::index(&sender)?, netdev::index(&receiver)?);
        Ok(Self { name, sender_index, receiver, receiver_index })
    }

    /// Sends so many frames and says how many a second were received.
    ///
    /// The time is the kernel's own: from the first batch to the last, without the tens of milliseconds in which it makes
    /// and removes the buffers, and without what other processes had of the CPU. The receiving end's poll is in it: it
    /// runs on the same CPU when a batch has been sent.
    pub fn send(&self, program: &PeerXdp, frame: &[u8], packets: u32) -> Result<f64> {
        let before = rx_packets(&self.receiver)?;
        let sent_ns = program.run_live(frame, self.sender_index, packets, BATCH)?.duration_ns as f64;
        let received = rx_packets(&self.receiver)? - before;
        // What is in the ring at the end is less than 256 frames.
        ensure!(
            received + 256 >= u64::from(packets) / 2,
            "{} of {packets} frames came out of {}: is another program between?",
            received,
            self.receiver
        );
        Ok(received as f64 / f64::from(packets) * 1e9 / sent_ns)
    }

    /// Has nftables drop these sources on ingress of the receiving end, by a set.
    pub fn nft_drops(&self, sources: &[Ipv4Addr]) -> Result<()> {
        let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let rules = format!(
            "table netdev tgbench {{ set blocked {{ type ipv4_addr; elements = {{ {} }}; }}; \
             chain ingress {{ type filter hook ingress device {} priority 0; policy accept; \
             ip saddr @blocked drop; ip protocol tcp counter; }}; }}",
            sources.join(", "),
            self.receiver
        );
        sh("nft", &[&rules])
    }

    /// How many TCP segments nftables let pass.
    pub fn nft_passed(&self) -> Result<u64> {
        let text = read("nft", &["list", "chain", "netdev", "tgbench", "ingress"])?;
        let count = text.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        count.and_then(|word| word.parse().ok()).context("no counter in what nft lists")
    }
}
