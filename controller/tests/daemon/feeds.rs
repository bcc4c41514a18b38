//! Feeds of blocklists: files that somebody else writes.

use super::lab::{Lab, METRICS, json, until, until_within};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Everybody may reach 8443; what stands in the feed may not.
fn policy(feed: &str, rest: &str) -> String {
    format!(
        "\
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {{name: shop}}
spec:
  rules:
    - {{name: pay, action: allow, from: [{{any: true}}], to: [{{any: true}}], ports: [tcp/8443]}}
---
apiVersion: tidegate.dev/v1
kind: Blocklist
metadata: {{name: bad}}
spec:
  feeds:
    - {{name: drop, path: {feed}{rest}}}
"
    )
}

const LEFT: &str = "; Spamhaus DROP\n10.1.0.2/32 ; SBL256894\n";
const OTHERS: &str = "; Spamhaus DROP\n192.0.2.0/24 ; SBL1\n198.51.100.0/24 ; SBL2\n";

/// As programs that fetch feeds do.
fn replace(lab: &Lab, text: &str) {
    let beside = lab.file("drop.txt.new", text);
    std::fs::rename(beside, lab.path("drop.txt")).expect("renamed");
}

#[test]
#[ignore = "needs root"]
fn a_written_feed_counts_at_once_and_a_wrong_one_changes_nothing() {
    let lab = Lab::new();
    let feed = lab.file("drop.txt", OTHERS);
    let file = lab.file("p.yaml", &policy(&feed, ""));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "--metrics", METRICS, "-p", &file]);
    let _server = lab.serve(8443);
    assert!(lab.connects(8443));
    replace(&lab, LEFT);
    until(|| !lab.connects(8443));

    let flows = lab.flows();
    let dropped = flows.iter().find(|flow| flow["verdict"] == "DROPPED").expect("a dropped flow");
    assert_eq!((&dropped["drop_reason_desc"], &dropped["rule"]), (&json("BLOCKLISTED"), &json("bad/drop")));
    let why = &lab.json(&["why", "10.1.0.2", "10.2.0.2", "8443"])[0];
    assert_eq!((&why["drop_reason_desc"], &why["rule"]), (&json("BLOCKLISTED"), &json("bad/drop")));
    let entry = serde_json::json!([{"cidr": "10.1.0.2/32", "path": feed, "line": 2, "sbl": "SBL256894"}]);
    assert_eq!(why["feed_entries"], entry);
    let said = lab.ok(&["why", "10.1.0.2", "10.2.0.2", "8443"]);
    assert!(said.contains(&format!("  10.1.0.2/32 in {feed}:2 (SBL256894)\n")), "{said}");

    let all = &lab.json(&["block", "list"])[0];
    assert_eq!((&all[0]["feed"], &all[0]["prefixes"]), (&json("drop"), &json(1)));
    let of = &lab.json(&["block", "list", "--of", "10.1.0.2"])[0];
    assert_eq!(
        (&of[0]["cidr"], &of[0]["line"], &of[0]["sbl"]),
        (&json("10.1.0.2/32"), &json(2), &json("SBL256894"))
    );
    assert_eq!(lab.ok(&["block", "list", "--of", "10.1.0.3"]), "nothing of it is blocked\n");
    assert_eq!(lab.json(&["block", "list", "--feed", "bad/drop"])[0].as_array().expect("entries").len(), 1);
    let (_, said) = lab.fails(&["block", "list", "--feed", "bad/none"]);
    assert!(said.contains("there is no feed `bad/none`"), "{said}");

    // One bad line, and nothing of the file counts.
    replace(&lab, &OTHERS.replace("198.51.100.0/24", "198.51.100.1/24"));
    until(|| lab.metrics().contains("tidegate_feeds_wrong 1\n"));
    assert!(!lab.connects(8443));
    let (_, said) = lab.fails(&["policy", "apply", &file]);
    assert!(
        said.contains(&format!("{feed}:3:1: error: there are bits set beyond the prefix length")),
        "{said}"
    );
    std::fs::remove_file(&feed).expect("removed");
    until(|| lab.metrics().contains("tidegate_feed_reloads_total{result=\"refused\"} 2\n"));
    assert!(!lab.connects(8443));

    // What it said last is kept, also for a daemon that finds no file.
    daemon.kill_nine();
    assert!(!lab.connects(8443));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "--metrics", METRICS]);
    assert!(!lab.connects(8443));
    assert_eq!(lab.json(&["why", "10.1.0.2", "10.2.0.2", "8443"])[0]["feed_entries"], entry);
    replace(&lab, OTHERS);
    until(|| lab.connects(8443));
    let metrics = lab.metrics();
    for line in [
        "tidegate_feeds_wrong 0\n",
        "tidegate_feed_prefixes 2\n",
        "tidegate_feed_reloads_total{result=\"taken\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    let history = lab.json(&["policy", "history"]);
    assert_eq!(history[0][0]["how"], "feeds: bad/drop");
}

#[test]
#[ignore = "needs root"]
fn blocks_of_a_feed_that_nobody_writes_end_with_the_daemon_dead() {
    let lab = Lab::new();
    let feed = lab.file("drop.txt", LEFT);
    let rest = ", format: spamhaus-drop, expiresAfter: 30s";
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("p.yaml", &policy(&feed, rest))]);
    daemon.kill_nine();
    let _server = lab.serve(8443);
    assert!(!lab.connects(8443));
    until(|| lab.connects(8443));
    // Written again, it holds again.
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2"]);
    replace(&lab, LEFT);
    until(|| !lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn an_older_policy_comes_back_with_what_its_feed_says_now() {
    let lab = Lab::new();
    let feed = lab.file("drop.txt", LEFT);
    let with_feed = lab.file("p.yaml", &policy(&feed, ""));
    let without = lab.file("q.yaml", policy(&feed, "").split("---").next().expect("a policy"));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &with_feed]);
    let _server = lab.serve(8443);
    assert!(!lab.connects(8443));
    lab.ok(&["policy", "apply", &without]);
    assert!(lab.connects(8443));
    lab.ok(&["block", "add", "203.0.113.1"]);
    lab.ok(&["policy", "rollback"]);
    assert!(!lab.connects(8443));
    assert_eq!(lab.json(&["why", "10.1.0.2", "10.2.0.2", "8443"])[0]["rule"], "bad/drop");
}

/// Ends the traffic also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
#[ignore = "needs root"]
fn while_a_large_feed_is_replaced_nothing_passes_from_a_prefix_of_both() {
    const PREFIXES: u32 = 200_000;
    let lab = Lab::new();
    // Others than before, all but one, and a few more: which file counts is told by their number.
    let feed = |first: u32, more: u32| {
        let others =
            (0..PREFIXES + more).map(|n| std::net::Ipv4Addr::from(0x1400_0000 + first + n * 256).to_string());
        others.chain(["10.1.0.2".to_owned()]).collect::<Vec<_>>().join("\n") + "\n"
    };
    let path = lab.file("drop.txt", &feed(0, 0));
    let text = policy(&path, "").replace("tcp/8443", "any");
    let _daemon =
        lab.run(&["-i", "eth1", "-i", "eth2", "--metrics", METRICS, "-p", &lab.file("p.yaml", &text)]);
    let received = lab.receive(7777);
    let datagram = || {
        let mut packet = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 2], 64).udp(7777, 7777);
        builder.write(&mut packet, b"a leak").expect("a packet");
        packet
    };
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let ends = Over(&over);
        scope.spawn(|| {
            while !over.load(Relaxed) {
                lab.send_raw("left", std::iter::repeat_with(datagram).take(100));
                sent.fetch_add(100, Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        let prefixes = || {
            let page = lab.metrics();
            let line = page.lines().find_map(|line| line.strip_prefix("tidegate_feed_prefixes "));
            line.expect("the metric").parse::<f64>().expect("a number") as u32
        };
        assert_eq!(prefixes(), PREFIXES + 1);
        for (first, more) in [(128, 1), (0, 2)] {
            replace(&lab, &feed(first, more));
            until_within(300, || prefixes() == PREFIXES + more + 1);
        }
        drop(ends);
    });
    assert!(sent.into_inner() > 1000);
    let seen = || received.recv(&mut [0; 16]).is_ok();
    assert!(!seen(), "a datagram passed");
    // They would arrive: it is the feed that keeps them out.
    replace(&lab, "192.0.2.1\n");
    until(|| {
        lab.send_raw("left", std::iter::once(datagram()));
        seen()
    });
}
