//! Client, gateway and server; the gateway is the namespace of the run. Each identity that departs is an address of its own.

use crate::packets::{LOAD, Raw, SINK};
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tidegate_benches::inside::sh;
use tidegate_benches::netns::Netns;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
/// What the intents expect, and what they do not.
const EXPECTED: u16 = 8443;
const DEPARTS: u16 = 9000;
/// How often an identity sends what is expected: how exact the moment of the first drop is known.
const EVERY: Duration = Duration::from_micros(250);
/// So many probes in a row that do not come are cut off, and are not only late.
const GONE: u64 = 200;
/// Nothing took so long that works.
const PATIENCE: Duration = Duration::from_secs(10);

/// The namespaces, and what the server has received.
pub struct Scene {
    /// Where packets are sent.
    pub client: Netns,
    server: UdpSocket,
    _namespace: Netns,
}

/// The address of one that departs.
fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 1 + (n / 250) as u8, 1 + (n % 250) as u8)
}

/// All may all; who departs is for the server at one port, and quarantined otherwise.
pub fn policy(departing: u32) -> String {
    let id = |path: &str| format!("spiffe://acme.example/{path}");
    let mut text = format!(
        "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: all}}\nspec: {{rules: [{{name: all, action: allow, from: [{{trustDomain: acme.example}}], to: [{{trustDomain: acme.example}}]}}]}}\n\
         ---\napiVersion: tidegate.dev/v1\nkind: Intent\nmetadata: {{name: drift}}\nspec: {{identities: [{{spiffePath: {}}}], workload: batch, client: [{{to: [{{spiffeId: {}}}], ports: [udp/{EXPECTED}]}}], response: {{action: contain, for: 1h}}}}\n\
         ---\napiVersion: tidegate.dev/v1\nkind: Intent\nmetadata: {{name: load}}\nspec: {{identities: [{{spiffeId: {}}}], workload: service, client: [{{to: [{{spiffeId: {}}}], ports: [udp]}}], response: {{action: contain, for: 1h}}}}\n",
        id("drift/*"),
        id("server"),
        id("load"),
        id("sink"),
    );
    let drift = (0..departing).map(|n| (format!("drift/d{n}"), address(n)));
    let others = [("server", SERVER), ("load", LOAD), ("sink", SINK)].map(|(path, at)| (path.to_owned(), at));
    for (n, (path, at)) in drift.chain(others).enumerate() {
        let _ = write!(
            text,
            "---\napiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: w{n}}}\nspec: {{spiffeId: {}, addresses: [{at}/32]}}\n",
            id(&path)
        );
    }
    text
}

impl Scene {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let (client, server) = (Netns::new()?, Netns::new()?);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("switching forwarding on")?;
        for (own, end, net) in [("tgw0", &client, "10.1.0"), ("tgw1", &server, "10.2.0")] {
            sh("ip", &["link", "add", own, "type", "veth", "peer", "name", "tgend", "netns", &end.path()])?;
            sh("ip", &["addr", "add", &format!("{net}.1/16"), "dev", own])?;
            sh("ip", &["link", "set", own, "up"])?;
            end.run(|| {
                sh("ip", &["addr", "add", &format!("{net}.2/16"), "dev", "tgend"])?;
                sh("ip", &["link", "set", "tgend", "up"])?;
                sh("ip", &["route", "add", "default", "via", &format!("{net}.1")])
            })?;
        }
        sh("ip", &["neigh", "add", &SINK.to_string(), "lladdr", "02:00:00:00:00:99", "dev", "tgw1"])?;
        let namespace = server;
        let server = namespace.run(|| {
            let socket = UdpSocket::bind((SERVER, EXPECTED)).context("the server")?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(socket)
        })?;
        Ok(Self { client, server, _namespace: namespace })
    }

    /// Has an identity depart: how long after that packet the first was sent that the kernel dropped.
    pub fn depart(&self, n: u32) -> Result<Duration> {
        let (last, done) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| self.receive(address(n), &last, &done));
            let took = self.client.run(|| probe(address(n), &last));
            done.store(true, Ordering::Relaxed);
            took
        })
    }

    /// Notes the number of the last probe that came.
    fn receive(&self, from: Ipv4Addr, last: &AtomicU64, done: &AtomicBool) {
        let mut buffer = [0; 64];
        while !done.load(Ordering::Relaxed) {
            if let Ok((8, sender)) = self.server.recv_from(&mut buffer)
                && sender.ip() == from
            {
                let number = buffer.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                last.fetch_max(number, Ordering::Relaxed);
            }
        }
    }
}

/// Sends what is expected, then once what is not, and goes on until nothing comes any more.
fn probe(from: Ipv4Addr, last: &AtomicU64) -> Result<Duration> {
    let raw = Raw::open()?;
    // By its number, from 1.
    let mut sent_at = vec![Instant::now()];
    let mut departed = None;
    let begun = Instant::now();
    loop {
        let number = sent_at.len() as u64;
        sent_at.push(Instant::now());
        raw.send((from, 40_000), (SERVER, EXPECTED), &number.to_be_bytes());
        let arrived = last.load(Ordering::Relaxed);
        if departed.is_none() && arrived >= 20 {
            departed = Some(Instant::now());
            raw.send((from, 40_001), (SERVER, DEPARTS), b"departs");
        }
        if let Some(departed) = departed
            && number - arrived > GONE
        {
            let first = sent_at.get(arrived as usize + 1).context("a probe")?;
            return Ok(first.saturating_duration_since(departed));
        }
        ensure!(begun.elapsed() < PATIENCE, "{from} is not contained: probe {arrived} of {number} came");
        std::thread::sleep(EVERY);
    }
}
