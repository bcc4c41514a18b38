//! What an intent says of ClientHellos: `sni`, `alpn` and `ja4` of an expected connection.

use crate::hello::ClientHello;
use crate::policy::fields::{Context, Fields};
use crate::policy::yaml::{Node, Value};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The hellos that fit. An empty list says nothing of its field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hellos {
    /// Names of servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sni: Vec<NamePattern>,
    /// Application protocols: the hello offers no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    /// Fingerprints of clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ja4: Vec<Ja4>,
}

/// A name of a server, or with `*.` in front all below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern(String);

/// A JA4 fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ja4(String);

/// In what a hello does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// Another name, or none.
    Sni,
    /// A protocol that is not listed.
    Alpn,
    /// Another shape.
    Ja4,
}

const NAME: &str =
    "accepted: a host name in lower case, such as db.shop.example, or `*.shop.example` for all below it";
const PROTOCOL: &str = "accepted: an ALPN protocol ID, such as h2 or http/1.1";
const FINGERPRINT: &str =
    "accepted: as `tidegate observe` shows it, such as t13d1516h2_8daaf6152771_e5627efa2ab1";

impl Hellos {
    /// The fields of an item of `client` or `server`.
    pub(super) const FIELDS: [&'static str; 3] = ["sni", "alpn", "ja4"];

    pub(super) fn decode(cx: &mut Context<'_>, fields: &Fields<'_>) -> Self {
        Self {
            sni: list(cx, fields, "sni", NAME),
            alpn: list::<Protocol>(cx, fields, "alpn", PROTOCOL).into_iter().map(|p| p.0).collect(),
            ja4: list(cx, fields, "ja4", FINGERPRINT),
        }
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.sni.is_empty() && self.alpn.is_empty() && self.ja4.is_empty()
    }

    /// In what a hello does not fit; what is missing in a partial one does.
    pub fn misfit(&self, hello: &ClientHello) -> Option<Misfit> {
        let is_partial = hello.tls_hello_partial == Some(true);
        let named = match &hello.tls_sni {
            Some(name) => self.sni.iter().any(|pattern| pattern.matches(name)),
            None => is_partial,
        };
        if !self.sni.is_empty() && !named {
            return Some(Misfit::Sni);
        }
        let offered = hello.tls_alpn.iter().flatten();
        if !self.alpn.is_empty() && offered.into_iter().any(|protocol| !self.alpn.contains(protocol)) {
            return Some(Misfit::Alpn);
        }
        let shape = hello.tls_ja4.as_ref();
        let is_other = |shape: &String| !self.ja4.iter().any(|own| own.0 == *shape);
        (!self.ja4.is_empty() && shape.is_some_and(is_other)).then_some(Misfit::Ja4)
    }
}

fn list<T: FromStr<Err = String>>(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    name: &str,
    accepted: &str,
) -> Vec<T> {
    let Some(node) = fields.optional(name) else { return Vec::new() };
    let noun = format!("`{name}`");
    let mut all = Vec::new();
    for item in cx.items(node, &noun, accepted) {
        all.extend(cx.parsed::<T>(item, &noun, accepted));
    }
    all
}

/// A list of names, which may be empty.
pub(super) fn names(cx: &mut Context<'_>, node: &Node, noun: &str) -> Vec<NamePattern> {
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for item in cx.items(node, noun, NAME) {
        all.extend(cx.parsed::<NamePattern>(item, noun, NAME));
    }
    all
}

/// `a.example or *.b.example`, `no name`
pub fn name_list(names: &[NamePattern]) -> String {
    let names: Vec<_> = names.iter().map(|name| name.0.as_str()).collect();
    if names.is_empty() { "no name".to_owned() } else { names.join(" or ") }
}

impl NamePattern {
    /// Whether it is the name of a server, in upper or lower case (RFC 6066, section 3).
    pub fn matches(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        match self.0.strip_prefix('*') {
            Some(below) => name.len() > below.len() && name.ends_with(below),
            None => name == self.0,
        }
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(right);
        let name = text.strip_prefix("*.").unwrap_or(text);
        if text.len() > 253 || !name.split('.').all(label) {
            return Err(format!("`{text}` is no name of a server"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// RFC 7301, section 3.1: 1 to 255 bytes.
struct Protocol(String);

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
            return Err(format!("`{text}` is no protocol"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Ja4 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let lengths: Vec<_> = text.split('_').map(str::len).collect();
        if lengths != [10, 12, 12] || !text.chars().all(|c| c == '_' || right(c)) {
            return Err(format!("`{text}` is no JA4 fingerprint"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Hellos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sni: Vec<_> = self.sni.iter().map(|name| name.0.as_str()).collect();
        let ja4: Vec<_> = self.ja4.iter().map(|shape| shape.0.as_str()).collect();
        let alpn: Vec<_> = self.alpn.iter().map(String::as_str).collect();
        let said: Vec<_> = [("SNI", sni), ("ALPN", alpn), ("JA4", ja4)]
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name} {}", list.join(" or ")))
            .collect();
        f.write_str(&said.join(", "))
    }
}

macro_rules! text {
    ($($name:ident)*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(one: $name) -> Self {
                one.0
            }
        }
    )*};
}

text!(NamePattern Ja4);

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: &str = "t13d1516h2_8daaf6152771_e5627efa2ab1";

    fn expected() -> Hellos {
        Hellos {
            sni: vec!["db.shop.example".parse().expect("a name"), "*.api.example".parse().expect("a name")],
            alpn: vec!["h2".into(), "http/1.1".into()],
            ja4: vec![SHAPE.parse().expect("a fingerprint")],
        }
    }

    fn hello(sni: Option<&str>, alpn: &[&str], ja4: Option<&str>) -> ClientHello {
        ClientHello {
            tls_sni: sni.map(str::to_owned),
            tls_alpn: Some(alpn.iter().map(|p| (*p).to_owned()).collect()),
            tls_ja4: ja4.map(str::to_owned),
            tls_hello_partial: Some(false),
            ..ClientHello::default()
        }
    }

    #[test]
    fn name_protocols_and_shape_have_to_fit_in_this_order() {
        let misfit = |sni, alpn: &[&str], ja4| expected().misfit(&hello(sni, alpn, ja4));
        assert_eq!(misfit(Some("DB.shop.example"), &["h2"], Some(SHAPE)), None);
        assert_eq!(misfit(Some("eu.v1.api.example"), &[], Some(SHAPE)), None);
        assert_eq!(misfit(Some("api.example"), &["h2"], Some(SHAPE)), Some(Misfit::Sni));
        assert_eq!(misfit(Some("evilapi.example"), &["h2"], Some(SHAPE)), Some(Misfit::Sni));
        assert_eq!(misfit(None, &["h2"], Some(SHAPE)), Some(Misfit::Sni));
        assert_eq!(misfit(Some("db.shop.example"), &["h2", "h3"], Some(SHAPE)), Some(Misfit::Alpn));
        let other = "t13d1516h2_8daaf6152771_000000000000";
        assert_eq!(misfit(Some("db.shop.example"), &["h2"], Some(other)), Some(Misfit::Ja4));
    }

    #[test]
    fn what_a_partial_hello_does_not_show_is_not_held_against_it_and_what_it_shows_is() {
        let partial = |hello: ClientHello| ClientHello { tls_hello_partial: Some(true), ..hello };
        assert_eq!(expected().misfit(&partial(hello(None, &[], None))), None);
        let named = partial(hello(Some("other.example"), &[], None));
        assert_eq!(expected().misfit(&named), Some(Misfit::Sni));
    }

    #[test]
    fn what_is_no_name_or_fingerprint_is_refused() {
        for wrong in
            ["", "Shop.example", "shop..example", "*shop.example", "a.*.example", "*", "shop.example."]
        {
            assert!(wrong.parse::<NamePattern>().is_err(), "{wrong}");
        }
        for wrong in
            ["", "t13d1516h2", "t13d1516h2_8daaf6152771_E5627efa2ab1", "t13d1516h2-8daaf6152771-e5627efa2ab1"]
        {
            assert!(wrong.parse::<Ja4>().is_err(), "{wrong}");
        }
    }
}
