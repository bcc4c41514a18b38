//! Names that are asked for: queries of DNS over UDP, which the programs hand up as they lay in the datagram.
//!
//! Read passively, so what is asked over TLS, HTTPS or QUIC (DoT, DoH, DoQ) is not seen, nor is what a resolver on the workload
//! answers from its cache.

use datapath::abi::{FlowKey, HelloSegment};
use simple_dns::{OPCODE, Packet, PacketFlag};
use std::collections::VecDeque;

/// Queries that are remembered, to tell one that passed two programs from two.
const REMEMBERED: usize = 1024;
/// A query that is seen again within this passed another program: a stub waits longer before it asks anew (RFC 1035, section 4.2.1).
const AGAIN_NS: u64 = 500_000_000;

/// A question to a name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// By which the answer is told.
    pub id: u16,
    /// The name, in lower case and without the dot at its end.
    pub name: String,
}

/// Reads a query; nothing where it is none. One question is all that a query has (RFC 9619).
pub fn question(bytes: &[u8]) -> Option<Question> {
    // Before anything is set aside for what the counts promise: a question, no answers, an OPT record perhaps and a signature.
    let count = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    if count(4)? != 1 || count(6)? != 0 || count(8)? != 0 || count(10)? > 2 {
        return None;
    }
    let packet = Packet::parse(bytes).ok()?;
    if packet.has_flags(PacketFlag::RESPONSE) || packet.opcode() != OPCODE::StandardQuery {
        return None;
    }
    let name = packet.questions.first()?.qname.to_string().to_ascii_lowercase();
    // What is no text is shown as such, whatever terminal it ends on.
    let name = name.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    Some(Question { id: packet.id(), name })
}

/// Queries that were seen lately.
#[derive(Debug, Default)]
pub struct Asked(VecDeque<(FlowKey, u16, u64)>);

impl Asked {
    /// Notes a query, and says whether it is a new one.
    pub fn is_new(&mut self, piece: &HelloSegment, id: u16) -> bool {
        let is_same = |(key, of, at): &(FlowKey, u16, u64)| {
            *key == piece.key && *of == id && piece.time_ns.abs_diff(*at) < AGAIN_NS
        };
        if self.0.iter().rev().any(is_same) {
            return false;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((piece.key, id, piece.time_ns));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    /// RFC 1035, section 4.1.2: a query for a name, of type A.
    fn query(name: &str) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.extend([0, 0, 1, 0, 1]);
        bytes
    }

    #[test]
    fn the_name_of_a_query_is_read_in_lower_case() {
        let asked = question(&query("API.Bank.example")).expect("a question");
        assert_eq!((asked.id, asked.name.as_str()), (0x1234, "api.bank.example"));
        assert_eq!(question(&query("")).expect("a question").name, "");
        assert_eq!(question(&query("a\u{1b}[2J.example")).expect("a question").name, "a?[2j.example");
    }

    #[test]
    fn what_is_no_query_is_left_alone() {
        let good = query("a.example");
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            question(&bytes)
        };
        assert_eq!(with(2, 0x81), None, "an answer");
        assert_eq!(with(2, 0x28), None, "an update");
        assert_eq!(with(5, 2), None, "two questions");
        assert_eq!(with(7, 1), None, "an answer in it");
        assert_eq!(with(10, 255), None, "records that are not there");
        assert_eq!(with(12, 0xc0), None, "a name that points to itself");
        for length in 0..good.len() {
            assert_eq!(question(&good[..length]), None, "cut off after {length} bytes");
        }
    }

    #[test]
    fn a_query_that_passes_two_programs_is_one_and_one_that_is_asked_again_is_two() {
        let mut piece = HelloSegment::zeroed();
        let mut asked = Asked::default();
        assert!(asked.is_new(&piece, 1));
        piece.time_ns = 1_000_000;
        assert!(!asked.is_new(&piece, 1));
        assert!(asked.is_new(&piece, 2), "another query on the same socket");
        piece.time_ns = 1_000_000_000;
        assert!(asked.is_new(&piece, 1));
        for id in 0..3000 {
            asked.is_new(&piece, id);
        }
        assert_eq!(asked.0.len(), REMEMBERED);
    }
}
