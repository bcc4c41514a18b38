//! ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4.1).

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::protocol::Done;
use crate::topology::plan::Outcome;

const HEADER: usize = 8;

/// One echo request.
pub async fn ping(to: IpAddr, bytes: u64, timeout: Duration) -> Done {
    let run = Done::begin();
    match tokio::task::spawn_blocking(move || echo(to, bytes, timeout)).await {
        Ok(Ok(Some(length))) => {
            let mut run = run;
            run.done.bytes = length as u64;
            run.ok()
        }
        Ok(Ok(None)) => run.end(Outcome::Timeout, "no answer to the echo request"),
        Ok(Err(error)) => run.end_io(&error),
        Err(error) => run.end(Outcome::Error, error.to_string()),
    }
}

fn echo(to: IpAddr, bytes: u64, timeout: Duration) -> io::Result<Option<usize>> {
    let ipv6 = to.is_ipv6();
    let (domain, protocol) =
        if ipv6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    let id = identifier();
    let request = request(ipv6, id, usize::try_from(bytes).unwrap_or(0));
    socket.connect(&SocketAddr::new(to, 0).into())?;
    socket.send(&request)?;
    let deadline = Instant::now() + timeout;
    let mut buffer = vec![0; request.len() + 128];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match (&socket).read(&mut buffer) {
            Ok(length) => {
                if let Some(payload) = answer(&buffer[..length], ipv6, id) {
                    return Ok(Some(payload));
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Differs between pings of one child.
fn identifier() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (std::process::id() as u16).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn request(ipv6: bool, id: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![b'~'; HEADER + payload];
    packet[..HEADER].fill(0);
    packet[0] = if ipv6 { 128 } else { 8 };
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&1u16.to_be_bytes());
    if !ipv6 {
        // The kernel fills in ICMPv6 checksums, not ICMP's.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The length of the payload, if this is the echo reply.
fn answer(packet: &[u8], ipv6: bool, id: u16) -> Option<usize> {
    // Raw IPv4 sockets hand up the IP header, IPv6 ones do not.
    let start = if ipv6 { 0 } else { usize::from(packet.first()? & 15) * 4 };
    let icmp = packet.get(start..)?;
    let kind = if ipv6 { 129 } else { 0 };
    let right = *icmp.first()? == kind && icmp.get(4..6)? == id.to_be_bytes();
    right.then(|| icmp.len().saturating_sub(HEADER))
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_packet_with_its_checksum_is_zero() {
        assert_eq!(checksum(&request(false, 0x1234, 56)), 0);
        assert_eq!(checksum(&request(false, 0xffff, 7)), 0);
    }
}
