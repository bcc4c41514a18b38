//! What the decoder accepts the schemas accept: all that stands in docs, packaging, topologies and tests. And what both refuse.

use super::schema::Schemas;
use super::{Documents, check};
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "apiVersion: tidegate.dev/v1";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let is_wanted = |e: &str| ["yaml", "yml", "md", "rs"].contains(&e);
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(is_wanted) {
            found.push(path);
        }
    }
}

/// Each document in a file of any kind: from the line of its version to the first that is not indented and no field of a document.
fn documents(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        let Some(indent) = line.find(BEGIN) else { continue };
        let margin = |line: &&str| line.len() - line.trim_start().len();
        // In a string of a program the first line stands behind the quote.
        let own = if line[..indent].trim().is_empty() { indent } else { lines.get(n + 1).map_or(0, margin) };
        let is_field = |line: &str| ["kind:", "metadata:", "spec:"].iter().any(|f| line.starts_with(f));
        let inside = |line: &&&str| {
            line.trim().is_empty() || margin(line) > own || margin(line) == own && is_field(line.trim_start())
        };
        let rest = lines[n + 1..].iter().take_while(inside);
        let cut = rest.map(|line| line.get(own..).unwrap_or_default().trim_end_matches(['"', '#', ';']));
        let text: Vec<&str> = std::iter::once(BEGIN).chain(cut).collect();
        found.push(text.join("\n"));
    }
    found
}

#[test]
fn whatever_the_decoder_accepts_of_what_the_repository_has_the_schemas_accept() {
    let schemas = Schemas::generated().expect("schemas");
    for (folder, least) in [("docs", 10), ("packaging", 3), ("topologies", 20), ("controller", 50)] {
        let (mut files, mut accepted) = (Vec::new(), 0);
        files_below(&root().join(folder), &mut files);
        for path in files {
            let text = fs::read_to_string(&path).expect("a file");
            for document in documents(&text) {
                let named = [("one.yaml", document.as_str())];
                if Documents::parse_all(&named, jiff::Timestamp::now()).is_ok() {
                    accepted += 1;
                    assert_eq!(schemas.mistakes(&named, &[]), [], "{}\n{document}", path.display());
                }
            }
        }
        assert!(accepted >= least, "{folder}: {accepted} documents were accepted, fewer than {least}");
    }
}

fn document(kind: &str, spec: &str) -> String {
    format!("{BEGIN}\nkind: {kind}\nmetadata: {{name: one}}\nspec: {spec}\n")
}

const FROM_TO: &str = "name: a, from: [{any: true}], to: [{any: true}]";

/// Kinds and specs: odd, and right.
fn odd() -> Vec<(&'static str, String)> {
    let who = "identities: [{trustDomain: acme.example}]";
    vec![
        ("Policy", format!("{{tier: \"5\", priority: 07, rules: [{{{FROM_TO}, action: \"allow\"}}]}}")),
        (
            "Policy",
            "{rules: [{name: 8080, action: deny, from: [{labels: {a: 1, b: true, c: 1e3}}], to: [{any: \"true\"}]}]}".to_owned(),
        ),
        ("Policy", format!("{{rules: [{{{FROM_TO}, action: allow, ports: null, rate: ~}}]}}")),
        ("Policy", format!("{{rules: [{{{FROM_TO}, action: allow, rate: {{packets: 5/s, burst: {{packets: \"7\"}}}}}}]}}")),
        ("Workload", "{spiffeId: spiffe://td/a, addresses: [10.0.0.1], vlan: \"100\", interface: 7}".to_owned()),
        ("Blocklist", "{entries: [], feeds: [{name: 1.5, path: /a}]}".to_owned()),
        ("Blocklist", "{entries: [{cidr: fd00::/8, reason: 404}]}".to_owned()),
        ("Limit", "{unidentified: \"true\", maxAttempts: +5}".to_owned()),
        ("Intent", format!("{{{who}, workload: batch, owner: 12, client: [], instances: \"3\"}}")),
        ("Intent", format!("{{{who}, workload: agent, rules: [{{name: x, when: \"true\", message: 5}}]}}")),
    ]
}

#[test]
fn odd_documents_that_the_decoder_accepts_are_right_by_their_schemas() {
    let schemas = Schemas::generated().expect("schemas");
    for (kind, spec) in odd() {
        let text = document(kind, &spec);
        Documents::parse("one.yaml", &text, jiff::Timestamp::now())
            .unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_eq!(schemas.mistakes(&[("one.yaml", &text)], &[]), [], "{text}");
    }
}

/// Kinds, specs, and the way to what is wrong.
fn wrong() -> Vec<(&'static str, String, &'static str)> {
    let rule = |more: &str| format!("{{rules: [{{{FROM_TO}, {more}}}]}}");
    let who = "identities: [{trustDomain: acme.example}]";
    vec![
        ("Workload", "{addresses: [10.0.0.1]}".to_owned(), "spec"),
        ("Workload", "{spiffeId: spiffe://td/a, addresses: []}".to_owned(), "spec.addresses"),
        ("Workload", "{spiffeId: td/a, addresses: [10.0.0.1]}".to_owned(), "spec.spiffeId"),
        ("Workload", "{spiffeId: spiffe://td/a, addresses: [ten]}".to_owned(), "spec.addresses.0"),
        ("Workload", "{spiffeId: spiffe://td/a, addresses: [10.0.0.1], vlan: 4095}".to_owned(), "spec.vlan"),
        ("Workload", "{spiffeId: spiffe://td/a, addresses: [10.0.0.1], color: red}".to_owned(), "spec"),
        (
            "Workload",
            "{spiffeId: spiffe://td/a, addresses: [10.0.0.1], lease: {for: soon}}".to_owned(),
            "spec.lease.for",
        ),
        ("Policy", rule("action: alow"), "spec.rules.0.action"),
        ("Policy", rule("action: allow, ports: []"), "spec.rules.0.ports"),
        ("Policy", rule("action: allow, tls: yes"), "spec.rules.0.tls"),
        ("Policy", rule("action: allow, lifetime: 5"), "spec.rules.0.lifetime"),
        ("Policy", rule("action: allow, rate: {packets: fast}"), "spec.rules.0.rate.packets"),
        ("Policy", format!("{{tier: low, rules: [{{{FROM_TO}, action: allow}}]}}"), "spec.tier"),
        ("Policy", "{rules: [{name: a, action: allow, to: [{any: true}]}]}".to_owned(), "spec.rules.0"),
        (
            "Policy",
            "{rules: [{name: a, action: allow, from: [{any: true, cidr: 10.0.0.0/8}], to: [{any: true}]}]}"
                .to_owned(),
            "spec.rules.0.from.0",
        ),
        (
            "Policy",
            "{rules: [{name: a b, action: allow, from: [{any: true}], to: [{any: true}]}]}".to_owned(),
            "spec.rules.0.name",
        ),
        ("Blocklist", "{}".to_owned(), "spec"),
        ("Blocklist", "{feeds: [{name: a, path: relative}]}".to_owned(), "spec.feeds.0.path"),
        ("Quarantine", "{identities: []}".to_owned(), "spec.identities"),
        (
            "Grant",
            "{from: [{labels: {a: b}}], to: [{labels: {a: c}}], ports: [tcp/1], for: 1h}".to_owned(),
            "spec",
        ),
        ("Limit", format!("{{{who}, maxAttempts: 0}}"), "spec.maxAttempts"),
        ("Gateway", "{midstream: maybe}".to_owned(), "spec.midstream"),
        ("Gateway", "{timeouts: {tcpSyn: never}}".to_owned(), "spec.timeouts.tcpSyn"),
        (
            "Intent",
            format!("{{{who}, workload: service, fanOut: {{peers: 0, per: 1h}}}}"),
            "spec.fanOut.peers",
        ),
        (
            "Intent",
            format!("{{{who}, workload: service, client: [], response: {{action: shout}}}}"),
            "spec.response.action",
        ),
    ]
}

#[test]
fn what_is_wrong_by_its_schema_the_decoder_refuses_too() {
    let schemas = Schemas::generated().expect("schemas");
    for (kind, spec, way) in wrong() {
        let text = document(kind, &spec);
        let found = schemas.mistakes(&[("one.yaml", &text)], &[]);
        let said = found.first().unwrap_or_else(|| panic!("right by the schema:\n{text}"));
        assert!(said.what.starts_with(&format!("`{way}` is not as the schema of a {kind} says: ")), "{said}");
        assert_eq!(said.place.as_ref().map(|p| p.line), Some(4), "{said}");
        assert!(Documents::parse("one.yaml", &text, jiff::Timestamp::now()).is_err(), "{text}");
    }
}

#[test]
fn a_mistake_that_both_find_is_told_once_and_in_the_words_of_the_decoder() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policy.yaml");
    let texts = wrong().into_iter().map(|(kind, spec, _)| document(kind, &spec));
    for text in texts {
        let Err(decoder) = Documents::parse(&file.display().to_string(), &text, jiff::Timestamp::now())
        else {
            panic!("nothing is wrong with {text}");
        };
        fs::write(&file, &text).expect("written");
        assert_eq!(check(&[&file], jiff::Timestamp::now()).mistakes, decoder.0, "{text}");
    }
}

#[test]
fn what_a_schema_alone_refuses_is_told_with_its_line() {
    let schemas = Schemas::generated().expect("schemas");
    let first = document("Policy", &format!("{{rules: [{{{FROM_TO}, action: allow}}]}}"));
    let second = "apiVersion: tidegate.dev/v1\nkind: Gateway\nmetadata: {name: two}\nspec:\n  midstream: deny\n  colour: red\n";
    let text = format!("{first}---\n{second}");
    let found = schemas.mistakes(&[("other.yaml", "a: 1"), ("one.yaml", &text)], &[]);
    let [only] = &found[..] else { panic!("{found:?}") };
    let said = only.to_string();
    assert!(
        said.starts_with("one.yaml:11:3: error: `spec` is not as the schema of a Gateway says: "),
        "{said}"
    );
    assert!(said.contains("11 |   colour: red\n   |   ^^^^^^"), "{said}");
    assert!(said.ends_with("`tidegate policy schema Gateway` prints the schema"), "{said}");
}
