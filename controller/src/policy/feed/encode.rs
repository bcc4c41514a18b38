//! Entries in the saved state: as few bytes as say them.

use super::{Entries, Entry};
use crate::policy::prefix::Prefix;
use datapath::abi::Addr;
use jiff::Timestamp;

/// IPv6 lengths are told apart from IPv4's by this.
const V6: u8 = 64;

impl Entries {
    /// The list in bytes: of each entry its length, its address in 4 or 16 bytes, its line and its listing.
    pub fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.list.len() * 13);
        for Entry { prefix, line, sbl } in &self.list {
            let octets = prefix.addr().octets();
            let bits = prefix.bits() as u8;
            if prefix.is_v4() {
                bytes.push(bits - 96);
                bytes.extend(&octets[12..]);
            } else {
                bytes.push(bits + V6);
                bytes.extend(&octets);
            }
            bytes.extend(line.to_le_bytes());
            bytes.extend(sbl.to_le_bytes());
        }
        bytes
    }

    /// The same again; nothing where these are no such bytes.
    pub fn decoded(mut bytes: &[u8], written_at: Timestamp, digest: String) -> Option<Self> {
        let mut list = Vec::with_capacity(bytes.len() / 13);
        while let Some((bits, rest)) = bytes.split_first() {
            let (addr, bits, rest) = match bits.checked_sub(V6) {
                None => {
                    let (octets, rest) = rest.split_first_chunk::<4>()?;
                    (Addr::v4(*octets), bits + 96, rest)
                }
                Some(bits) => {
                    let (octets, rest) = rest.split_first_chunk::<16>()?;
                    (Addr::v6(*octets), bits, rest)
                }
            };
            let (line, rest) = rest.split_first_chunk()?;
            let (sbl, rest) = rest.split_first_chunk()?;
            let (line, sbl) = (u32::from_le_bytes(*line), u32::from_le_bytes(*sbl));
            if bits > 128 {
                return None;
            }
            list.push(Entry { prefix: Prefix::new(addr, bits), line, sbl });
            bytes = rest;
        }
        list.is_sorted_by(|a, b| a.prefix < b.prefix).then_some(Self {
            list,
            written_at: Some(written_at),
            digest,
        })
    }
}
