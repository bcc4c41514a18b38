//! Connections that are known to be expected: counted where they are read, so that they take no place from those that have to be compared.
//!
//! The loop says which are known. A storm of them is a number by the next time that it looks, and what departs waits behind none of them.

use super::inlet::{Ends, Judged};
use super::lock;
use std::collections::HashMap;
use std::sync::Mutex;

/// What is known, and what was counted of it.
#[derive(Default)]
pub struct Usual(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By which declarations they are known. Others know others.
    generation: u64,
    ends: HashMap<Ends, Option<Times>>,
    /// Those that were counted.
    counted: Vec<Ends>,
    /// What was counted before what was known was forgotten.
    left: Vec<(Ends, Times)>,
}

/// So many connections between two ends.
pub struct Times {
    /// How many.
    pub many: u64,
    /// The last of them.
    pub last: Judged,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It is not known, and has to be compared.
    Unknown,
    /// It was counted, as the first since they were taken.
    First,
    /// It was counted.
    Another,
}

impl Usual {
    /// Counts a connection, if it is known.
    pub fn count(&self, ends: &Ends, judged: impl FnOnce() -> Judged) -> Counted {
        let mut known = lock(&self.0);
        let Known { ends: all, counted, .. } = &mut *known;
        let Some(times) = all.get_mut(ends) else { return Counted::Unknown };
        if let Some(times) = times {
            *times = Times { many: times.many + 1, last: judged() };
            return Counted::Another;
        }
        *times = Some(Times { many: 1, last: judged() });
        counted.push(*ends);
        if counted.len() == 1 { Counted::First } else { Counted::Another }
    }

    /// Since when what is known is known.
    pub fn generation(&self) -> u64 {
        lock(&self.0).generation
    }

    /// These need not be compared any more, by declarations that were in force at that generation or later.
    pub fn know(&self, ends: Ends, generation: u64) {
        let mut known = lock(&self.0);
        if known.generation == generation {
            known.ends.entry(ends).or_default();
        }
    }

    /// Has all be compared again. What was counted stays so.
    pub fn forget(&self) {
        let mut known = lock(&self.0);
        known.generation += 1;
        let counted = known.take();
        known.left.extend(counted);
        known.ends.clear();
    }

    /// Takes what was counted since it was taken last.
    pub fn take(&self) -> Vec<(Ends, Times)> {
        let mut known = lock(&self.0);
        let left = std::mem::take(&mut known.left);
        left.into_iter().chain(known.take()).collect()
    }
}

impl Known {
    fn take(&mut self) -> Vec<(Ends, Times)> {
        let Self { ends: all, counted, .. } = self;
        let take = |ends: Ends| Some((ends, all.get_mut(&ends)?.take()?));
        counted.drain(..).filter_map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::inlet::What;
    use super::*;
    use crate::names::Names;
    use datapath::abi::Addr;
    use jiff::Timestamp;
    use std::sync::Arc;

    fn ends(port: u16) -> Ends {
        Ends { of: [(1, Addr::v4([10, 1, 0, 2])), (2, Addr::v4([10, 2, 0, 3]))], proto: 6, port }
    }

    fn judged(second: i64) -> Judged {
        let time = Timestamp::from_second(second).expect("a time");
        Judged { what: What::Usual, names: Arc::new(Names::default()), time }
    }

    fn taken(usual: &Usual) -> Vec<(u16, u64, i64)> {
        let told = |(ends, times): (Ends, Times)| (ends.port, times.many, times.last.time.as_second());
        usual.take().into_iter().map(told).collect()
    }

    #[test]
    fn what_is_known_is_counted_and_all_else_is_to_be_compared() {
        let usual = Usual::default();
        assert_eq!(usual.count(&ends(443), || judged(1)), Counted::Unknown);
        usual.know(ends(443), usual.generation());
        usual.know(ends(80), usual.generation());
        assert_eq!(usual.count(&ends(443), || judged(2)), Counted::First);
        assert_eq!(usual.count(&ends(443), || judged(3)), Counted::Another);
        assert_eq!(usual.count(&ends(80), || judged(4)), Counted::Another);
        assert_eq!(taken(&usual), [(443, 2, 3), (80, 1, 4)]);
        assert_eq!(taken(&usual), []);
        assert_eq!(usual.count(&ends(443), || judged(5)), Counted::First, "it is still known");
    }

    #[test]
    fn under_other_declarations_nothing_is_known_and_nothing_that_was_counted_is_lost() {
        let usual = Usual::default();
        let before = usual.generation();
        usual.know(ends(443), before);
        usual.count(&ends(443), || judged(1));
        usual.forget();
        assert_eq!(usual.count(&ends(443), || judged(2)), Counted::Unknown);
        usual.know(ends(443), before);
        assert_eq!(usual.count(&ends(443), || judged(2)), Counted::Unknown, "that was known by the old ones");
        assert_eq!(taken(&usual), [(443, 1, 1)]);
    }
}
