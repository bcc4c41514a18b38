//! From YAML trees to documents, noting every mistake.

use super::across::Across;
use super::document::*;
use super::feed;
use super::fields::{Context, Fields};
use super::gateway::{self, Gateway};
use super::grant::{self, Grant};
use super::identity_limits::{self, IdentityLimit};
use super::intent::{self, Intent, hours};
use super::limits::{self, Limits};
use super::place;
use super::place::{Mistake, one_of};
use super::ports::{PortError, PortMatch};
use super::prefix::Prefix;
use super::quarantine::{self, Quarantine};
use super::scope::Scope;
use super::selector::Selector;
use super::spiffe::SpiffeId;
use super::target::Target;
use super::time::parse_duration;
use super::yaml::{self, Node, Value};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

const KINDS: [&str; 8] =
    ["Workload", "Policy", "Blocklist", "Quarantine", "Grant", "Limit", "Gateway", "Intent"];
const WORKLOAD_FIELDS: [&str; 7] = ["spiffeId", "addresses", "interface", "vlan", "ports", "labels", "lease"];
const SPIFFE_EXAMPLE: &str = "such as spiffe://acme.example/ns/shop/sa/orders";
const ENTRY_EXAMPLE: &str = "for example `entries: [{cidr: 192.0.2.0/24, reason: scanner}]`";

/// Reads every document of every file. What is wrong is left out and noted.
pub fn decode_all(files: &[(&str, &str)], now: Timestamp, mistakes: &mut Vec<Mistake>) -> Documents {
    let mut documents = Documents::default();
    let mut across = Across::default();
    for (name, text) in files {
        let mut cx = Context::new(name, text, now, mistakes);
        let (nodes, error) = yaml::read(text);
        for node in nodes.iter().filter(|n| !n.is_null()) {
            document(&mut cx, node, &mut documents, &mut across);
        }
        if let Some(error) = error {
            let place = cx.place_at(error.line, error.column);
            cx.mistake_at(place, 1, error.what, "");
        }
    }
    mistakes.sort_by(|a, b| place_order(a, files).cmp(&place_order(b, files)));
    documents
}

/// Mistakes come in the order in which the files were given.
fn place_order<'m>(mistake: &'m Mistake, files: &[(&str, &str)]) -> (usize, Option<&'m place::Place>) {
    let place = mistake.place.as_ref();
    (place.and_then(|p| files.iter().position(|(name, _)| *name == &*p.file)).unwrap_or(usize::MAX), place)
}

fn document(cx: &mut Context<'_>, node: &Node, documents: &mut Documents, across: &mut Across) {
    let Some(fields) = Fields::of(cx, node, "a document", &["apiVersion", "kind", "metadata", "spec"]) else {
        return;
    };
    if let Some(version) = fields.required(cx, "apiVersion", "write `apiVersion: tidegate.dev/v1`")
        && let Some(text) = cx.text(version, "`apiVersion`")
        && text != API_VERSION
    {
        cx.mistake(version, format!("unknown apiVersion `{text}`"), format!("accepted: `{API_VERSION}`"));
    }
    let accepted = format!("accepted: {}", super::fields::quoted(&KINDS));
    let kind = fields.required(cx, "kind", &accepted);
    let name = fields
        .required(cx, "metadata", "write `metadata: {name: NAME}`")
        .and_then(|node| Fields::of(cx, node, "`metadata`", &["name"]))
        .and_then(|metadata| metadata.required(cx, "name", "write `metadata: {name: NAME}`"));
    let spec = fields.required(cx, "spec", "what the document says stands under `spec:`");
    let Some(kind_node) = kind else { return };
    let Some(kind) = cx.text(kind_node, "`kind`") else { return };
    if !KINDS.contains(&kind) {
        return cx.mistake(kind_node, format!("unknown kind `{kind}`"), one_of(kind, &KINDS));
    }
    let Some(spec) = spec else { return };
    let place = cx.place(node);
    // A document whose name is missing is still read, for its other mistakes.
    let name = name.and_then(|node| {
        let name = cx.name(node, "`name`")?;
        across.name(cx, node, kind, &name);
        Some(name)
    });
    let name = name.unwrap_or_default();
    match kind {
        "Workload" => {
            let workload = workload(cx, spec, &name, across);
            Arc::make_mut(&mut documents.workloads).extend(workload.map(|w| Workload { name, place, ..w }));
        }
        "Gateway" => {
            if let Some(first) = &documents.gateway {
                let what = format!("a second Gateway: the first is at {}", first.place);
                cx.mistake(node, what, "one gateway, one document");
            } else {
                documents.gateway = gateway::decode(cx, spec).map(|g| Gateway { name, place, ..g });
            }
        }
        "Policy" => {
            documents.policies.extend(policy(cx, spec).map(|p| Arc::new(Policy { name, place, ..p })))
        }
        "Limit" => documents.limits.extend(identity_limits::decode(cx, spec).map(|l| IdentityLimit {
            name,
            place,
            ..l
        })),
        "Intent" => documents.intents.extend(intent::decode(cx, spec).map(|i| Intent { name, place, ..i })),
        "Grant" => documents.grants.extend(grant::decode(cx, spec).map(|g| Grant { name, place, ..g })),
        "Quarantine" => documents.quarantines.extend(quarantine::decode(cx, spec).map(|q| Quarantine {
            name,
            place,
            ..q
        })),
        _ => documents.blocklists.extend(blocklist(cx, spec).map(|b| Blocklist { name, place, ..b })),
    }
}

fn workload(cx: &mut Context<'_>, spec: &Node, name: &str, across: &mut Across) -> Option<Workload> {
    let fields = Fields::of(cx, spec, "the spec of a Workload", &WORKLOAD_FIELDS)?;
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

fn labels(cx: &mut Context<'_>, node: &Node) -> BTreeMap<String, String> {
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

const DURATION_EXAMPLE: &str = "accepted: whole numbers of s, m, h, d, such as 90s, 10m, 1h30m, 7d";
const GRACE_EXAMPLE: &str = "for example `lease: {for: 1h, onExpiry: grace, grace: 5m}`";

/// A length of time, in seconds.
pub(super) fn duration(cx: &mut Context<'_>, node: &Node, noun: &str) -> Option<u64> {
    let text = cx.text(node, noun)?;
    let seconds = parse_duration(text).and_then(|duration| u64::try_from(duration.as_secs()).ok());
    if seconds.is_none() {
        cx.mistake(node, format!("`{text}` is not a duration"), DURATION_EXAMPLE);
    }
    seconds
}

fn grace(cx: &mut Context<'_>, node: &Node) -> Option<u16> {
    let text = cx.text(node, "`grace`")?;
    let seconds = parse_duration(text).and_then(|duration| u16::try_from(duration.as_secs()).ok());
    if seconds.is_none() {
        cx.mistake(node, format!("`{text}` is no duration up to 18h"), "such as 90s, 10m, 1h30m");
    }
    seconds
}

/// The end that `for` or `notAfter` names.
pub(super) fn end(cx: &mut Context<'_>, fields: &Fields<'_>) -> Option<Timestamp> {
    match (fields.optional("notAfter"), fields.optional("for")) {
        (Some(_), Some(node)) => {
            cx.mistake(node, "`for` and `notAfter` both say when it ends", "keep one of them");
            None
        }
        (Some(node), None) => {
            let text = cx.text(node, "`notAfter`")?;
            let time = text.parse().ok();
            if time.is_none() {
                let example = "accepted: RFC 3339 with a zone, such as 2027-01-01T00:00:00Z";
                cx.mistake(node, format!("`{text}` is not a time"), example);
            }
            time
        }
        (None, Some(node)) => {
            let text = cx.text(node, "`for`")?;
            let time = parse_duration(text).and_then(|d| cx.now.checked_add(d).ok());
            if time.is_none() {
                cx.mistake(node, format!("`{text}` is not a duration"), DURATION_EXAMPLE);
            }
            time
        }
        (None, None) => None,
    }
}

fn policy(cx: &mut Context<'_>, spec: &Node) -> Option<Policy> {
    let fields = Fields::of(cx, spec, "the spec of a Policy", &["tier", "priority", "rules"])?;
    let tier = number(cx, &fields, "tier", "lower tiers decide first");
    let priority = number(cx, &fields, "priority", "lower ones decide first, those without one last");
    let mut rules: Vec<Rule> = Vec::new();
    // An empty list is a policy too: nothing is allowed.
    if let Some(node) = fields.required(cx, "rules", "write `rules: []` to allow nothing")
        && !matches!(&node.value, Value::List(items) if items.is_empty())
    {
        for item in cx.items(node, "`rules`", "a list of rules") {
            let Some(rule) = rule(cx, item) else { continue };
            if let Some(first) = rules.iter().find(|r| r.name == rule.name && !r.name.is_empty()) {
                let what = format!("two rules of this policy are named `{}`", rule.name);
                cx.mistake(item, what, format!("the first is at {}", first.place));
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
    let mut names = vec!["name", "action", "from", "to", "ports", "mode"];
    names.extend(Limits::FIELDS);
    names.push("hours");
    let fields = Fields::of(cx, node, "a rule", &names)?;
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

/// The protocols and ports that `ports` lists; everything without it.
pub(super) fn ports(cx: &mut Context<'_>, fields: &Fields<'_>) -> Vec<PortMatch> {
    let Some(node) = fields.optional("ports") else { return vec![PortMatch::Any] };
    let mut ports = Vec::new();
    for item in cx.items(node, "`ports`", PortError::ACCEPTED) {
        ports.extend(cx.parsed::<PortMatch>(item, "an entry of `ports`", PortError::ACCEPTED));
    }
    ports
}

pub(super) fn selectors(cx: &mut Context<'_>, fields: &Fields<'_>, end: &str) -> Vec<Selector> {
    selectors_of(cx, fields, end, selector)
}

fn selectors_of(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    end: &str,
    selector: impl Fn(&mut Context<'_>, &Node) -> Option<Selector>,
) -> Vec<Selector> {
    let example = format!(
        "for example `{end}: [{{labels: {{app: orders}}}}]`, or `{end}: [{{any: true}}]` for everyone"
    );
    let Some(node) = fields.required(cx, end, &example) else { return Vec::new() };
    let mut selectors = Vec::new();
    for item in cx.items(node, &format!("`{end}`"), &example) {
        selectors.extend(selector(cx, item));
    }
    selectors
}

fn selector(cx: &mut Context<'_>, node: &Node) -> Option<Selector> {
    let (name, value) = only_field(cx, node, &Selector::KINDS)?;
    selector_of(cx, name, value)
}

/// The same, or one that takes away.
fn selector_of_rule(cx: &mut Context<'_>, node: &Node) -> Option<Selector> {
    let (name, value) = only_field(cx, node, &[&Selector::KINDS[..], &["not"]].concat())?;
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
pub(super) fn selector_of(cx: &mut Context<'_>, name: &str, value: &Node) -> Option<Selector> {
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

fn blocklist(cx: &mut Context<'_>, spec: &Node) -> Option<Blocklist> {
    let fields = Fields::of(cx, spec, "the spec of a Blocklist", &["entries", "feeds"])?;
    let mut entries = Vec::new();
    let feeds = fields.optional("feeds").map(|node| feed::decode(cx, node)).unwrap_or_default();
    if fields.optional("entries").or(fields.optional("feeds")).is_none() {
        cx.mistake(spec, "a Blocklist with neither `entries` nor `feeds`", ENTRY_EXAMPLE);
    }
    if let Some(node) = fields.optional("entries")
        && !matches!(&node.value, Value::List(items) if items.is_empty())
    {
        for item in cx.items(node, "`entries`", ENTRY_EXAMPLE) {
            entries.extend(block_entry(cx, item));
        }
    }
    Some(Blocklist { name: String::new(), entries, feeds, place: cx.place(spec) })
}

fn block_entry(cx: &mut Context<'_>, node: &Node) -> Option<BlockEntry> {
    let names = [&Target::FIELDS[..], &["reason", "for", "notAfter"]].concat();
    let fields = Fields::of(cx, node, "an entry", &names)?;
    let target = Target::decode(cx, node, &fields);
    let reason = fields.optional("reason").and_then(|node| cx.text(node, "`reason`")).map(str::to_owned);
    let not_after = end(cx, &fields);
    Some(BlockEntry { target: target?, reason, not_after, place: cx.place(node) })
}
