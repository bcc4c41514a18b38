//! `kind: Limit`: what an identity may have, whatever rule lets its connections pass.

use super::compile::{RuleInfo, RuleKind};
use super::decode::selectors;
use super::document::{Documents, RuleAction, RuleMode};
use super::fields::{Context, Fields};
use super::limits::{self, Limits, RateLimit};
use super::numbering::Numbering;
use super::place::Place;
use super::restrictions::{Tables, restrict};
use super::selector::{Selector, selectors_text};
use super::spiffe::SpiffeId;
use super::yaml::Node;
use datapath::abi::{Binding, LimitOf, Limits as Bits, RuleSettings};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What every number of connections has to be below: as many are counted of one identity.
const MOST: u32 = 1_000_000;

/// A limit of identities, each by itself, for the connections that it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityLimit {
    /// metadata.name
    pub name: String,
    /// Whose: any of these. `any` is also what has no identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<Selector>,
    /// What has no identity, all of it together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unidentified: bool,
    /// How much passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateLimit>,
    /// Unanswered connections at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Connections at once, answered or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Whether it is enforced.
    pub mode: RuleMode,
    /// Where it begins.
    pub place: Place,
}

/// Reads the spec.
pub(super) fn decode(cx: &mut Context<'_>, spec: &Node) -> Option<IdentityLimit> {
    let names = ["identities", "unidentified", "rate", "maxAttempts", "maxConnections", "mode"];
    let fields = Fields::of(cx, spec, "the spec of a Limit", &names)?;
    let unidentified = fields
        .optional("unidentified")
        .and_then(|node| cx.word(node, "value of `unidentified`", &[("true", true), ("false", false)]));
    let unidentified = unidentified.unwrap_or(false);
    let identities = match fields.optional("identities") {
        None if unidentified => Vec::new(),
        _ => selectors(cx, &fields, "identities"),
    };
    if let Some(Selector::Cidr(prefix)) = identities.iter().find(|s| matches!(s, Selector::Cidr(_))) {
        let what = format!("a limit is for identities, not for {prefix}");
        let accepted = "name them by `spiffeId`, `spiffePath`, `trustDomain`, `labels` or `any`; \
             `unidentified: true` is for all that has no identity";
        cx.mistake(fields.optional("identities").unwrap_or(spec), what, accepted);
    }
    let rate = fields.optional("rate").and_then(|node| limits::rate_of_identity(cx, node));
    let max_attempts = fields.optional("maxAttempts").and_then(|node| number(cx, node, "`maxAttempts`"));
    let max_connections =
        fields.optional("maxConnections").and_then(|node| number(cx, node, "`maxConnections`"));
    if ["rate", "maxAttempts", "maxConnections"].iter().all(|name| fields.optional(name).is_none()) {
        cx.mistake(
            spec,
            "the Limit limits nothing",
            "for example `maxAttempts: 100`, or `rate: {connections: 50/s}`",
        );
    }
    let modes = [("enforce", RuleMode::Enforce), ("audit", RuleMode::Audit)];
    let mode = match fields.optional("mode") {
        Some(node) => cx.word(node, "mode", &modes),
        None => Some(RuleMode::default()),
    };
    let (name, place, mode) = (String::new(), cx.place(spec), mode?);
    Some(IdentityLimit { name, identities, unidentified, rate, max_attempts, max_connections, mode, place })
}

fn number(cx: &mut Context<'_>, node: &Node, noun: &str) -> Option<u32> {
    let text = cx.text(node, noun)?;
    let number = text.parse().ok().filter(|n| (1..=MOST).contains(n));
    if number.is_none() {
        let accepted = format!("accepted: a whole number from 1 to {MOST}");
        cx.mistake(node, format!("`{text}` is no number of connections"), accepted);
    }
    number
}

impl IdentityLimit {
    /// Whether it is for what has no identity.
    pub fn is_for_strangers(&self) -> bool {
        self.unidentified || self.identities.contains(&Selector::Any)
    }

    /// The bits of a binding: what has to be looked at.
    fn bits(&self) -> u8 {
        let held = self.max_attempts.is_some() || self.max_connections.is_some();
        Self::bits_of(held, self.rate.as_ref())
    }

    pub(super) fn bits_of(held: bool, rate: Option<&RateLimit>) -> u8 {
        let packets = rate.is_some_and(|rate| rate.packets.is_some() || rate.bytes.is_some());
        let opens = rate.is_some_and(|rate| rate.connections.is_some());
        let bits =
            [(held, Bits::IDENTITY_HELD), (packets, Bits::IDENTITY_RATE), (opens, Bits::IDENTITY_OPENS)];
        let bits = bits.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, bit)| all | bit);
        (bits >> Bits::IDENTITY_SHIFT) as u8
    }

    fn settings(&self) -> RuleSettings {
        RuleSettings {
            per_identity: 1,
            audit: u16::from(self.mode == RuleMode::Audit),
            max_attempts: self.max_attempts.unwrap_or(0),
            max_connections: self.max_connections.unwrap_or(0),
            rates: limits::rates(self.rate.as_ref()),
            ..RuleSettings::NONE
        }
    }

    fn info(&self, number: u32) -> RuleInfo {
        RuleInfo {
            number,
            kind: RuleKind::Limit,
            policy: "limit".into(),
            name: self.name.clone(),
            tier: 0,
            priority: None,
            action: RuleAction::Allow,
            mode: self.mode,
            limits: Limits { rate: self.rate.clone(), ..Limits::default() },
            place: self.place.clone(),
            text: self.to_string(),
        }
    }
}

impl fmt::Display for IdentityLimit {
    /// `limit labels app=orders to 100 attempts at once, connections 50/s (burst 50)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut whose = selectors_text(&self.identities);
        if self.unidentified {
            whose += if whose.is_empty() { "what has no identity" } else { " or what has no identity" };
        }
        let mut parts = Vec::new();
        parts.extend(self.max_attempts.map(|n| format!("{n} attempts at once")));
        parts.extend(self.max_connections.map(|n| format!("{n} connections at once")));
        parts.extend(self.rate.iter().flat_map(RateLimit::parts));
        let audit = if self.mode == RuleMode::Audit { " (audit)" } else { "" };
        write!(f, "limit{audit} {whose} to {}", parts.join(", "))
    }
}

/// A limit as a binding and the tables name it, and what holds for a while beside it.
#[derive(Clone, Copy, Default)]
pub(super) struct Numbered {
    /// By number.
    pub limit: LimitOf,
    /// [`datapath::abi::Binding::limits`].
    pub bits: u8,
}

/// Which limit is whose: of several that fit an identity, the first in the order of the files.
#[derive(Default)]
pub(super) struct IdentityLimits<'d> {
    of: HashMap<&'d SpiffeId, Numbered>,
    /// That of what has no identity.
    pub unidentified: Option<Numbered>,
    /// Whose lease was revoked, and when, on the boot clock.
    pub revoked: HashMap<&'d SpiffeId, u64>,
}

impl<'d> IdentityLimits<'d> {
    /// Gives each limit a number, its numbers in `settings`, and a line in `rules`; and so for what is done about identities.
    pub fn of(documents: &'d Documents, mut tables: Tables<'_>) -> Self {
        let Tables { numbering, rules, settings, .. } = &mut tables;
        let mut limits = Self::default();
        for limit in &documents.limits {
            let number = numbering.limit(&limit.name);
            let numbered = Numbered { limit: LimitOf::of(number), bits: limit.bits() };
            rules.insert(number, limit.info(number));
            settings.insert(number, limit.settings());
            // An identity has one limit, wherever it is: workloads of one identity may have labels of their own.
            let fits =
                |id: &SpiffeId, labels| limit.identities.iter().any(|s| s.matches_workload(id, labels));
            for workload in documents.workloads.iter().filter(|w| fits(&w.spiffe_id, &w.labels)) {
                limits.of.entry(&workload.spiffe_id).or_insert(numbered);
            }
            if limit.is_for_strangers() {
                limits.unidentified.get_or_insert(numbered);
            }
        }
        restrict(documents, &mut limits, &mut tables);
        limits
    }

    /// Has an identity have another.
    pub fn set(&mut self, id: &'d SpiffeId, limit: Numbered) {
        self.of.insert(id, limit);
    }

    /// The limit of an identity.
    pub fn get(&self, id: &SpiffeId) -> Option<Numbered> {
        self.of.get(id).copied()
    }

    /// By the number of the identity, 0 for what has none.
    pub fn by_number(&self, numbering: &mut Numbering) -> BTreeMap<u32, LimitOf> {
        let identified = self.of.iter().map(|(id, numbered)| (numbering.identity(id), numbered.limit));
        let strangers = self
            .unidentified
            .iter()
            .flat_map(|numbered| [0, Binding::AMBIGUOUS].map(|nobody| (nobody, numbered.limit)));
        identified.chain(strangers).collect()
    }
}
