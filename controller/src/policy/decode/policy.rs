//! What a Policy says.

use super::super::document::{DEFAULT_TIER, Policy, Rule, RuleAction, RuleMode};
use super::super::fields::{Context, Fields};
use super::super::intent::hours;
use super::super::limits::{self, Limits};
use super::super::yaml::{Node, Value};
use super::selectors::{ports, selector_of_rule, selectors_of};
use std::collections::HashMap;

/// The fields of a rule.
const FIELDS: [&str; 10] = {
    let [tls, lifetime, rate] = Limits::FIELDS;
    ["name", "action", "from", "to", "ports", "mode", tls, lifetime, rate, "hours"]
};

/// Reads the spec of a Policy.
pub(super) fn policy(cx: &mut Context<'_>, spec: &Node) -> Option<Policy> {
    let fields = Fields::of(cx, spec, "the spec of a Policy", &["tier", "priority", "rules"])?;
    let tier = number(cx, &fields, "tier", "lower tiers decide first");
    let priority = number(cx, &fields, "priority", "lower ones decide first, those without one last");
    let mut rules: Vec<Rule> = Vec::new();
    let mut named: HashMap<String, usize> = HashMap::new();
    // An empty list is a policy too: nothing is allowed.
    if let Some(node) = fields.required(cx, "rules", "write `rules: []` to allow nothing")
        && !matches!(&node.value, Value::List(items) if items.is_empty())
    {
        for item in cx.items(node, "`rules`", "a list of rules") {
            let Some(rule) = rule(cx, item) else { continue };
            if let Some(first) = named.get(&rule.name) {
                let what = format!("two rules of this policy are named `{}`", rule.name);
                cx.mistake(item, what, format!("the first is at {}", rules[*first].place));
            } else if !rule.name.is_empty() {
                named.insert(rule.name.clone(), rules.len());
            }
            rules.push(rule);
        }
    }
    let (name, place) = (String::new(), cx.place(spec));
    Some(Policy { name, tier: tier.unwrap_or(DEFAULT_TIER), priority, rules, place })
}

/// A whole number, where there is one.
fn number(cx: &mut Context<'_>, fields: &Fields<'_>, name: &str, means: &str) -> Option<u32> {
    let node = fields.optional(name)?;
    let text = cx.text(node, &format!("`{name}`"))?;
    let number = text.parse().ok();
    if number.is_none() {
        let accepted = format!("accepted: a whole number from 0; {means}");
        cx.mistake(node, format!("`{text}` is no {name}"), accepted);
    }
    number
}

fn rule(cx: &mut Context<'_>, node: &Node) -> Option<Rule> {
    let fields = Fields::of(cx, node, "a rule", &FIELDS)?;
    let name = fields.required(cx, "name", "verdicts show it").and_then(|node| cx.name(node, "`name`"));
    // A reject is a deny that answers.
    let (allow, deny, reject, pass) = (
        (RuleAction::Allow, false),
        (RuleAction::Deny, false),
        (RuleAction::Deny, true),
        (RuleAction::Pass, false),
    );
    let actions = [("allow", allow), ("deny", deny), ("reject", reject), ("pass", pass)];
    let action = fields
        .required(cx, "action", "accepted: `allow`, `deny`, `reject`, `pass`")
        .and_then(|node| cx.word(node, "action", &actions));
    let [from, to] = ["from", "to"].map(|end| selectors_of(cx, &fields, end, selector_of_rule));
    let ports = ports(cx, &fields);
    let modes = [("enforce", RuleMode::Enforce), ("audit", RuleMode::Audit)];
    let mode = match fields.optional("mode") {
        Some(node) => cx.word(node, "mode", &modes),
        None => Some(RuleMode::default()),
    };
    let limits = limits::decode(cx, &fields);
    let (name, place) = (name.unwrap_or_default(), cx.place(node));
    let (action, rejects) = action?;
    let limits = Limits { reject: rejects, ..limits };
    let hours = fields.optional("hours").and_then(|node| hours::decode(cx, node));
    let rule = Rule { name, action, from, to, ports, mode: mode?, limits, hours, place };
    limits::check(cx, &fields, &rule);
    Some(rule)
}
