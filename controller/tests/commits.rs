//! Commits as fast as they go, under full load: no packet is judged by half of one revision and half of another.

use datapath::abi::{Action, Config, Event, EventKind, Lost, MapName, Reason};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader};
use loader::{Kernel, LoadOptions, Maps, RunResult};
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
        "---\napiVersion: tidegate.dev/v1\nkind: Blocklist\nmetadata: {name: bad}\nspec: {entries: [{cidr: 10.9.0.4/32}, {cidr: \"2001:db8::9:4/128\"}]}\n"
    } else {
        ""
    };
    let name = if even { "even" } else { "odd" };
    let text = format!(
        "apiVersion: tidegate.dev/v1
kind: Workload
metadata: {{name: one}}
spec: {{spiffeId: spiffe://acme.example/{first}, addresses: [10.9.0.2/32, 10.9.0.4/32, \"2001:db8::9:2/128\", \"2001:db8::9:4/128\"]}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {{name: two}}
spec: {{spiffeId: spiffe://acme.example/{second}, addresses: [10.9.0.3/32, \"2001:db8::9:3/128\"]}}
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

/// A SYN of a source to one of many destinations, over IPv4 or IPv6.
fn syn(v6: bool, source: u8, n: u64) -> Vec<u8> {
    let [_, _, _, _, _, a, b, c] = n.to_be_bytes();
    let port = u16::from_be_bytes([b, c]);
    segment(v6, source, a, |ip| ip.tcp(port, 443, 1, 1_000).syn(), &[])
}

/// Data of a connection that goes on all the time: its verdict is in the flow's record, of this epoch or of one before.
fn data(v6: bool, source: u8, thread: u8) -> Vec<u8> {
    segment(v6, source, thread, |ip| ip.tcp(40_000, 443, 1, 1_000).ack(1), &[7; 32])
}

fn segment(
    v6: bool,
    source: u8,
    destination: u8,
    tcp: impl FnOnce(PacketBuilderStep<IpHeaders>) -> PacketBuilderStep<TcpHeader>,
    payload: &[u8],
) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let address = |net, host| [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, net, 0, host];
    let ip = if v6 {
        ethernet.ipv6(address(9, source), address(8, destination), 64)
    } else {
        ethernet.ipv4([10, 9, 0, source], [10, 8, 0, destination], 64)
    };
    let mut frame = Vec::new();
    tcp(ip).write(&mut frame, payload).expect("a frame");
    frame
}

/// A pin directory that is removed with all that is in it.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        drop(loader::detach_all(&self.0));
    }
}

/// Programs that enforce, and who commits to them. Gone with all that they pinned.
struct Gate {
    kernel: Kernel,
    maps: Maps,
    committed: Committed,
    _folder: tempfile::TempDir,
    _pins: Pins,
}

impl Gate {
    fn open(name: &str) -> Self {
        loader::bpffs::ensure("/sys/fs/bpf".as_ref()).expect("bpffs");
        let pins = Pins(format!("/sys/fs/bpf/tg{name}{}", std::process::id()).into());
        let options =
            LoadOptions { pin_dir: Some(pins.0.clone()), tc_ingress: true, ..LoadOptions::default() };
        let kernel = Kernel::load(&options).unwrap();
        let maps = Maps::open(&pins.0).unwrap();
        maps.config.update(|config| config.flags |= Config::ENFORCE).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db")).unwrap();
        let committed = Committed::recover(store, &maps).unwrap();
        Self { kernel, maps, committed, _folder: folder, _pins: pins }
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
    let blocked =
        [(true, Some((Reason::Blocklisted, ["bad/10.9.0.4/32", "bad/2001:db8::9:4/128"]))), (false, None)];
    commit_under_load(&[false, true].map(revision), false, blocked);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn no_packet_sees_a_mixture_of_two_revisions_of_which_only_rules_differ() {
    commit_under_load(&rules_alone(), true, [(true, None), (false, None)]);
}

/// By what the last of the three sources is blocked, over IPv4 and over IPv6, if it is.
type Blocked = Option<(Reason, [&'static str; 2])>;

/// Commits the odd and the even revision in turn while packets are judged. `blocked` says by what the last of the three sources is.
fn commit_under_load(revisions: &[Documents; 2], by_difference: bool, blocked: [(bool, Blocked); 2]) {
    let Gate { kernel, maps, committed, .. } = &mut Gate::open(&format!("mixture{by_difference}"));
    let (kernel, maps) = (&*kernel, &*maps);
    let by = Author::daemon("a test");
    let mut commit = |even| {
        let set = Arc::new(PolicySet::of_documents(revisions[usize::from(even)].clone()));
        let prepared = committed.is_prepared();
        committed.commit(maps, &by, |state| state.apply(set)).unwrap();
        assert_eq!(committed.is_prepared(), prepared && by_difference, "whether it took a compile");
        committed.prepare();
        let rules = committed.state.rules.values();
        rules.map(|rule| (rule.label(), rule.number)).collect::<BTreeMap<_, _>>()
    };
    // Epochs count up by one a commit: which revision an epoch has, its last bit tells.
    let begins_even = maps.config.get().unwrap().epoch % 2 == 1;
    commit(begins_even);

    let (over, judged, checked) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    // What becomes of a packet of a source in an epoch.
    let is_dropped = |epoch: u32, source: u8| match source {
        2 => false,
        3 => true,
        _ => blocked.iter().any(|(even, by)| *even == epoch.is_multiple_of(2) && by.is_some()),
    };
    let epoch = || maps.config.get().unwrap().epoch;
    let (rules, mut seen) = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().unwrap().get().min(4);
        for thread in 0..threads as u64 {
            let (over, judged, checked) = (&over, &judged, &checked);
            let (is_dropped, epoch) = (&is_dropped, &epoch);
            // One of them judges at TC.
            let drops = move |frame: &[u8]| {
                if thread == 0 {
                    kernel.run_tc_in(frame, REPEAT).unwrap().action == RunResult::TC_SHOT
                } else {
                    kernel.run_xdp(frame, REPEAT).unwrap().action == RunResult::XDP_DROP
                }
            };
            scope.spawn(move || {
                let mut n = thread << 20;
                while !over.load(Ordering::Relaxed) {
                    for (source, v6) in
                        [2, 3, 4].into_iter().flat_map(|source| [(source, false), (source, true)])
                    {
                        for frame in [syn(v6, source, n), data(v6, source, thread as u8)] {
                            let before = epoch();
                            let dropped = drops(&frame);
                            // Where no commit came between, the epoch is known in which it was judged.
                            if before == epoch() {
                                assert_eq!(dropped, is_dropped(before, source), "{source} in epoch {before}");
                                checked.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        judged.fetch_add(1, Ordering::Relaxed);
                    }
                    n += 1;
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
        match by {
            Some((reason, names)) => {
                for name in names {
                    right.insert((even, 4, dropped, reason.name(), rule(name)), 0);
                }
            }
            None => {
                right.insert((even, 4, allowed, Reason::Forwarded.name(), rule(own)), 0);
            }
        }
    }
    let found: Vec<_> = seen.keys().collect();
    assert_eq!(found, right.keys().collect::<Vec<_>>(), "{seen:?}\n{rules:?}");
    let judged = judged.into_inner();
    let checked = checked.into_inner();
    println!("{COMMITS} commits, {judged} tuples judged, {checked} verdicts of a known epoch: {seen:?}");
    // Each tuple and each segment of a connection that goes on; few are between two epochs.
    assert!(checked > judged, "{checked} verdicts of {judged} tuples and as many segments");
    assert!(judged > u64::from(COMMITS), "{judged} tuples are no load");
    let lost = maps.lost_events(Lost::NoRoom).unwrap();
    assert!(seen.values().sum::<u64>() + lost >= judged, "{} told, {lost} lost of {judged}", MapName::EVENTS);
}

/// Anybody may, or nobody whom no workload has: in the one, a rule speaks of strangers, and in the other the programs need not ask.
fn to_strangers(open: bool) -> Documents {
    let from = if open { "{any: true}" } else { "{spiffeId: spiffe://acme.example/orders}" };
    let text = format!(
        "apiVersion: tidegate.dev/v1
kind: Workload
metadata: {{name: one}}
spec: {{spiffeId: spiffe://acme.example/orders, addresses: [10.9.0.2/32]}}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {{name: shop}}
spec: {{rules: [{{name: pay, action: allow, from: [{from}], to: [{{any: true}}], ports: [tcp/443]}}]}}
"
    );
    Documents::parse("shop.yaml", &text, jiff::Timestamp::now()).expect("documents")
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_rule_of_strangers_counts_for_every_packet_of_its_epochs_and_for_no_other() {
    const STRANGER: u8 = 5;
    // The policy that opens, applied as a whole and by difference: see `policy apply --only`.
    for by_difference in [false, true] {
        let Gate { kernel, maps, committed, .. } = &mut Gate::open(&format!("strangers{by_difference}"));
        let (kernel, maps) = (&*kernel, &*maps);
        let by = Author::daemon("a test");
        let mut commit = |open| {
            let set = Arc::new(PolicySet::of_documents(to_strangers(open)));
            committed.commit(maps, &by, |state| state.apply(set)).unwrap();
            if by_difference {
                committed.prepare();
            }
        };
        commit(false);
        let config = || maps.config.get().unwrap();
        let first = config().epoch;
        let over = AtomicBool::new(false);
        let checked = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while !over.load(Ordering::Relaxed) {
                    let before = config().epoch;
                    let action = kernel.run_xdp(&syn(false, STRANGER, n), 1).unwrap().action;
                    if before == config().epoch {
                        // The first was closed, and each commit is the other way.
                        let opens = (before - first) % 2 == 1;
                        let expected = if opens { RunResult::XDP_PASS } else { RunResult::XDP_DROP };
                        assert_eq!(action, expected, "packet {n} in epoch {before}, first {first}");
                        checked.fetch_add(1, Ordering::Relaxed);
                    }
                    n += 1;
                }
            });
            for n in 0..COMMITS {
                commit(n.is_multiple_of(2));
                // Only where nobody is named, and only after the packets of the epoch before.
                let named = n.is_multiple_of(2);
                std::thread::sleep(Duration::from_millis(2));
                assert!(!(named && config().has(Config::NOBODY_NAMED)), "commit {n}");
            }
            over.store(true, Ordering::Relaxed);
        });
        committed.settle(maps).unwrap();
        assert!(config().has(Config::NOBODY_NAMED), "the last names nobody");
        let checked = checked.into_inner();
        assert!(checked > u64::from(COMMITS) * 10, "{checked} verdicts are no load");
    }
}
