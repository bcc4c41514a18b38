//! `kind: Quarantine`: identities that are cut off, and what stays in reach. What is done about them by hand or by the governance
//! loop may be less than that: [`Act`].

use super::act::Act;
use super::decode::{end, selectors};
use super::fields::{Context, Fields};
use super::place::Place;
use super::selector::{Selector, selectors_text};
use super::target::Target;
use super::yaml::Node;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Identities that something is done about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// metadata.name
    pub name: String,
    /// Who: any of these. No `cidr`: an address without identity is what blocklists are for.
    pub identities: Vec<Selector>,
    /// What stays in reach, whoever opens the connection: peers, services, services of peers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Target>,
    /// What is done; a file says nothing else than that they are cut off.
    #[serde(default, skip_serializing_if = "Act::is_quarantine")]
    pub act: Act,
    /// When it was done, where that matters: connections that were opened before are cut, and a lease was over from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why, for people.
    pub reason: Option<String>,
    /// Until when; for ever where it is absent.
    pub not_after: Option<Timestamp>,
    /// Where it begins.
    pub place: Place,
}

/// Reads the spec.
pub(super) fn decode(cx: &mut Context<'_>, spec: &Node) -> Option<Quarantine> {
    let names = ["identities", "except", "reason", "for", "notAfter"];
    let fields = Fields::of(cx, spec, "the spec of a Quarantine", &names)?;
    let identities = selectors(cx, &fields, "identities");
    for (selector, node) in identities.iter().zip(nodes(fields.optional("identities"))) {
        if matches!(selector, Selector::Cidr(_) | Selector::Any) {
            cx.mistake(
                node,
                format!("a quarantine is for identities, not for {selector}"),
                "name them by `spiffeId`, `spiffePath`, `trustDomain` or `labels`; addresses are blocked by a Blocklist",
            );
        }
    }
    let mut except = Vec::new();
    if let Some(node) = fields.optional("except") {
        for item in cx.items(node, "`except`", "for example `except: [{ports: [udp/53]}]`") {
            let Some(fields) = Fields::of(cx, item, "an exception", &Target::FIELDS) else { continue };
            except.extend(Target::decode(cx, item, &fields));
        }
    }
    let reason = fields.optional("reason").and_then(|node| cx.text(node, "`reason`")).map(str::to_owned);
    let not_after = end(cx, &fields);
    let (name, act, since, place) = (String::new(), Act::Quarantine, None, cx.place(spec));
    Some(Quarantine { name, identities, except, act, since, reason, not_after, place })
}

fn nodes(list: Option<&Node>) -> &[Node] {
    match list.map(|node| &node.value) {
        Some(super::yaml::Value::List(items)) => items,
        _ => &[],
    }
}

impl Quarantine {
    /// The peers that stay in reach.
    pub fn peers(&self) -> impl Iterator<Item = &Selector> {
        self.except.iter().filter_map(|target| target.selector.as_ref())
    }
}

impl fmt::Display for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.act, selectors_text(&self.identities))?;
        if !self.except.is_empty() {
            let except: Vec<_> = self.except.iter().map(Target::to_string).collect();
            write!(f, " except {}", except.join(" or "))?;
        }
        if let Some(end) = self.not_after {
            write!(f, " until {end:.0}")?;
        }
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}
