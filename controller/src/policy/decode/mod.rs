//! From YAML trees to documents, noting every mistake.

mod beside;
mod policy;
mod selectors;
mod times;
mod workload;

pub(super) use selectors::{ports, selector_of, selectors};
pub(super) use times::{duration, end};

use super::across::Across;
use super::document::*;
use super::feed;
use super::fields::{Context, Fields, quoted};
use super::gateway::{self, Gateway};
use super::grant::{self, Grant};
use super::identity_limits::{self, IdentityLimit};
use super::intent::{self, Intent};
use super::place::{Mistake, Place, one_of};
use super::quarantine::{self, Quarantine};
use super::target::Target;
use super::yaml::{self, Node, Value};
use jiff::Timestamp;
use std::sync::Arc;

const KINDS: [&str; 8] =
    ["Workload", "Policy", "Blocklist", "Quarantine", "Grant", "Limit", "Gateway", "Intent"];
const NAME_EXAMPLE: &str = "write `metadata: {name: NAME}`";
const ENTRY_EXAMPLE: &str = "for example `entries: [{cidr: 192.0.2.0/24, reason: scanner}]`";

/// Reads every document of every file. What is wrong is left out and noted.
pub fn decode_all(files: &[(&str, &str)], now: Timestamp, mistakes: &mut Vec<Mistake>) -> Documents {
    beside::read(files, now).unwrap_or_else(|| one_by_one(files, now, mistakes))
}

fn one_by_one(files: &[(&str, &str)], now: Timestamp, mistakes: &mut Vec<Mistake>) -> Documents {
    let mut documents = Documents::default();
    let mut across = Across::default();
    for (name, text) in files {
        let mut cx = Context::new(name, text, now, mistakes);
        part(&mut cx, (text, 1), &mut documents, &mut across);
    }
    mistakes.sort_by(|a, b| place_order(a, files).cmp(&place_order(b, files)));
    documents
}

/// Reads a file, or a part of one that begins with its `first` line.
fn part(cx: &mut Context<'_>, (text, first): (&str, u32), documents: &mut Documents, across: &mut Across) {
    let read = yaml::read(text, first, &mut |node| {
        if !node.is_null() {
            document(cx, &node, documents, across);
        }
    });
    if let Err(error) = read {
        let place = cx.place_at(error.line, error.column);
        cx.mistake_at(place, 1, error.what, "");
    }
}

/// Mistakes come in the order in which the files were given.
fn place_order<'m>(mistake: &'m Mistake, files: &[(&str, &str)]) -> (usize, Option<&'m Place>) {
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
    let kind = fields.required_as(cx, "kind", || format!("accepted: {}", quoted(&KINDS)));
    let name = fields
        .required(cx, "metadata", NAME_EXAMPLE)
        .and_then(|node| Fields::of(cx, node, "`metadata`", &["name"]))
        .and_then(|metadata| metadata.required(cx, "name", NAME_EXAMPLE));
    let spec = fields.required(cx, "spec", "what the document says stands under `spec:`");
    let Some(kind_node) = kind else { return };
    let Some(kind) = cx.text(kind_node, "`kind`") else { return };
    let Some(kind) = KINDS.into_iter().find(|known| *known == kind) else {
        return cx.mistake(kind_node, format!("unknown kind `{kind}`"), one_of(kind, &KINDS));
    };
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
            let workload = workload::workload(cx, spec, &name, across);
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
            documents.policies.extend(policy::policy(cx, spec).map(|p| Arc::new(Policy { name, place, ..p })))
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
