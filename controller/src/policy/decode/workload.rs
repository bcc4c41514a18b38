//! What a Workload says.

use super::super::across::Across;
use super::super::document::{Lease, OnExpiry, Workload};
use super::super::fields::{Context, Fields};
use super::super::ports::{PortError, PortMatch};
use super::super::prefix::Prefix;
use super::super::scope::Scope;
use super::super::spiffe::SpiffeId;
use super::super::time::parse_duration;
use super::super::yaml::{Node, Value};
use super::selectors::SPIFFE_EXAMPLE;
use super::times::end;
use std::collections::BTreeMap;

const FIELDS: [&str; 7] = ["spiffeId", "addresses", "interface", "vlan", "ports", "labels", "lease"];
const GRACE_EXAMPLE: &str = "for example `lease: {for: 1h, onExpiry: grace, grace: 5m}`";

/// Reads the spec of a Workload.
pub(super) fn workload(
    cx: &mut Context<'_>,
    spec: &Node,
    name: &str,
    across: &mut Across,
) -> Option<Workload> {
    let fields = Fields::of(cx, spec, "the spec of a Workload", &FIELDS)?;
    let spiffe_id = fields.required(cx, "spiffeId", SPIFFE_EXAMPLE).and_then(|node| {
        let id: SpiffeId = cx.parsed(node, "`spiffeId`", SPIFFE_EXAMPLE)?;
        if id.path().is_empty() {
            // X509-SVID, section 5.2: a leaf's ID has a path.
            cx.mistake(node, "the SPIFFE ID of a workload has a path", SPIFFE_EXAMPLE);
            return None;
        }
        Some(id)
    });
    let example = "for example `addresses: [10.1.0.2/32, fd00:1::2]`";
    let scope = scope(cx, &fields);
    let mut addresses = Vec::new();
    if let Some(node) = fields.required(cx, "addresses", example) {
        for item in cx.items(node, "`addresses`", example) {
            let Some(prefix) = cx.parsed::<Prefix>(item, "an address", "") else { continue };
            across.claim(cx, item, (prefix, &scope), name, spiffe_id.as_ref());
            addresses.push(prefix);
        }
        if let Err(error) = scope.check(&addresses) {
            let at = ["interface", "vlan", "ports"].iter().find_map(|name| fields.optional(name));
            cx.mistake(at.unwrap_or(node), error.to_string(), "");
        }
    }
    let labels = fields.optional("labels").map(|node| labels(cx, node)).unwrap_or_default();
    let lease = fields.optional("lease").and_then(|node| lease(cx, node));
    let (name, place) = (String::new(), cx.place(spec));
    Some(Workload { name, spiffe_id: spiffe_id?, addresses, scope, labels, lease, place })
}

fn scope(cx: &mut Context<'_>, fields: &Fields<'_>) -> Scope {
    let interface = fields.optional("interface").and_then(|node| cx.text(node, "`interface`"));
    let example = "accepted: a VLAN ID from 1 to 4094";
    let vlan = fields.optional("vlan").and_then(|node| cx.parsed(node, "`vlan`", example));
    let mut ports = Vec::new();
    if let Some(node) = fields.optional("ports") {
        for item in cx.items(node, "`ports`", "for example `ports: [tcp/30000-30999]`") {
            ports.extend(cx.parsed::<PortMatch>(item, "ports", PortError::ACCEPTED));
        }
    }
    Scope { interface: interface.map(str::to_owned), vlan, ports }
}

/// Reads labels; those of a selector too.
pub(super) fn labels(cx: &mut Context<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Value::Map(pairs) = &node.value else {
        cx.mistake(
            node,
            format!("`labels` is {}, not a mapping", node.noun()),
            "for example `labels: {app: orders}`",
        );
        return labels;
    };
    for (key, value) in pairs {
        let (Some(name), Some(text)) = (cx.text(key, "the name of a label"), cx.text(value, "a label"))
        else {
            continue;
        };
        if labels.insert(name.to_owned(), text.to_owned()).is_some() {
            cx.mistake(key, format!("label `{name}` stands twice"), "");
        }
    }
    labels
}

fn lease(cx: &mut Context<'_>, node: &Node) -> Option<Lease> {
    let fields = Fields::of(cx, node, "a lease", &["notAfter", "for", "onExpiry", "grace"])?;
    let words = [("deny", OnExpiry::Deny), ("alert", OnExpiry::Alert), ("grace", OnExpiry::Grace)];
    let on_expiry = match fields.optional("onExpiry") {
        Some(node) => cx.word(node, "`onExpiry`", &words),
        None => Some(OnExpiry::default()),
    };
    let given = fields.optional("notAfter").or(fields.optional("for")).is_some();
    if !given {
        cx.mistake(node, "a lease says when it ends", "write `for: 1h` or `notAfter: 2027-01-01T00:00:00Z`");
    }
    let grace_s = match (on_expiry, fields.optional("grace")) {
        (Some(OnExpiry::Grace), Some(node)) => grace(cx, node)?,
        (Some(OnExpiry::Grace), None) => {
            cx.mistake(node, "`onExpiry: grace` does not say for how long", GRACE_EXAMPLE);
            return None;
        }
        (_, Some(node)) => {
            cx.mistake(node, "`grace` is for `onExpiry: grace`", GRACE_EXAMPLE);
            return None;
        }
        (_, None) => 0,
    };
    Some(Lease { not_after: end(cx, &fields)?, on_expiry: on_expiry?, grace_s })
}

fn grace(cx: &mut Context<'_>, node: &Node) -> Option<u16> {
    let text = cx.text(node, "`grace`")?;
    let seconds = parse_duration(text).and_then(|duration| u16::try_from(duration.as_secs()).ok());
    if seconds.is_none() {
        cx.mistake(node, format!("`{text}` is no duration up to 18h"), "such as 90s, 10m, 1h30m");
    }
    seconds
}
