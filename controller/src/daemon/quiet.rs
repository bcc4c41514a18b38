//! What whoever knocks can bring about is told of so often a second, and no more: nobody fills the log or the stream.

use super::lock;
use jiff::Timestamp;
use std::sync::Mutex;

/// So many are told of in a second; how many there are is counted elsewhere.
const TOLD: u32 = 10;

/// What was told of in this second.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<(i64, u32)>);

impl Quiet {
    /// Whether one more is told of.
    pub fn may_tell(&self) -> bool {
        self.may_tell_at(Timestamp::now())
    }

    fn may_tell_at(&self, now: Timestamp) -> bool {
        let mut told = lock(&self.0);
        if told.0 != now.as_second() {
            *told = (now.as_second(), 0);
        }
        told.1 = told.1.saturating_add(1);
        told.1 <= TOLD
    }

    /// Writes a line to the log, unless there were many.
    pub fn warn(&self, line: impl FnOnce() -> String) {
        if self.may_tell() {
            tracing::warn!("{}", line());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_told_of_in_each_second() {
        let quiet = Quiet::default();
        let at = |second| Timestamp::from_second(second).expect("a time");
        let told = |second| (0..1_000).filter(|_| quiet.may_tell_at(at(second))).count();
        assert_eq!([told(5), told(5), told(6), told(4)], [TOLD as usize, 0, TOLD as usize, TOLD as usize]);
    }
}
