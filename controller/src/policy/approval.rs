//! Which containments and grants wait for people: `approvals` of `kind: Gateway`.

use super::decode::{duration, selectors};
use super::document::Documents;
use super::fields::{Context, Fields};
use super::intent::Sensitivity;
use super::selector::{Selector, selectors_text};
use super::spiffe::SpiffeId;
use super::time::duration_text;
use super::yaml::Node;
use crate::governance::Radius;
use serde::{Deserialize, Serialize};

/// Which containments wait, for how many people, how long, and what becomes of those that nobody answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    /// What a containment may touch without being asked for.
    #[serde(default)]
    pub over: Thresholds,
    /// Which grants by hand have to be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    /// So many people have to agree.
    pub approvers: u32,
    /// In so many seconds.
    pub within_s: u64,
    /// What is done where they do not answer.
    pub unanswered: Unanswered,
}

/// Grants by hand that wait: those that any of these fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// They last for more than so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longer_s: Option<u64>,
    /// They are to one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Selector>,
    /// They are to an identity whose intents say that a departure can do so much harm, or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<Sensitivity>,
}

impl Grants {
    /// Why a grant has to wait, in words; nothing where it need not.
    pub fn awaits(&self, documents: &Documents, to: &SpiffeId, seconds: u64) -> Option<String> {
        let mut why = Vec::new();
        if let Some(most) = self.longer_s.filter(|most| seconds > *most) {
            why.push(format!("it lasts {}, more than {}", duration_text(seconds), duration_text(most)));
        }
        let labels = crate::bindings::labels_of(&documents.workloads, to);
        let fits = |selectors: &[Selector]| selectors.iter().any(|s| s.matches_workload(to, labels));
        if fits(&self.to) {
            why.push(format!("it is to one of {}", selectors_text(&self.to)));
        }
        if let Some(least) = self.sensitivity {
            let its = documents.intents.iter().filter(|intent| fits(&intent.identities));
            if let Some(intent) =
                its.max_by_key(|intent| intent.sensitivity).filter(|i| i.sensitivity >= least)
            {
                why.push(format!("intent {} is of {} sensitivity", intent.name, intent.sensitivity.name()));
            }
        }
        (!why.is_empty()).then(|| why.join("; "))
    }
}

/// What a containment may touch without being asked for; absent is any amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Addresses of the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<u32>,
    /// Identities and addresses that it has connections with, or had a moment ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<u32>,
    /// Connections that go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Percent of the connections to a service that the identity answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
}

/// What becomes of a containment that nobody decided about in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unanswered {
    /// It is not done.
    #[default]
    Reject,
    /// It is done.
    Contain,
}

impl Approvals {
    /// In what a containment is over what it may be, in words; nothing where it is not.
    pub fn exceeded(&self, radius: &Radius) -> Option<String> {
        let Thresholds { addresses, peers, connections, share } = self.over;
        let mut over = Vec::new();
        let mut compare = |limit: Option<u32>, n: u64, what: &str| {
            if let Some(limit) = limit.filter(|limit| n > u64::from(*limit)) {
                over.push(format!("{n} {what}, more than {limit}"));
            }
        };
        compare(addresses, radius.addresses, "addresses");
        compare(peers, radius.peers, "peers");
        compare(connections, radius.connections, "connections");
        if let Some(most) = &radius.service {
            compare(share, u64::from(most.percent), &format!("% of the connections to {}", most.service));
        }
        (!over.is_empty()).then(|| over.join("; "))
    }
}

const EXAMPLE: &str =
    "for example `approvals: {over: {peers: 20, share: 50}, approvers: 2, within: 15m, unanswered: reject}`";
const MOST_APPROVERS: u32 = 8;
const WITHIN_S: u64 = 15 * 60;

/// Reads it.
pub(super) fn decode(cx: &mut Context<'_>, node: &Node) -> Option<Approvals> {
    let names = ["over", "grants", "approvers", "within", "unanswered"];
    let fields = Fields::of(cx, node, "`approvals`", &names)?;
    let over = match (fields.optional("over"), fields.optional("grants")) {
        (None, Some(_)) => Some(Thresholds::default()),
        _ => fields.required(cx, "over", EXAMPLE).and_then(|node| thresholds(cx, node)),
    };
    let grants = match fields.optional("grants") {
        Some(node) => Some(grants(cx, node)?),
        None => None,
    };
    let approvers = match fields.optional("approvers") {
        Some(node) => number(cx, node, "`approvers`", 1, MOST_APPROVERS),
        None => Some(1),
    };
    let within_s = match fields.optional("within") {
        Some(node) => duration(cx, node, "`within`"),
        None => Some(WITHIN_S),
    };
    let unanswered = match fields.optional("unanswered") {
        Some(node) => {
            let words = [("reject", Unanswered::Reject), ("contain", Unanswered::Contain)];
            cx.word(node, "value of `unanswered`", &words)
        }
        None => Some(Unanswered::default()),
    };
    let (over, approvers) = (over?, approvers?);
    Some(Approvals { over, grants, approvers, within_s: within_s?, unanswered: unanswered? })
}

const GRANTS_EXAMPLE: &str =
    "for example `grants: {longer: 1h, to: [{labels: {app: db}}], sensitivity: high}`";

fn grants(cx: &mut Context<'_>, node: &Node) -> Option<Grants> {
    let fields = Fields::of(cx, node, "`grants`", &["longer", "to", "sensitivity"])?;
    if fields.all().is_empty() {
        cx.mistake(node, "`grants` says nothing", GRANTS_EXAMPLE);
        return None;
    }
    let longer_s = match fields.optional("longer") {
        Some(node) => Some(duration(cx, node, "`longer`")?),
        None => None,
    };
    let to = if fields.optional("to").is_some() { selectors(cx, &fields, "to") } else { Vec::new() };
    if to.iter().any(|selector| matches!(selector, Selector::Cidr(_))) {
        let accepted = "name them by `spiffeId`, `spiffePath`, `trustDomain` or `labels`; `any` for all";
        cx.mistake(node, "a grant by hand is to an identity, not to an address", accepted);
    }
    let sensitivity = match fields.optional("sensitivity") {
        Some(node) => Some(cx.word(node, "sensitivity", &Sensitivity::WORDS)?),
        None => None,
    };
    Some(Grants { longer_s, to, sensitivity })
}

fn thresholds(cx: &mut Context<'_>, node: &Node) -> Option<Thresholds> {
    let names = ["addresses", "peers", "connections", "share"];
    let fields = Fields::of(cx, node, "`over`", &names)?;
    if fields.all().is_empty() {
        cx.mistake(node, "`over` says nothing", EXAMPLE);
    }
    let [addresses, peers, connections, share] = names.map(|name| {
        let most = if name == "share" { 100 } else { u32::MAX };
        fields.optional(name).and_then(|node| number(cx, node, &format!("`{name}`"), 0, most))
    });
    Some(Thresholds { addresses, peers, connections, share })
}

fn number(cx: &mut Context<'_>, node: &Node, noun: &str, least: u32, most: u32) -> Option<u32> {
    let text = cx.text(node, noun)?;
    let number = text.parse().ok().filter(|n| (least..=most).contains(n));
    if number.is_none() {
        let accepted = format!("accepted: a whole number from {least} to {most}");
        cx.mistake(node, format!("`{text}` is no number for {noun}"), accepted);
    }
    number
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reject => "it is not done",
            Self::Contain => "it is done",
        })
    }
}

impl std::fmt::Display for Approvals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (approvers, within) = (self.approvers, duration_text(self.within_s));
        write!(f, "{approvers} within {within}; unanswered, {}", self.unanswered)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Documents;
    use super::*;
    use crate::governance::Share;

    fn read(spec: &str) -> Result<Approvals, String> {
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec: {{approvals: {spec}}}\n"
        );
        let documents =
            Documents::parse("g.yaml", &text, jiff::Timestamp::now()).map_err(|e| e.to_string())?;
        Ok(documents.gateway.expect("a gateway").approvals.expect("approvals"))
    }

    #[test]
    fn a_containment_waits_for_what_it_is_over_and_for_nothing_else() {
        let rules = read("{over: {peers: 2, connections: 10, share: 50}}").expect("approvals");
        assert_eq!((rules.approvers, rules.within_s, rules.unanswered), (1, 900, Unanswered::Reject));
        let of = |addresses, peers, connections, percent| Radius {
            addresses,
            peers,
            connections,
            service: Some(Share { service: "tcp/443".into(), percent }),
        };
        assert_eq!(rules.exceeded(&of(99, 2, 10, 50)), None);
        assert_eq!(
            rules.exceeded(&of(1, 3, 10, 51)).as_deref(),
            Some("3 peers, more than 2; 51 % of the connections to tcp/443, more than 50")
        );
        assert_eq!(
            rules.exceeded(&Radius { service: None, ..of(1, 0, 11, 0) }).as_deref(),
            Some("11 connections, more than 10")
        );
    }

    #[test]
    fn what_approvals_cannot_be_is_a_mistake_with_its_place() {
        for (spec, what) in [
            ("{approvers: 2}", "`approvals` has no `over`"),
            ("{over: {}}", "`over` says nothing"),
            ("{over: {share: 101}}", "`101` is no number for `share`"),
            ("{over: {peers: 1}, approvers: 0}", "`0` is no number for `approvers`"),
            ("{over: {peers: 1}, unanswered: wait}", "`wait` is no value of `unanswered`"),
            ("{over: {peers: 1}, within: soon}", "soon"),
        ] {
            let said = read(spec).expect_err("a mistake");
            assert!(said.contains(what) && said.contains("g.yaml:4"), "{said}");
        }
    }
}
