//! `tidegate intent learn`: from what was seen to an intent that a person reviews.

use super::compare::Role;
use super::observed::{Observed, PairSeen, Sight, With};
use super::propose_deeds;
use super::tenant::tenant;
use crate::policy::intent::hello::NamePattern;
use crate::policy::ports::{has_ports, protocol_and_port};
use crate::policy::spiffe::SpiffePattern;
use crate::policy::time::duration_text;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// From here on systems choose ports by themselves (Linux: `net.ipv4.ip_local_port_range`).
const EPHEMERAL: u16 = 32_768;
/// So many such ports with one peer are no services.
const MANY_PORTS: usize = 3;

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Denied,
    OtherTenant,
    NoIdentity,
    Ambiguous,
    EphemeralPorts,
    SeenOnce,
}

impl Why {
    fn words(self) -> &'static str {
        match self {
            Self::Denied => "denied each time: what does not work is not needed, or the policy lacks it",
            Self::OtherTenant => {
                "another namespace or trust domain: what is normal there says nothing here, and its owner has a say"
            }
            Self::NoIdentity => "no identity: who has the address can change",
            Self::Ambiguous => "several identities claim the address: nobody knows who it was",
            Self::EphemeralPorts => "many ephemeral ports of one peer: no service, but what one hands out",
            Self::SeenOnce => "seen once: that may be an accident, or a job that runs daily",
        }
    }
}

/// What is expected with one peer, of one kind of hello.
type Item = (String, BTreeSet<String>, BTreeSet<String>);

/// An intent as YAML. What is left out stands there as comments, by reason, in a form that can be moved in.
pub fn propose(who: &SpiffePattern, observed: &Observed, over: SignedDuration, now: Timestamp) -> String {
    let from = now - over;
    let of_window = || observed.pairs.iter().filter(move |one| one.sight.last_seen >= from);
    let mut text = head(who, observed, over, now, of_window().count());
    let selector = if who.as_str().contains('*') {
        format!("spiffePath: \"{}\"", who.as_str())
    } else {
        format!("spiffeId: {}", who.as_str())
    };
    let name = name(who);
    let _ = write!(
        text,
        "apiVersion: tidegate.dev/v1\nkind: Intent\nmetadata:\n  name: {name}\nspec:\n  identities: [{{{selector}}}]\n  \
         workload: service # or batch, or agent\n  # owner: who answers for it\n"
    );
    for (role, side, end) in [(Role::Client, "client", "to"), (Role::Server, "server", "from")] {
        let seen: Vec<_> = of_window().filter(|one| one.pair.role == role).collect();
        write_side(&mut text, who, &seen, side, end);
    }
    propose_deeds::write(&mut text, observed, from);
    text.push_str("  response: {action: flag} # or {action: contain, for: 15m}\n");
    text
}

fn head(
    who: &SpiffePattern,
    observed: &Observed,
    over: SignedDuration,
    now: Timestamp,
    pairs: usize,
) -> String {
    let length = duration_text(over.as_secs().unsigned_abs());
    let mut text = format!(
        "# What {} was seen to do in the {length} before {now:.0}: a proposal. Read it: what was seen is not what is right.\n",
        who.as_str()
    );
    if observed.since > now - over {
        let _ = writeln!(
            text,
            "# Nothing was kept before {:.0}: that is less than was asked for.",
            observed.since
        );
    }
    let older = observed.pairs.len() - pairs;
    if older > 0 {
        let _ = writeln!(text, "# {older} more were seen before that, and not since.");
    }
    if observed.not_kept > 0 {
        let _ = writeln!(
            text,
            "# {} connections were more than is kept of an identity, as of one that scans. They are not in here.",
            observed.not_kept
        );
    }
    text
}

fn write_side(text: &mut String, who: &SpiffePattern, seen: &[&PairSeen], side: &str, end: &str) {
    let mut kept: BTreeMap<Item, BTreeSet<String>> = BTreeMap::new();
    let mut left: BTreeMap<Why, BTreeMap<Item, BTreeSet<String>>> = BTreeMap::new();
    for ((peer, service), (sight, is_handed_out)) in &merged(seen) {
        let (sni, alpn) = if side == "client" { hellos(sight) } else { Default::default() };
        let of = match why(who, peer, sight, *is_handed_out) {
            None => &mut kept,
            Some(why) => left.entry(why).or_default(),
        };
        of.entry((selector(peer), sni, alpn)).or_default().insert(service.clone());
    }
    if kept.is_empty() {
        let _ = writeln!(text, "  {side}: []");
    } else {
        let _ = writeln!(text, "  {side}:");
    }
    for (item, ports) in &kept {
        let _ = writeln!(text, "    - {}", line(item, ports, end));
    }
    for (why, items) in &left {
        let _ = writeln!(text, "    # Left out, {}:", why.words());
        for (item, ports) in items {
            let _ = writeln!(text, "    #- {}", line(item, ports, end));
        }
    }
}

fn why(who: &SpiffePattern, peer: &With, sight: &Sight, is_handed_out: bool) -> Option<Why> {
    let other = |id: &str| tenant(id) != tenant(who.as_str());
    match peer {
        _ if sight.denied > 0 && sight.denied >= sight.count => Some(Why::Denied),
        With::Ambiguous(_) => Some(Why::Ambiguous),
        With::Address(_) => Some(Why::NoIdentity),
        With::SpiffeId(id) if other(id.as_str()) => Some(Why::OtherTenant),
        _ if is_handed_out => Some(Why::EphemeralPorts),
        _ if sight.count <= 1 => Some(Why::SeenOnce),
        With::SpiffeId(_) => None,
    }
}

/// By peer and service, whoever of the class it was: what two of it did once was seen twice. And whether the port is one of many
/// ephemeral ones of the peer.
fn merged<'s>(seen: &[&'s PairSeen]) -> BTreeMap<(&'s With, String), (Sight, bool)> {
    let is_ephemeral = |one: &PairSeen| has_ports(one.pair.proto) && one.pair.port >= EPHEMERAL;
    let mut handed_out: BTreeMap<(&With, u8), BTreeSet<u16>> = BTreeMap::new();
    for one in seen.iter().filter(|one| is_ephemeral(one)) {
        handed_out.entry((&one.pair.peer, one.pair.proto)).or_default().insert(one.pair.port);
    }
    let mut merged = BTreeMap::new();
    for one in seen {
        let ports = handed_out.get(&(&one.pair.peer, one.pair.proto));
        let is_handed_out = is_ephemeral(one) && ports.is_some_and(|ports| ports.len() >= MANY_PORTS);
        let key = (&one.pair.peer, protocol_and_port(one.pair.proto, one.pair.port));
        let add = |(sight, _): &mut (Sight, bool)| sight.add(&one.sight);
        merged.entry(key).and_modify(add).or_insert_with(|| (one.sight.clone(), is_handed_out));
    }
    merged
}

fn hellos(sight: &Sight) -> (BTreeSet<String>, BTreeSet<String>) {
    let is_name = |name: &String| name.parse::<NamePattern>().is_ok() && !name.starts_with("*.");
    if sight.unclear || sight.sni.is_empty() || !sight.sni.iter().all(is_name) {
        return Default::default();
    }
    (sight.sni.clone(), sight.alpn.clone())
}

fn selector(peer: &With) -> String {
    match peer {
        With::SpiffeId(id) => format!("{{spiffeId: {id}}}"),
        With::Address(address) | With::Ambiguous(address) => format!("{{cidr: \"{address}\"}}"),
    }
}

/// As one line of flow style, which a comment can hold.
fn line((peer, sni, alpn): &Item, ports: &BTreeSet<String>, end: &str) -> String {
    let quoted = |texts: &BTreeSet<String>| {
        let texts: Vec<_> =
            texts.iter().map(|text| serde_json::Value::from(text.as_str()).to_string()).collect();
        texts.join(", ")
    };
    let ports: Vec<_> = ports.iter().map(String::as_str).collect();
    let mut line = format!("{{{end}: [{peer}], ports: [{}]", ports.join(", "));
    for (name, texts) in [("sni", sni), ("alpn", alpn)] {
        if !texts.is_empty() {
            let _ = write!(line, ", {name}: [{}]", quoted(texts));
        }
    }
    line + "}"
}

/// `ns-shop-sa-orders`
fn name(who: &SpiffePattern) -> String {
    let path = who.as_str().strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    let (domain, path) = path.unwrap_or((who.as_str(), ""));
    let text = if path.is_empty() { domain } else { path };
    let right = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' };
    let name: String = text.replace('*', "all").chars().map(right).take(200).collect();
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Documents;
    use crate::policy::selector::Selector;

    const WHO: &str = "spiffe://a.example/ns/shop/sa/web";

    fn now() -> Timestamp {
        "2126-11-25T11:00:00Z".parse().expect("time")
    }

    fn one(role: &str, peer: serde_json::Value, service: (u8, u16), counts: (u64, u64)) -> PairSeen {
        one_of(WHO, role, peer, service, counts)
    }

    fn one_of(
        id: &str,
        role: &str,
        peer: serde_json::Value,
        (proto, port): (u8, u16),
        (count, denied): (u64, u64),
    ) -> PairSeen {
        let at = now() - SignedDuration::from_hours(1);
        serde_json::from_value(serde_json::json!({
            "identity": id, "role": role, "peer": peer, "proto": proto, "port": port,
            "first_seen": at, "last_seen": at, "count": count, "denied": denied,
        }))
        .expect("a pair")
    }

    fn id(path: &str) -> serde_json::Value {
        serde_json::json!({"spiffe_id": format!("spiffe://a.example/{path}")})
    }

    fn proposed(who: &str, pairs: Vec<PairSeen>) -> String {
        let since = now() - SignedDuration::from_hours(30);
        let observed = Observed { since, not_kept: 0, pairs, deeds: Vec::new(), deeds_not_kept: 0 };
        propose(&who.parse().expect("a pattern"), &observed, SignedDuration::from_hours(24), now())
    }

    #[test]
    fn what_was_seen_again_is_proposed_and_the_rest_stands_there_as_comments_with_the_reason() {
        let mut tls = one("client", id("ns/shop/sa/api"), (6, 443), (9, 1));
        tls.sight.sni = ["api.shop.example".to_owned()].into();
        tls.sight.alpn = ["h2".to_owned()].into();
        let mut old = one("client", id("ns/shop/sa/gone"), (6, 443), (9, 0));
        old.sight.last_seen = now() - SignedDuration::from_hours(25);
        let mut pairs = vec![
            tls,
            old,
            one("client", id("ns/shop/sa/db"), (6, 5432), (40, 0)),
            one("client", id("ns/shop/sa/db"), (6, 5433), (2, 0)),
            one("client", id("ns/shop/sa/cron"), (6, 80), (1, 0)),
            one("client", id("ns/bank/sa/db"), (6, 5432), (7, 0)),
            one("client", id("ns/shop/sa/db"), (6, 22), (5, 5)),
            one("client", serde_json::json!({"address": "fd00::53"}), (17, 53), (99, 0)),
            one("client", serde_json::json!({"ambiguous": "10.0.0.9"}), (6, 80), (3, 0)),
            one("server", id("ns/shop/sa/front"), (6, 8080), (12, 0)),
            one("server", id("ns/shop/sa/front"), (1, 8), (12, 0)),
        ];
        pairs.extend((0..3).map(|n| one("client", id("ns/shop/sa/ftp"), (6, 40_000 + n), (4, 0))));
        let text = proposed(WHO, pairs);
        assert_eq!(
            text,
            "\
# What spiffe://a.example/ns/shop/sa/web was seen to do in the 1d00h before 2126-11-25T11:00:00Z: a proposal. Read it: what was seen is not what is right.
# 1 more were seen before that, and not since.
apiVersion: tidegate.dev/v1
kind: Intent
metadata:
  name: ns-shop-sa-web
spec:
  identities: [{spiffeId: spiffe://a.example/ns/shop/sa/web}]
  workload: service # or batch, or agent
  # owner: who answers for it
  client:
    - {to: [{spiffeId: spiffe://a.example/ns/shop/sa/api}], ports: [tcp/443], sni: [\"api.shop.example\"], alpn: [\"h2\"]}
    - {to: [{spiffeId: spiffe://a.example/ns/shop/sa/db}], ports: [tcp/5432, tcp/5433]}
    # Left out, denied each time: what does not work is not needed, or the policy lacks it:
    #- {to: [{spiffeId: spiffe://a.example/ns/shop/sa/db}], ports: [tcp/22]}
    # Left out, another namespace or trust domain: what is normal there says nothing here, and its owner has a say:
    #- {to: [{spiffeId: spiffe://a.example/ns/bank/sa/db}], ports: [tcp/5432]}
    # Left out, no identity: who has the address can change:
    #- {to: [{cidr: \"fd00::53\"}], ports: [udp/53]}
    # Left out, several identities claim the address: nobody knows who it was:
    #- {to: [{cidr: \"10.0.0.9\"}], ports: [tcp/80]}
    # Left out, many ephemeral ports of one peer: no service, but what one hands out:
    #- {to: [{spiffeId: spiffe://a.example/ns/shop/sa/ftp}], ports: [tcp/40000, tcp/40001, tcp/40002]}
    # Left out, seen once: that may be an accident, or a job that runs daily:
    #- {to: [{spiffeId: spiffe://a.example/ns/shop/sa/cron}], ports: [tcp/80]}
  server:
    - {from: [{spiffeId: spiffe://a.example/ns/shop/sa/front}], ports: [icmp/8, tcp/8080]}
  response: {action: flag} # or {action: contain, for: 15m}
"
        );
        let documents = Documents::parse("learned.yaml", &text, now()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(documents.intents[0].client.as_ref().map(Vec::len), Some(2));
        // What was left out can be moved in as it stands.
        let moved = text.replace("    #- ", "    - ");
        let documents = Documents::parse("learned.yaml", &moved, now()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(documents.intents[0].client.as_ref().map(Vec::len), Some(8));
    }

    #[test]
    fn jobs_of_one_pattern_are_one_class() {
        let job = |n: u8| {
            one_of(
                &format!("spiffe://a.example/ns/batch/job/{n}"),
                "client",
                id("ns/batch/sa/store"),
                (6, 9000),
                (1, 0),
            )
        };
        let text = proposed("spiffe://a.example/ns/batch/job/*", vec![job(1), job(2)]);
        let documents = Documents::parse("learned.yaml", &text, now()).unwrap_or_else(|e| panic!("{e}"));
        let intent = &documents.intents[0];
        assert!(matches!(&intent.identities[0], Selector::SpiffePath(_)));
        assert_eq!(intent.client.as_ref().map(Vec::len), Some(1));
        assert_eq!((intent.name.as_str(), intent.server.as_deref()), ("ns-batch-job-all", Some(&[][..])));
    }

    #[test]
    fn a_name_that_may_be_a_cover_is_not_learned() {
        let mut tls = one("client", id("ns/shop/sa/api"), (6, 443), (9, 0));
        tls.sight.sni = ["cover.example".to_owned()].into();
        tls.sight.unclear = true;
        assert!(!proposed(WHO, vec![tls]).contains("sni"));
    }
}
