//! The examples of docs/policy.md, applied to a gateway: each for itself, and all of them together.

use crate::lab::{Lab, json};

/// Whole files, with the fragments that are shown after them: a fragment goes on where the last file ends.
fn examples() -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    let mut is_yaml = false;
    for line in include_str!("../../../docs/policy.md").lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_yaml = language == "yaml" && !is_yaml;
            continue;
        }
        if !is_yaml {
            continue;
        }
        let goes_on = files.last().is_some_and(|file| file.ends_with("---\n"));
        if line.starts_with("apiVersion: ") && !goes_on {
            files.push(String::new());
        }
        let file = files.last_mut().expect("the first example is a whole file");
        file.push_str(line);
        file.push('\n');
    }
    files
}

#[test]
#[ignore = "needs root"]
fn the_examples_of_the_policy_reference_are_applied_and_do_what_stands_beside_them() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2"]);
    let feeds = lab.folder("feeds");
    lab.file("feeds/drop.txt", "198.51.100.0/24 ; SBL1\n");
    lab.file("feeds/firehol_level1.netset", "198.18.0.0/15\n");
    let examples: Vec<_> =
        examples().iter().map(|text| text.replace("/var/lib/tidegate/feeds", &feeds)).collect();
    assert!(examples.len() > 10, "{}", examples.len());
    for (n, text) in examples.iter().enumerate() {
        lab.ok(&["policy", "apply", &lab.file("example.yaml", text)]);
        assert_eq!(lab.json(&["status"])[0]["revision"], n + 2, "{text}");
    }
    let all = lab.folder("all");
    for (n, text) in examples.iter().enumerate() {
        lab.file(&format!("all/{n}.yaml"), text);
    }
    lab.ok(&["policy", "apply", &all]);
    let why = |words: &[&str]| lab.json(&[&["why"], words].concat()).remove(0);
    let reason = |words: &[&str]| why(words)["drop_reason_desc"].clone();
    let blocked = why(&["192.0.2.66", "10.2.0.2", "443"]);
    assert_eq!(
        (&blocked["drop_reason_desc"], &blocked["rule"]),
        (&json("BLOCKLISTED"), &json("abuse/192.0.2.66/32"))
    );
    assert_eq!(why(&["198.51.100.7", "10.2.0.2", "443"])["feed_entries"][0]["sbl"], "SBL1");
    assert_eq!(reason(&["198.19.0.1", "10.2.0.2", "443"]), "BLOCKLISTED");
    assert_eq!(reason(&["203.0.113.9", "10.2.0.2", "23"]), "BLOCKLISTED");
    assert_eq!(reason(&["orders", "10.2.0.2", "443"]), "QUARANTINED");
    assert_ne!(reason(&["orders", "10.2.0.2", "123/udp"]), "QUARANTINED", "it is excepted");
    let on =
        |vlan: &str| why(&["10.0.0.5", "10.2.0.2", "443", "--vlan", vlan])["source"]["spiffe_id"].clone();
    assert_eq!(
        (on("10"), on("20")),
        (json("spiffe://blue.example/ns/app/sa/web"), json("spiffe://green.example/ns/app/sa/web"))
    );
    let shared = ["10.1.0.7", "10.2.0.2", "443", "--interface", "eth1", "--source-port", "30500"];
    assert_eq!(why(&shared)["source"]["spiffe_id"], "spiffe://acme.example/ns/shop/sa/orders");
}
