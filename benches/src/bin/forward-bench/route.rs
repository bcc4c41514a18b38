//! Client, gateway and server, a network namespace each.

use anyhow::{Context, Result, ensure};
use loader::{CpuPin, Ingress, Kernel, PeerXdp, TcModeChoice, netdev};
use tidegate_benches::inside::{rx_packets, sh};
use tidegate_benches::netns::Netns;
use tidegate_benches::scene;

/// Frames that the kernel sends at once.
const BATCH: u32 = 64;
/// The gateway's interfaces: to the client, to the server.
const GATEWAY: [&str; 2] = ["tgw0", "tgw1"];
/// The one interface of either end.
const END: &str = "tgend";

/// A way from a client through a gateway to a server, all of them with the same addresses as on every other way.
pub struct Route {
    /// Who judges at the gateway.
    pub name: &'static str,
    /// The client's namespace.
    pub client: Netns,
    gateway: Netns,
    /// The server's namespace.
    pub server: Netns,
    client_index: u32,
    server_index: u32,
}

impl Route {
    /// Makes the namespaces and their links.
    pub fn new(name: &'static str) -> Result<Self> {
        let (client, gateway, server) = (Netns::new()?, Netns::new()?, Netns::new()?);
        gateway.run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("switching forwarding on")?;
            for (own, end, peer) in [(GATEWAY[0], &client, 1), (GATEWAY[1], &server, 2)] {
                let path = end.path();
                sh("ip", &["link", "add", own, "type", "veth", "peer", "name", END, "netns", &path])?;
                // The benches' frames are sent to this hardware address.
                sh("ip", &["link", "set", own, "address", "02:00:00:00:00:02", "up"])?;
                sh("ethtool", &["-K", own, "gro", "on"])?;
                sh("ip", &["addr", "add", &format!("10.{peer}.0.1/24"), "dev", own])?;
            }
            Ok(())
        })?;
        let client_index = end(&client, &format!("{}/24", scene::CLIENT.0), "10.1.0.1")?;
        let server_index = end(&server, &format!("{}/24", scene::SERVER.0), "10.2.0.1")?;
        gateway.run(|| {
            // The ends answer no question once they drop everything.
            for (address, device) in [(scene::CLIENT.0, GATEWAY[0]), (scene::SERVER.0, GATEWAY[1])] {
                let words =
                    ["neigh", "add", &address.to_string(), "lladdr", "02:00:00:00:00:01", "dev", device];
                sh("ip", &words)?;
            }
            Ok(())
        })?;
        Ok(Self { name, client, gateway, server, client_index, server_index })
    }

    /// Attaches our programs to both of the gateway's interfaces.
    pub fn judged_by(&self, kernel: &mut Kernel, ingress: Ingress) -> Result<()> {
        self.gateway.run(|| {
            for interface in GATEWAY {
                kernel.attach(interface, ingress, TcModeChoice::Auto)?;
            }
            Ok(())
        })
    }

    /// Has nftables allow what our policy allows, by connection.
    pub fn judged_by_nft(&self) -> Result<()> {
        let rules = format!(
            "table ip tgbench {{ chain forward {{ type filter hook forward priority 0; policy drop; \
             ct state established,related accept; ip saddr 10.1.0.0/24 ip daddr {0} tcp dport 443 accept; \
             ip saddr 10.1.0.0/24 ip daddr {0} udp dport 443 accept; }}; }}",
            scene::SERVER.0
        );
        self.gateway.run(|| sh("nft", &[&rules]))
    }

    /// Has the ends make segments that fit into a frame.
    pub fn segmented_by_sender(&self) -> Result<()> {
        let off = || sh("ethtool", &["-K", END, "tso", "off", "gso", "off"]);
        self.client.run(off)?;
        self.server.run(off)
    }

    /// Puts a program on each of the gateway's interfaces.
    pub fn passed_by(&self, programs: &mut [PeerXdp; 2]) -> Result<()> {
        self.gateway.run(|| {
            for (program, interface) in programs.iter_mut().zip(GATEWAY) {
                program.attach(interface, netdev::index(interface)?)?;
            }
            Ok(())
        })
    }

    /// Puts a program on each end's interface.
    pub fn dropped_at_ends(&self, programs: &mut [PeerXdp; 2]) -> Result<()> {
        let [at_client, at_server] = programs;
        self.client.run(|| Ok(at_client.attach(END, self.client_index)?))?;
        self.server.run(|| Ok(at_server.attach(END, self.server_index)?))
    }

    /// Sends a flow's frames by turns from the two ends, until it is settled everywhere.
    pub fn open(&self, senders: &[PeerXdp; 2], frames: &[Vec<u8>; 2]) -> Result<()> {
        for _ in 0..4 {
            self.client.run(|| Ok(senders[0].run_live(&frames[0], self.client_index, BATCH, BATCH)?))?;
            self.server.run(|| Ok(senders[1].run_live(&frames[1], self.server_index, BATCH, BATCH)?))?;
        }
        Ok(())
    }

    /// Sends frames from the client; how many a second reach the server.
    pub fn send(&self, sender: &PeerXdp, frame: &[u8], packets: u32) -> Result<f64> {
        let count = || self.server.run(|| rx_packets(END));
        let before = count()?;
        let sent_ns = self.client.run(|| {
            // All of the way is worked off on the CPU that sends.
            let _pin = CpuPin::here()?;
            Ok(sender.run_live(frame, self.client_index, packets, BATCH)?.duration_ns as f64)
        })?;
        let received = count()? - before;
        ensure!(received >= u64::from(packets) / 10 * 9, "{received} of {packets} packets came through");
        Ok(received as f64 / f64::from(packets) * 1e9 / sent_ns)
    }
}

/// Sets an end up and returns its interface's index.
fn end(namespace: &Netns, address: &str, gateway: &str) -> Result<u32> {
    namespace.run(|| {
        sh("ip", &["link", "set", END, "address", "02:00:00:00:00:01", "up"])?;
        sh("ip", &["addr", "add", address, "dev", END])?;
        sh("ip", &["route", "add", "default", "via", gateway])?;
        sh("ethtool", &["-K", END, "gro", "on"])?;
        Ok(netdev::index(END)?)
    })
}
