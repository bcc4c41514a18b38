use super::form::parse;
use super::*;
use crate::policy::{Clock, Compiled, Documents, Numbering, compile};
use datapath::abi::{Block, NEVER};
use std::io::Write;

fn entries(text: &str, format: Format) -> Vec<String> {
    let list = parse("/feed", text, format).expect(text);
    list.iter().map(told).collect()
}

fn told(Entry { prefix, line, sbl }: &Entry) -> String {
    if *sbl == 0 { format!("{prefix} line {line}") } else { format!("{prefix} line {line}, SBL{sbl}") }
}

fn wrong(text: &str, format: Format) -> Vec<String> {
    let mistakes = parse("/feed", text, format).expect_err(text);
    mistakes.iter().map(|mistake| mistake.to_string().replace("\n  = ", " = ")).collect()
}

#[test]
fn each_form_is_read_and_auto_finds_it() {
    let plain = "# scanners\n\n192.0.2.1\n  2001:db8::1 # seen twice\r\n";
    let of_plain = ["192.0.2.1/32 line 3", "2001:db8::1/128 line 4"];
    let cidr = "; both families\n198.51.100.0/24\n2001:db8:1::/48\n192.0.2.9 ; one address\n";
    let of_cidr = ["198.51.100.0/24 line 2", "2001:db8:1::/48 line 3", "192.0.2.9/32 line 4"];
    let drop = "; Spamhaus DROP List\n; Last-Modified: yesterday\n1.10.16.0/20 ; SBL256894\n2a06:e480::/29 ; SBL303641\n";
    let of_drop = ["1.10.16.0/20 line 3, SBL256894", "2a06:e480::/29 line 4, SBL303641"];
    let json = "{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}\n\
        {\"cidr\":\"2a06:e480::/29\",\"sblid\":\"SBL303641\",\"rir\":\"ripencc\"}\n\
        {\"type\":\"metadata\",\"timestamp\":1790329442,\"size\":2,\"records\":2,\"terms\":\"https://example\"}\n";
    let of_json = ["1.10.16.0/20 line 1, SBL256894", "2a06:e480::/29 line 2, SBL303641"];
    let netset = "#\n# firehol_level1\n#\n# ipv4 hash:net ipset\n#\n# Entries         : 2 subnets, 4,097 unique IPs\n#\n\
        1.10.16.0/20\n203.0.113.7\n";
    let of_netset = ["1.10.16.0/20 line 8", "203.0.113.7/32 line 9"];
    for (text, format, expected) in [
        (plain, Format::Plain, &of_plain[..]),
        (cidr, Format::Cidr, &of_cidr),
        (drop, Format::SpamhausDrop, &of_drop),
        (json, Format::SpamhausDrop, &of_json),
        (netset, Format::Netset, &of_netset),
    ] {
        assert_eq!(entries(text, format), expected, "{}", format.name());
        assert_eq!(entries(text, Format::Auto), expected, "auto for {}", format.name());
    }
}

#[test]
fn a_bad_line_is_named_by_file_and_line_and_its_text_is_not_told() {
    let secret = "192.0.2.1\nroot:secret:0\n10.0.0.1/8\n10.0.0.0/33\n";
    assert_eq!(
        wrong(secret, Format::Cidr),
        [
            "/feed:2:1: error: this is not an address or a prefix = accepted: an address or a prefix a line, such as 192.0.2.0/24, and comments after `#`",
            "/feed:3:1: error: there are bits set beyond the prefix length = write the network, or the address alone",
            "/feed:4:1: error: the prefix length is not one of 0 to 32",
        ]
    );
    assert_eq!(
        wrong("10.0.0.0/8\n", Format::Plain),
        ["/feed:1:1: error: a prefix, in a feed of addresses = `format: cidr` has both"]
    );
    assert_eq!(
        wrong("10.0.0.0/8 ; SBL\n10.0.0.0/8 ; listed\n", Format::SpamhausDrop).len(),
        2,
        "a listing is SBL and a number"
    );
    let json =
        "{\"cidr\":\"10.0.0.1/8\"}\n{\"cidr\":\"10.0.0.0/8\",\"sblid\":\"17\"}\n{\"asn\":17}\n{\"cidr\":\n";
    assert_eq!(wrong(json, Format::SpamhausDrop).len(), 4);
    let many = "x\n".repeat(1000);
    assert_eq!(wrong(&many, Format::Cidr).len(), 10, "as many as help");
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let netset = "# ipv4 hash:ip ipset\n# Entries         : 3 unique IPs\n192.0.2.1\n192.0.2.2\n";
    let text = "/feed:2:1: error: this says that there are 3 entries, and there are 2 = the file is cut short: fetch it again";
    assert_eq!(wrong(netset, Format::Auto), [text]);
    let json = "{\"cidr\":\"10.0.0.0/8\"}\n{\"type\":\"metadata\",\"records\":2}\n";
    assert_eq!(
        wrong(json, Format::Auto)[0].split(" = ").next(),
        Some("/feed:2:1: error: this says that there are 2 entries, and there are 1")
    );
}

fn now() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().expect("a time")
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    let written = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now().as_second() as u64);
    file.set_modified(written).expect("a time");
    path.display().to_string()
}

fn blocklist(feeds: &str, rest: &str) -> Documents {
    let text = format!(
        "apiVersion: tidegate.dev/v1\nkind: Blocklist\nmetadata: {{name: bad}}\nspec:\n  feeds:\n{feeds}{rest}"
    );
    let mut documents = Documents::parse("p.yaml", &text, now()).expect("right");
    documents.read_feeds().expect("feeds");
    documents
}

fn compiled(documents: &Documents) -> Compiled {
    // Booted an hour before.
    compile(documents, &Numbering::default(), &Clock { wall_now: now(), boot_now_ns: 3600 * 1_000_000_000 })
}

#[test]
fn a_feed_is_one_rule_whose_blocks_end_after_the_file_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let drop = file(&folder, "drop.txt", "192.0.2.0/24 ; SBL7\n192.0.2.0/28 ; SBL8\n203.0.113.0/24 ; SBL9\n");
    let hosts = file(&folder, "hosts.txt", "203.0.113.0/24\n2001:db8::1\n");
    let documents = blocklist(
        &format!(
            "    - {{name: drop, path: {drop}, expiresAfter: 1h}}\n    - {{name: hosts, path: {hosts}, notAfter: 2027-01-01T02:00:00Z}}\n"
        ),
        "  entries:\n    - {cidr: 192.0.2.128/25}\n",
    );
    let compiled = compiled(&documents);
    let label = |block: &Block| compiled.rules[&block.rule].label();
    let hours = |block: &Block| block.not_after_ns / 3_600_000_000_000;
    let said: Vec<_> = compiled.blocklist.iter().map(|(p, b)| (p.to_string(), label(b), hours(b))).collect();
    let row = |prefix: &str, label: &str, hours: u64| (prefix.to_owned(), label.to_owned(), hours);
    assert_eq!(
        said,
        [
            // The one in it ends no later, and says nothing.
            row("192.0.2.0/24", "bad/drop", 2),
            row("192.0.2.128/25", "bad/192.0.2.128/25", NEVER / 3_600_000_000_000),
            row("203.0.113.0/24", "bad/hosts", 3),
            row("2001:db8::1/128", "bad/hosts", 3),
        ]
    );
    assert_eq!(compiled.rules.len(), 3, "a feed has one number");
    let feed = documents.feeds().next().expect("a feed");
    let covering: Vec<_> = feed.entries.covering(&"192.0.2.3".parse().expect("an address")).collect();
    let told: Vec<_> = covering.into_iter().map(told).collect();
    assert_eq!(told, ["192.0.2.0/24 line 1, SBL7", "192.0.2.0/28 line 2, SBL8"]);
    assert_eq!(feed.entries.covering(&"10.0.0.1".parse().expect("an address")).count(), 0);
}

#[test]
fn the_whole_of_ipv6_in_a_feed_does_not_mean_ipv4() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(&folder, "all", "::/0\n");
    let compiled = compiled(&blocklist(&format!("    - {{name: all, path: {path}}}\n"), ""));
    let said: Vec<_> = compiled.blocklist.iter().map(|(p, b)| (p.to_string(), b.rule != 0)).collect();
    assert_eq!(said, [("::/0".to_owned(), true), ("0.0.0.0/0".to_owned(), false)]);
}

#[test]
fn what_is_saved_is_read_again_and_nothing_else_is() {
    let list = parse("/feed", "2001:db8::/32\n10.0.0.0/8\n0.0.0.0/0\n::/0\n192.0.2.1 ; x\n", Format::Cidr)
        .expect("right");
    let entries = Entries::new(list, now(), "d".into());
    let again = Entries::decoded(&entries.encoded(), now(), "d".into()).expect("the same");
    assert_eq!(again.list, entries.list);
    assert_eq!(again.list.len(), 5);
    let bytes = entries.encoded();
    assert!(Entries::decoded(&bytes[..bytes.len() - 1], now(), "d".into()).is_none(), "cut short");
    assert!(Entries::decoded(&[bytes.clone(), bytes].concat(), now(), "d".into()).is_none(), "not in order");
}

#[test]
fn what_keeps_a_feed_from_being_read_is_told_where_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = |path: &str| {
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Blocklist\nmetadata: {{name: bad}}\nspec: {{feeds: [{{name: a, path: {path}}}]}}\n"
        );
        let mut documents = Documents::parse("p.yaml", &text, now()).expect("right");
        documents.read_feeds().expect_err(path).to_string()
    };
    assert!(
        named("/nonexistent/feed")
            .starts_with("p.yaml:4:16: error: cannot read the feed /nonexistent/feed: No such file")
    );
    let at = folder.path().display().to_string();
    assert!(named(&at).contains("it is not a file"), "a folder");
    assert!(named("/dev/zero").contains("it is not a file"));
    let path = file(&folder, "latin", "# caf\u{e9}\n10.0.0.0/8\n");
    std::fs::write(&path, b"10.0.0.0/8\n# caf\xe9\n").expect("written");
    assert!(named(&path).starts_with(&format!("{path}:2:1: error: this is not text in UTF-8")));
}

#[test]
fn mistakes_of_the_document_are_told() {
    let told = |feeds: &str| {
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Blocklist\nmetadata: {{name: bad}}\nspec: {{{feeds}}}\n"
        );
        let mistakes = Documents::parse("p.yaml", &text, now()).expect_err(feeds).0;
        mistakes.into_iter().map(|mistake| mistake.what).collect::<Vec<_>>()
    };
    assert_eq!(told("feeds: [{name: a, path: drop.txt}]"), ["`drop.txt` is not a path from the root"]);
    assert_eq!(told("feeds: []"), ["`feeds` is an empty list"]);
    assert_eq!(
        told("feeds: [{name: a, path: /a, expiresAfter: 1h, notAfter: 2027-01-01T00:00:00Z}]"),
        ["`expiresAfter` and `notAfter` both say when it ends"]
    );
    assert_eq!(
        told("feeds: [{name: a, path: /a}, {name: a, path: /b}]"),
        ["two feeds of this blocklist are named `a`"]
    );
}
