//! Handshakes that fail: whether more of them do than is usual for their class.
//!
//! A class is an intent: its identities share a baseline, so that jobs that come and go have one. Of servers it is told apart
//! with whom the clients shake hands.

use super::compare::{Departure, End, Role, Seen, departs};
use super::finding::Peer;
use super::signal::Signal;
use crate::policy::intent::Intent;
use crate::policy::time::duration_text;
use datapath::abi::{HandshakeKind, HandshakeOutcome};
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};

/// Classes and peers that are counted, 2 kB each. Beyond that the quarter is forgotten of which nothing was heard for longest.
const MOST: usize = 4096;
/// What is compared: the last so many minutes, the one that runs among them.
const RECENT: usize = 5;
/// With what: so many minutes before these.
const BEFORE: usize = 60;
/// Fewer failures are no surge.
const FEWEST: u32 = 5;
/// With fewer handshakes before, nobody knows what is usual.
const BASELINE: u32 = 20;
/// Outcomes that end a handshake: completed, and six ways to fail.
const OUTCOMES: usize = 7;

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Class {
    intent: String,
    role: Role,
    kind: u8,
    peer: Peer,
}

/// Outcomes by class.
#[derive(Debug, Default)]
pub struct Failures {
    of: HashMap<Class, Minutes>,
    /// Classes that were forgotten.
    pub forgotten: u64,
}

/// Outcomes by minute, the latest first.
#[derive(Debug, Default)]
struct Minutes {
    latest: i64,
    counts: VecDeque<[u32; OUTCOMES]>,
}

impl Failures {
    /// Counts how a handshake ended, for both ends, and says where it is one failure of a surge.
    pub fn look<'s>(
        &mut self,
        intents: &'s [Intent],
        seen: &'s Seen,
        (kind, outcome): (HandshakeKind, HandshakeOutcome),
        at: Timestamp,
    ) -> Vec<Departure<'s>> {
        let mut departures = Vec::new();
        for (role, own, peer) in
            [(Role::Client, &seen.client, &seen.server), (Role::Server, &seen.server, &seen.client)]
        {
            if !matches!(own, End::Identified { .. }) {
                continue;
            }
            let Some(intent) = intents.iter().find(|intent| own.is_any_of(&intent.identities)) else {
                continue;
            };
            let with = if role == Role::Client { Peer::of(peer) } else { Peer::Several };
            let class = Class { intent: intent.name.clone(), role, kind: kind as u8, peer: with };
            let Some(surge) = self.count(class, outcome, at) else { continue };
            let detail = Some(format!("{} {surge}", kind.name().to_uppercase()));
            departures.extend(departs(intents, seen, role, (Signal::HandshakeFailures, detail)));
        }
        departures
    }

    fn count(&mut self, class: Class, outcome: HandshakeOutcome, at: Timestamp) -> Option<String> {
        // What is counted besides the outcome is none.
        if outcome as usize >= OUTCOMES {
            return None;
        }
        if self.of.len() >= MOST && !self.of.contains_key(&class) {
            self.forget();
        }
        let minutes = self.of.entry(class).or_default();
        minutes.count(at.as_second().div_euclid(60), outcome as usize);
        if outcome == HandshakeOutcome::Completed { None } else { minutes.surge() }
    }

    fn forget(&mut self) {
        let mut heard: Vec<i64> = self.of.values().map(|minutes| minutes.latest).collect();
        let (_, last, _) = heard.select_nth_unstable(self.of.len() / 4);
        let last = *last;
        let before = self.of.len();
        self.of.retain(|_, minutes| minutes.latest > last);
        // Where all were heard of in one minute, all begin anew.
        self.forgotten += (before - self.of.len()) as u64;
    }
}

impl Minutes {
    fn count(&mut self, minute: i64, outcome: usize) {
        if self.counts.is_empty() {
            self.latest = minute;
        }
        let later = usize::try_from(minute - self.latest).unwrap_or(0).min(RECENT + BEFORE);
        for _ in 0..later {
            self.counts.push_front([0; OUTCOMES]);
        }
        self.latest = self.latest.max(minute);
        self.counts.truncate(RECENT + BEFORE);
        if self.counts.is_empty() {
            self.counts.push_front([0; OUTCOMES]);
        }
        self.counts[0][outcome] += 1;
    }

    /// What it is, in words: half or more fail, five or more, and four times the share that is usual.
    fn surge(&self) -> Option<String> {
        let recent = sum(self.counts.iter().take(RECENT));
        let before = sum(self.counts.iter().skip(RECENT));
        let (failed, all) = (failed(&recent), recent.iter().sum::<u32>());
        let (failed_before, all_before) = (self::failed(&before), before.iter().sum::<u32>());
        if failed < FEWEST || failed * 2 < all {
            return None;
        }
        let is_known = all_before >= BASELINE;
        let (now, usual) =
            (u64::from(failed) * u64::from(all_before), u64::from(failed_before) * u64::from(all));
        if is_known && now < 4 * usual {
            return None;
        }
        let kinds = (1..OUTCOMES).filter(|n| recent[*n] > 0).map(|n| {
            let name = HandshakeOutcome::from_u8(n as u8).map_or("-", HandshakeOutcome::name);
            format!("{name} {}", recent[n])
        });
        let kinds: Vec<_> = kinds.collect();
        let (minutes, hour) = (duration_text(60 * RECENT as u64), duration_text(60 * BEFORE as u64));
        let mut text = format!("{failed} of {all} failed in {minutes} ({})", kinds.join(", "));
        text += &match is_known {
            true => format!(", {failed_before} of {all_before} in {hour} before"),
            false => format!(", and what is usual is not known yet: {all_before} in {hour} before"),
        };
        Some(text)
    }
}

fn failed(counts: &[u32; OUTCOMES]) -> u32 {
    counts[1..].iter().sum()
}

fn sum<'c>(minutes: impl Iterator<Item = &'c [u32; OUTCOMES]>) -> [u32; OUTCOMES] {
    minutes.fold([0; OUTCOMES], |mut all, minute| {
        all.iter_mut().zip(minute).for_each(|(all, one)| *all += one);
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(outcomes: &[(HandshakeOutcome, u32)], minutes: &mut Minutes, minute: i64) {
        for (outcome, many) in outcomes {
            (0..*many).for_each(|_| minutes.count(minute, *outcome as usize));
        }
    }

    #[test]
    fn a_surge_is_half_and_five_and_four_times_what_is_usual() {
        use HandshakeOutcome::{Alert, Completed, Refused};
        let mut usual = Minutes::default();
        ends(&[(Completed, 90), (Alert, 10)], &mut usual, 0);
        ends(&[(Completed, 4), (Alert, 4)], &mut usual, 30);
        assert_eq!(usual.surge(), None, "four are too few");
        ends(&[(Refused, 1)], &mut usual, 31);
        let surge = usual.surge();
        assert_eq!(
            surge.as_deref(),
            Some("5 of 9 failed in 5m00s (refused 1, alert 4), 10 of 100 in 1h00m before")
        );
        ends(&[(Completed, 2)], &mut usual, 31);
        assert_eq!(usual.surge(), None, "less than half fail");
        // When it has gone on for long enough it is the baseline.
        ends(&[(Alert, 100)], &mut usual, 40);
        assert!(usual.surge().is_some());
        ends(&[(Alert, 100)], &mut usual, 50);
        assert_eq!(usual.surge(), None);
    }

    #[test]
    fn where_nothing_is_usual_yet_half_and_five_are_enough_and_old_minutes_are_forgotten() {
        use HandshakeOutcome::{Completed, TimedOut};
        let mut new = Minutes::default();
        ends(&[(Completed, 19)], &mut new, 0);
        ends(&[(TimedOut, 5)], &mut new, 10);
        let text = new.surge().expect("a surge");
        assert_eq!(
            text,
            "5 of 5 failed in 5m00s (timed_out 5), and what is usual is not known yet: 19 in 1h00m before"
        );
        ends(&[(TimedOut, 5)], &mut new, 1000);
        assert_eq!(new.surge().as_deref(), Some(&*text.replace("19 in", "0 in")));
        assert!(new.counts.len() <= RECENT + BEFORE);
    }
}
