//! Numbers of the maps as people know them.

use crate::policy::numbering::Numbering;
use crate::policy::spiffe::SpiffeId;
use crate::state::State;
use datapath::abi::{Action, Binding, Reason};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Revisions before the one that counts of which an event may still tell.
const KEPT: usize = 16;

/// Names of identities, rules and epochs.
#[derive(Clone, Debug, Default)]
pub struct Names {
    identities: Shards,
    rules: Arc<HashMap<u32, String>>,
    /// Epochs, and the revisions that began with them, the latest last.
    revisions: VecDeque<(u32, u64)>,
}

/// Names by numbers, in parts that versions share: one name more copies the part that it is in.
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
        let mut rules: HashMap<_, _> = state.numbering.rules().map(|(n, key)| (n, short(key))).collect();
        rules.extend(state.rules.iter().map(|(n, rule)| (*n, rule.label())));
        Self {
            identities: identities(&state.numbering),
            rules: Arc::new(rules),
            revisions: VecDeque::from([(state.epoch, state.revision)]),
        }
    }

    /// The same, knowing of the revisions before: an event may be told after the commit that followed it.
    pub fn after(mut self, before: &Self) -> Self {
        let skip = before.revisions.len().saturating_sub(KEPT);
        let known = before.revisions.iter().skip(skip).filter(|one| !self.revisions.contains(one));
        let known: Vec<_> = known.copied().collect();
        known.into_iter().rev().for_each(|one| self.revisions.push_front(one));
        self
    }

    /// The revision by which was judged in this epoch.
    pub fn revision(&self, epoch: u32) -> Option<u64> {
        self.revisions.iter().rfind(|(first, _)| *first <= epoch).map(|(_, revision)| *revision)
    }

    /// The same after a revision that gave these rules their names.
    pub fn revised(&self, epoch: u32, revision: u64, rules: &[(u32, String)]) -> Self {
        let mut names = Self { revisions: VecDeque::from([(epoch, revision)]), ..self.clone() };
        let is_new = |(number, name): &&(u32, String)| names.rule(*number) != Some(name);
        let new: Vec<_> = rules.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            Arc::make_mut(&mut names.rules).extend(new);
        }
        names.after(self)
    }

    /// Adds the name of an identity.
    pub fn learn(&mut self, number: u32, id: &SpiffeId) {
        self.identities.insert(number, id.as_str());
    }

    /// The SPIFFE ID of an identity.
    pub fn identity(&self, number: u32) -> Option<&str> {
        self.identities.get(number)
    }

    /// The label of a rule, `POLICY/RULE`.
    pub fn rule(&self, number: u32) -> Option<&str> {
        self.rules.get(&number).map(String::as_str)
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
        Names { revisions: VecDeque::from([(epoch, revision)]), ..Names::default() }
    }

    #[test]
    fn a_name_more_is_known_from_then_on_and_copies_one_part_of_the_others() {
        let id = |n: u32| format!("spiffe://a.example/{n}").parse::<SpiffeId>().expect("a SPIFFE ID");
        let mut before = Names::default();
        (1..=1000).for_each(|n| before.learn(n, &id(n)));
        let mut after = before.clone();
        after.learn(1001, &id(1001));
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
