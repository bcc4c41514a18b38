//! Enrolments that are refused: of an identity that proved who it is, or of somebody at the address of one.

use crate::policy::spiffe::SpiffeId;
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, VecDeque};

/// So many refusals of who did not prove who he is are an accident: a certificate that was not renewed, a port scan.
const FEW: usize = 4;
const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// Identities that are counted. When there are more, all are forgotten: it is a matter of minutes.
const MOST: usize = 4096;

/// When somebody at the address of an identity failed to prove who he is.
#[derive(Debug, Default)]
pub struct Refusals {
    of: HashMap<SpiffeId, VecDeque<Timestamp>>,
    /// Identities that were forgotten.
    pub forgotten: u64,
}

impl Refusals {
    /// Notes a refusal. `is_proven` says that who was refused had proved to be this identity: one is enough, for whoever holds its key
    /// asked from where, or for what, it does not. Otherwise only the address is known, and it takes five in five minutes.
    pub fn note(&mut self, id: &SpiffeId, is_proven: bool, (why, at): (&str, Timestamp)) -> Option<String> {
        if is_proven {
            return Some(format!("its SVID is good, and the reason {why}"));
        }
        if self.of.len() >= MOST && !self.of.contains_key(id) {
            self.forgotten += self.of.len() as u64;
            self.of.clear();
        }
        let times = self.of.entry(id.clone()).or_default();
        times.push_back(at);
        while times.len() > FEW + 1 || times.front().is_some_and(|first| at.duration_since(*first) >= WINDOW)
        {
            times.pop_front();
        }
        (times.len() > FEW).then(|| {
            format!(
                "somebody at its address, who did not prove who he is, {} times in 5m00s, last for {why}",
                times.len()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_proved_who_he_is_is_found_at_once_and_who_did_not_at_the_fifth_time_in_five_minutes() {
        let id: SpiffeId = "spiffe://a.example/web".parse().expect("a SPIFFE ID");
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let mut refusals = Refusals::default();
        assert!(refusals.note(&id, true, ("address", at(0))).is_some());
        for second in 0..4 {
            assert_eq!(refusals.note(&id, false, ("certificate", at(second * 100))), None);
        }
        assert_eq!(refusals.note(&id, false, ("certificate", at(301))), None, "two of them are too long ago");
        refusals.note(&id, false, ("certificate", at(302)));
        let said = refusals.note(&id, false, ("certificate", at(303)));
        assert_eq!(
            said.as_deref(),
            Some(
                "somebody at its address, who did not prove who he is, 5 times in 5m00s, last for certificate"
            )
        );
        for n in 0..MOST {
            let other = format!("spiffe://a.example/{n}").parse().expect("a SPIFFE ID");
            refusals.note(&other, false, ("certificate", at(304)));
        }
        assert_eq!((refusals.forgotten, refusals.of.len()), (MOST as u64, 1));
    }
}
