//! What a rule asks beyond who may talk to whom: TLS, an end to its connections, rates.

use super::document::{Rule, RuleAction, RuleMode};
use super::fields::{Context, Fields};
use super::ports::PortMatch;
use super::quantity::{Amount, Count, RateOf, Size};
use super::time::{duration_text, parse_duration};
use super::yaml::Node;
use datapath::abi::{Limits as Bits, Rate, RuleSettings, Unit};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The limits of a rule that allows, and how one that denies does so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// What a rule denies is answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reject: bool,
    /// A connection has to begin with a TLS ClientHello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How many seconds a connection may last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u64>,
    /// How much passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateLimit>,
}

/// What is asked of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// It has to be there.
    Required,
}

/// How much passes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RateLimit {
    /// Packets, both ways together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Bucket<Count>>,
    /// Bytes of IP packets, both ways together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bucket<Size>>,
    /// New connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Bucket<Count>>,
    /// Whose they are.
    #[serde(default)]
    pub per: Per,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Bucket<A> {
    /// What flows in.
    pub rate: RateOf<A>,
    /// What it holds at most.
    pub burst: A,
}

/// Who shares a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// All that the rule decides on.
    #[default]
    Rule,
    /// All that one identity opens by this rule.
    Identity,
}

impl Limits {
    /// The fields of a rule that are limits.
    pub(super) const FIELDS: [&str; 3] = ["tls", "lifetime", "rate"];

    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The bits of a rule's decisions.
    pub(super) fn bits(&self, mode: RuleMode) -> u8 {
        let mut bits = 0;
        for (is_set, bit) in [
            (self.tls.is_some(), Bits::TLS_REQUIRED),
            (self.lifetime_seconds.is_some(), Bits::LIFETIME),
            (self.rate.is_some(), Bits::RATE),
            (self.reject, Bits::REJECT),
            (!self.is_none() && mode == RuleMode::Audit, Bits::AUDIT),
        ] {
            bits |= if is_set { bit as u8 } else { 0 };
        }
        bits
    }

    /// What stands in the rule table; nothing where the bits say it all.
    pub(super) fn settings(&self) -> Option<RuleSettings> {
        if self.lifetime_seconds.is_none() && self.rate.is_none() {
            return None;
        }
        let mut settings = RuleSettings::NONE;
        settings.lifetime_ns = self.lifetime_seconds.unwrap_or(0).saturating_mul(1_000_000_000);
        settings.per_identity = u32::from(self.rate.as_ref().is_some_and(|rate| rate.per == Per::Identity));
        settings.rates = rates(self.rate.as_ref());
        Some(settings)
    }
}

/// Rates by [`Unit`].
pub(super) fn rates(limit: Option<&RateLimit>) -> [Rate; Unit::COUNT] {
    let mut rates = [Rate::NONE; Unit::COUNT];
    if let Some(limit) = limit {
        rates[Unit::Packets as usize] = limit.packets.map_or(Rate::NONE, |b| b.rate());
        rates[Unit::Bytes as usize] = limit.bytes.map_or(Rate::NONE, |b| b.rate());
        rates[Unit::Connections as usize] = limit.connections.map_or(Rate::NONE, |b| b.rate());
    }
    rates
}

impl RateLimit {
    /// `packets 1000/s (burst 1000)` and so on.
    pub fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        parts.extend(self.packets.map(|b| format!("packets {b}")));
        parts.extend(self.bytes.map(|b| format!("bytes {b}")));
        parts.extend(self.connections.map(|b| format!("connections {b}")));
        parts
    }
}

impl<A: Amount> Bucket<A> {
    /// One that holds what flows in within a second, and at least what one packet needs.
    pub fn of_a_second(rate: RateOf<A>) -> Self {
        Self { rate, burst: A::of(rate.per_second().max(A::LEAST)) }
    }

    fn rate(&self) -> Rate {
        Rate::new(self.rate.amount.get(), self.rate.period.ns(), self.burst.get())
    }
}

impl fmt::Display for Limits {
    /// `tls required, lifetime 1h00m, packets 1000/s (burst 1000)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.tls.map(|Tls::Required| "tls required".to_owned()));
        parts.extend(self.lifetime_seconds.map(|s| format!("lifetime {}", duration_text(s))));
        if let Some(rate) = &self.rate {
            parts.extend(rate.parts());
            parts.extend((rate.per == Per::Identity).then(|| "each identity".to_owned()));
        }
        f.write_str(&parts.join(", "))
    }
}

impl<A: fmt::Display> fmt::Display for Bucket<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (burst {})", self.rate, self.burst)
    }
}

/// Reads the limits of a rule.
pub(super) fn decode(cx: &mut Context<'_>, fields: &Fields<'_>) -> Limits {
    let words = [("required", Some(Tls::Required)), ("optional", None)];
    Limits {
        reject: false,
        tls: fields.optional("tls").and_then(|node| cx.word(node, "value of `tls`", &words)).flatten(),
        lifetime_seconds: fields.optional("lifetime").and_then(|node| lifetime(cx, node)),
        rate: fields.optional("rate").and_then(|node| rate(cx, node)),
    }
}

/// Notes limits that cannot hold.
pub(super) fn check(cx: &mut Context<'_>, fields: &Fields<'_>, rule: &Rule) {
    if rule.action != RuleAction::Allow {
        let why = match rule.action {
            RuleAction::Pass => "passes on to the next tier: it lets nothing through",
            _ => "denies: nothing passes",
        };
        for (name, key, _) in fields.all().iter().filter(|(name, ..)| Limits::FIELDS.contains(name)) {
            let what = format!("`{name}` in a rule that {why} that it could limit");
            cx.mistake(key, what, "limits belong into rules with `action: allow`");
        }
    }
    if let (RuleAction::Pass, RuleMode::Audit, Some(node)) = (rule.action, rule.mode, fields.optional("mode"))
    {
        let what = "`mode: audit` of a rule with `action: pass`, which drops nothing";
        cx.mistake(node, what, "leave it out; the rule of the next tier may have it");
    }
    if let (Some(_), Some(node), RuleAction::Allow) = (&rule.hours, fields.optional("hours"), rule.action) {
        if rule.limits.lifetime_seconds.is_some() {
            let what = "a rule with `hours` and `lifetime`: its connections end with its hours";
            cx.mistake(node, what, "leave one of them out");
        }
        if rule.mode == RuleMode::Audit {
            let what =
                "a rule with `hours` and `mode: audit`: whether what its hours end goes on, nobody could say";
            cx.mistake(node, what, "leave one of them out");
        }
    }
    let tcp_alone = rule.ports.iter().all(|ports| ports.proto() == Some(6));
    if rule.limits.tls.is_some()
        && !tcp_alone
        && let Some(node) = fields.optional("tls")
    {
        let other = rule.ports.iter().find(|p| p.proto() != Some(6)).map(PortMatch::to_string);
        let what =
            format!("`tls: required` is for TCP, and the rule is for `{}` too", other.unwrap_or_default());
        cx.mistake(
            node,
            what,
            "name TCP ports, such as `ports: [tcp/443]`; put the rest into a rule of its own",
        );
    }
}

fn lifetime(cx: &mut Context<'_>, node: &Node) -> Option<u64> {
    let text = cx.text(node, "`lifetime`")?;
    let seconds = parse_duration(text).and_then(|d| u64::try_from(d.as_secs()).ok());
    if seconds.is_none() {
        let accepted = "accepted: whole numbers of s, m, h, d, such as 90s, 10m, 1h30m, 7d";
        cx.mistake(node, format!("`{text}` is not a duration"), accepted);
    }
    seconds
}

const UNITS: [&str; 3] = ["packets", "bytes", "connections"];

fn rate(cx: &mut Context<'_>, node: &Node) -> Option<RateLimit> {
    let fields = Fields::of(cx, node, "`rate`", &[UNITS[0], UNITS[1], UNITS[2], "burst", "per"])?;
    let whose = [("rule", Per::Rule), ("identity", Per::Identity)];
    let per = match fields.optional("per") {
        Some(node) => cx.word(node, "value of `per`", &whose),
        None => Some(Per::default()),
    };
    let limit = buckets(cx, node, &fields);
    Some(RateLimit { per: per?, ..limit? })
}

/// The rate of a limit that is an identity's anyway.
pub(super) fn rate_of_identity(cx: &mut Context<'_>, node: &Node) -> Option<RateLimit> {
    let fields = Fields::of(cx, node, "`rate`", &[UNITS[0], UNITS[1], UNITS[2], "burst"])?;
    Some(RateLimit { per: Per::Identity, ..buckets(cx, node, &fields)? })
}

fn buckets(cx: &mut Context<'_>, node: &Node, fields: &Fields<'_>) -> Option<RateLimit> {
    if UNITS.iter().all(|unit| fields.optional(unit).is_none()) {
        cx.mistake(node, "`rate` limits nothing", "for example `rate: {packets: 1000/s, connections: 50/s}`");
        return None;
    }
    let bursts = match fields.optional("burst") {
        Some(node) => Some(Fields::of(cx, node, "`burst`", &UNITS)?),
        None => None,
    };
    Some(RateLimit {
        packets: bucket(cx, fields, bursts.as_ref(), "packets"),
        bytes: bucket(cx, fields, bursts.as_ref(), "bytes"),
        connections: bucket(cx, fields, bursts.as_ref(), "connections"),
        per: Per::default(),
    })
}

/// One bucket. Without a burst it holds what flows in within a second, and at least what one packet needs.
fn bucket<A: Amount>(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    bursts: Option<&Fields<'_>>,
    unit: &str,
) -> Option<Bucket<A>> {
    let burst = bursts.and_then(|bursts| bursts.optional(unit));
    let Some(node) = fields.optional(unit) else {
        if let Some(node) = burst {
            let what = format!("a burst of {unit} without a rate of them");
            cx.mistake(node, what, format!("write the rate beside it, as in `{unit}: {}`", A::RATE_EXAMPLE));
        }
        return None;
    };
    let rate: RateOf<A> = cx.parsed(node, &format!("`{unit}`"), A::RATE_ACCEPTED)?;
    let Some(node) = burst else {
        return Some(Bucket::of_a_second(rate));
    };
    let burst: A = cx.parsed(node, &format!("burst of {unit}"), A::ACCEPTED)?;
    if burst.get() < A::LEAST {
        let what = format!("a burst of {burst} is less than one packet may have");
        cx.mistake(node, what, format!("accepted: at least {}", A::of(A::LEAST)));
        return None;
    }
    Some(Bucket { rate, burst })
}
