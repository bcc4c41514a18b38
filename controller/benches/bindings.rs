//! `cargo bench -p tidegate --bench bindings`, as root: how long until packets are judged by a binding.
//!
//! Times are of this machine. Of each change: from the call to the return (`whole`: recorded, written, flipped), and from when it was
//! recorded, so that it outlives the daemon, to the return (`accepted`). By then every packet is judged by it.

use datapath::abi::Config;
use loader::{Kernel, LoadOptions, Maps};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::bindings::{Change, Claim, SourceName};
use tidegate::daemon::commit::Committed;
use tidegate::policy::Documents;
use tidegate::state::{Author, PolicySet, Store};

/// Bindings that are there while single ones come and go.
const MANY: u32 = 100_000;
/// Single ones.
const SINGLE: u32 = 500;

const POLICY: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: first}
spec: {spiffeId: spiffe://acme.example/web/first, addresses: [10.255.0.1]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: p}
spec:
  rules:
    - {name: web, action: allow, from: [{spiffePath: \"spiffe://acme.example/web/*\"}], to: [{any: true}], ports: [tcp/443]}
";

/// A pin directory that is removed with all that is in it.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        drop(loader::detach_all(&self.0));
    }
}

fn claim(n: u32, for_s: i64) -> Claim {
    let end = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(for_s)).to_string();
    let [_, b, c, d] = n.to_be_bytes();
    serde_json::from_value(serde_json::json!({
        "address": format!("10.{b}.{c}.{d}"), "spiffe_id": format!("spiffe://acme.example/web/w{n}"),
        "lease": {"not_after": end, "on_expiry": "deny"}, "evidence": {"serial": format!("{n:032x}")},
    }))
    .expect("a claim")
}

/// What a change took, whole and since it was accepted.
fn timed(committed: &mut Committed, maps: &Maps, changes: Vec<Change>) -> (Duration, Duration, bool) {
    let begin = Instant::now();
    let done = committed.rebind(maps, &SourceName::enrol(), changes).expect("bound");
    (begin.elapsed(), done.accepted.elapsed(), done.compiled)
}

fn row(what: &str, mut times: Vec<(Duration, Duration, bool)>) {
    let compiled = times.iter().filter(|(.., compiled)| *compiled).count();
    let mut percentiles = |of: fn(&(Duration, Duration, bool)) -> Duration| {
        times.sort_by_key(of);
        let at = |percent: usize| of(&times[(times.len() - 1) * percent / 100]);
        format!("{:>10.2?} {:>10.2?} {:>10.2?}", at(50), at(99), at(100))
    };
    let (whole, accepted) = (percentiles(|t| t.0), percentiles(|t| t.1));
    println!("{what:<34} {accepted}   {whole}   {compiled} compiled");
}

fn main() {
    if std::env::args().any(|arg| arg == "--list") {
        return; // asked by a test runner
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it loads BPF programs, and needs root");
        return;
    }
    loader::bpffs::ensure("/sys/fs/bpf".as_ref()).expect("bpffs");
    let pins = Pins(format!("/sys/fs/bpf/tgbindbench{}", std::process::id()).into());
    let options = LoadOptions { pin_dir: Some(pins.0.clone()), ..LoadOptions::default() };
    let _kernel = Kernel::load(&options).expect("programs");
    let maps = Maps::open(&pins.0).expect("maps");
    maps.config.update(|config| config.flags |= Config::ENFORCE).expect("a configuration");
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("state.db")).expect("a store");
    let mut committed = Committed::recover(store, &maps).expect("a state");
    let documents = Documents::parse("p.yaml", POLICY, jiff::Timestamp::now()).expect("documents");
    let set = Arc::new(PolicySet::of_documents(documents));
    committed.commit(&maps, &Author::daemon("a bench"), |state| state.apply(set)).expect("a commit");

    let all: Vec<_> = (0..MANY).map(|n| Change::Set(claim(n, 3600))).collect();
    println!("{:<34} {:^32}   {:^32}", "", "accepted: p50, p99, longest", "whole: p50, p99, longest");
    row(&format!("{MANY} at once"), vec![timed(&mut committed, &maps, all)]);
    let single =
        |first: u32, change: fn(u32) -> Change| (first..first + SINGLE).map(change).collect::<Vec<_>>();
    let runs = [
        ("the first beside them", (MANY..=MANY).map(|n| Change::Set(claim(n, 3600))).collect()),
        ("one more beside them", single(MANY + 1, |n| Change::Set(claim(n, 3600)))),
        ("one renewed", single(1000, |n| Change::Set(claim(n, 7200)))),
        ("one withdrawn", single(2000, |n| Change::Withdraw(claim(n, 0).slot()))),
    ];
    for (what, changes) in runs {
        row(what, changes.into_iter().map(|change| timed(&mut committed, &maps, vec![change])).collect());
    }
}
