//! A policy in nftables' words.
//!
//! Written from what docs/policy.md says, not from what the compiler makes of it. The mark holds what is known of a
//! packet: bits 0-7 the workload of the sender, 8-15 that of the receiver, 16 and 17 what policy says of it, 18 that a tier passes it on.

use super::policy::{Action, End, Net, Policy, Ports, Rule, Selector};
use std::fmt::Write;
use std::net::IpAddr;

const ALLOWED: &str = "meta mark set meta mark or 0x10000 return";
const DENIED: &str = "meta mark set meta mark or 0x20000 return";
const PASSED: &str = "meta mark set meta mark or 0x40000 return";
/// Ends the rules of a tier.
const SAID: &str = "meta mark and 0x70000 != 0 return";
/// Ends all rules.
const DECIDED: &str = "meta mark and 0x30000 != 0 return";
const NEXT_TIER: &str = "meta mark set meta mark and 0xfffbffff";

/// The whole ruleset, which replaces whatever was there.
pub fn ruleset(policy: &Policy, stateful: bool) -> String {
    let mut text = String::from("flush ruleset\ntable inet twin {\n");
    chain(&mut text, "sender", &who(policy, "saddr", 0));
    chain(&mut text, "receiver", &who(policy, "daddr", 8));
    rules(&mut text, policy, Way::Ahead);
    rules(&mut text, policy, Way::Back);
    chain(
        &mut text,
        "either",
        // In mid-stream nobody was seen to open it: the other direction may be the one that is allowed.
        &["meta mark set meta mark and 0xffff".into(), "jump back".into(), VERDICT.into(), "drop".into()],
    );
    chain(&mut text, "answer", &["jump back".into(), VERDICT.into(), "drop".into()]);
    let mut forward =
        vec!["udp dport 9 meta mark 0 ip daddr { 10.64.255.254, 10.65.255.254 } accept".to_owned()];
    forward.push("tcp flags & (fin | syn | rst | ack) == 0 drop".into());
    forward.push("tcp flags & (syn | fin) == (syn | fin) drop".into());
    forward.push("tcp flags & (syn | rst) == (syn | rst) drop".into());
    // Ahead of what is established: errors about others' connections are not taken from who is blocked.
    for net in &policy.blocked {
        forward.push(format!("{} saddr {net} drop", family(net)));
        forward.push(format!("{} daddr {net} drop", family(net)));
    }
    if stateful {
        forward.push("ct state established,related accept".into());
    }
    if policy.documents.is_empty() {
        forward.push("accept".into());
    }
    forward.extend(["jump sender".into(), "jump receiver".into()]);
    forward.push("tcp flags & (syn | ack) == (syn | ack) goto answer".into());
    // An answer to a question that nobody has seen: who asked has to be allowed to.
    forward.push("icmp type echo-reply goto answer".into());
    forward.push("icmpv6 type echo-reply goto answer".into());
    forward.push("jump ahead".into());
    forward.push(VERDICT.into());
    forward.push("meta l4proto tcp tcp flags & syn == 0 goto either".into());
    let head = ["type filter hook forward priority 0; policy drop;".to_owned()];
    chain(&mut text, "forward", &head.into_iter().chain(forward).collect::<Vec<_>>());
    text + "}\n"
}

const VERDICT: &str = "meta mark and 0x10000 == 0x10000 accept";

fn chain(text: &mut String, name: &str, rules: &[String]) {
    let _ = writeln!(text, " chain {name} {{");
    for rule in rules {
        let _ = writeln!(text, "  {rule}");
    }
    let _ = writeln!(text, " }}");
}

fn family(net: &Net) -> &'static str {
    if net.addr.is_ipv4() { "ip" } else { "ip6" }
}

/// Whose an address is: the longest prefix comes first.
fn who(policy: &Policy, field: &str, shift: u32) -> Vec<String> {
    let mut nets: Vec<(Net, usize)> = Vec::new();
    for (n, workload) in policy.workloads.iter().enumerate() {
        nets.extend(workload.nets.iter().map(|net| (*net, n)));
    }
    nets.sort_by_key(|(net, _)| std::cmp::Reverse(net.bits));
    nets.iter()
        .map(|(net, n)| {
            let mark = (n + 1) << shift;
            format!("{} {field} {net} meta mark set meta mark or {mark:#x} return", family(net))
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Ahead,
    Back,
}

impl Way {
    fn name(self) -> &'static str {
        if self == Self::Ahead { "ahead" } else { "back" }
    }
}

/// Lower tiers first; in a tier lower priorities, those without one last; then denies, passes, allows; then the order of the file. A chain a
/// rule, so that what it takes away can end it; one a tier, and one of all tiers.
fn rules(text: &mut String, policy: &Policy, way: Way) {
    let name = way.name();
    let mut tiers: Vec<u32> = policy.documents.iter().map(|document| document.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let mut all = Vec::new();
    for tier in tiers {
        let of_tier = policy.documents.iter().enumerate().filter(|(_, document)| document.tier == tier);
        let mut order: Vec<_> = of_tier
            .flat_map(|(n, document)| {
                let rank = (document.priority.is_none(), document.priority);
                document.rules.iter().enumerate().map(move |(k, rule)| ((rank, rule.action), n, k, rule))
            })
            .collect();
        order.sort_by_key(|(rank, ..)| *rank);
        let mut lines = Vec::new();
        for (_, n, k, rule) in order {
            chain(text, &format!("{name}_p{n}_r{k}"), &one(policy, rule, way));
            lines.extend([format!("jump {name}_p{n}_r{k}"), SAID.to_owned()]);
        }
        chain(text, &format!("{name}_{tier}"), &lines);
        all.extend([format!("jump {name}_{tier}"), DECIDED.to_owned(), NEXT_TIER.to_owned()]);
    }
    chain(text, name, &all);
}

fn one(policy: &Policy, rule: &Rule, way: Way) -> Vec<String> {
    let verdict = match rule.action {
        Action::Allow => ALLOWED,
        Action::Deny if rule.audit => ALLOWED,
        Action::Deny => DENIED,
        Action::Pass => PASSED,
    };
    let (from_field, to_field) = match way {
        Way::Ahead => (("saddr", 0), ("daddr", 8)),
        Way::Back => (("daddr", 8), ("saddr", 0)),
    };
    let mut lines = Vec::new();
    for (end, field) in [(&rule.from, from_field), (&rule.to, to_field)] {
        lines.extend(
            end.not.iter().filter_map(|s| address(policy, s, field)).map(|taken| format!("{taken} return")),
        );
    }
    for from in matches(policy, &rule.from, from_field) {
        for to in matches(policy, &rule.to, to_field) {
            if (from.contains("ip ") && to.contains("ip6 ")) || (from.contains("ip6 ") && to.contains("ip "))
            {
                continue; // nft refuses what no packet can be
            }
            for service in &rule.ports {
                lines.push(format!("{from} {to} {} {verdict}", ports(*service, way)));
            }
        }
    }
    lines
}

fn matches(policy: &Policy, end: &End, field: (&str, u32)) -> Vec<String> {
    if end.any.is_empty() {
        return vec![String::new()];
    }
    end.any.iter().filter_map(|selector| address(policy, selector, field)).collect()
}

/// `None` where a selector selects nobody.
fn address(policy: &Policy, selector: &Selector, (field, shift): (&str, u32)) -> Option<String> {
    match policy.selected(selector) {
        Some(found) if found.is_empty() => None,
        Some(found) => {
            let marks: Vec<String> = found.iter().map(|n| format!("{:#x}", (n + 1) << shift)).collect();
            Some(format!("meta mark and {:#x} {{ {} }}", 0xff << shift, marks.join(", ")))
        }
        None => match selector {
            Selector::Cidr(net) if net.bits == 0 => Some(match net.addr {
                IpAddr::V4(_) => "meta nfproto ipv4".into(),
                IpAddr::V6(_) => "meta nfproto ipv6".into(),
            }),
            Selector::Cidr(net) => Some(format!("{} {field} {net}", family(net))),
            _ => Some(String::new()),
        },
    }
}

fn ports(ports: Ports, way: Way) -> String {
    let field = if way == Way::Ahead { "dport" } else { "sport" };
    match ports {
        Ports::Any => String::new(),
        Ports::Protocol("icmpv6") => "meta l4proto ipv6-icmp".into(),
        Ports::Protocol(name) => format!("meta l4proto {name}"),
        Ports::Range(name @ ("icmp" | "icmpv6"), first, last) => types(name, first, last, way),
        Ports::Range(name, first, last) if first == last => format!("{name} {field} {first}"),
        Ports::Range(name, first, last) => format!("{name} {field} {first}-{last}"),
    }
}

/// Types of ICMP. Of an answer, which is a reply, it is the request that a rule has to name; that of an IPv4 host has type 8
/// (RFC 792), that of an IPv6 host type 128 (RFC 4443, section 4.1).
fn types(name: &str, first: u16, last: u16, way: Way) -> String {
    let request = if name == "icmp" { 8 } else { 128 };
    match way {
        Way::Ahead => format!("{name} type {first}-{last}"),
        Way::Back if (first..=last).contains(&request) => format!("{name} type echo-reply"),
        // No answer is a request.
        Way::Back => format!("{name} type echo-request"),
    }
}
