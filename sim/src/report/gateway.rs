//! What the gateway saw: who talked to whom, what was dropped and why, how handshakes went.

use std::collections::BTreeMap;

use super::columns::{Cell, Look, columns};
use super::names::Names;
use super::style::Style;
use crate::expect::handshake;
use crate::seen::{End, Flow, Seen};
use crate::topology::plan::{HandshakeKind, HandshakeOutcome};

/// The three tables.
pub fn tables(seen: &Seen, names: &Names, style: &Style) -> String {
    let all = if names.prefix().is_empty() { String::new() } else { format!("all under {}", names.prefix()) };
    let part = |title: &str, note: &str, table: Option<String>, none: &str| {
        let table = table.unwrap_or_else(|| format!("  {}\n", style.dim(none)));
        format!("\n{}  {}\n{table}", style.bold(title), style.dim(note)).replace("  \n", "\n")
    };
    part("WHO TALKED TO WHOM", &all, talks(seen, names, style), "nobody")
        + &part("WHAT WAS DROPPED, AND WHY", "", drops(seen, names, style), "nothing")
        + &part(
            "HOW HANDSHAKES WENT",
            "as the gateway saw them",
            handshakes(seen, names, style),
            "there were none",
        )
}

/// `8443/TCP`, or the protocol alone.
fn port(protocol: &str, end: &End) -> String {
    let has_port = end.port != 0 && !protocol.starts_with("ICMP");
    if has_port { format!("{}/{protocol}", end.port) } else { protocol.to_string() }
}

#[derive(Default)]
struct Versions {
    v4: bool,
    v6: bool,
}

impl Versions {
    fn add(&mut self, end: &End) {
        self.v4 |= end.address.is_ipv4();
        self.v6 |= end.address.is_ipv6();
    }

    fn words(&self) -> &'static str {
        match (self.v4, self.v6) {
            (true, true) => "4 + 6",
            (false, true) => "6",
            _ => "4",
        }
    }
}

#[derive(Default)]
struct Talk {
    versions: Versions,
    flows: u64,
    packets: u64,
    bytes: u64,
    ends: BTreeMap<&'static str, u64>,
}

fn talks(seen: &Seen, names: &Names, style: &Style) -> Option<String> {
    let mut talks = BTreeMap::<_, Talk>::new();
    for flow in seen.flows.iter().filter(|f| f.verdict != "DROPPED" && !f.is_infrastructure()) {
        let key =
            (names.of(&flow.source), names.of(&flow.destination), port(&flow.protocol, &flow.destination));
        let talk = talks.entry(key).or_default();
        talk.versions.add(&flow.source);
        talk.flows += 1;
        talk.packets += flow.packets;
        talk.bytes += flow.bytes;
        *talk.ends.entry(end_words(flow)).or_default() += 1;
    }
    let rows: Vec<_> = talks
        .into_iter()
        .map(|((from, to, port), talk)| {
            let ends =
                talk.ends.iter().map(|(words, n)| format!("{n} {words}")).collect::<Vec<_>>().join(", ");
            vec![
                Cell::new(from),
                Cell::new(to),
                Cell::new(port),
                Cell::new(talk.versions.words()),
                Cell::new(talk.flows.to_string()),
                Cell::new(talk.packets.to_string()),
                Cell::new(bytes(talk.bytes)),
                Cell::new(ends),
            ]
        })
        .collect();
    let titles = ["FROM", "TO", "PORT", "IP", ">FLOWS", ">PACKETS", ">BYTES", "HOW THEY ENDED"];
    (!rows.is_empty()).then(|| columns(&titles, &rows, style))
}

/// Zeek's conn_state in a word.
fn end_words(flow: &Flow) -> &'static str {
    match flow.conn_state.as_deref() {
        _ if flow.protocol.starts_with("ICMP") => "echo",
        Some("SF") if flow.protocol == "TCP" => "closed",
        Some("SF") => "answered",
        Some("S0") => "no answer",
        Some("S1") => "open",
        Some("REJ") => "refused",
        Some("RSTO") => "reset by FROM",
        Some("RSTR") => "reset by TO",
        Some("S2" | "S3") => "half closed",
        Some("SH" | "SHR" | "RSTOS0" | "RSTRH") => "broken off",
        _ => "other",
    }
}

fn drops(seen: &Seen, names: &Names, style: &Style) -> Option<String> {
    let mut drops = BTreeMap::<_, (Versions, u64)>::new();
    for drop in &seen.drops {
        let name = |end: &Option<End>| end.as_ref().map_or_else(|| "?".into(), |e| names.of(e));
        let port = drop.destination.as_ref().map_or_else(String::new, |e| port(&drop.protocol, e));
        let key = (drop.reason.clone(), drop.rule.clone(), name(&drop.source), name(&drop.destination), port);
        let (versions, packets) = drops.entry(key).or_default();
        if let Some(source) = &drop.source {
            versions.add(source);
        }
        *packets += drop.packets;
    }
    let rows: Vec<_> = drops
        .into_iter()
        .map(|((reason, rule, from, to, port), (versions, packets))| {
            let rule = match rule {
                Some(rule) => Cell::new(rule),
                None => Cell(no_rule(&reason).into(), Look::Dim),
            };
            vec![
                Cell::new(packets.to_string()),
                Cell(reason, Look::Stopped),
                rule,
                Cell::new(from),
                Cell::new(to),
                Cell::new(port),
                Cell::new(versions.words()),
            ]
        })
        .collect();
    let titles = [">PACKETS", "REASON", "RULE", "FROM", "TO", "PORT", "IP"];
    (!rows.is_empty()).then(|| columns(&titles, &rows, style))
}

fn no_rule(reason: &str) -> &'static str {
    match reason {
        "POLICY_DENIED" | "INVALID_IDENTITY" => "no rule allows it",
        "BLOCKLISTED" => "on a blocklist",
        _ => "",
    }
}

struct Handshakes {
    kind: String,
    outcome: HandshakeOutcome,
    detail: String,
    times: Vec<u64>,
    count: u64,
}

fn handshakes(seen: &Seen, names: &Names, style: &Style) -> Option<String> {
    let mut found = BTreeMap::<_, Handshakes>::new();
    for flow in &seen.flows {
        for kind in [HandshakeKind::Tcp, HandshakeKind::Tls] {
            let Some(outcome) = handshake(flow, kind) else { continue };
            let (words, ns) = match kind {
                HandshakeKind::Tcp => ("TCP".to_string(), flow.tcp_handshake_ns),
                HandshakeKind::Tls => (
                    format!("TLS {}", flow.tls_version.as_deref().unwrap_or("")).trim().to_string(),
                    flow.tls_handshake_ns,
                ),
            };
            let detail = detail(flow, kind, outcome);
            let key = (
                names.of(&flow.source),
                names.of(&flow.destination),
                words.clone(),
                outcome.words(),
                detail.clone(),
            );
            let all = found.entry(key).or_insert(Handshakes {
                kind: words,
                outcome,
                detail,
                times: Vec::new(),
                count: 0,
            });
            all.count += 1;
            all.times.extend(ns);
        }
    }
    let completed = found.values().filter(|h| h.outcome == HandshakeOutcome::Completed);
    let longest = completed.map(|h| median(&h.times)).max().unwrap_or(0);
    let rows: Vec<_> = found
        .into_iter()
        .map(|((from, to, ..), all)| {
            let look = if all.outcome == HandshakeOutcome::Completed { Look::Good } else { Look::Stopped };
            let completed = all.outcome == HandshakeOutcome::Completed;
            let typical = median(&all.times);
            let timed = completed && typical > 0;
            let shown = |ns: u64| if timed { time(ns) } else { String::new() };
            vec![
                Cell::new(from),
                Cell::new(to),
                Cell::new(all.kind),
                Cell(format!("{}{}", in_short(all.outcome), all.detail), look),
                Cell::new(all.count.to_string()),
                Cell::new(shown(typical)),
                Cell::new(shown(all.times.iter().copied().max().unwrap_or(0))),
                Cell(if timed { bar(typical, longest) } else { String::new() }, Look::Dim),
            ]
        })
        .collect();
    let titles = ["FROM", "TO", "KIND", "OUTCOME", ">COUNT", ">MEDIAN", ">LONGEST", ""];
    (!rows.is_empty()).then(|| columns(&titles, &rows, style))
}

fn in_short(outcome: HandshakeOutcome) -> &'static str {
    match outcome {
        HandshakeOutcome::NoAnswer => "no answer",
        HandshakeOutcome::Alert => "alert",
        other => other.words(),
    }
}

/// What is known of the alert, and how.
fn detail(flow: &Flow, kind: HandshakeKind, outcome: HandshakeOutcome) -> String {
    if kind == HandshakeKind::Tcp || outcome == HandshakeOutcome::Completed {
        return String::new();
    }
    match (&flow.tls_alert, flow.tls_inferred) {
        (Some(alert), _) => format!(": {alert}"),
        (None, true) => " (inferred)".into(),
        (None, false) => String::new(),
    }
}

fn median(times: &[u64]) -> u64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// Up to six blocks, by eighths.
fn bar(value: u64, most: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (value * 48).checked_div(most).unwrap_or(0).max(1) as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// `2.0 s`, `3.1 ms`, `240 µs`.
pub fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// `812 B`, `21.4 kB`.
fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(address: &str, port: u16, id: Option<&str>) -> End {
        let spiffe_id = id.map(|id| format!("spiffe://acme.example/ns/shop/sa/{id}"));
        End { address: address.parse().expect(address), port, spiffe_id }
    }

    fn flow(state: &str, tls: Option<(&str, u64)>) -> Flow {
        Flow {
            source: end("10.1.0.2", 40_000, Some("orders")),
            destination: end("10.2.0.2", 8443, Some("payments")),
            protocol: "TCP".into(),
            verdict: "FORWARDED".into(),
            reason: "FORWARDED".into(),
            rule: Some("shop/shop-pays".into()),
            conn_state: Some(state.into()),
            tls: tls.map(|(state, _)| state.into()),
            tls_version: tls.map(|_| "1.3".into()),
            tls_alert: None,
            tls_inferred: tls.is_some(),
            packets: 20,
            bytes: 5_000,
            tcp_handshake_ns: Some(240_000),
            tls_handshake_ns: tls.map(|(_, ns)| ns),
        }
    }

    #[test]
    fn the_tables_say_who_what_and_how_long() {
        let dropped = crate::seen::Drop {
            reason: "POLICY_DENIED".into(),
            rule: None,
            source: Some(end("fd00::3", 40_001, None)),
            destination: Some(end("fd00::2", 8443, Some("payments"))),
            protocol: "TCP".into(),
            packets: 3,
        };
        let flows = vec![
            flow("SF", Some(("established", 3_100_000))),
            flow("SF", Some(("established", 6_200_000))),
            flow("REJ", None),
        ];
        let seen = Seen { flows, drops: vec![dropped], ..Seen::default() };
        let mut names = Names::default();
        names.learn(&seen);
        let expected = "
WHO TALKED TO WHOM  all under spiffe://acme.example/
  FROM               TO                   PORT      IP  FLOWS  PACKETS    BYTES  HOW THEY ENDED
  ns/shop/sa/orders  ns/shop/sa/payments  8443/TCP  4       3       60  15.0 kB  2 closed, 1 refused

WHAT WAS DROPPED, AND WHY
  PACKETS  REASON         RULE               FROM             TO                   PORT      IP
        3  POLICY_DENIED  no rule allows it  fd00::3 (no ID)  ns/shop/sa/payments  8443/TCP  6

HOW HANDSHAKES WENT  as the gateway saw them
  FROM               TO                   KIND     OUTCOME    COUNT  MEDIAN  LONGEST
  ns/shop/sa/orders  ns/shop/sa/payments  TCP      completed      2  240 µs   240 µs  ▍
  ns/shop/sa/orders  ns/shop/sa/payments  TCP      refused        1
  ns/shop/sa/orders  ns/shop/sa/payments  TLS 1.3  completed      2  3.1 ms   6.2 ms  ██████
";
        assert_eq!(tables(&seen, &names, &Style::plain()), expected);
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        assert_eq!(bar(100, 100), "█".repeat(6));
        assert_eq!(bar(50, 100), "█".repeat(3));
        assert_eq!(bar(0, 100), "▏");
        assert_eq!(bar(0, 0), "▏");
    }

    #[test]
    fn quantities_have_units() {
        assert_eq!(time(240_500), "240 µs");
        assert_eq!(time(3_140_000), "3.1 ms");
        assert_eq!(time(2_010_000_000), "2.0 s");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(21_440), "21.4 kB");
        assert_eq!(median(&[5, 1, 9]), 5);
    }
}
