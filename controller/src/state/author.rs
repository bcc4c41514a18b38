//! Who changes something, and how.

use crate::policy::spiffe::SpiffeId;
use std::fmt;

/// Who changes something, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Who.
    pub who: Who,
    /// The command, or what the daemon had to do.
    pub how: How,
}

impl Author {
    /// The daemon, by itself.
    pub fn daemon(how: impl Into<How>) -> Self {
        Self { who: Who::Daemon, how: how.into() }
    }
}

/// Somebody who can change something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The daemon, by itself.
    Daemon,
    /// A user at the other end of the socket.
    User(u32),
    /// A workload that proved its SPIFFE ID.
    Workload(SpiffeId),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("the daemon"),
            Self::User(uid) => match nix::unistd::User::from_uid((*uid).into()) {
                Ok(Some(user)) => f.write_str(&user.name),
                _ => write!(f, "uid {uid}"),
            },
            Self::Workload(id) => id.fmt(f),
        }
    }
}

/// How something is changed: the store keeps it as words, and acts on some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// By a command, or by what the daemon had to do: nobody acts on it.
    By(String),
    /// What a revision brought was not confirmed in time.
    TakeBack {
        /// That revision.
        of: u64,
        /// By a daemon that starts, and found it.
        at_start: bool,
    },
    /// The policy of this revision counts again.
    Rollback(u64),
    /// These feeds were written anew.
    Feeds(Vec<String>),
}

const NOT_CONFIRMED: &str = " was not confirmed in time";

impl How {
    /// From the words that the store has kept.
    pub fn kept(words: &str) -> Self {
        let (at_start, rest) = match words.strip_prefix("run: ") {
            Some(rest) => (true, rest),
            None => (false, words),
        };
        let taken = rest.strip_prefix("revision ").and_then(|rest| rest.strip_suffix(NOT_CONFIRMED));
        if let Some(Ok(of)) = taken.map(str::parse) {
            return Self::TakeBack { of, at_start };
        }
        if let Some(Ok(to)) = words.strip_prefix("policy rollback to ").map(str::parse) {
            return Self::Rollback(to);
        }
        match words.strip_prefix("feeds: ") {
            Some(feeds) => Self::Feeds(feeds.split(", ").map(str::to_owned).collect()),
            None => Self::By(words.to_owned()),
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(what) => f.write_str(what),
            Self::TakeBack { of, at_start } => {
                let run = if *at_start { "run: " } else { "" };
                write!(f, "{run}revision {of}{NOT_CONFIRMED}")
            }
            Self::Rollback(to) => write!(f, "policy rollback to {to}"),
            Self::Feeds(feeds) => write!(f, "feeds: {}", feeds.join(", ")),
        }
    }
}

impl From<String> for How {
    fn from(what: String) -> Self {
        Self::By(what)
    }
}

impl From<&str> for How {
    fn from(what: &str) -> Self {
        Self::By(what.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_in_words_is_what_it_was() {
        for (how, words) in [
            (How::TakeBack { of: 7, at_start: false }, "revision 7 was not confirmed in time"),
            (How::TakeBack { of: 7, at_start: true }, "run: revision 7 was not confirmed in time"),
            (How::Rollback(41), "policy rollback to 41"),
            (How::Feeds(vec!["bad/drop".into(), "bad/level1".into()]), "feeds: bad/drop, bad/level1"),
            ("run".into(), "run"),
            ("policy apply".into(), "policy apply"),
            // A grant may be called so.
            ("grant revoke was not confirmed in time".into(), "grant revoke was not confirmed in time"),
            ("policy rollback to yesterday".into(), "policy rollback to yesterday"),
        ] {
            assert_eq!((how.to_string().as_str(), How::kept(words)), (words, how));
        }
    }
}
