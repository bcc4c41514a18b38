//! The schema and the decoder accept the same fields and words. The decoder is asked by mistakes, whose messages say what it
//! accepts.

use super::{Documents, Mistake, Mistakes, schema};
use serde_json::Value;
use std::collections::BTreeSet;

/// Each kind, the way to an object of its spec, and a spec in which that object has a wrong field.
const OBJECTS: &[(&str, &[&str], &str)] = &[
    ("Workload", &[], "{zzz: 1}"),
    ("Workload", &["lease"], "{lease: {zzz: 1}}"),
    ("Policy", &[], "{zzz: 1}"),
    ("Policy", &["rules"], "{rules: [{zzz: 1}]}"),
    ("Policy", &["rules", "from"], "{rules: [{from: [{zzz: 1}]}]}"),
    ("Policy", &["rules", "to"], "{rules: [{to: [{zzz: 1}]}]}"),
    ("Policy", &["rules", "rate"], "{rules: [{rate: {packets: 1/s, zzz: 1}}]}"),
    ("Policy", &["rules", "rate", "burst"], "{rules: [{rate: {packets: 1/s, burst: {zzz: 1}}}]}"),
    ("Blocklist", &[], "{zzz: 1}"),
    ("Blocklist", &["entries"], "{entries: [{zzz: 1}]}"),
    ("Blocklist", &["feeds"], "{feeds: [{zzz: 1}]}"),
    ("Quarantine", &[], "{zzz: 1}"),
    ("Quarantine", &["identities"], "{identities: [{zzz: 1}]}"),
    ("Quarantine", &["except"], "{except: [{zzz: 1}]}"),
    ("Grant", &[], "{zzz: 1}"),
    ("Grant", &["from"], "{from: [{zzz: 1}]}"),
    ("Grant", &["to"], "{to: [{zzz: 1}]}"),
    // Without `identities`, which are wanted unless it is for what has none.
    ("Limit", &[], "{unidentified: true, zzz: 1}"),
    ("Limit", &["identities"], "{identities: [{zzz: 1}]}"),
    ("Limit", &["rate"], "{rate: {packets: 1/s, zzz: 1}}"),
    ("Limit", &["rate", "burst"], "{rate: {packets: 1/s, burst: {zzz: 1}}}"),
    ("Gateway", &[], "{zzz: 1}"),
    ("Gateway", &["timeouts"], "{timeouts: {zzz: 1}}"),
    ("Gateway", &["interfaces"], "{interfaces: [{zzz: 1}]}"),
    ("Intent", &[], "{zzz: 1}"),
    ("Intent", &["identities"], "{identities: [{zzz: 1}]}"),
    ("Intent", &["client"], "{client: [{zzz: 1}]}"),
    ("Intent", &["server"], "{server: [{zzz: 1}]}"),
    ("Intent", &["response"], "{response: {zzz: 1}}"),
    ("Intent", &["hours"], "{hours: {zzz: 1}}"),
    ("Intent", &["hours", "open"], "{hours: {zone: UTC, open: [{zzz: 1}]}}"),
    ("Intent", &["fanOut"], "{fanOut: {zzz: 1}}"),
    ("Intent", &["rate"], "{rate: {zzz: 1}}"),
    ("Intent", &["rules"], "{rules: [{zzz: 1}]}"),
];

/// The same for a value that is one of a few words.
const WORDS: &[(&str, &[&str], &str)] = &[
    ("Workload", &["lease", "onExpiry"], "{lease: {for: 1h, onExpiry: zzz}}"),
    ("Policy", &["rules", "action"], "{rules: [{action: zzz}]}"),
    ("Policy", &["rules", "mode"], "{rules: [{mode: zzz}]}"),
    ("Policy", &["rules", "tls"], "{rules: [{action: allow, tls: zzz}]}"),
    ("Policy", &["rules", "rate", "per"], "{rules: [{rate: {packets: 1/s, per: zzz}}]}"),
    ("Blocklist", &["feeds", "format"], "{feeds: [{name: a, path: /a, format: zzz}]}"),
    ("Limit", &["mode"], "{mode: zzz}"),
    ("Intent", &["workload"], "{workload: zzz}"),
    ("Intent", &["sensitivity"], "{sensitivity: zzz}"),
    ("Intent", &["rules", "severity"], "{rules: [{severity: zzz}]}"),
    ("Intent", &["response", "action"], "{response: {action: zzz}}"),
    ("Gateway", &["defaultAction"], "{defaultAction: zzz}"),
    ("Gateway", &["midstream"], "{midstream: zzz}"),
    ("Gateway", &["interfaces", "midstream"], "{interfaces: [{name: eth1, midstream: zzz}]}"),
    ("Gateway", &["interfaces", "mode"], "{interfaces: [{name: eth1, mode: zzz}]}"),
];

fn mistakes(kind: &str, spec: &str) -> Vec<Mistake> {
    let text = format!("apiVersion: tidegate.dev/v1\nkind: {kind}\nmetadata: {{name: one}}\nspec: {spec}\n");
    match Documents::parse("one.yaml", &text, jiff::Timestamp::now()) {
        Err(Mistakes(mistakes)) => mistakes,
        Ok(_) => panic!("nothing is wrong with {text}"),
    }
}

/// The names in backticks of `accepted: ...`.
fn accepted(mistake: &Mistake) -> BTreeSet<String> {
    let list = mistake.accepted.split(';').next().unwrap_or_default();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What a node stands for: behind its reference, without null, and of a list the items.
fn behind<'s>(root: &'s Value, node: &'s Value) -> &'s Value {
    if let Some(reference) = node["$ref"].as_str() {
        return behind(root, root.pointer(&reference[1..]).expect("a definition"));
    }
    if let Some(any) = node["anyOf"].as_array()
        && let [one, null] = &any[..]
        && null["type"] == "null"
    {
        return behind(root, one);
    }
    if node.get("items").is_some() { behind(root, &node["items"]) } else { node }
}

fn at(kind: &str, way: &[&str]) -> Value {
    let root = schema::of(kind).expect("a kind").to_value();
    let mut node = behind(&root, &root["properties"]["spec"]);
    for name in way {
        node = behind(&root, &node["properties"][name]);
    }
    node.clone()
}

fn names(node: &Value) -> BTreeSet<String> {
    let keys = |node: &Value| -> Vec<String> {
        node["properties"].as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
    };
    let one_of = node["oneOf"].as_array().into_iter().flatten().flat_map(keys);
    keys(node).into_iter().chain(one_of).collect()
}

fn strings(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn the_schema_has_the_fields_of_the_decoder_and_wants_those_that_it_wants() {
    for (kind, way, spec) in OBJECTS {
        let found = mistakes(kind, spec);
        let unknown =
            found.iter().find(|m| m.what.starts_with("unknown field `zzz` in ")).expect("a mistake");
        let node = at(kind, way);
        assert_eq!(names(&node), accepted(unknown), "{kind} {way:?}");
        if node.get("oneOf").is_none() {
            assert_eq!(node["additionalProperties"], false, "{kind} {way:?}");
        }
        let noun = unknown.what.trim_start_matches("unknown field `zzz` in ");
        let lacks = |m: &Mistake| {
            let rest = m.what.strip_prefix(noun)?.strip_prefix(" has no `")?;
            rest.strip_suffix('`').map(str::to_owned)
        };
        let wanted: BTreeSet<_> = found.iter().filter_map(lacks).collect();
        assert_eq!(strings(&node["required"]), wanted, "{kind} {way:?}");
    }
}

#[test]
fn the_schema_has_the_words_and_kinds_of_the_decoder() {
    for (kind, way, spec) in WORDS {
        let found = mistakes(kind, spec);
        let wrong = found.iter().find(|m| m.what.starts_with("`zzz` is no ")).expect("a mistake");
        assert_eq!(strings(&at(kind, way)["enum"]), accepted(wrong), "{kind} {way:?}");
    }
    let kinds: BTreeSet<_> = schema::KINDS.iter().map(|kind| (*kind).to_owned()).collect();
    let found = mistakes("zzz", "{}");
    assert_eq!(
        accepted(found.iter().find(|m| m.what.starts_with("unknown kind")).expect("a mistake")),
        kinds
    );
    let any = schema::all().to_value();
    assert_eq!(any["anyOf"].as_array().map(Vec::len), Some(kinds.len()));
}
