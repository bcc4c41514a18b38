//! `cargo bench -p tidegate --bench bindings`, as root: how long until packets are judged by a binding.
//!
//! Times are of this machine. Of each change: from the call to the return (`whole`: recorded, written, flipped), and from when it was
//! recorded, so that it outlives the daemon, to the return (`accepted`). By then every packet is judged by it. With `--check` it fails where
//! something takes half as long again as is wanted.

use datapath::abi::Config;
use loader::{Kernel, LoadOptions, Maps};
use std::path::PathBuf;
use std::process::ExitCode;
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

/// So long at most is wanted from when a single one was accepted, of a hundred all but one.
const MOST_OF_ONE: Duration = Duration::from_millis(5);
/// So long at most for all of the many, whole.
const MOST: Duration = Duration::from_secs(2);

/// What things took, and how long they were to take at most.
#[derive(Default)]
struct Wanted(Vec<(String, Duration, Duration)>);

impl Wanted {
    fn note(&mut self, what: &str, took: Duration, most: Duration) {
        self.0.push((what.to_owned(), took, most));
    }

    /// Says how it stands; whether nothing took half as long again.
    fn finish(&self) -> bool {
        for (what, took, most) in &self.0 {
            let verdict = if took <= most { "ok" } else { "MISSED" };
            println!("{what}: {took:.2?}, at most {most:.0?} wanted  {verdict}");
        }
        self.0.iter().all(|(_, took, most)| *took <= *most * 3 / 2)
    }
}

/// Prints it. Returns p99 of what it took since it was accepted, and whole.
fn row(what: &str, mut times: Vec<(Duration, Duration, bool)>) -> [Duration; 2] {
    let compiled = times.iter().filter(|(.., compiled)| *compiled).count();
    let mut percentiles = |of: fn(&(Duration, Duration, bool)) -> Duration| {
        times.sort_by_key(of);
        let at = |percent: usize| of(&times[(times.len() * percent).div_ceil(100).saturating_sub(1)]);
        (format!("{:>10.2?} {:>10.2?} {:>10.2?}", at(50), at(99), at(100)), at(99))
    };
    let ((whole, whole_p99), (accepted, accepted_p99)) = (percentiles(|t| t.0), percentiles(|t| t.1));
    println!("{what:<34} {accepted}   {whole}   {compiled} compiled");
    [accepted_p99, whole_p99]
}

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS; // asked by a test runner
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it loads BPF programs, and needs root");
        return ExitCode::SUCCESS;
    }
    let is_good = measure();
    let is_asked = std::env::args().any(|arg| arg == "--check");
    if is_good || !is_asked { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether nothing took half as long again as is wanted.
fn measure() -> bool {
    let mut wanted = Wanted::default();
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
    let name = format!("{MANY} at once");
    let [_, whole] = row(&name, vec![timed(&mut committed, &maps, all)]);
    wanted.note(&name, whole, MOST);
    let single =
        |first: u32, change: fn(u32) -> Change| (first..first + SINGLE).map(change).collect::<Vec<_>>();
    let runs = [
        ("the first beside them", (MANY..=MANY).map(|n| Change::Set(claim(n, 3600))).collect()),
        ("one more beside them", single(MANY + 1, |n| Change::Set(claim(n, 3600)))),
        ("one renewed", single(1000, |n| Change::Set(claim(n, 7200)))),
        ("one withdrawn", single(2000, |n| Change::Withdraw(claim(n, 0).slot()))),
    ];
    for (what, changes) in runs {
        let times: Vec<_> =
            changes.into_iter().map(|change| timed(&mut committed, &maps, vec![change])).collect();
        let is_many = times.len() > 1; // the first waits for what the daemon does behind a commit
        let [accepted, _] = row(what, times);
        if is_many {
            wanted.note(&format!("{what}, accepted, p99"), accepted, MOST_OF_ONE);
        }
    }
    wanted.finish()
}
