//! Containments and grants that wait for people: who asked, what it would touch, who agreed, what became of it.

use super::file::Form;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::act::Act;
use crate::policy::approval::{Approvals as Rules, Unanswered};
use crate::policy::ports::PortMatch;
use crate::policy::spiffe::SpiffeId;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

const FORM: Form = Form {
    what: "approvals",
    table: "requests",
    version: 2,
    schema: "CREATE TABLE requests (id INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT;
        PRAGMA user_version = 2;",
    synchronous: "FULL",
};
/// Requests that are kept; beyond that the oldest that was decided goes.
const MOST: usize = 10_000;

/// What a containment would touch, as it was when it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Radius {
    /// Addresses of the identity.
    pub addresses: u64,
    /// Identities, and addresses without one, that it has connections with, or had a moment ago.
    pub peers: u64,
    /// Connections that go on.
    pub connections: u64,
    /// The service of which it answers most; absent where it answers nothing.
    pub service: Option<Share>,
}

/// A part of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// `tcp/443 of intent web in acme.example/ns/shop`, or of a SPIFFE ID that answers alone.
    pub service: String,
    /// Of its connections, so many percent.
    pub percent: u32,
}

/// Somebody who agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Agreed {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What has become of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RequestState {
    /// It waits.
    Waiting,
    /// It was done.
    Approved {
        /// When.
        at: Timestamp,
        /// Until when the containment holds.
        until: Timestamp,
        /// The revision of its commit.
        revision: u64,
    },
    /// It was not done: somebody said no.
    Rejected {
        /// When.
        at: Timestamp,
        /// Who.
        by: String,
        /// Why.
        note: Option<String>,
    },
    /// Nobody answered in time, and that means that it is not done.
    Lapsed {
        /// When.
        at: Timestamp,
    },
    /// There is no need for an answer any more: somebody has resolved or muted the finding that led to it.
    Withdrawn {
        /// When.
        at: Timestamp,
        /// Who.
        by: String,
    },
}

/// Access that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Access {
    /// To whom.
    pub to: SpiffeId,
    /// To which protocols and ports.
    pub ports: Vec<PortMatch>,
}

impl fmt::Display for Access {
    /// `spiffe://td/b at tcp/8443`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<_> = self.ports.iter().map(PortMatch::to_string).collect();
        write!(f, "{} at {}", self.to, ports.join(", "))
    }
}

/// A containment that waits, or waited; or a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// Its number.
    pub id: u64,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// Who asked.
    pub asked_by: String,
    /// Whom it is about.
    pub identity: SpiffeId,
    /// What is to be done.
    #[serde(default)]
    pub act: Act,
    /// Which step of the intent's response that is, from 0.
    #[serde(default)]
    pub step: usize,
    /// The access that it is to be given, where that is what is asked for and nothing is to be done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// For how many seconds, from when it is done.
    pub seconds: u64,
    /// The finding that led to it; absent where a person asked.
    pub finding: Option<u64>,
    /// Why it is asked for, in words.
    pub why: String,
    /// In what it is over what needs no approval.
    pub over: String,
    /// What it would touch.
    pub radius: Radius,
    /// So many people have to agree.
    pub approvers: u32,
    /// Those who did.
    pub agreed: Vec<Agreed>,
    /// Until when.
    pub answer_by: Timestamp,
    /// What happens then.
    pub unanswered: Unanswered,
    /// What has become of it.
    #[serde(flatten)]
    pub state: RequestState,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who asks.
    pub by: String,
    /// Whom it is about.
    pub identity: SpiffeId,
    /// What is to be done.
    pub act: Act,
    /// Which step of the intent's response that is, from 0.
    pub step: usize,
    /// The access that it is to be given instead.
    pub access: Option<Access>,
    /// For how long.
    pub seconds: u64,
    /// The finding that led to it.
    pub finding: Option<u64>,
    /// Why.
    pub why: String,
    /// In what it is over what needs no approval.
    pub over: String,
    /// What it would touch.
    pub radius: Radius,
}

impl Request {
    /// Until when the containment holds if it begins now.
    pub fn until(&self, now: Timestamp) -> Timestamp {
        let for_ = SignedDuration::from_secs(i64::try_from(self.seconds).unwrap_or(i64::MAX));
        now.checked_add(for_).unwrap_or(Timestamp::MAX)
    }

    /// What is asked for, in a word.
    pub fn doing(&self) -> String {
        if self.access.is_some() { "grant".to_owned() } else { self.act.name().to_string() }
    }

    /// Whether it waits.
    pub fn waits(&self) -> bool {
        self.state == RequestState::Waiting
    }

    /// Why the loop does not contain: what has become of what it asked for.
    pub fn holds(&self) -> String {
        let id = self.id;
        match &self.state {
            RequestState::Waiting => format!("it waits for approval {id}: {}", self.over),
            RequestState::Approved { at, .. } => format!("approval {id} was given at {at:.0}"),
            RequestState::Rejected { by, .. } => format!("approval {id} was refused by {by}"),
            RequestState::Lapsed { .. } => format!("nobody answered approval {id} in time"),
            RequestState::Withdrawn { by, .. } => format!("{by} has made approval {id} needless"),
        }
    }

    /// Whether somebody may decide about it.
    pub fn may_decide(&self, who: &str) -> Result<()> {
        if !self.waits() {
            let message = format!("approval {} does not wait any more: {}", self.id, self.holds());
            return Err(Failure::new(Code::Conflict, message));
        }
        if self.asked_by == who {
            let message = format!("{who} asked for approval {}: somebody else has to decide", self.id);
            return Err(Failure::new(Code::NotPermitted, message));
        }
        Ok(())
    }

    /// Takes somebody's word. Returns whether enough have agreed.
    pub fn agree(&mut self, who: &str, now: Timestamp) -> Result<bool> {
        self.may_decide(who)?;
        if self.agreed.iter().any(|agreed| agreed.by == who) {
            let missing = self.approvers as usize - self.agreed.len();
            let message = format!("{who} has agreed to approval {} already: {missing} more have to", self.id);
            return Err(Failure::new(Code::Conflict, message));
        }
        self.agreed.push(Agreed { by: who.to_owned(), at: now });
        Ok(self.agreed.len() >= self.approvers as usize)
    }
}

/// All requests: in memory to be asked, in a file that each change is written to before it counts.
#[derive(Debug)]
pub struct Approvals {
    db: Connection,
    path: PathBuf,
    requests: BTreeMap<u64, Request>,
}

impl Approvals {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> Result<Self> {
        let db = FORM.open(path)?;
        let requests = FORM.read(&db).map_err(|e| FORM.failed(path, &e))?;
        let requests = requests.into_iter().map(|request: Request| (request.id, request)).collect();
        Ok(Self { db, path: path.to_owned(), requests })
    }

    /// All of them, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Request> {
        self.requests.values()
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Result<&Request> {
        self.requests.get(&id).ok_or_else(|| {
            Failure::new(Code::NotFound, format!("there is no approval {id}"))
                .hint("`tidegate approvals list --all` shows those that are kept")
        })
    }

    /// The last one for this identity and finding, if it keeps the loop from asking again.
    pub fn asked(&self, identity: &SpiffeId, finding: u64) -> Option<&Request> {
        let same = |request: &&Request| request.identity == *identity && request.finding == Some(finding);
        let last = self.requests.values().rfind(same)?;
        // What was done and is over may be asked for again, and so may what nobody had to answer.
        (!matches!(last.state, RequestState::Approved { .. } | RequestState::Withdrawn { .. }))
            .then_some(last)
    }

    /// Those of a finding that wait.
    pub fn waiting_for(&self, finding: u64) -> Vec<Request> {
        let same = |request: &&Request| request.waits() && request.finding == Some(finding);
        self.requests.values().filter(same).cloned().collect()
    }

    /// A new request, with its number. It counts when it is [kept](Self::keep).
    pub fn draft(&self, asked: Asked, rules: &Rules, now: Timestamp) -> Request {
        let id = self.requests.last_key_value().map_or(1, |(last, _)| last + 1);
        let Asked { by, identity, act, step, access, seconds, finding, why, over, radius } = asked;
        let within = SignedDuration::from_secs(i64::try_from(rules.within_s).unwrap_or(i64::MAX));
        Request {
            id,
            asked_at: now,
            asked_by: by,
            identity,
            act,
            step,
            // What nobody agrees to is not given, whatever becomes of containments.
            unanswered: if access.is_some() { Unanswered::Reject } else { rules.unanswered },
            access,
            seconds,
            finding,
            why,
            over,
            radius,
            approvers: rules.approvers,
            agreed: Vec::new(),
            answer_by: now.checked_add(within).unwrap_or(Timestamp::MAX),
            state: RequestState::Waiting,
        }
    }

    /// Has room for one more: the oldest goes that was decided.
    pub fn make_room(&mut self) -> Result<()> {
        if self.requests.len() < MOST {
            return Ok(());
        }
        let decided = self.requests.values().find(|request| !request.waits()).map(|request| request.id);
        let Some(oldest) = decided else {
            let message = format!("{MOST} requests wait for approval: there is no room for another");
            return Err(Failure::new(Code::Unprocessable, message));
        };
        FORM.remove(&self.db, oldest).map_err(|e| FORM.failed(&self.path, &e))?;
        self.requests.remove(&oldest);
        Ok(())
    }

    /// Keeps what a request has become. It is written before it counts.
    pub fn keep(&mut self, request: Request) -> Result<()> {
        FORM.write(&self.db, request.id, &request).map_err(|e| FORM.failed(&self.path, &e))?;
        self.requests.insert(request.id, request);
        Ok(())
    }

    /// The numbers of those whose time is over.
    pub fn overdue(&self, now: Timestamp) -> Vec<u64> {
        let is_over = |request: &&Request| request.waits() && request.answer_by <= now;
        self.requests.values().filter(is_over).map(|request| request.id).collect()
    }
}

/// Names a quarantine that was asked for.
pub fn reason(request: &Request) -> String {
    match request.finding {
        Some(finding) => format!("finding {finding}, approval {}", request.id),
        None => format!("approval {}: {}", request.id, request.why),
    }
}
