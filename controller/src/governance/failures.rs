//! Handshakes that fail: whether more of them do than is usual for their class.
//!
//! A class is an intent within a tenant: its identities share a baseline, so that jobs that come and go have one. Of servers it is told apart
//! with whom the clients shake hands.

use super::compare::{Departure, Seen, departs};
use super::minutes::{Class, Classes, Minutes, spans};
use super::signal::Signal;
use crate::policy::intent::Intent;
use datapath::abi::{HandshakeKind, HandshakeOutcome};
use jiff::Timestamp;

/// Fewer failures are no surge.
const FEWEST: u32 = 5;
/// With fewer handshakes before, nobody knows what is usual.
const BASELINE: u32 = 20;
/// Whoever restarts a server has its clients refused for a minute or two. That is a surge when it is seen in more minutes than that.
const REFUSED_MINUTES: usize = 3;
/// Outcomes that end a handshake: completed, and six ways to fail.
const OUTCOMES: usize = 7;

type Outcomes = [u32; OUTCOMES];

/// Outcomes by class.
#[derive(Debug, Default)]
pub struct Failures {
    classes: Classes<Outcomes>,
}

impl Failures {
    /// Classes that were forgotten.
    pub fn forgotten(&self) -> u64 {
        self.classes.forgotten
    }

    /// Counts how a handshake ended, for both ends, and says where it is one failure of a surge.
    pub fn look<'s>(
        &mut self,
        intents: &'s [Intent],
        seen: &'s Seen,
        (kind, outcome): (HandshakeKind, HandshakeOutcome),
        at: Timestamp,
    ) -> Vec<Departure<'s>> {
        // What is counted besides the outcome is none.
        if outcome as usize >= OUTCOMES {
            return Vec::new();
        }
        let mut departures = Vec::new();
        for (role, class) in Class::of_ends(intents, seen, kind) {
            let minutes = self.classes.of(class);
            minutes.at(at)[outcome as usize] += 1;
            let surge = if outcome == HandshakeOutcome::Completed { None } else { surge(minutes) };
            let Some(surge) = surge else { continue };
            let detail = Some(format!("{} {surge}", kind.name().to_uppercase()));
            departures.extend(departs(intents, seen, role, (Signal::HandshakeFailures, detail)));
        }
        departures
    }
}

/// What it is, in words: half or more fail, five or more, and four times the share that is usual.
fn surge(minutes: &Minutes<Outcomes>) -> Option<String> {
    let (mut recent, before) = (sum(minutes.recent()), sum(minutes.before()));
    let refused = HandshakeOutcome::Refused as usize;
    if minutes.recent().filter(|minute| minute[refused] > 0).count() < REFUSED_MINUTES {
        recent[refused] = 0;
    }
    let (failed, all) = (failed(&recent), recent.iter().sum::<u32>());
    let (failed_before, all_before) = (self::failed(&before), before.iter().sum::<u32>());
    if failed < FEWEST || failed * 2 < all {
        return None;
    }
    let is_known = all_before >= BASELINE;
    let (now, usual) = (u64::from(failed) * u64::from(all_before), u64::from(failed_before) * u64::from(all));
    if is_known && now < 4 * usual {
        return None;
    }
    let kinds = (1..OUTCOMES).filter(|n| recent[*n] > 0).map(|n| {
        let name = HandshakeOutcome::from_u8(n as u8).map_or("-", HandshakeOutcome::name);
        format!("{name} {}", recent[n])
    });
    let kinds: Vec<_> = kinds.collect();
    let (minutes, hour) = spans();
    let mut text = format!("{failed} of {all} failed in {minutes} ({})", kinds.join(", "));
    text += &match is_known {
        true => format!(", {failed_before} of {all_before} in {hour} before"),
        false => format!(", and what is usual is not known yet: {all_before} in {hour} before"),
    };
    Some(text)
}

fn failed(counts: &Outcomes) -> u32 {
    counts[1..].iter().sum()
}

fn sum<'c>(minutes: impl Iterator<Item = &'c Outcomes>) -> Outcomes {
    minutes.fold([0; OUTCOMES], |mut all, minute| {
        all.iter_mut().zip(minute).for_each(|(all, one)| *all += one);
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(outcomes: &[(HandshakeOutcome, u32)], minutes: &mut Minutes<Outcomes>, minute: i64) {
        for (outcome, many) in outcomes {
            minutes.at(Timestamp::from_second(60 * minute).expect("a time"))[*outcome as usize] += many;
        }
    }

    #[test]
    fn a_surge_is_half_and_five_and_four_times_what_is_usual() {
        use HandshakeOutcome::{Alert, Completed, NoAnswer};
        let mut usual = Minutes::default();
        ends(&[(Completed, 90), (Alert, 10)], &mut usual, 0);
        ends(&[(Completed, 4), (Alert, 4)], &mut usual, 30);
        assert_eq!(surge(&usual), None, "four are too few");
        ends(&[(NoAnswer, 1)], &mut usual, 31);
        let text = surge(&usual);
        assert_eq!(
            text.as_deref(),
            Some("5 of 9 failed in 5m00s (no_answer 1, alert 4), 10 of 100 in 1h00m before")
        );
        ends(&[(Completed, 2)], &mut usual, 31);
        assert_eq!(surge(&usual), None, "less than half fail");
        // When it has gone on for long enough it is the baseline.
        ends(&[(Alert, 100)], &mut usual, 40);
        assert!(surge(&usual).is_some());
        ends(&[(Alert, 100)], &mut usual, 50);
        assert_eq!(surge(&usual), None);
    }

    #[test]
    fn a_server_that_restarts_is_no_surge_and_one_that_stays_away_is() {
        use HandshakeOutcome::{Completed, Refused};
        let mut minutes = Minutes::default();
        ends(&[(Completed, 30)], &mut minutes, 0);
        ends(&[(Refused, 50)], &mut minutes, 10);
        ends(&[(Refused, 50)], &mut minutes, 11);
        assert_eq!(surge(&minutes), None, "two minutes");
        ends(&[(Refused, 1)], &mut minutes, 13);
        let text = surge(&minutes).expect("a surge");
        assert_eq!(text, "101 of 101 failed in 5m00s (refused 101), 0 of 30 in 1h00m before");
    }

    #[test]
    fn where_nothing_is_usual_yet_half_and_five_are_enough_and_old_minutes_are_forgotten() {
        use HandshakeOutcome::{Completed, TimedOut};
        let mut new = Minutes::default();
        ends(&[(Completed, 19)], &mut new, 0);
        ends(&[(TimedOut, 5)], &mut new, 10);
        let text = surge(&new).expect("a surge");
        assert_eq!(
            text,
            "5 of 5 failed in 5m00s (timed_out 5), and what is usual is not known yet: 19 in 1h00m before"
        );
        ends(&[(TimedOut, 5)], &mut new, 1000);
        assert_eq!(surge(&new).as_deref(), Some(&*text.replace("19 in", "0 in")));
        assert_eq!(new.recent().chain(new.before()).count(), 65, "old minutes are forgotten");
    }
}
