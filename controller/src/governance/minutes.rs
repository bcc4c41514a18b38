//! What handshakes of a class came to, by minute: the last minutes, and the hour before that they are compared with.

use super::compare::{End, Role, Seen};
use super::finding::Peer;
use super::table::oldest_quarter;
use super::tenant::tenant;
use crate::policy::intent::Intent;
use crate::policy::time::duration_text;
use datapath::abi::HandshakeKind;
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};

/// Classes and peers that are counted. Beyond that the quarter is forgotten of which nothing was heard for longest.
const MOST: usize = 4096;
/// What is compared: the last so many minutes, the one that runs among them.
const RECENT: usize = 5;
/// With what: so many minutes before these.
const BEFORE: usize = 60;

/// What is counted together: handshakes of the identities of an intent and a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    intent: String,
    tenant: String,
    role: Role,
    kind: u8,
    peer: Peer,
}

impl Class {
    /// Those of both ends, where an intent is theirs. Of clients it is told apart with whom they shake hands.
    pub fn of_ends(
        intents: &[Intent],
        seen: &Seen,
        kind: HandshakeKind,
    ) -> impl Iterator<Item = (Role, Self)> {
        let ends = [(Role::Client, &seen.client, &seen.server), (Role::Server, &seen.server, &seen.client)];
        ends.into_iter().filter_map(move |(role, own, peer)| {
            let End::Identified { id, .. } = own else { return None };
            let intent = intents.iter().find(|intent| own.is_any_of(&intent.identities))?;
            let peer = if role == Role::Client { Peer::of(peer) } else { Peer::Several };
            let (intent, tenant) = (intent.name.clone(), tenant(id.as_str()).to_owned());
            Some((role, Self { intent, tenant, role, kind: kind as u8, peer }))
        })
    }
}

/// Counts by class.
#[derive(Debug, Default)]
pub struct Classes<T> {
    of: HashMap<Class, Minutes<T>>,
    /// Classes that were forgotten.
    pub forgotten: u64,
}

impl<T: Default> Classes<T> {
    /// The minutes of a class.
    pub fn of(&mut self, class: Class) -> &mut Minutes<T> {
        if self.of.len() >= MOST && !self.of.contains_key(&class) {
            self.forget();
        }
        self.of.entry(class).or_default()
    }

    fn forget(&mut self) {
        let Some(last) = oldest_quarter(self.of.values().map(|minutes| minutes.latest)) else { return };
        let before = self.of.len();
        self.of.retain(|_, minutes| minutes.latest > last);
        // Where all were heard of in one minute, all begin anew.
        self.forgotten += (before - self.of.len()) as u64;
    }
}

/// Counts by minute, the latest first.
#[derive(Debug, Default)]
pub struct Minutes<T> {
    latest: i64,
    counts: VecDeque<T>,
}

impl<T: Default> Minutes<T> {
    /// The counts of a minute; of the latest where that is over already.
    pub fn at(&mut self, time: Timestamp) -> &mut T {
        let minute = time.as_second().div_euclid(60);
        if self.counts.is_empty() {
            self.latest = minute;
        }
        let later = usize::try_from(minute - self.latest).unwrap_or(0).min(RECENT + BEFORE);
        for _ in 0..later.max(usize::from(self.counts.is_empty())) {
            self.counts.push_front(T::default());
        }
        self.latest = self.latest.max(minute);
        self.counts.truncate(RECENT + BEFORE);
        &mut self.counts[0]
    }

    /// The last minutes.
    pub fn recent(&self) -> impl Iterator<Item = &T> {
        self.counts.iter().take(RECENT)
    }

    /// Those before them.
    pub fn before(&self) -> impl Iterator<Item = &T> {
        self.counts.iter().skip(RECENT)
    }
}

/// How long the last minutes are, and the time before, in words.
pub fn spans() -> (String, String) {
    (duration_text(60 * RECENT as u64), duration_text(60 * BEFORE as u64))
}
