//! SPIFFE IDs and trust domains, made in one place only: here, from text that keeps the rules of the SPIFFE-ID
//! specification (section 2).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID, section 2.3.
const MAX_ID_BYTES: usize = 2048;
/// SPIFFE-ID, section 2.3.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// What keeps a text from being a SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Longer than 2048 bytes.
    #[error("a SPIFFE ID has at most {MAX_ID_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// Another scheme, or none.
    #[error("a SPIFFE ID begins with `spiffe://`")]
    Scheme,
    /// No trust domain.
    #[error("the trust domain is missing: spiffe://TRUST-DOMAIN/PATH")]
    NoTrustDomain,
    /// A trust domain longer than 255 bytes.
    #[error("a trust domain has at most {MAX_TRUST_DOMAIN_BYTES} bytes, this one has {0}")]
    TrustDomainTooLong(usize),
    /// A port or user information beside the trust domain.
    #[error("a SPIFFE ID has no {0}")]
    Authority(&'static str),
    /// A character that trust domains do not have.
    #[error("`{0}` is not allowed in a trust domain: a-z, 0-9, `.`, `-`, `_`")]
    TrustDomainCharacter(char),
    /// A query or fragment.
    #[error("a SPIFFE ID has no {0}")]
    Suffix(&'static str),
    /// An empty path segment, or a slash at the end.
    #[error("the path has an empty segment: no `//` and no `/` at the end")]
    EmptySegment,
    /// A relative segment.
    #[error("the path segment `{0}` is not allowed")]
    RelativeSegment(String),
    /// A character that path segments do not have.
    #[error("`{0}` is not allowed in a path: a-z, A-Z, 0-9, `.`, `-`, `_`")]
    PathCharacter(char),
}

/// A trust domain.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.is_empty() {
            return Err(SpiffeError::NoTrustDomain);
        }
        if text.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(SpiffeError::TrustDomainTooLong(text.len()));
        }
        match text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_')) {
            None => Ok(Self(text.into())),
            Some('@') => Err(SpiffeError::Authority("user information (`@`)")),
            Some(':') => Err(SpiffeError::Authority("port (`:`)")),
            Some(c) => Err(SpiffeError::TrustDomainCharacter(c)),
        }
    }
}

/// A SPIFFE ID. Two are equal where their texts are.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId(Arc<str>);

impl SpiffeId {
    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the trust domain.
    pub fn trust_domain(&self) -> &str {
        split(&self.0[SCHEME.len()..]).0
    }

    /// The path without its first slash; empty for the ID of a trust domain itself.
    pub fn path(&self) -> &str {
        split(&self.0[SCHEME.len()..]).1
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        for (mark, name) in [('?', "query (`?`)"), ('#', "fragment (`#`)")] {
            if rest.contains(mark) {
                return Err(SpiffeError::Suffix(name));
            }
        }
        let (domain, path) = split(rest);
        TrustDomain::from_str(domain)?;
        if rest.len() > domain.len() {
            check_path(path, &[])?;
        }
        Ok(Self(text.into()))
    }
}

/// Checks the segments of a path; `also` are characters allowed beyond the specification's.
fn check_path(path: &str, also: &[char]) -> Result<(), SpiffeError> {
    for segment in path.split('/') {
        if segment.is_empty() {
            return Err(SpiffeError::EmptySegment);
        }
        if segment == "." || segment == ".." {
            return Err(SpiffeError::RelativeSegment(segment.to_owned()));
        }
        let wrong =
            |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || also.contains(c));
        if let Some(c) = segment.chars().find(wrong) {
            return Err(SpiffeError::PathCharacter(c));
        }
    }
    Ok(())
}

fn split(rest: &str) -> (&str, &str) {
    rest.split_once('/').unwrap_or((rest, ""))
}

/// A pattern of SPIFFE IDs: `*` inside a segment stands for any characters of that segment, a last segment that is
/// only `*` stands for one or more segments: `spiffe://td/ns/shop/*` is everything below `/ns/shop`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffePattern(Arc<str>);

impl SpiffePattern {
    /// The whole pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the trust domain, which has no wildcard.
    pub fn trust_domain(&self) -> &str {
        split(&self.0[SCHEME.len()..]).0
    }

    /// Whether an ID matches.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        if id.trust_domain() != self.trust_domain() || id.path().is_empty() {
            return false;
        }
        let mut segments = id.path().split('/');
        let mut patterns = split(&self.0[SCHEME.len()..]).1.split('/').peekable();
        while let Some(pattern) = patterns.next() {
            let Some(segment) = segments.next() else { return false };
            if pattern == "*" && patterns.peek().is_none() {
                return true;
            }
            if !segment_matches(pattern.as_bytes(), segment.as_bytes()) {
                return false;
            }
        }
        segments.next().is_none()
    }
}

/// Greedy with one point of return: linear for one `*`, never exponential for many.
fn segment_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(c) if *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

impl FromStr for SpiffePattern {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (domain, path) = split(rest);
        TrustDomain::from_str(domain)?;
        check_path(path, &['*'])?;
        Ok(Self(text.into()))
    }
}

macro_rules! text_forms {
    ($($name:ident)+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = SpiffeError;

            fn try_from(text: String) -> Result<Self, SpiffeError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.as_ref().to_owned()
            }
        }
    )+};
}
text_forms!(TrustDomain SpiffeId SpiffePattern);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        text.parse().expect(text)
    }

    fn error(text: &str) -> SpiffeError {
        text.parse::<SpiffeId>().expect_err(text)
    }

    #[test]
    fn ids_that_keep_the_rules_are_taken_as_they_are() {
        let orders = id("spiffe://acme.example/ns/shop/sa/Orders_1.a-b");
        assert_eq!(orders.trust_domain(), "acme.example");
        assert_eq!(orders.path(), "ns/shop/sa/Orders_1.a-b");
        assert_eq!(id("spiffe://acme.example").path(), "");
        assert_eq!(id(&format!("spiffe://td/{}", "a".repeat(2048 - 12))).as_str().len(), 2048);
    }

    #[test]
    fn ids_that_break_a_rule_name_it() {
        assert_eq!(error("https://a/b"), SpiffeError::Scheme);
        assert_eq!(error("SPIFFE://a/b"), SpiffeError::Scheme);
        assert_eq!(error("spiffe:///b"), SpiffeError::NoTrustDomain);
        assert_eq!(error("spiffe://Acme/b"), SpiffeError::TrustDomainCharacter('A'));
        assert_eq!(error("spiffe://a:80/b"), SpiffeError::Authority("port (`:`)"));
        assert_eq!(error("spiffe://u@a/b"), SpiffeError::Authority("user information (`@`)"));
        assert_eq!(error("spiffe://a/b?q"), SpiffeError::Suffix("query (`?`)"));
        assert_eq!(error("spiffe://a/b#f"), SpiffeError::Suffix("fragment (`#`)"));
        assert_eq!(error("spiffe://a/"), SpiffeError::EmptySegment);
        assert_eq!(error("spiffe://a/b//c"), SpiffeError::EmptySegment);
        assert_eq!(error("spiffe://a/b/../c"), SpiffeError::RelativeSegment("..".into()));
        assert_eq!(error("spiffe://a/b%20c"), SpiffeError::PathCharacter('%'));
        assert_eq!(error(&format!("spiffe://{}/a", "t".repeat(256))), SpiffeError::TrustDomainTooLong(256));
        assert_eq!(error(&format!("spiffe://td/{}", "a".repeat(2037))), SpiffeError::TooLong(2049));
    }

    #[test]
    fn patterns_match_by_segment_and_a_last_star_matches_all_below() {
        let matches =
            |pattern: &str, text: &str| pattern.parse::<SpiffePattern>().expect(pattern).matches(&id(text));
        assert!(matches("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/sa/orders"));
        assert!(matches("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/x"));
        assert!(!matches("spiffe://td/ns/shop/*", "spiffe://td/ns/shop"));
        assert!(!matches("spiffe://td/ns/shop/*", "spiffe://td/ns/shopping/x"));
        assert!(!matches("spiffe://td/ns/shop/*", "spiffe://other/ns/shop/x"));
        assert!(matches("spiffe://td/ns/*/sa/orders", "spiffe://td/ns/a/sa/orders"));
        assert!(!matches("spiffe://td/ns/*/sa/orders", "spiffe://td/ns/a/b/sa/orders"));
        assert!(matches("spiffe://td/ns/shop/sa/ord*-*1", "spiffe://td/ns/shop/sa/orders-1-1"));
        assert!(!matches("spiffe://td/ns/shop/sa/ord*", "spiffe://td/ns/shop/sa/orders/evil"));
        assert!(matches("spiffe://td/*", "spiffe://td/a/b/c"));
    }

    #[test]
    fn patterns_keep_the_rules_beside_their_stars() {
        assert_eq!("spiffe://*/a".parse::<SpiffePattern>(), Err(SpiffeError::TrustDomainCharacter('*')));
        assert_eq!("spiffe://td/a b".parse::<SpiffePattern>(), Err(SpiffeError::PathCharacter(' ')));
        assert_eq!("spiffe://td".parse::<SpiffePattern>(), Err(SpiffeError::EmptySegment));
    }
}
