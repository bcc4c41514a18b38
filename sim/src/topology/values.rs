//! Small values: prefixes, durations, endpoints, SPIFFE IDs.

use std::net::IpAddr;
use std::time::Duration;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The address, host bits included.
    pub address: IpAddr,
    /// Bits of the network.
    pub length: u8,
}

impl Prefix {
    /// Reads `10.1.0.2/24` or `fd00:1::2/64`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (length <= most).then_some(Self { address, length })
    }

    /// Whether both are in the same network.
    pub fn same_network(&self, other: &Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.length == other.length
            && self.network() == other.network()
    }

    fn network(&self) -> u128 {
        let (bits, width) = match self.address {
            IpAddr::V4(a) => (u128::from(u32::from(a)), 32),
            IpAddr::V6(a) => (u128::from(a), 128),
        };
        bits.checked_shr(width - u32::from(self.length)).unwrap_or(0)
    }
}

/// Reads `500ms`, `10s`, `5m`, `1h`, `2d`; with a minus for the past. In milliseconds.
pub fn parse_signed_ms(text: &str) -> Option<i64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let split = rest.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = rest.split_at(split);
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit)?.checked_mul(sign)
}

/// The same, for what cannot be in the past.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse_signed_ms(text).and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis)
}

/// Whether a text is a SPIFFE ID (SPIFFE-ID, section 2): trust domain and path of the characters that it allows.
pub fn is_spiffe_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else { return false };
    let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
    let domain_ok = !domain.is_empty()
        && domain
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'));
    let segment_ok = |s: &str| {
        !s.is_empty()
            && s != "."
            && s != ".."
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    domain_ok && text.len() <= 2048 && (!rest.contains('/') || path.split('/').all(segment_ok))
}

/// The YAML reader ends its messages with the place, which ours begin with.
pub fn without_place(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message).trim_end();
    match message.strip_prefix("line ").and_then(|m| m.split_once(": ")) {
        Some((_, rest)) => rest.to_string(),
        None => message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_signs() {
        assert_eq!(parse_signed_ms("-1h"), Some(-3_600_000));
        assert_eq!(parse_signed_ms("500ms"), Some(500));
        assert_eq!(parse_signed_ms("10"), None);
        assert_eq!(parse_signed_ms("10 s"), None);
        assert_eq!(parse_duration("-1s"), None);
        assert_eq!(parse_duration("2d"), Some(Duration::from_secs(172_800)));
    }

    #[test]
    fn prefixes_know_their_network() {
        let p = |t| Prefix::parse(t).expect(t);
        assert!(p("10.1.0.2/24").same_network(&p("10.1.0.1/24")));
        assert!(!p("10.1.0.2/24").same_network(&p("10.1.1.1/24")));
        assert!(p("fd00::1/64").same_network(&p("fd00::ffff/64")));
        assert!(p("10.0.0.1/0").same_network(&p("99.0.0.1/0")));
        assert!(!p("10.1.0.2/24").same_network(&p("fd00::1/24")));
        assert_eq!(Prefix::parse("10.0.0.1/33"), None);
        assert_eq!(Prefix::parse("10.0.0.1"), None);
    }

    #[test]
    fn spiffe_ids_are_checked() {
        for good in ["spiffe://acme.example", "spiffe://acme.example/ns/shop/sa/orders"] {
            assert!(is_spiffe_id(good), "{good}");
        }
        for bad in [
            "",
            "spiffe://",
            "spiffe://Acme/x",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/../b",
            "http://a/b",
        ] {
            assert!(!is_spiffe_id(bad), "{bad}");
        }
    }
}
