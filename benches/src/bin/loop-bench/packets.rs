//! Datagrams of any source, as they are.

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt, socket,
    sockopt,
};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Who makes the load, and to whom.
pub const LOAD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 3);
/// Nobody is there, so that nothing is answered.
pub const SINK: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 3);
/// How often the load is sent, a piece each.
const PIECE: Duration = Duration::from_millis(1);

/// A socket for whole IP packets.
pub struct Raw(OwnedFd);

impl Raw {
    /// In the namespace of the thread.
    pub fn open() -> Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw);
        let socket = socket.context("a raw socket")?;
        setsockopt(&socket, sockopt::SndBuf, &(4 << 20)).context("its buffer")?;
        Ok(Self(socket))
    }

    /// Sends a datagram. Returns whether the host took it.
    pub fn send(&self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> bool {
        let builder = etherparse::PacketBuilder::ipv4(from.0.octets(), to.0.octets(), 64).udp(from.1, to.1);
        let mut packet = Vec::with_capacity(builder.size(payload.len()));
        if builder.write(&mut packet, payload).is_err() {
            return false;
        }
        let [a, b, c, d] = to.0.octets();
        sendto(self.0.as_raw_fd(), &packet, &SockaddrIn::new(a, b, c, d, 0), MsgFlags::empty()).is_ok()
    }
}

/// So many new connections a second until it is told to stop; how many they were.
pub fn load(per_second: u32, stop: &AtomicBool) -> Result<u64> {
    let raw = Raw::open()?;
    let begun = Instant::now();
    let (mut sent, mut n) = (0_u64, 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        while n < due {
            // No two have the same ports.
            let port = |n: u64, first: u64, many: u64| (first + n % many) as u16;
            let from = (LOAD, port(n, 1024, 60_000));
            sent += u64::from(raw.send(from, (SINK, port(n / 60_000, 10_000, 50_000)), b"load"));
            n += 1;
        }
        std::thread::sleep(PIECE);
    }
    Ok(sent)
}
