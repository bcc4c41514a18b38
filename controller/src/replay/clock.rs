//! The capture's time as the boot clock of a machine that was up for an hour when the capture began.
//!
//! The programs reckon with a clock that never runs backwards and is never near its ends, whatever a file says.

/// Boot-clock time of the first frame. Not 0: that is "not yet" in the programs' records.
pub const START_NS: u64 = 3_600_000_000_000;

/// Leases and timeouts of a day of policy must fit behind any frame.
const LONGEST_CAPTURE_NS: u64 = u64::MAX / 4;

/// Turns capture time into the engines' time and back.
#[derive(Clone, Copy, Debug)]
pub struct ReplayClock {
    first_ns: u64,
    now_ns: u64,
}

impl ReplayClock {
    /// A clock that starts with the first frame.
    pub fn starting_at(first_ns: u64) -> Self {
        Self { first_ns, now_ns: START_NS }
    }

    /// The capture's time of the first frame.
    pub fn first_ns(&self) -> u64 {
        self.first_ns
    }

    /// The engines' time of a frame. A frame that is older than the one before it has that one's time.
    pub fn advance(&mut self, capture_ns: u64) -> u64 {
        let since_start = capture_ns.saturating_sub(self.first_ns).min(LONGEST_CAPTURE_NS);
        self.now_ns = self.now_ns.max(START_NS + since_start);
        self.now_ns
    }

    /// The capture's time of a time in the engines' records.
    pub fn capture_ns(&self, engine_ns: u64) -> u64 {
        self.first_ns.saturating_add(engine_ns.saturating_sub(START_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_starts_with_the_capture_and_never_runs_back() {
        let mut clock = ReplayClock::starting_at(1_000);
        assert_eq!(clock.advance(1_000), START_NS);
        assert_eq!(clock.advance(1_500), START_NS + 500);
        assert_eq!(clock.advance(1_200), START_NS + 500);
        assert_eq!(clock.advance(0), START_NS + 500);
        assert_eq!(clock.advance(u64::MAX), START_NS + LONGEST_CAPTURE_NS);
        assert_eq!(clock.capture_ns(START_NS + 500), 1_500);
        assert_eq!(ReplayClock::starting_at(u64::MAX).capture_ns(START_NS + 9), u64::MAX);
    }
}
