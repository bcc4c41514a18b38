//! Bindings of sources in the kernel's maps: without a compile where their kind is known, and as a compile would have them.

use datapath::abi::{BindingVersions, Config, Reason};
use etherparse::PacketBuilder;
use loader::{Kernel, LoadOptions, Maps};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tidegate::bindings::{Change, Claim, SourceName};
use tidegate::daemon::commit::Committed;
use tidegate::policy::Documents;
use tidegate::state::{Author, PolicySet, Store};

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
        loader::bpffs::ensure("/sys/fs/bpf".as_ref()).expect("bpffs");
        let pins = Pins(format!("/sys/fs/bpf/tgbind{name}{}", std::process::id()).into());
        let options = LoadOptions { pin_dir: Some(pins.0.clone()), ..LoadOptions::default() };
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
