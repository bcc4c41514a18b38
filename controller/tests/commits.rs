//! Commits as fast as they go, under full load: no packet is judged by half of one revision and half of another.

use datapath::abi::{Action, Config, Event, EventKind, Lost, MapName, Reason};
use etherparse::PacketBuilder;
use loader::{Kernel, LoadOptions, Maps};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tidegate::daemon::commit::Committed;
use tidegate::policy::Documents;
use tidegate::state::{Author, PolicySet, Store};

/// Commits that the test makes.
const COMMITS: u32 = 200;
/// Packets of one tuple: the first is judged, the rest find a record, of this epoch or of the one before.
const REPEAT: u32 = 3;

/// Two workloads that change places, a rule for each that only its own revision has, a block that comes and goes. Of a
/// mixture, one of the `mixed` rules would tell.
fn revision(even: bool) -> Documents {
    let (first, second) = if even { ("orders", "reports") } else { ("reports", "orders") };
    let block = if even {
        "---\napiVersion: tidegate.dev/v1\nkind: Blocklist\nmetadata: {name: bad}\nspec: {entries: [{cidr: 10.9.0.4/32}]}\n"
    } else {
        ""
    };
    let name = if even { "even" } else { "odd" };
    let text = format!(
        "apiVersion: tidegate.dev/v1
kind: Workload
metadata: {{name: one}}
spec: {{spiffeId: spiffe://acme.example/{first}, addresses: [10.9.0.2/32, 10.9.0.4/32]}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {{name: two}}
spec: {{spiffeId: spiffe://acme.example/{second}, addresses: [10.9.0.3/32]}}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  rules:
    - {{name: right, action: allow, from: [{{spiffeId: spiffe://acme.example/{first}}}], to: [{{any: true}}], ports: [tcp/443]}}
    - {{name: mixed, action: deny, from: [{{spiffeId: spiffe://acme.example/{second}}}], to: [{{any: true}}], ports: [tcp/443]}}
{block}"
    );
    Documents::parse("revision.yaml", &text, jiff::Timestamp::now()).expect("documents")
}

/// The same two where nothing but the rules changes: the workloads stay, and the rules of the one revision go when the other's come.
fn rules_alone() -> [Documents; 2] {
    let [even, odd] = [true, false].map(revision);
    let text = |policy: &Documents| serde_json::to_string(&policy.policies).expect("policies");
    // Who is who in the even one is who is who in both.
    let swapped =
        text(&odd).replace("/orders", "/.").replace("/reports", "/orders").replace("/.", "/reports");
    let policies = serde_json::from_str(&swapped).expect("policies");
    let even = Documents { blocklists: Vec::new(), ..even };
    [Documents { policies, ..even.clone() }, even]
}

fn frame(source: u8, n: u64) -> Vec<u8> {
    let [_, _, _, _, _, a, b, c] = n.to_be_bytes();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 9, 0, source], [10, 8, 0, a], 64)
        .tcp(u16::from_be_bytes([b, c]), 443, 1, 1_000)
        .syn();
    let mut frame = Vec::new();
    builder.write(&mut frame, &[]).expect("a frame");
    frame
}

/// A pin directory that is removed with all that is in it.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        drop(loader::detach_all(&self.0));
    }
}

/// What one CPU's packets were judged by, counted by (even epoch, source, verdict, reason, rule).
type Seen = BTreeMap<(bool, u8, &'static str, &'static str, u32), u64>;

fn read(event: &[u8], seen: &mut Seen) {
    let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(event) else {
        return;
    };
    if event.kind() != Some(EventKind::Verdict) {
        return;
    }
    let (a, b) = (event.key.a.octets(), event.key.b.octets());
    let source = if a[13] == 9 { a[15] } else { b[15] };
    let even = event.epoch % 2 == 0;
    let key = (even, source, event.action().name(), event.reason().name(), event.rule);
    *seen.entry(key).or_default() += 1;
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn no_packet_sees_a_mixture_of_two_revisions() {
    let blocked = [(true, Some((Reason::Blocklisted, "bad/10.9.0.4/32"))), (false, None)];
    commit_under_load(&[false, true].map(revision), false, blocked);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn no_packet_sees_a_mixture_of_two_revisions_of_which_only_rules_differ() {
    commit_under_load(&rules_alone(), true, [(true, None), (false, None)]);
}

/// Commits the odd and the even revision in turn while packets are judged. `blocked` says by what the last of the three sources is.
fn commit_under_load(
    revisions: &[Documents; 2],
    by_difference: bool,
    blocked: [(bool, Option<(Reason, &str)>); 2],
) {
    loader::bpffs::ensure("/sys/fs/bpf".as_ref()).expect("bpffs");
    let pins = Pins(format!("/sys/fs/bpf/tgcommit{}{by_difference}", std::process::id()).into());
    let kernel =
        Kernel::load(&LoadOptions { pin_dir: Some(pins.0.clone()), ..LoadOptions::default() }).unwrap();
    let maps = Maps::open(&pins.0).unwrap();
    maps.config.update(|config| config.flags |= Config::ENFORCE).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db")).unwrap();
    let mut committed = Committed::recover(store, &maps).unwrap();
    let by = Author::daemon("a test");
    let mut commit = |even| {
        let set = Arc::new(PolicySet::of_documents(revisions[usize::from(even)].clone()));
        let prepared = committed.is_prepared();
        committed.commit(&maps, &by, |state| state.apply(set)).unwrap();
        assert_eq!(committed.is_prepared(), prepared && by_difference, "whether it took a compile");
        committed.prepare();
        let rules = committed.state.rules.values();
        rules.map(|rule| (rule.label(), rule.number)).collect::<BTreeMap<_, _>>()
    };
    // Epochs count up by one a commit: which revision an epoch has, its last bit tells.
    let begins_even = maps.config.get().unwrap().epoch % 2 == 1;
    commit(begins_even);

    let (over, judged) = (AtomicBool::new(false), AtomicU64::new(0));
    let (rules, mut seen) = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().unwrap().get().min(4);
        for thread in 0..threads as u64 {
            let (kernel, over, judged) = (&kernel, &over, &judged);
            scope.spawn(move || {
                let mut n = thread << 20;
                while !over.load(Ordering::Relaxed) {
                    for source in [2, 3, 4] {
                        kernel.run_xdp(&frame(source, n), REPEAT).unwrap();
                    }
                    n += 1;
                    judged.fetch_add(3, Ordering::Relaxed);
                }
            });
        }
        let reader = scope.spawn(|| {
            let (mut events, mut seen) = (maps.events().unwrap(), Seen::new());
            while !over.load(Ordering::Relaxed) {
                events.drain(|event| read(event, &mut seen));
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        });
        let mut rules = BTreeMap::new();
        for n in 0..COMMITS {
            rules = commit(begins_even == (n % 2 == 1));
        }
        over.store(true, Ordering::Relaxed);
        (rules, reader.join().unwrap())
    });

    // What the last packets told, after the reader was gone.
    maps.events().unwrap().drain(|event| read(event, &mut seen));
    let rule = |name: &str| rules[name];
    let (allowed, dropped) = (Action::Forwarded.name(), Action::Dropped.name());
    let mut right = Seen::new();
    for (even, name) in [(true, "even"), (false, "odd")] {
        let (right_rule, other) = (rule(&format!("{name}/right")), rule(&format!("{name}/mixed")));
        right.insert((even, 2, allowed, Reason::Forwarded.name(), right_rule), 0);
        right.insert((even, 3, dropped, Reason::PolicyDeny.name(), other), 0);
    }
    for (even, by) in blocked {
        let own = if even { "even/right" } else { "odd/right" };
        let key = match by {
            Some((reason, name)) => (even, 4, dropped, reason.name(), rule(name)),
            None => (even, 4, allowed, Reason::Forwarded.name(), rule(own)),
        };
        right.insert(key, 0);
    }
    let found: Vec<_> = seen.keys().collect();
    assert_eq!(found, right.keys().collect::<Vec<_>>(), "{seen:?}\n{rules:?}");
    let judged = judged.into_inner();
    println!("{COMMITS} commits, {judged} tuples judged: {seen:?}");
    assert!(judged > u64::from(COMMITS), "{judged} tuples are no load");
    let lost = maps.lost_events(Lost::NoRoom).unwrap();
    assert!(seen.values().sum::<u64>() + lost >= judged, "{} told, {lost} lost of {judged}", MapName::EVENTS);
}
