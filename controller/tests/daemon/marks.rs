//! `--mark`: what is forwarded says to nft and routing who sent it.

use crate::lab::{Lab, POLICY};

/// Both ways through the gateway, by interface and by mark.
const RULES: &str = "\
table inet test {
  counter left {}
  counter right {}
  counter orders {}
  counter payments {}
  chain forward {
    type filter hook forward priority 0
    iifname eth1 counter name left
    iifname eth2 counter name right
    meta mark and MASK == ORDERS counter name orders
    meta mark and MASK == PAYMENTS counter name payments
  }
}
";

/// The number of an identity, as the list shows it.
fn number(lab: &Lab, name: &str) -> u64 {
    let list = lab.json(&["identity", "list"]).remove(0);
    let row = list.as_array().expect("rows").iter().find(|row| row["name"] == name).expect("the workload");
    row["identity"].as_u64().expect("a number")
}

fn counted(lab: &Lab, counter: &str) -> u64 {
    let text = lab.output("nft", &["list", "counter", "inet", "test", counter]);
    let words: Vec<_> = text.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets").expect("a counter");
    words[at + 1].parse().expect("a number")
}

/// Packets of the left host and of those that its mark names, and the same of the right one.
fn counts(lab: &Lab) -> [u64; 4] {
    ["left", "orders", "right", "payments"].map(|counter| counted(lab, counter))
}

#[test]
#[ignore = "needs root"]
fn nft_counts_by_the_mark_exactly_what_an_identity_sent_with_nft() {
    let lab = Lab::new();
    let shop = lab.file("shop.yaml", POLICY);
    let mut daemon =
        lab.run(&["-i", "eth1", "-i", "eth2", "--ingress", "tc", "--mark", "0xff00", "-p", &shop]);
    let (orders, payments) = (number(&lab, "orders"), number(&lab, "payments"));
    assert_ne!(orders, payments);
    let rules = RULES.replace("MASK", "0xff00").replace("ORDERS", &(orders << 8).to_string());
    let rules = lab.file("rules.nft", &rules.replace("PAYMENTS", &(payments << 8).to_string()));
    lab.output("nft", &["-f", &rules]);
    let _server = lab.serve(8443);
    assert!(lab.connects(8443));
    let [left, by_orders, right, by_payments] = counts(&lab);
    assert!(left >= 4 && right >= 3, "{left} and {right} packets");
    assert_eq!((by_orders, by_payments), (left, right));
    assert!(lab.ok(&["status"]).contains("marks say who sent a packet: the bits 0x0000ff00"));
    assert_eq!(lab.json(&["status"])[0]["mark"], "0x0000ff00");

    // Without a word it stays, also while no daemon runs.
    daemon.stop();
    assert!(lab.connects(8443));
    let mut daemon = lab.run(&[]);
    assert!(lab.connects(8443));
    let [left_now, by_orders, right_now, by_payments] = counts(&lab);
    assert!(left_now >= left + 8 && right_now >= right + 6);
    assert_eq!((by_orders, by_payments), (left_now, right_now));

    daemon.stop();
    let _daemon = lab.run(&["--mark", "none"]);
    assert!(lab.connects(8443));
    let [left_then, by_orders, right_then, by_payments] = counts(&lab);
    assert!(left_then > left_now && right_then > right_now);
    assert_eq!((by_orders, by_payments), (left_now, right_now), "nothing is marked any more");
    assert!(lab.json(&["status"])[0]["mark"].is_null());
}

#[test]
#[ignore = "needs root"]
fn a_mark_is_refused_where_it_cannot_say_who_sent_a_packet() {
    let lab = Lab::new();
    let shop = lab.file("shop.yaml", POLICY);
    let run = ["run", "-i", "eth1", "-i", "eth2", "-p", &shop];
    let refused = |words: &[&str], code: i32, why: &str| {
        let (exit, said) = lab.fails(&[&run[..], words].concat());
        assert_eq!((exit, said.contains(why)), (code, true), "{words:?}: {exit} {said}");
    };
    refused(&["--mark", "0xf0f", "--ingress", "tc"], 2, "have to be next to each other");
    refused(
        &["--mark", "0xff"],
        1,
        "eth1 cannot be judged by XDP while packets are marked: use --ingress tc",
    );
    refused(
        &["--mark", "0xff", "--forward", "xdp", "--ingress", "auto"],
        2,
        "a frame that XDP forwards has no mark",
    );
    refused(&["--mark", "0x1", "--ingress", "tc"], 1, "the mark 0x00000001 has room for numbers up to 1");

    // Two of three numbers are taken.
    let mut daemon = lab.run(&[&run[1..], &["--mark", "0x30", "--ingress", "auto"]].concat());
    let (code, said) = lab.fails(&["attach", "eth2", "--ingress", "xdp"]);
    assert_eq!(
        (code, said.contains("cannot be judged by XDP while packets are marked")),
        (1, true),
        "{said}"
    );
    lab.ok(&["identity", "bind", "10.1.0.7", "spiffe://acme.example/ns/shop/sa/third"]);
    let before = lab.json(&["identity", "list"]);
    let fourth = "spiffe://acme.example/ns/shop/sa/fourth";
    let (_, said) = lab.fails(&["identity", "bind", "10.1.0.8", fourth]);
    assert!(
        said.contains("sa/fourth would be identity 4, and the mark 0x00000030 has room for numbers up to 3"),
        "{said}"
    );
    let more = POLICY.replace("sa/orders", "sa/fourth");
    let (_, said) = lab.fails(&["policy", "apply", &lab.file("more.yaml", &more)]);
    assert!(said.contains("sa/fourth would be identity 4"), "{said}");
    assert_eq!(lab.json(&["identity", "list"]), before, "nothing was changed");
    daemon.stop();
    let (code, said) = lab.fails(&["run", "--mark", "0x3", "--forward", "xdp"]);
    assert_eq!((code, said.contains("use --forward linux, or --mark none")), (2, true), "{said}");
    let mut daemon = lab.run(&["--mark", "0xf0"]);
    lab.ok(&["identity", "bind", "10.1.0.8", fourth]);
    daemon.stop();
}
