//! Numbers of the maps as people know them.

use crate::policy::act::Act;
use crate::policy::numbering::Numbering;
use crate::policy::quarantine::Quarantine;
use crate::policy::selector::Selector;
use crate::policy::spiffe::SpiffeId;
use crate::state::State;
use datapath::abi::{Action, Binding, Reason};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

/// Revisions before the one that counts of which an event may still tell.
const KEPT: usize = 16;

/// Names of identities, rules and epochs.
#[derive(Clone, Debug, Default)]
pub struct Names {
    identities: Shards,
    rules: Shards,
    /// What began with which epoch, the latest last.
    revisions: VecDeque<Began>,
}

/// A revision, and the epoch that began with it.
#[derive(Clone, Debug, PartialEq)]
struct Began {
    epoch: u32,
    revision: u64,
    revoked: Arc<[Revoked]>,
}

/// Whose lease is revoked.
#[derive(Clone, Debug, PartialEq)]
pub struct Revoked {
    identities: Vec<Selector>,
    until: Option<Timestamp>,
}

impl Revoked {
    /// If a quarantine is one of that kind.
    fn by(quarantine: &Quarantine) -> Option<Self> {
        let Quarantine { act, identities, not_after, .. } = quarantine;
        (*act == Act::RevokeLease).then(|| Self { identities: identities.clone(), until: *not_after })
    }

    /// All of them.
    pub fn all(quarantines: &[Quarantine]) -> Arc<[Self]> {
        quarantines.iter().filter_map(Self::by).collect()
    }

    /// That it is an identity's, in words.
    fn told(&self, id: &SpiffeId, labels: &BTreeMap<String, String>) -> Option<String> {
        let until = self.until.map(|end| format!(" until {end:.0}")).unwrap_or_default();
        let is_its = self.identities.iter().any(|selector| selector.matches_workload(id, labels));
        is_its.then(|| format!("the lease of {id} is revoked{until}"))
    }
}

/// The names by which events are told now. Whoever has the kernel judge by another epoch puts its names here before that: no event is
/// read by names that do not know of it yet.
#[derive(Debug, Default)]
pub struct Published(RwLock<Arc<Names>>);

impl Published {
    /// These.
    pub fn new(names: Names) -> Self {
        Self(RwLock::new(Arc::new(names)))
    }

    /// As they are now.
    pub fn now(&self) -> Arc<Names> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on they are these, which know of the revisions before.
    pub fn rename(&self, names: Names) {
        self.change(|before| *before = Arc::new(names.after(before)));
    }

    /// The same where only rules may have others.
    pub fn revise(&self, epoch: u32, revision: u64, rules: &[(u32, String)], revoked: Arc<[Revoked]>) {
        let began = Began { epoch, revision, revoked };
        self.change(|before| *before = Arc::new(before.revised(began, rules)));
    }

    /// Adds names of identities to which something is bound.
    pub fn learn<'i>(&self, identities: impl IntoIterator<Item = (&'i str, u32)>) {
        self.change(|names| {
            let names = Arc::make_mut(names);
            identities.into_iter().for_each(|(id, number)| names.learn(number, id));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Arc<Names>)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Names by numbers, in parts that versions share: one name more copies the part that it is in. A containment has a rule of its own, and
/// waits for its name.
#[derive(Clone, Debug)]
struct Shards(Vec<Arc<HashMap<u32, Arc<str>>>>);

impl Shards {
    /// Of a hundred thousand identities, each has four hundred.
    const MANY: u32 = 256;

    fn get(&self, number: u32) -> Option<&str> {
        self.0[Self::of(number)].get(&number).map(AsRef::as_ref)
    }

    fn insert(&mut self, number: u32, name: &str) {
        Arc::make_mut(&mut self.0[Self::of(number)]).insert(number, name.into());
    }

    fn of(number: u32) -> usize {
        (number % Self::MANY) as usize
    }
}

impl Default for Shards {
    fn default() -> Self {
        Self((0..Self::MANY).map(|_| Arc::default()).collect())
    }
}

impl Names {
    /// From the saved state.
    pub fn of(state: &State) -> Self {
        let mut rules = Shards::default();
        state.numbering.rules().for_each(|(n, key)| rules.insert(n, &short(key)));
        state.rules.iter().for_each(|(n, rule)| rules.insert(*n, &rule.label()));
        Self {
            identities: identities(&state.numbering),
            rules,
            revisions: VecDeque::from([Began {
                epoch: state.epoch,
                revision: state.revision,
                revoked: Revoked::all(&state.quarantines),
            }]),
        }
    }

    /// The same, knowing of the revisions before: an event may be told after the commit that followed it.
    pub fn after(mut self, before: &Self) -> Self {
        let skip = before.revisions.len().saturating_sub(KEPT);
        let known = before.revisions.iter().skip(skip).filter(|one| !self.revisions.contains(one));
        let known: Vec<_> = known.cloned().collect();
        known.into_iter().rev().for_each(|one| self.revisions.push_front(one));
        self
    }

    /// The revision by which was judged in this epoch.
    pub fn revision(&self, epoch: u32) -> Option<u64> {
        self.began(epoch).map(|began| began.revision)
    }

    /// That the lease of an identity was revoked in this epoch, in words.
    pub fn revoked(&self, epoch: u32, id: &SpiffeId, labels: &BTreeMap<String, String>) -> Option<String> {
        self.began(epoch)?.revoked.iter().find_map(|revoked| revoked.told(id, labels))
    }

    fn began(&self, epoch: u32) -> Option<&Began> {
        self.revisions.iter().rfind(|began| began.epoch <= epoch)
    }

    /// The same after a revision that gave these rules their names.
    fn revised(&self, began: Began, rules: &[(u32, String)]) -> Self {
        let mut names = Self { revisions: VecDeque::from([began]), ..self.clone() };
        for (number, name) in rules {
            if names.rule(*number) != Some(name) {
                names.rules.insert(*number, name);
            }
        }
        names.after(self)
    }

    fn learn(&mut self, number: u32, id: &str) {
        self.identities.insert(number, id);
    }

    /// The SPIFFE ID of an identity.
    pub fn identity(&self, number: u32) -> Option<&str> {
        self.identities.get(number)
    }

    /// The label of a rule, `POLICY/RULE`.
    pub fn rule(&self, number: u32) -> Option<&str> {
        self.rules.get(number)
    }
}

fn identities(numbering: &Numbering) -> Shards {
    let mut names = Shards::default();
    numbering.identities().for_each(|(number, id)| names.insert(number, id.as_str()));
    names.insert(Binding::AMBIGUOUS, "ambiguous");
    names
}

/// `policy/NAME/RULE` as `NAME/RULE`; what has no name of its own beside its kind keeps that.
fn short(key: &str) -> String {
    if key.matches('/').count() == 1 {
        return key.to_owned();
    }
    key.split_once('/').map_or(key, |(_, rest)| rest).to_owned()
}

/// The verdict of a record or event.
pub fn verdict(action: u8) -> &'static str {
    Action::from_u8(action).name()
}

/// The reason of a record or event.
pub fn reason(reason: u8) -> &'static str {
    Reason::from_u8(reason).name()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(epoch: u32, revision: u64) -> Names {
        let began = Began { epoch, revision, revoked: Arc::default() };
        Names { revisions: VecDeque::from([began]), ..Names::default() }
    }

    #[test]
    fn whose_lease_was_revoked_is_known_by_the_epoch_of_the_event_before_and_after_it() {
        let id: SpiffeId = "spiffe://a.example/1".parse().expect("a SPIFFE ID");
        let names = Published::new(of(2, 1));
        let revoked = Revoked { identities: vec![Selector::SpiffeId(id.clone())], until: None };
        names.revise(4, 2, &[(9, "shop/pay".into())], Arc::new([revoked]));
        names.rename(of(6, 3));
        let now = names.now();
        let said = [2, 3, 4, 5, 6].map(|epoch| now.revoked(epoch, &id, &BTreeMap::new()).is_some());
        assert_eq!(said, [false, false, true, true, false]);
        let other = "spiffe://a.example/2".parse().expect("a SPIFFE ID");
        assert_eq!(now.revoked(4, &other, &BTreeMap::new()), None);
    }

    #[test]
    fn a_revision_that_did_not_come_gives_way_to_the_next_of_its_epoch() {
        let names = Published::new(of(2, 1));
        names.revise(3, 2, &[], Arc::default());
        assert_eq!(names.now().revision(2), Some(1));
        let before = names.now();
        names.revise(3, 3, &[(9, "shop/pay".into())], Arc::default());
        let now = names.now();
        assert_eq!((now.revision(3), now.rule(9), before.rule(9)), (Some(3), Some("shop/pay"), None));
        let shards = before.rules.0.iter().zip(&now.rules.0);
        assert_eq!(shards.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1, "the others are shared");
    }

    #[test]
    fn a_name_more_is_known_from_then_on_and_copies_one_part_of_the_others() {
        let id = |n: u32| format!("spiffe://a.example/{n}").parse::<SpiffeId>().expect("a SPIFFE ID");
        let mut before = Names::default();
        (1..=1000).for_each(|n| before.learn(n, id(n).as_str()));
        let mut after = before.clone();
        after.learn(1001, id(1001).as_str());
        assert_eq!((before.identity(1001), before.identity(1000)), (None, Some(id(1000).as_str())));
        assert!((1..=1001).all(|n| after.identity(n) == Some(id(n).as_str())));
        let shards = before.identities.0.iter().zip(&after.identities.0);
        assert_eq!(shards.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
    }

    #[test]
    fn an_event_that_is_told_late_has_the_revision_of_its_epoch() {
        let names = of(6, 3).after(&of(4, 2).after(&of(2, 1)));
        let told = [1, 2, 4, 5, 6, 9].map(|epoch| names.revision(epoch));
        assert_eq!(told, [None, Some(1), Some(2), Some(2), Some(3), Some(3)]);
        let many = (10..100).fold(names, |names, n| of(n, u64::from(n)).after(&names));
        assert_eq!((many.revision(82), many.revision(83)), (None, Some(83)));
        assert_eq!(of(99, 99).after(&many).revisions.len(), KEPT, "the same once");
    }
}
