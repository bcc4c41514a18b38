//! `kind: Grant`: access for a while, which ends by itself.

use super::decode::{end, ports, selectors};
use super::fields::{Context, Fields};
use super::place::Place;
use super::ports::PortMatch;
use super::selector::{Selector, selectors_text};
use super::yaml::Node;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Access for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// metadata.name
    pub name: String,
    /// Who may open connections: any of these. No `any`: a grant is somebody's.
    pub from: Vec<Selector>,
    /// To whom: any of these.
    pub to: Vec<Selector>,
    /// To which protocols and ports: any of these.
    pub ports: Vec<PortMatch>,
    /// Until when. Every grant has an end.
    pub not_after: Timestamp,
    /// For how many seconds, where that is what the file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts_s: Option<i64>,
    /// Why, for those who ask later.
    pub reason: String,
    /// Where it begins.
    pub place: Place,
}

const FIELDS: [&str; 6] = ["from", "to", "ports", "for", "notAfter", "reason"];
const END_EXAMPLE: &str = "write `for: 15m` or `notAfter: 2027-01-01T00:00:00Z`";

/// Reads the spec.
pub(super) fn decode(cx: &mut Context<'_>, spec: &Node) -> Option<Grant> {
    let fields = Fields::of(cx, spec, "the spec of a Grant", &FIELDS)?;
    let [from, to] = ["from", "to"].map(|end| {
        let named = selectors(cx, &fields, end);
        if named.contains(&Selector::Any) {
            let accepted = "name who it is: `spiffeId`, `spiffePath`, `trustDomain`, `labels` or `cidr`";
            let what = format!("a grant is for somebody: `{end}` is everybody");
            cx.mistake(fields.optional(end).unwrap_or(spec), what, accepted);
        }
        named
    });
    let listed = fields.required(cx, "ports", "for example `ports: [tcp/8443]`, or `ports: [any]` for all");
    let ports = if listed.is_some() { ports(cx, &fields) } else { Vec::new() };
    let reason = fields.required(cx, "reason", "why it is needed, for those who ask later");
    let reason = reason.and_then(|node| cx.text(node, "`reason`")).map(str::to_owned);
    if fields.optional("for").or(fields.optional("notAfter")).is_none() {
        cx.mistake(spec, "a grant says when it ends", END_EXAMPLE);
    }
    let (name, place) = (String::new(), cx.place(spec));
    let not_after = end(cx, &fields)?;
    let lasts_s = fields.optional("for").map(|_| not_after.duration_since(cx.now).as_secs());
    Some(Grant { name, from, to, ports, not_after, lasts_s, reason: reason?, place })
}

impl Grant {
    /// Whom it names.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.from.iter().chain(&self.to)
    }

    /// Whether the other is this one, read again.
    pub fn is_again(&self, other: &Self) -> bool {
        let said =
            |grant: &Self| Self { not_after: Timestamp::MIN, place: self.place.clone(), ..grant.clone() };
        self.lasts_s.is_some() && said(self) == said(other)
    }
}

impl fmt::Display for Grant {
    /// `tcp/8443 from spiffe://td/a to spiffe://td/b until 2026-11-22T12:15:00Z: looks into an incident`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.ports.iter().map(PortMatch::to_string).collect::<Vec<_>>().join(", ");
        let (from, to) = (selectors_text(&self.from), selectors_text(&self.to));
        write!(f, "{ports} from {from} to {to} until {:.0}: {}", self.not_after, self.reason)
    }
}
