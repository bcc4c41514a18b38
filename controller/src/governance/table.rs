//! Tables of what was seen of identities, which anybody can make longer: bounded, and with what has changed at hand for the file.

use super::compare::Role;
use crate::policy::spiffe::{SpiffeId, SpiffePattern};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Rows of a table. Beyond that the quarter goes that was heard of longest ago.
const MOST: usize = 65_536;

/// Who is counted together, so that none takes the room of others.
type Whose = (SpiffeId, Option<Role>);

/// What a row is known by.
pub trait Key: Clone + Eq + Hash + Ord {
    /// Rows of one. What is more is counted.
    const MOST_OF_ONE: usize;

    /// Whose it is, and on which side where that tells them apart.
    fn whose(&self) -> Whose;
}

/// What was seen.
pub trait Seen: Clone {
    /// The last time.
    fn last_seen(&self) -> Timestamp;
}

/// The table.
#[derive(Debug)]
pub struct Table<K, V> {
    rows: HashMap<K, V>,
    of_one: HashMap<Whose, usize>,
    not_kept: HashMap<Whose, u64>,
    dirty: HashSet<K>,
    /// Rows that were forgotten.
    pub forgotten: u64,
}

impl<K: Key, V: Seen> Table<K, V> {
    /// With the rows that were kept.
    pub fn of(kept: impl Iterator<Item = (K, V)>) -> Self {
        let mut table = Self::default();
        for (key, value) in kept {
            *table.of_one.entry(key.whose()).or_default() += 1;
            table.rows.insert(key, value);
        }
        table
    }

    /// The row, which is about to change; a new one where there is room for it. Where there is none it is counted, so many times.
    pub fn row(&mut self, key: K, many: u64, new: impl FnOnce() -> V) -> Option<&mut V> {
        if !self.rows.contains_key(&key) {
            let whose = key.whose();
            if self.of_one.get(&whose).is_some_and(|rows| *rows >= K::MOST_OF_ONE) {
                *self.not_kept.entry(whose).or_default() += many;
                return None;
            }
            if self.rows.len() >= MOST {
                self.forget();
            }
            *self.of_one.entry(whose).or_default() += 1;
            self.rows.insert(key.clone(), new());
        }
        self.dirty.insert(key.clone());
        self.rows.get_mut(&key)
    }

    fn forget(&mut self) {
        let Some(last) = oldest_quarter(self.rows.values().map(V::last_seen)) else { return };
        for (key, _) in self.rows.extract_if(|_, value| value.last_seen() <= last) {
            let whose = key.whose();
            if let Some(rows) = self.of_one.get_mut(&whose) {
                *rows -= 1;
                if *rows == 0 {
                    self.of_one.remove(&whose);
                    self.not_kept.remove(&whose);
                }
            }
            self.forgotten += 1;
            self.dirty.insert(key);
        }
    }

    /// The rows of identities, in their order, and what there was no room for.
    pub fn of_identities(&self, pattern: &SpiffePattern) -> (Vec<(&K, &V)>, u64) {
        let mut rows: Vec<_> = self.rows.iter().filter(|(key, _)| pattern.matches(&key.whose().0)).collect();
        rows.sort_by_key(|(key, _)| *key);
        let not_kept = self.not_kept.iter().filter(|((id, _), _)| pattern.matches(id)).map(|(_, n)| n).sum();
        (rows, not_kept)
    }

    /// Takes so many at most of those that have changed since they were taken last; nothing beside one that is not kept any more.
    pub fn changes(&mut self, most: usize) -> Vec<(K, Option<V>)> {
        let some: Vec<_> = self.dirty.iter().take(most).cloned().collect();
        let changed = |key: K| {
            self.dirty.remove(&key);
            let value = self.rows.get(&key).cloned();
            (key, value)
        };
        some.into_iter().map(changed).collect()
    }

    /// These could not be written.
    pub fn again(&mut self, changes: Vec<(K, Option<V>)>) {
        self.dirty.extend(changes.into_iter().map(|(key, _)| key));
    }

    /// How many rows there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            rows: HashMap::new(),
            of_one: HashMap::new(),
            not_kept: HashMap::new(),
            dirty: HashSet::new(),
            forgotten: 0,
        }
    }
}

/// Until when the quarter was heard of that was heard of longest ago; nothing where there is none.
pub fn oldest_quarter<T: Copy + Ord>(heard: impl Iterator<Item = T>) -> Option<T> {
    let mut heard: Vec<T> = heard.collect();
    let quarter = heard.len() / 4;
    (!heard.is_empty()).then(|| *heard.select_nth_unstable(quarter).1)
}

#[cfg(test)]
mod tests {
    use super::oldest_quarter;

    #[test]
    fn of_eight_the_oldest_quarter_ends_with_the_third() {
        assert_eq!(oldest_quarter([5, 1, 8, 3, 7, 2, 6, 4].into_iter()), Some(3));
        assert_eq!(oldest_quarter([9].into_iter()), Some(9));
        assert_eq!(oldest_quarter::<i64>([].into_iter()), None);
    }
}
