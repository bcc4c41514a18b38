//! The ends of rules and of all else that selects: selectors, protocols and ports.

use super::super::fields::{Context, Fields};
use super::super::place::one_of;
use super::super::ports::{PortError, PortMatch};
use super::super::selector::Selector;
use super::super::yaml::{Node, Value};
use super::workload::labels;

pub(super) const SPIFFE_EXAMPLE: &str = "such as spiffe://acme.example/ns/shop/sa/orders";

/// The fields of which a selector of a rule has one.
const OF_RULE: [&str; 7] = {
    let [id, path, domain, labels, cidr, any] = Selector::KINDS;
    [id, path, domain, labels, cidr, any, "not"]
};

/// The protocols and ports that `ports` lists; everything without it.
pub(in super::super) fn ports(cx: &mut Context<'_>, fields: &Fields<'_>) -> Vec<PortMatch> {
    let Some(node) = fields.optional("ports") else { return vec![PortMatch::Any] };
    let mut ports = Vec::new();
    for item in cx.items(node, "`ports`", PortError::ACCEPTED) {
        ports.extend(cx.parsed::<PortMatch>(item, "an entry of `ports`", PortError::ACCEPTED));
    }
    ports
}

/// The selectors of an end.
pub(in super::super) fn selectors(cx: &mut Context<'_>, fields: &Fields<'_>, end: &str) -> Vec<Selector> {
    selectors_of(cx, fields, end, selector)
}

/// The same, of items that `selector` reads.
pub(super) fn selectors_of(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    end: &str,
    selector: impl Fn(&mut Context<'_>, &Node) -> Option<Selector>,
) -> Vec<Selector> {
    let example = || {
        format!(
            "for example `{end}: [{{labels: {{app: orders}}}}]`, or `{end}: [{{any: true}}]` for everyone"
        )
    };
    let Some(node) = fields.required_as(cx, end, example) else { return Vec::new() };
    let items = match &node.value {
        Value::List(items) if !items.is_empty() => items,
        _ => cx.items(node, &format!("`{end}`"), &example()),
    };
    items.iter().filter_map(|item| selector(cx, item)).collect()
}

fn selector(cx: &mut Context<'_>, node: &Node) -> Option<Selector> {
    let (name, value) = only_field(cx, node, &Selector::KINDS)?;
    selector_of(cx, name, value)
}

/// The same, or one that takes away.
pub(super) fn selector_of_rule(cx: &mut Context<'_>, node: &Node) -> Option<Selector> {
    let (name, value) = only_field(cx, node, &OF_RULE)?;
    if name != "not" {
        return selector_of(cx, name, value);
    }
    let taken = selector(cx, value)?;
    if taken == Selector::Any {
        cx.mistake(value, "`not` of everything leaves nothing", "leave the rule out");
        return None;
    }
    Some(Selector::Not(Box::new(taken)))
}

fn only_field<'n>(cx: &mut Context<'_>, node: &'n Node, names: &[&str]) -> Option<(&'n str, &'n Node)> {
    let fields = Fields::of(cx, node, "a selector", names)?;
    match fields.all() {
        [(name, _, value)] => Some((*name, *value)),
        // Unknown fields were noted; an empty mapping was not.
        [] => {
            if matches!(&node.value, Value::Map(pairs) if pairs.is_empty()) {
                cx.mistake(node, "a selector has one field, this one has none", one_of("", names));
            }
            None
        }
        [_, (_, second, _), ..] => {
            let what = "a selector has one field, this one has more";
            cx.mistake(second, what, "write them as two items of the list: one of them has to match");
            None
        }
    }
}

/// The selector that a field is.
pub(in super::super) fn selector_of(cx: &mut Context<'_>, name: &str, value: &Node) -> Option<Selector> {
    match name {
        "spiffeId" => cx.parsed(value, "`spiffeId`", SPIFFE_EXAMPLE).map(Selector::SpiffeId),
        "spiffePath" => cx
            .parsed(value, "`spiffePath`", "such as spiffe://acme.example/ns/shop/*")
            .map(Selector::SpiffePath),
        "trustDomain" => cx.parsed(value, "`trustDomain`", "such as acme.example").map(Selector::TrustDomain),
        "cidr" => cx.parsed(value, "`cidr`", "").map(Selector::Cidr),
        "any" => cx.word(value, "value of `any`", &[("true", Selector::KINDS.len())]).map(|_| Selector::Any),
        _ => {
            let labels = labels(cx, value);
            if labels.is_empty() && matches!(value.value, Value::Map(_)) {
                cx.mistake(value, "a label selector names no label", "write `any: true` for everyone");
                return None;
            }
            (!labels.is_empty()).then_some(Selector::Labels(labels))
        }
    }
}
