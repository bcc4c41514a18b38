//! JA4, the fingerprint of a TLS client (FoxIO, technical_details/JA4.md; BSD 3-Clause).

use sha2::{Digest, Sha256};

/// What carries the hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// TLS over TCP.
    #[default]
    Tcp,
    /// QUIC.
    Quic,
}

/// What of a ClientHello goes into its JA4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ja4Input {
    /// What it came over.
    pub transport: Transport,
    /// The version field of the hello.
    pub legacy_version: u16,
    /// Of the extension supported_versions.
    pub supported_versions: Vec<u16>,
    /// Cipher suites, as they come.
    pub ciphers: Vec<u16>,
    /// Types of the extensions, as they come.
    pub extensions: Vec<u16>,
    /// Of the extension signature_algorithms, as they come.
    pub signature_algorithms: Vec<u16>,
    /// The first protocol of ALPN.
    pub alpn: Option<Vec<u8>>,
}

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Values that say nothing (RFC 8701).
pub fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

fn plain(values: &[u16]) -> Vec<u16> {
    values.iter().copied().filter(|value| !is_grease(*value)).collect()
}

/// The fingerprint of a hello.
pub fn ja4(input: &Ja4Input) -> String {
    let (ciphers, extensions) = (plain(&input.ciphers), plain(&input.extensions));
    let sni = if extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
    let (many_ciphers, many_extensions) = (ciphers.len().min(99), extensions.len().min(99));
    let head = format!(
        "{}{}{sni}{many_ciphers:02}{many_extensions:02}{}",
        if input.transport == Transport::Quic { 'q' } else { 't' },
        version(input),
        alpn(input.alpn.as_deref())
    );
    let mut sorted = ciphers;
    sorted.sort_unstable();
    let suites = if sorted.is_empty() { NOTHING.to_owned() } else { hash(&hex(&sorted)) };
    format!("{head}_{suites}_{}", extensions_hash(&extensions, &plain(&input.signature_algorithms)))
}

/// Stands for a list that is empty.
const NOTHING: &str = "000000000000";

/// SNI and ALPN are left out, they change with the server; the order of signature algorithms is the client's.
fn extensions_hash(extensions: &[u16], signature_algorithms: &[u16]) -> String {
    let mut kept: Vec<_> =
        extensions.iter().copied().filter(|kind| !matches!(*kind, SERVER_NAME | ALPN)).collect();
    kept.sort_unstable();
    match (kept.is_empty(), signature_algorithms.is_empty()) {
        (true, _) => NOTHING.to_owned(),
        (false, true) => hash(&hex(&kept)),
        (false, false) => hash(&format!("{}_{}", hex(&kept), hex(signature_algorithms))),
    }
}

fn version(input: &Ja4Input) -> &'static str {
    let offered = plain(&input.supported_versions).into_iter().max();
    match offered.unwrap_or(input.legacy_version) {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// First and last character; of their hexadecimal form where one of them is no letter or digit.
fn alpn(first: Option<&[u8]>) -> String {
    let Some((&head, &tail)) = first.and_then(|name| name.first().zip(name.last())) else {
        return "00".to_owned();
    };
    if head.is_ascii_alphanumeric() && tail.is_ascii_alphanumeric() {
        return format!("{}{}", char::from(head), char::from(tail));
    }
    format!("{:x}{:x}", head >> 4, tail & 0xf)
}

fn hex(values: &[u16]) -> String {
    values.iter().map(|value| format!("{value:04x}")).collect::<Vec<_>>().join(",")
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the specification: Chrome, with GREASE.
    fn chrome() -> Ja4Input {
        Ja4Input {
            transport: Transport::Tcp,
            legacy_version: 0x0303,
            supported_versions: vec![0x6a6a, 0x0304, 0x0303],
            ciphers: vec![
                0x3a3a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
                0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x5a5a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023,
                0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0xbaba,
            ],
            signature_algorithms: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
            alpn: Some(b"h2".to_vec()),
        }
    }

    #[test]
    fn the_example_of_the_specification_has_its_fingerprint() {
        assert_eq!(ja4(&chrome()), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    }

    #[test]
    fn over_quic_it_begins_with_q() {
        let quic = Ja4Input { transport: Transport::Quic, ..chrome() };
        assert_eq!(ja4(&quic), "q13d1516h2_8daaf6152771_e5627efa2ab1");
    }

    #[test]
    fn order_of_ciphers_and_extensions_does_not_count_that_of_signature_algorithms_does() {
        let mut other = chrome();
        other.ciphers.reverse();
        other.extensions.reverse();
        assert_eq!(ja4(&other), ja4(&chrome()));
        other.signature_algorithms.reverse();
        assert_ne!(ja4(&other), ja4(&chrome()));
    }

    #[test]
    fn what_is_missing_is_written_as_zeroes() {
        let nothing = Ja4Input { legacy_version: 0x0301, ..Ja4Input::default() };
        assert_eq!(ja4(&nothing), "t10i000000_000000000000_000000000000");
    }

    #[test]
    fn alpn_is_told_by_its_ends() {
        let of = |name: &[u8]| alpn(Some(name));
        assert_eq!(
            [of(b"h2"), of(b"http/1.1"), of(b"h"), of(&[0xab]), of(&[0xab, 0xcd]), of(b""), alpn(None)],
            ["h2", "h1", "hh", "ab", "ad", "00", "00"]
        );
    }
}
