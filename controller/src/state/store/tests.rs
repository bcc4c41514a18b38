//! The file by itself: what is read is what was written, and what is wrong with it is said.

use super::*;
use crate::policy::spiffe::SpiffeId;
use crate::policy::{Clock, RuleInfo, SourceFile, compile};
use crate::state::{
    Author, Confirmation, Given, PolicySet, Shadow, State, Who, manual_grant, manual_grant_place,
    manual_place,
};
use jiff::{SignedDuration, Timestamp};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

const FILE: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders}
spec: {spiffeId: spiffe://acme.example/orders, addresses: [10.1.0.2/32], lease: {for: 1h}}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: shop}
spec: {rules: [{name: pay, action: allow, from: [{any: true}], to: [{any: true}], ports: [tcp/PORT]}]}
";

fn set(port: u16) -> Arc<PolicySet> {
    let text = FILE.replace("PORT", &port.to_string());
    let file = SourceFile { name: "shop.yaml".into(), text: text.into() };
    Arc::new(PolicySet::read(vec![file], Timestamp::now()).unwrap())
}

fn kernel(epoch: u32) -> InKernel {
    InKernel { epoch, generation: "these maps".into() }
}

fn given(before: &State, after: &State) -> Given {
    Given::since(&before.numbering.counted(), &after.numbering)
}

fn rules(state: &State) -> Vec<(u32, RuleInfo)> {
    state.rules.clone().into_iter().collect()
}

/// The state after `before` when `set` is applied.
fn next(store: &Store, before: &State, set: Arc<PolicySet>) -> State {
    let mut state = before.clone();
    state.apply(set);
    state.revision = store.next_revision().unwrap();
    state.epoch = before.epoch + 1;
    state.applied_at = Some(Timestamp::now());
    let clock = Clock { wall_now: Timestamp::now(), boot_now_ns: 1_000 };
    let compiled = compile(state.documents(), &state.numbering, &clock);
    state.numbering = compiled.numbering;
    state.rules.extend(compiled.rules);
    state
}

fn commit(store: &mut Store, before: &State, set: Arc<PolicySet>) -> State {
    let state = next(store, before, set);
    let by = Author { who: Who::User(0), how: "policy apply".into() };
    store.begin(&state, &kernel(state.epoch), &by, before, || Some(given(before, &state))).unwrap();
    store.mark(&state, before.revision, &rules(&state)).unwrap();
    state
}

#[test]
fn what_is_read_is_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gw").join("state.db");
    assert_eq!(State::load(&path, None).unwrap(), State::default());
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load(None).unwrap(), State::default());
    let first = commit(&mut store, &State::default(), set(443));

    let mut second = next(&store, &first, set(8443));
    second.blocks = serde_json::from_value(serde_json::json!([{
        "cidr": "10.9.0.0/16", "reason": "a test", "not_after": null, "place": manual_place(),
    }]))
    .unwrap();
    second.grants = serde_json::from_value(serde_json::json!([{
        "name": manual_grant(2), "from": [{"spiffeId": "spiffe://acme.example/orders"}], "to": [{"cidr": "10.9.0.0/16"}],
        "ports": ["tcp/443"], "not_after": "2099-01-01T00:00:00Z", "reason": "a test", "place": manual_grant_place(),
    }]))
    .unwrap();
    second.confirmation =
        Some(Confirmation::begin(second.revision, first.set.clone(), SignedDuration::from_secs(60)));
    second.shadow = Some(Shadow { set: set(9), sample: 4, since: Timestamp::now() });
    store
        .begin(&second, &kernel(2), &Author::daemon("run"), &first, || Some(given(&first, &second)))
        .unwrap();
    store.mark(&second, first.revision, &rules(&second)).unwrap();
    store.set(&[("failsafe", Some("tcp/22".into())), ("mode", None)], &Author::daemon("run")).unwrap();
    assert_eq!(store.load(None).unwrap(), second);
    assert_eq!(State::load(&path, None).unwrap(), second, "another process, while the daemon has it open");
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load(None).unwrap(), second);
    assert_eq!(store.setting("failsafe").unwrap().as_deref(), Some("tcp/22"));
    assert_eq!(*store.set_of(1).unwrap().files, *first.set.files);
    assert!(store.set_of(7).unwrap_err().message.contains("no revision 7 is kept"));

    let history = store.history().unwrap();
    let told: Vec<_> =
        history.iter().map(|r| (r.number, r.uid, r.how.as_str(), r.outcome, r.in_force)).collect();
    let committed = Outcome::Committed;
    assert_eq!(told, [(2, None, "run", committed, true), (1, Some(0), "policy apply", committed, false)]);
    assert_eq!((&history[1].digest, &history[1].files), (&first.set.digest, &vec!["shop.yaml".to_owned()]));
    assert_eq!(history[0].confirm_by, second.confirmation.as_ref().map(|c| c.deadline_at));

    store.confirm(2, &Author { who: Who::User(0), how: "policy confirm".into() }).unwrap();
    assert_eq!(store.load(None).unwrap(), State { confirmation: None, ..second });
}

#[test]
fn a_pending_revision_counts_if_the_kernel_judges_by_it_and_only_then() {
    for (in_kernel, counts) in [
        (kernel(1), 1),
        (kernel(2), 2),
        // Maps that were made anew count their epochs anew.
        (InKernel { generation: "other maps".into(), ..kernel(2) }, 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut store = Store::open(&path).unwrap();
        let first = commit(&mut store, &State::default(), set(443));
        let second = next(&store, &first, set(8443));
        store
            .begin(&second, &kernel(2), &Author::daemon("a test"), &first, || Some(given(&first, &second)))
            .unwrap();
        drop(store);
        let seen = State::load(&path, Some(&in_kernel)).unwrap();
        assert_eq!(seen.revision, counts, "{in_kernel:?}");
        let told = Store::read(&path).unwrap().unwrap().history_by(&in_kernel).unwrap();
        let in_force: Vec<_> = told.iter().filter(|r| r.in_force).map(|r| (r.number, r.outcome)).collect();
        assert_eq!(in_force, [(counts, Outcome::Committed)]);

        let mut store = Store::open(&path).unwrap();
        store.resolve(&in_kernel).unwrap();
        let state = store.load(None).unwrap();
        assert_eq!((state.revision, &state.set), (counts, [&first.set, &second.set][counts as usize - 1]));
        let outcome = if counts == 2 { Outcome::Committed } else { Outcome::Abandoned };
        assert_eq!(store.history().unwrap()[0].outcome, outcome);
        // A number that was given stays given.
        assert_eq!(state.numbering, second.numbering);
        assert_eq!(store.next_revision().unwrap(), 3);
    }
}

#[test]
fn a_revision_that_is_left_pending_never_counts_once_another_was_begun() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("state.db")).unwrap();
    let first = commit(&mut store, &State::default(), set(443));
    // Refused, and the disk too full to say so: the next one has the same epoch.
    let by = Author::daemon("a test");
    let refused = next(&store, &first, set(1));
    store.begin(&refused, &kernel(2), &by, &first, || Some(given(&first, &refused))).unwrap();
    let known = State { numbering: refused.numbering.clone(), ..first };
    let second = next(&store, &known, set(8443));
    store.begin(&second, &kernel(2), &by, &known, || Some(given(&known, &second))).unwrap();
    store.mark(&second, known.revision, &rules(&second)).unwrap();
    store.resolve(&kernel(2)).unwrap();
    assert_eq!(store.load(None).unwrap().revision, 3);
    assert_eq!(store.history().unwrap()[1].outcome, Outcome::Refused);
}

#[test]
fn so_many_revisions_are_kept_and_texts_that_are_the_same_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("state.db")).unwrap();
    let count = |store: &Store, table: &str| -> u32 {
        store.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    let mut state = commit(&mut store, &State::default(), set(1));
    let same = set(2);
    for _ in 0..KEPT_REVISIONS + 5 {
        state = commit(&mut store, &state, same.clone());
    }
    let history = store.history().unwrap();
    assert_eq!(history.len(), KEPT_REVISIONS as usize);
    assert_eq!(history[0].number, u64::from(KEPT_REVISIONS) + 6);
    assert_eq!((count(&store, "documents"), count(&store, "body"), count(&store, "file")), (1, 1, 1));
}

#[test]
fn the_state_of_an_older_version_is_taken_over_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let set = set(443);
    let clock = Clock { wall_now: Timestamp::now(), boot_now_ns: 1_000 };
    let compiled = compile(&set.documents, &Default::default(), &clock);
    let old = serde_json::json!({
        "revision": 41, "epoch": 42, "applied_at": "2026-11-01T00:00:00Z", "documents": set.documents, "blocks": [],
        "numbering": compiled.numbering, "rules": compiled.rules, "classes": {},
        "shadow": {"documents": set.documents, "sample": 2, "since": "2026-11-02T00:00:00Z"},
    });
    std::fs::write(folder.path().join("state.json"), old.to_string()).unwrap();
    let before = State::load(&path, None).unwrap();
    assert!(!path.exists(), "who only reads makes nothing");
    assert_eq!((before.revision, before.documents()), (41, &set.documents));

    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load(None).unwrap(), before);
    assert_eq!((before.numbering, before.rules), (compiled.numbering, compiled.rules));
    assert_eq!(before.shadow.as_ref().map(|shadow| shadow.sample), Some(2));
    assert_eq!(store.history().unwrap()[0].how, "state.json of an older version");
    assert!(!folder.path().join("state.json").exists() && folder.path().join("state.json.old").exists());
    store.resolve(&kernel(42)).unwrap();
    assert_eq!(store.next_revision().unwrap(), 42);
    drop(store);

    // What cannot be read is not taken for nothing, and nothing is made of it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(folder.path().join("state.json"), "{").unwrap();
    for _ in 0..2 {
        let said = Store::open(&path).unwrap_err().message;
        assert!(said.contains("state.json is damaged"), "{said}");
    }
}

#[test]
fn a_file_of_the_first_form_is_read_as_it_is_and_brought_to_this_one_by_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let mut store = Store::open(&path).unwrap();
    let first = commit(&mut store, &State::default(), set(443));
    store
        .db
        .execute_batch(
            "ALTER TABLE revision DROP COLUMN grants; ALTER TABLE revision DROP COLUMN spiffe_id; DROP TABLE binding; DROP TABLE audit; DROP TABLE revision_feed; DROP TABLE feed_content;
             UPDATE documents SET parsed = (SELECT parsed FROM said), digest = 'of an older form';
             DROP INDEX file_body; DROP INDEX file_said; DROP INDEX documents_digest;
             ALTER TABLE file DROP COLUMN said; DROP TABLE said; PRAGMA user_version = 1",
        )
        .unwrap();
    drop(store);

    let old = Store::read(&path).unwrap().unwrap();
    assert_eq!(old.load(None).unwrap(), first);
    assert_eq!(old.history().unwrap()[0].who(), Who::User(0));
    assert_eq!(old.audit_head().unwrap().seq, 0);
    drop(old);

    let mut store = Store::open(&path).unwrap();
    let second = next(&store, &first, set(8443));
    let oncall: SpiffeId = "spiffe://acme.example/ns/ops/sa/oncall".parse().unwrap();
    let by = Author { who: Who::Workload(oncall.clone()), how: "policy apply".into() };
    store.begin(&second, &kernel(2), &by, &first, || Some(given(&first, &second))).unwrap();
    store.mark(&second, first.revision, &rules(&second)).unwrap();
    assert_eq!(store.audit_head().unwrap().seq, 2);
    // A digest says which files these were, whichever version saved them.
    assert_eq!(store.history().unwrap()[1].digest, first.set.digest);
    drop(store);
    let store = Store::read(&path).unwrap().unwrap();
    assert_eq!(store.load(None).unwrap(), second);
    let who: Vec<_> = store.history().unwrap().iter().map(Revision::who).collect();
    assert_eq!(who, [Who::Workload(oncall), Who::User(0)]);
    let form: i32 = store.db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(form, open::VERSION);
}

#[test]
fn what_a_version_before_priorities_would_misread_it_refuses_and_what_it_wrote_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let text = FILE.replace("PORT", "443").replace("{rules:", "{priority: 7, rules:");
    let file = SourceFile { name: "shop.yaml".into(), text: text.into() };
    let set = Arc::new(PolicySet::read(vec![file], Timestamp::now()).unwrap());
    assert_eq!(set.documents.policies[0].priority, Some(7));
    let first = commit(&mut Store::open(&path).unwrap(), &State::default(), set);
    let form = |path: &Path| -> i32 {
        Connection::open(path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    // The form before this is the last that such a version accepts.
    assert!(form(&path) >= 8);
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
    assert_eq!(Store::read(&path).unwrap().unwrap().load(None).unwrap(), first);
    assert_eq!(form(&path), 7, "who reads changes nothing");
    assert_eq!(Store::open(&path).unwrap().load(None).unwrap(), first);
    assert_eq!(form(&path), open::VERSION);
}

#[test]
fn a_revision_that_is_given_up_while_it_is_recorded_was_never_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let mut store = Store::open(&path).unwrap();
    let first = commit(&mut store, &State::default(), set(443));
    let second = next(&store, &first, set(8443));
    let by = Author::daemon("a test");
    let said = store.begin(&second, &kernel(2), &by, &first, || None).unwrap_err().message;
    assert!(said.contains("it was given up"), "{said}");
    assert_eq!(store.history().unwrap().len(), 1);
    let bodies: i64 = store.db.query_row("SELECT count(*) FROM body", [], |row| row.get(0)).unwrap();
    assert_eq!((store.load(None).unwrap(), bodies), (first.clone(), 1));
    // A number that is told once more is the one that it was.
    let all = Given::since(&State::default().numbering.counted(), &second.numbering);
    store.begin(&second, &kernel(2), &by, &first, || Some(all)).unwrap();
    store.mark(&second, first.revision, &rules(&second)).unwrap();
    assert_eq!(store.load(None).unwrap(), second);
}

#[test]
fn a_file_of_a_newer_version_or_of_something_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    drop(commit(&mut Store::open(&path).unwrap(), &State::default(), set(443)));
    let db = Connection::open(&path).unwrap();
    let newer = open::VERSION + 1;
    db.execute_batch(&format!("PRAGMA user_version = {newer}; PRAGMA wal_checkpoint(TRUNCATE);")).unwrap();
    drop(db);
    let before = std::fs::read(&path).unwrap();
    for said in [Store::open(&path).unwrap_err(), Store::read(&path).unwrap_err()] {
        let said = said.message;
        assert!(
            said.contains(&format!("is of a newer tidegate: its form is {newer}"))
                && said.contains("newer version"),
            "{said}"
        );
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    let said = Store::open(&other).unwrap_err().message;
    assert!(said.contains("is a database of something else"), "{said}");
}

#[test]
fn a_damaged_file_is_said_to_be_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(&path, "what is this").unwrap();
    for said in [Store::open(&path).unwrap_err(), Store::read(&path).unwrap_err()] {
        assert!(
            said.message.contains("is damaged") && said.message.contains("tidegate run --policy"),
            "{said}"
        );
    }
    // A page in the middle.
    let path = folder.path().join("pages.db");
    let mut store = Store::open(&path).unwrap();
    commit(&mut store, &State::default(), set(443));
    store.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&path, bytes).unwrap();
    let said = Store::open(&path).unwrap_err().message;
    assert!(said.contains("is damaged"), "{said}");
    // A row that says what it cannot.
    let path = folder.path().join("rows.db");
    let mut store = Store::open(&path).unwrap();
    commit(&mut store, &State::default(), set(443));
    store.db.execute_batch("UPDATE documents SET parsed = '{'").unwrap();
    let said = store.load(None).unwrap_err().message;
    assert!(said.contains("documents") && said.contains("is damaged"), "{said}");
}

#[test]
#[ignore = "needs root: mounts a small tmpfs"]
fn a_full_disk_refuses_a_revision_and_keeps_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::new(folder.path(), 500);
    let path = folder.path().join("state.db");
    let mut store = Store::open(&path).unwrap();
    let first = commit(&mut store, &State::default(), set(443));
    let filler = folder.path().join("filler");
    while std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&filler)
        .and_then(|mut f| std::io::Write::write_all(&mut f, &[7; 4096]))
        .is_ok()
    {}
    let mut comment = FILE.replace("PORT", "8443");
    comment.push_str(&"# so many words\n".repeat(10_000));
    let file = SourceFile { name: "shop.yaml".into(), text: comment.into() };
    let large = Arc::new(PolicySet::read(vec![file], Timestamp::now()).unwrap());
    let second = next(&store, &first, large);
    let begin = |store: &mut Store| {
        store.begin(&second, &kernel(2), &Author::daemon("a test"), &first, || Some(given(&first, &second)))
    };
    let said = begin(&mut store).unwrap_err().message;
    assert!(said.contains("there is no room to write"), "{said}");
    assert_eq!(store.load(None).unwrap(), first);
    assert_eq!(store.history().unwrap().len(), 1);
    std::fs::remove_file(&filler).unwrap();
    begin(&mut store).unwrap();
    store.mark(&second, first.revision, &rules(&second)).unwrap();
    assert_eq!(store.load(None).unwrap(), second);
    drop(store);
    drop(disk);
}

/// A tmpfs of a few kB, unmounted when dropped.
struct SmallDisk<'p>(&'p Path);

impl<'p> SmallDisk<'p> {
    fn new(path: &'p Path, kib: u32) -> Self {
        let size = format!("size={kib}k");
        nix::mount::mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(size.as_str()),
        )
        .unwrap();
        Self(path)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        nix::mount::umount(self.0).unwrap();
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let said = Store::open(&folder.path().join("file").join("state.db")).unwrap_err().message;
    assert!(said.contains("make ") && said.contains("file"), "{said}");
    // Root writes where modes forbid it, so a folder in the place of the file stands for both.
    let path = folder.path().join("state.db");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o500)).unwrap();
    let said = Store::open(&path).unwrap_err().message;
    assert!(said.contains("its folder has to be there and writable"), "{said}");
}

#[test]
fn what_feeds_said_is_kept_for_the_revision_that_counts_and_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let feed = folder.path().join("feed");
    let text = format!(
        "apiVersion: tidegate.dev/v1\nkind: Blocklist\nmetadata: {{name: bad}}\nspec: {{feeds: [{{name: a, path: {}}}]}}\n",
        feed.display()
    );
    let read = |content: &str| {
        std::fs::write(&feed, content).unwrap();
        let file = SourceFile { name: "bad.yaml".into(), text: text.clone().into() };
        Arc::new(PolicySet::read(vec![file], Timestamp::now()).unwrap())
    };
    let path = folder.path().join("state.db");
    let mut store = Store::open(&path).unwrap();
    let contents = |store: &Store| -> i64 {
        store.db.query_row("SELECT count(*) FROM feed_content", [], |row| row.get(0)).unwrap()
    };
    let first = commit(&mut store, &State::default(), read("192.0.2.1 # one\n"));
    // The daemon reads the file alone anew: these are the same files, and a revision all the same.
    let again = PolicySet::clone(&read("192.0.2.1 # one\n2001:db8::/32\n"));
    let second = commit(&mut store, &first, Arc::new(again));
    assert_eq!(contents(&store), 2);
    let third = commit(&mut store, &second, second.set.clone());
    assert_eq!(contents(&store), 1, "what is the same is there once, and what was before is gone");
    assert_eq!(store.load(None).unwrap(), third);
    let of = |set: &PolicySet| set.documents.feeds().next().unwrap().entries.list().to_vec();
    assert_eq!(of(&store.load(None).unwrap().set), of(&second.set));
    assert_eq!(
        of(&store.set_of(first.revision).unwrap()),
        of(&second.set),
        "what was read last stands in for it"
    );

    // A daemon that is killed between the two steps of a commit finds the one that the kernel judges by.
    let fourth = next(&store, &third, read("198.51.100.0/24\n"));
    store
        .begin(&fourth, &kernel(fourth.epoch), &Author::daemon("feeds: bad/a"), &third, || {
            Some(given(&third, &fourth))
        })
        .unwrap();
    let [not_yet, flipped] =
        [third.epoch, fourth.epoch].map(|epoch| store.load(Some(&kernel(epoch))).unwrap());
    assert_eq!(of(&not_yet.set), of(&third.set));
    assert_eq!(of(&flipped.set), of(&fourth.set));
    store.resolve(&kernel(third.epoch)).unwrap();
    assert_eq!(of(&store.load(None).unwrap().set), of(&third.set));
}
