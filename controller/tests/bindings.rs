//! Bindings of sources in the kernel's maps: without a compile where their kind is known, and as a compile would have them.

use datapath::abi::{Addr, BindingVersions, Config, Reason};
use etherparse::PacketBuilder;
use loader::{Kernel, LoadOptions, Maps, Sizes};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tidegate::bindings::{Change, Claim, SourceName};
use tidegate::daemon::commit::Committed;
use tidegate::names::Names;
use tidegate::policy::Documents;
use tidegate::state::{Author, PolicySet, State, Store};
use tidegate::view::View;
use tidegate::view::why::{Question, by_state, live};

const POLICY: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: first}
spec: {spiffeId: spiffe://acme.example/web/first, addresses: [10.9.0.1], labels: {app: web}}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: p}
spec:
  rules:
    - {name: web, action: allow, from: [{labels: {app: web}}], to: [{any: true}], ports: [tcp/443]}
    - {name: net, action: allow, from: [{cidr: 10.7.0.0/16}], to: [{any: true}], ports: [tcp/80]}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: small}
spec: {spiffeId: spiffe://acme.example/web/both, addresses: [10.9.8.1], labels: {app: web}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: big}
spec: {spiffeId: spiffe://acme.example/web/both, addresses: [10.9.8.2], labels: {app: web, tier: big}}
---
apiVersion: tidegate.dev/v1
kind: Limit
metadata: {name: big}
spec: {identities: [{labels: {tier: big}}], maxConnections: 10}
";

/// A pin directory that is removed with all that is in it.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        drop(loader::detach_all(&self.0));
    }
}

struct Scene {
    kernel: Kernel,
    maps: Maps,
    committed: Committed,
    _folder: tempfile::TempDir,
    _pins: Pins,
}

impl Scene {
    fn new(name: &str) -> Self {
        Self::with(name, Sizes::default())
    }

    fn with(name: &str, sizes: Sizes) -> Self {
        loader::bpffs::ensure("/sys/fs/bpf".as_ref()).expect("bpffs");
        let pins = Pins(format!("/sys/fs/bpf/tgbind{name}{}", std::process::id()).into());
        let options = LoadOptions { pin_dir: Some(pins.0.clone()), sizes, ..LoadOptions::default() };
        let kernel = Kernel::load(&options).unwrap();
        let maps = Maps::open(&pins.0).unwrap();
        maps.config.update(|config| config.flags |= Config::ENFORCE | Config::TRACE).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db")).unwrap();
        let mut committed = Committed::recover(store, &maps).unwrap();
        let documents = Documents::parse("p.yaml", POLICY, jiff::Timestamp::now()).unwrap();
        let set = Arc::new(PolicySet::of_documents(documents));
        committed.commit(&maps, &Author::daemon("a test"), |state| state.apply(set)).unwrap();
        Self { kernel, maps, committed, _folder: folder, _pins: pins }
    }

    /// Has a source say something else; returns whether it took a compile.
    fn rebind(&mut self, source: &SourceName, change: Change) -> bool {
        self.committed.rebind(&self.maps, source, vec![change]).unwrap().compiled
    }

    /// Why a SYN from an address to port 443 is judged as it is.
    fn judged(&self, source: [u8; 4]) -> Reason {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4(source, [10, 8, 0, 1], 64)
            .tcp(40_000, 443, 1, 1_000)
            .syn();
        let mut frame = Vec::new();
        builder.write(&mut frame, &[]).expect("a frame");
        let before = self.maps.trace.get(0).unwrap();
        self.kernel.run_xdp(&frame, 1).unwrap();
        let after = self.maps.trace.get(0).unwrap();
        let changed = after.iter().zip(&before).find(|(now, then)| now.moment.now_ns != then.moment.now_ns);
        changed.expect("one CPU judged it").0.reason()
    }

    /// What the kernel answers now, whatever versions it has.
    fn answers(&self) -> BTreeMap<([u8; 16], u32), [u8; 24]> {
        let epoch = self.maps.config.get().unwrap().epoch;
        let now = |v: &BindingVersions| bytemuck::cast(*v.at(epoch));
        let entries = self.maps.bindings.entries().unwrap();
        entries.into_iter().map(|((addr, bits), v)| ((addr.octets(), bits), now(&v))).collect()
    }

    /// Compiles all, and holds what was there against it.
    fn is_as_compiled(&mut self) {
        self.committed.settle(&self.maps).unwrap();
        let before = self.answers();
        self.committed.commit(&self.maps, &Author::daemon("a test"), |_| {}).unwrap();
        self.committed.settle(&self.maps).unwrap();
        assert_eq!(before, self.answers());
    }
}

fn claim(address: &str, id: &str, for_s: i64) -> Claim {
    let not_after = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(for_s)).to_string();
    serde_json::from_value(serde_json::json!({
        "address": address, "spiffe_id": format!("spiffe://acme.example/{id}"),
        "lease": {"not_after": not_after, "on_expiry": "deny"},
        "labels": {"app": "web"},
    }))
    .unwrap()
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_workload_of_a_known_kind_is_bound_renewed_and_let_go_without_a_compile() {
    let mut scene = Scene::new("k");
    let enrol = SourceName::enrol();
    let address = [10, 9, 1, 1];
    assert_eq!(scene.judged(address), Reason::InvalidIdentity);
    assert!(!scene.rebind(&enrol, Change::Set(claim("10.9.1.1", "web/a", 60))));
    assert_eq!(scene.judged(address), Reason::Forwarded);
    scene.is_as_compiled();

    let epoch = scene.maps.config.get().unwrap().epoch;
    assert!(!scene.rebind(&enrol, Change::Set(claim("10.9.1.1", "web/a", 600))));
    assert_eq!(scene.maps.config.get().unwrap().epoch, epoch, "who is renewed is not judged anew");
    assert_eq!(scene.judged(address), Reason::Established);
    scene.is_as_compiled();

    // Right after each other: the second does not wait for packets that the first may have left behind.
    assert!(!scene.rebind(&enrol, Change::Set(claim("10.9.1.2", "web/b", 60))));
    assert!(!scene.rebind(&enrol, Change::Set(claim("10.9.1.3", "web/b", 60))));
    assert!(!scene.rebind(&enrol, Change::Withdraw(claim("10.9.1.2", "web/b", 60).slot())));
    assert!(!scene.rebind(&enrol, Change::Set(claim("10.9.1.2", "web/c", 60))));
    assert_eq!(scene.judged([10, 9, 1, 2]), Reason::Forwarded);
    scene.is_as_compiled();

    assert!(!scene.rebind(&enrol, Change::Withdraw(claim("10.9.1.1", "web/a", 60).slot())));
    assert_eq!(scene.judged(address), Reason::InvalidIdentity, "a live flow, too");
    scene.is_as_compiled();
    // A lease that gets shorter is no renewal.
    assert!(!scene.rebind(&enrol, Change::Set(claim("10.9.1.2", "web/c", -1))));
    assert_eq!(scene.judged([10, 9, 1, 2]), Reason::LeaseExpired);
    scene.is_as_compiled();
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_limit_holds_at_a_new_address_also_where_another_workload_of_the_identity_fits_it() {
    let mut scene = Scene::new("l");
    // Its labels are the first workload's, which no limit speaks of; the limit is the identity's.
    assert!(scene.rebind(&SourceName::enrol(), Change::Set(claim("10.9.8.3", "web/both", 60))));
    scene.is_as_compiled();
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn what_a_compile_has_to_say_is_compiled() {
    let mut scene = Scene::new("c");
    let (enrol, manual) = (SourceName::enrol(), SourceName::manual());
    // Nobody has the class of both selectors yet; then it is known.
    assert!(scene.rebind(&enrol, Change::Set(claim("10.7.0.1", "web/a", 60))));
    assert!(!scene.rebind(&enrol, Change::Set(claim("10.7.0.2", "web/a", 60))));
    // A prefix holds addresses that others claim.
    assert!(scene.rebind(&enrol, Change::Set(claim("10.9.2.0/24", "web/n", 60))));
    assert!(!scene.rebind(&enrol, Change::Set(claim("10.9.2.7", "web/m", 60))));
    assert_eq!(scene.judged([10, 9, 2, 9]), Reason::Forwarded);
    scene.is_as_compiled();

    // The files' own, and another source's: nobody is believed until they agree.
    assert!(scene.rebind(&manual, Change::Set(claim("10.9.0.1", "web/other", 60))));
    assert_eq!(scene.judged([10, 9, 0, 1]), Reason::AmbiguousIdentity);
    assert!(scene.rebind(&manual, Change::Set(claim("10.9.2.7", "web/other", 60))));
    assert_eq!(scene.judged([10, 9, 2, 7]), Reason::AmbiguousIdentity);
    let slots = [claim("10.9.2.7", "web/other", 60).slot(), claim("10.9.0.1", "web/other", 60).slot()];
    let found = scene.committed.ambiguities(slots);
    let who = |n: usize| found[n].claimants.iter().map(|(id, by)| format!("{id} {by}")).collect::<Vec<_>>();
    assert_eq!(
        who(0),
        ["spiffe://acme.example/web/first p.yaml:1:1", "spiffe://acme.example/web/other manual"]
    );
    assert_eq!(who(1), ["spiffe://acme.example/web/m enrol", "spiffe://acme.example/web/other manual"]);
    // One claim is left.
    assert!(!scene.rebind(&manual, Change::Withdraw(claim("10.9.2.7", "web/other", 60).slot())));
    assert_eq!(scene.judged([10, 9, 2, 7]), Reason::Forwarded);
    // Whose lease is over claims nothing any more where another's runs.
    assert!(scene.rebind(&manual, Change::Set(claim("10.9.0.1", "web/other", -1))));
    assert_eq!(scene.judged([10, 9, 0, 1]), Reason::Forwarded);
    scene.is_as_compiled();
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_binding_for_which_there_is_no_room_changes_nothing_and_gives_its_number_back() {
    // Three workloads and the prefix of a rule, and room for one more.
    let mut scene = Scene::with("f", Sizes { bindings: 5, ..Sizes::default() });
    let enrol = SourceName::enrol();
    assert!(!scene.rebind(&enrol, Change::Set(claim("10.9.1.1", "web/a", 60))));
    scene.committed.settle(&scene.maps).unwrap();
    let (before, answers) = (scene.committed.state.clone(), scene.answers());
    // Without a compile, and with one: of a prefix.
    for address in ["10.9.1.2", "10.9.2.0/24"] {
        let refused =
            scene.committed.rebind(&scene.maps, &enrol, vec![Change::Set(claim(address, "web/b", 60))]);
        let said = refused.expect_err("there is no room").message;
        assert!(
            said.contains("TG_BINDINGS is full (5 entries)") && said.contains("nothing was changed"),
            "{said}"
        );
        scene.committed.settle(&scene.maps).unwrap();
        assert_eq!(scene.answers(), answers, "{address}");
        assert_eq!(scene.committed.state.bindings, before.bindings, "{address}");
        assert_eq!(scene.committed.store.load(None).unwrap().bindings, before.bindings, "{address}");
    }
    assert_eq!(scene.judged([10, 9, 1, 2]), Reason::InvalidIdentity);
    assert_eq!(scene.judged([10, 9, 1, 1]), Reason::Forwarded, "what was there goes on");
    // With room, it is bound.
    assert!(!scene.rebind(&enrol, Change::Withdraw(claim("10.9.1.1", "web/a", 60).slot())));
    scene.committed.settle(&scene.maps).unwrap();
    scene.rebind(&enrol, Change::Set(claim("10.9.1.2", "web/b", 60)));
    assert_eq!(scene.judged([10, 9, 1, 2]), Reason::Forwarded);
    scene.is_as_compiled();
}

/// Until when an address has its binding, ns of the boot clock.
fn ends_at(scene: &Scene, address: [u8; 4]) -> u64 {
    let epoch = scene.maps.config.get().unwrap().epoch;
    let found = scene.maps.bindings.longest(&Addr::v4(address), 128).unwrap();
    found.map_or(0, |versions| versions.at(epoch).not_after_ns)
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn after_the_wall_clock_was_set_a_lease_ends_by_the_clock_as_it_is() {
    const MINUTE_NS: u64 = 60_000_000_000;
    let mut scene = Scene::new("w");
    let enrol = SourceName::enrol();
    assert!(!scene.rebind(&enrol, Change::Set(claim("10.9.1.1", "web/a", 60))));
    assert!(!scene.committed.is_clock_set());
    // As if the clock had gone an hour ahead, or back, since ends were computed last.
    for step_ns in [-3_600_000_000_000, 3_600_000_000_000] {
        let kept = scene.committed.state.numbering.kept_wall_of_boot_ns().unwrap();
        scene.committed.state.numbering.keep_wall_of_boot_ns(Some(kept + step_ns));
        assert!(scene.committed.is_clock_set(), "the daemon looks each second, and commits");
        let now_ns = loader::boot_ns();
        assert!(scene.rebind(&enrol, Change::Set(claim("10.9.1.2", "web/b", 60))), "all ends are others");
        let left_ns = ends_at(&scene, [10, 9, 1, 2]).saturating_sub(now_ns);
        assert!((MINUTE_NS / 2..=MINUTE_NS + 1_000_000_000).contains(&left_ns), "{left_ns}");
        assert!(!scene.committed.is_clock_set());
        assert!(!scene.rebind(&enrol, Change::Withdraw(claim("10.9.1.2", "web/b", 60).slot())));
    }
    let kept = scene.committed.state.numbering.kept_wall_of_boot_ns().unwrap();
    scene.committed.state.numbering.keep_wall_of_boot_ns(Some(kept + 2_000_000_000));
    scene.committed.commit(&scene.maps, &Author::daemon("the wall clock was set"), |_| {}).unwrap();
    assert!(!scene.committed.is_clock_set(), "once, and not each second");
    scene.is_as_compiled();
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Workloads with scopes and leases, rules in tiers, a block, a quarantine.
fn made_up(numbers: &mut Numbers) -> String {
    let mut text = String::new();
    let mut workload = |name: String, last: u64, more: &str| {
        let team = if last.is_multiple_of(2) { "web" } else { "db" };
        text += &format!(
            "---\napiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: {name}}}\n\
             spec: {{spiffeId: spiffe://td/{team}/{name}, addresses: [10.0.0.{last}], labels: {{app: {team}}}{more}}}\n"
        );
    };
    for last in 1..=16 {
        match numbers.below(7) {
            0 => ["10", "20"]
                .iter()
                .for_each(|vlan| workload(format!("w{last}v{vlan}"), last, &format!(", vlan: {vlan}"))),
            1 => workload(format!("w{last}"), last, ", interface: lo"),
            2 => ["1000-1999", "2000-2999"].iter().for_each(|ports| {
                workload(format!("w{last}p{}", &ports[..1]), last, &format!(", ports: [tcp/{ports}]"))
            }),
            3 => workload(format!("w{last}"), last, ", lease: {notAfter: 2026-01-01T00:00:00Z}"),
            4 => workload(
                format!("w{last}"),
                last,
                ", lease: {notAfter: 2026-01-01T00:00:00Z, onExpiry: alert}, interface: lo, vlan: 10",
            ),
            _ => workload(format!("w{last}"), last, ""),
        }
    }
    let ends = [
        "{any: true}",
        "{labels: {app: web}}",
        "{labels: {app: db}}",
        "{spiffePath: \"spiffe://td/web/*\"}",
        "{cidr: 10.0.0.0/29}",
        "{trustDomain: td}",
        "{spiffeId: spiffe://td/web/w2}",
    ];
    for policy in 0..3 {
        text += &format!(
            "---\napiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: p{policy}}}\nspec:\n  tier: {}\n  rules:\n",
            10 * policy + 10
        );
        for rule in 0..6 {
            let (from, to) = (numbers.one(&ends), numbers.one(&ends));
            let ports =
                numbers.one(&["tcp/80", "tcp/443", "tcp/1000-2000", "udp/53", "icmp", "icmp/8-10", "tcp"]);
            let action = numbers.one(&["allow", "allow", "allow", "deny", "pass"]);
            let mode = if action == "deny" { numbers.one(&["", ", mode: audit"]) } else { "" };
            text += &format!(
                "    - {{name: r{rule}, action: {action}, from: [{from}], to: [{to}], ports: [{ports}]{mode}}}\n"
            );
        }
    }
    text + "---\napiVersion: tidegate.dev/v1\nkind: Blocklist\nmetadata: {name: b}\n\
            spec: {entries: [{cidr: 10.0.0.17/32}, {cidr: 10.0.0.3/32, ports: [tcp/443]}]}\n\
            ---\napiVersion: tidegate.dev/v1\nkind: Quarantine\nmetadata: {name: q}\n\
            spec: {identities: [{spiffePath: \"spiffe://td/db/w5*\"}], except: [{ports: [udp/53]}]}\n"
}

fn question(numbers: &mut Numbers) -> Question {
    let address = |numbers: &mut Numbers| format!("10.0.0.{}", numbers.below(18) + 1);
    let port = numbers.one(&["80", "443", "1500/tcp", "22", "53/udp", "icmp", "icmp/13"]);
    let has_ports = !port.starts_with("icmp");
    Question {
        source: address(numbers),
        destination: address(numbers),
        port: port.to_owned(),
        interface: (numbers.below(2) == 0).then(|| "lo".to_owned()),
        vlan: [None, Some(10), Some(20)][numbers.below(3) as usize],
        source_port: [None, Some(1500), Some(2500)][numbers.below(3) as usize].filter(|_| has_ports),
    }
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn the_live_maps_and_the_files_alone_say_the_same_of_every_connection() {
    let mut numbers = Numbers(47);
    let mut scene = Scene::new("y");
    let mut reasons = BTreeSet::new();
    for _ in 0..10 {
        let text = made_up(&mut numbers);
        let now = jiff::Timestamp::now();
        let documents = Documents::parse("p.yaml", &text, now).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let set = Arc::new(PolicySet::of_documents(documents));
        let alone = State { set: set.clone(), ..State::default() };
        scene.committed.commit(&scene.maps, &Author::daemon("a test"), |state| state.apply(set)).unwrap();
        let state = scene.committed.state.clone();
        let maps = Maps::open(&scene._pins.0).unwrap();
        let view = View { maps, names: Names::of(&state), state };
        for _ in 0..50 {
            let asked = question(&mut numbers);
            let by_maps = || live(&view, &asked).unwrap().json();
            let by_files = || by_state(&alone, &asked, jiff::Timestamp::now()).unwrap().json();
            // What ended so long ago is told in hours, which may change between the two.
            let same = (0..3).any(|_| by_maps() == by_files());
            assert!(same, "{asked:?}\n{}\n{}\n{text}", by_maps(), by_files());
            reasons.insert(by_maps()["drop_reason_desc"].as_str().unwrap().to_owned());
        }
    }
    for reason in [
        "FORWARDED",
        "POLICY_DENY",
        "POLICY_DENIED",
        "INVALID_IDENTITY",
        "AMBIGUOUS_IDENTITY",
        "LEASE_EXPIRED",
        "BLOCKLISTED",
        "QUARANTINED",
    ] {
        assert!(reasons.contains(reason), "{reason} is not in {reasons:?}");
    }
}
