//! Frames of the benches, all of the smallest size that their headers allow, as packet rates are measured with.

use anyhow::{Context, Result};
use etherparse::{PacketBuilder, TcpHeader, VlanId};
use std::net::IpAddr;

/// Hardware addresses of the two ends.
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// What a TCP segment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Opens.
    Syn,
    /// Answers.
    SynAck,
    /// Acknowledges.
    Ack,
    /// Carries a few bytes.
    Data,
}

/// One direction of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Tagged so, if at all.
    pub vlan: Option<u16>,
}

impl Stream {
    /// The other direction.
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..self }
    }

    /// A frame of it.
    pub fn frame(&self, segment: Segment) -> Result<Vec<u8>> {
        // The opener's numbers start at 1000, the answerer's at 5000; whoever has the higher port is the opener.
        let (mine, theirs) = if self.src_port > self.dst_port { (1000, 5000) } else { (5000, 1000) };
        let (sequence, payload): (u32, &[u8]) = match segment {
            Segment::Syn | Segment::SynAck => (mine, b""),
            Segment::Ack => (mine + 1, b""),
            Segment::Data => (mine + 1, b"tidegate"),
        };
        let mut tcp = TcpHeader::new(self.src_port, self.dst_port, sequence, 64_000);
        tcp.syn = matches!(segment, Segment::Syn | Segment::SynAck);
        tcp.ack = segment != Segment::Syn;
        tcp.psh = segment == Segment::Data;
        tcp.acknowledgment_number = if tcp.ack { theirs + 1 } else { 0 };
        let ethernet = PacketBuilder::ethernet2(MACS[0], MACS[1]);
        let mut frame = Vec::new();
        let written = match (self.vlan, self.src, self.dst) {
            (None, IpAddr::V4(src), IpAddr::V4(dst)) => {
                ethernet.ipv4(src.octets(), dst.octets(), 64).tcp_header(tcp).write(&mut frame, payload)
            }
            (None, IpAddr::V6(src), IpAddr::V6(dst)) => {
                ethernet.ipv6(src.octets(), dst.octets(), 64).tcp_header(tcp).write(&mut frame, payload)
            }
            (Some(id), IpAddr::V4(src), IpAddr::V4(dst)) => {
                let tagged = ethernet.single_vlan(VlanId::try_new(id).context("VLAN id")?);
                tagged.ipv4(src.octets(), dst.octets(), 64).tcp_header(tcp).write(&mut frame, payload)
            }
            (Some(id), IpAddr::V6(src), IpAddr::V6(dst)) => {
                let tagged = ethernet.single_vlan(VlanId::try_new(id).context("VLAN id")?);
                tagged.ipv6(src.octets(), dst.octets(), 64).tcp_header(tcp).write(&mut frame, payload)
            }
            _ => anyhow::bail!("{} and {} are of different families", self.src, self.dst),
        };
        written.context("writing a frame")?;
        Ok(frame)
    }

    /// A datagram of it, in IPv4 without a tag.
    pub fn datagram(&self) -> Result<Vec<u8>> {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (self.src, self.dst) else {
            anyhow::bail!("{} and {} are not of IPv4", self.src, self.dst);
        };
        let ethernet = PacketBuilder::ethernet2(MACS[0], MACS[1]).ipv4(src.octets(), dst.octets(), 64);
        let mut frame = Vec::new();
        ethernet
            .udp(self.src_port, self.dst_port)
            .write(&mut frame, b"tidegate")
            .context("writing a frame")?;
        Ok(frame)
    }

    /// A datagram of it and one back.
    pub fn conversation(&self) -> Result<[Vec<u8>; 2]> {
        Ok([self.datagram()?, self.reversed().datagram()?])
    }

    /// The frames after which data of either direction is settled: handshake, and a segment each way.
    pub fn opening(&self) -> Result<Vec<Vec<u8>>> {
        let back = self.reversed();
        let steps = [
            (self, Segment::Syn),
            (&back, Segment::SynAck),
            (self, Segment::Ack),
            (self, Segment::Data),
            (&back, Segment::Data),
            (&back, Segment::Ack),
            (self, Segment::Data),
        ];
        steps.into_iter().map(|(stream, segment)| stream.frame(segment)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::SlicedPacket;

    #[test]
    fn a_tagged_frame_holds_what_it_was_made_of() -> Result<()> {
        let stream = Stream {
            src: "fd00:1::2".parse()?,
            dst: "fd00:2::2".parse()?,
            src_port: 40_000,
            dst_port: 443,
            vlan: Some(7),
        };
        let frame = stream.frame(Segment::SynAck)?;
        let packet = SlicedPacket::from_ethernet(&frame)?;
        let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport else { anyhow::bail!("no TCP") };
        assert_eq!((tcp.source_port(), tcp.destination_port()), (40_000, 443));
        assert!(tcp.syn() && tcp.ack());
        assert_eq!(packet.link_exts.len(), 1);
        assert_eq!(frame.len(), 14 + 4 + 40 + 20);
        Ok(())
    }
}
