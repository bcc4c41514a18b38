//! What policy files say, once they are read and found right.

use super::feed::{self, Feed};
use super::gateway::Gateway;
use super::grant::Grant;
use super::identity_limits::IdentityLimit;
use super::intent::Intent;
use super::intent::hours::Hours;
use super::limits::Limits;
use super::place::{Mistakes, Place};
use super::ports::PortMatch;
use super::prefix::Prefix;
use super::quarantine::Quarantine;
use super::scope::Scope;
use super::selector::Selector;
use super::spiffe::SpiffeId;
use super::target::Target;
use super::{decode, load};
use datapath::abi::policy::LeaseEnd;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The one version of the files.
pub const API_VERSION: &str = "tidegate.dev/v1";
/// The tier of a policy that names none.
pub const DEFAULT_TIER: u32 = 100;

/// Every document of a set of files, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documents {
    /// Who has which addresses; shared, for they can be very many.
    pub workloads: Arc<Vec<Workload>>,
    /// Who may talk to whom; each shared with the documents of before that had the same.
    pub policies: Vec<Arc<Policy>>,
    /// Who may talk to nobody.
    pub blocklists: Vec<Blocklist>,
    /// Who is cut off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantines: Vec<Quarantine>,
    /// Who has access for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// What identities may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<IdentityLimit>,
    /// What identities are for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<Intent>,
    /// What holds for the gateway as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
}

/// A workload: an identity at addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// metadata.name
    pub name: String,
    /// Its SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// Its addresses; more than one for a workload of two families, prefixes for nodes and pools.
    pub addresses: Vec<Prefix>,
    /// Where they are.
    #[serde(flatten)]
    pub scope: Scope,
    /// Labels that selectors can ask for.
    pub labels: BTreeMap<String, String>,
    /// Until when the addresses are its own.
    pub lease: Option<Lease>,
    /// Where the document begins.
    pub place: Place,
}

/// Until when an identity holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Lease {
    /// The end. `for: 1h` counts from the moment at which the file was read.
    pub not_after: Timestamp,
    /// What the end means.
    pub on_expiry: OnExpiry,
    /// Seconds from the end in which traffic goes on, where it means grace.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub grace_s: u16,
}

fn is_zero(seconds: &u16) -> bool {
    *seconds == 0
}

impl Lease {
    /// When nothing more passes by it, where its end means that.
    pub fn end(&self) -> Timestamp {
        self.not_after + SignedDuration::from_secs(i64::from(self.grace_s))
    }
}

/// What the end of a lease means.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// Traffic of the workload is dropped.
    #[default]
    Deny,
    /// Traffic goes on and is audited.
    Alert,
    /// Traffic goes on for a while and is audited; then it is dropped.
    Grace,
}

impl OnExpiry {
    /// As bindings say it.
    pub fn in_kernel(self) -> LeaseEnd {
        match self {
            Self::Deny => LeaseEnd::Deny,
            Self::Alert => LeaseEnd::Alert,
            Self::Grace => LeaseEnd::Grace,
        }
    }
}

/// A policy: rules of one tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// metadata.name
    pub name: String,
    /// Lower tiers decide first.
    pub tier: u32,
    /// Inside a tier, lower ones decide first, and those without one last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// In the order of the file.
    pub rules: Vec<Rule>,
    /// Where the document begins.
    pub place: Place,
}

/// Where the rules of a policy stand among those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    tier: u32,
    is_last: bool,
    priority: Option<u32>,
}

impl Policy {
    /// Lower ones are asked first. Inside of one, denies come before allows.
    pub fn rank(&self) -> Rank {
        Rank { tier: self.tier, is_last: self.priority.is_none(), priority: self.priority }
    }

    /// `tier 100`, `tier 100, priority 5`.
    pub fn rank_text(&self) -> String {
        rank_text(self.tier, self.priority)
    }
}

/// `tier 100`, `tier 100, priority 5`.
pub fn rank_text(tier: u32, priority: Option<u32>) -> String {
    priority.map_or(format!("tier {tier}"), |priority| format!("tier {tier}, priority {priority}"))
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Unique in its policy.
    pub name: String,
    /// What it decides.
    pub action: RuleAction,
    /// Who opens the connection: any of these.
    pub from: Vec<Selector>,
    /// Who answers: any of these.
    pub to: Vec<Selector>,
    /// To which protocols and ports: any of these.
    pub ports: Vec<PortMatch>,
    /// Whether it only audits.
    pub mode: RuleMode,
    /// What it asks of the connections that it allows.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// When it is there; always without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// Where it begins.
    pub place: Place,
}

impl Rule {
    /// Whether it is there at a moment, and until when.
    pub fn open(&self, at: Timestamp) -> Open {
        match &self.hours {
            None => Open::Always,
            Some(hours) if !hours.contain(at) => Open::Shut,
            Some(hours) => hours.next_change(at).map_or(Open::Always, Open::Until),
        }
    }
}

/// Whether a rule is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Whenever it is asked.
    Always,
    /// It is, and will not be then.
    Until(Timestamp),
    /// It is not.
    Shut,
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// Dropped with `POLICY_DENY`. Before pass and allow inside a tier.
    Deny,
    /// The rest of the tier is not asked: the next that speaks of it decides. Before allow inside a tier.
    Pass,
    /// Passed.
    Allow,
}

/// Whether a rule is enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleMode {
    /// It is.
    #[default]
    Enforce,
    /// A deny lets pass and audits.
    Audit,
}

/// A blocklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocklist {
    /// metadata.name
    pub name: String,
    /// Its entries.
    pub entries: Vec<BlockEntry>,
    /// Files that have more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feeds: Vec<Feed>,
    /// Where the document begins.
    pub place: Place,
}

/// What is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEntry {
    /// A prefix, an identity, services, or services of one.
    #[serde(flatten)]
    pub target: Target,
    /// Why, for people.
    pub reason: Option<String>,
    /// Until when; for ever where it is absent. `for: 10m` counts from the moment at which the file was read.
    pub not_after: Option<Timestamp>,
    /// Where it stands.
    pub place: Place,
}

impl Documents {
    /// Every feed of every blocklist.
    pub fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.blocklists.iter().flat_map(|list| &list.feeds)
    }

    /// The same, to be read.
    pub fn feeds_mut(&mut self) -> impl Iterator<Item = &mut Feed> {
        self.blocklists.iter_mut().flat_map(|list| &mut list.feeds)
    }

    /// Reads the files that blocklists name.
    pub fn read_feeds(&mut self) -> Result<(), Mistakes> {
        feed::read_all(self)
    }

    /// Reads files and directories (their `*.yaml` and `*.yml`, in order of name), and the feeds that they name. `now` is when
    /// `for:` begins.
    pub fn load(paths: &[impl AsRef<Path>], now: Timestamp) -> Result<Self, Mistakes> {
        let mut documents = load::load(paths, now)?;
        documents.read_feeds()?;
        Ok(documents)
    }

    /// Reads one text; `name` stands for the file in messages.
    pub fn parse(name: &str, text: &str, now: Timestamp) -> Result<Self, Mistakes> {
        Self::parse_all(&[(name, text)], now)
    }

    /// Reads texts under the names of their files.
    pub fn parse_all(files: &[(&str, &str)], now: Timestamp) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let documents = decode::decode_all(files, now, &mut mistakes);
        if mistakes.is_empty() { Ok(documents) } else { Err(Mistakes(mistakes)) }
    }

    /// The selectors that policy is made of: ends that the same of them fit are of one class.
    pub(super) fn selectors(&self) -> impl Iterator<Item = &Selector> {
        let rules = self.policies.iter().flat_map(|p| &p.rules).flat_map(|r| r.from.iter().chain(&r.to));
        rules.map(Selector::subject).chain(self.selectors_beside_rules())
    }

    /// Those that rules do not name.
    pub(super) fn selectors_beside_rules(&self) -> impl Iterator<Item = &Selector> {
        let grants = self.grants.iter().flat_map(Grant::selectors);
        grants.chain(self.quarantines.iter().flat_map(Quarantine::peers))
    }

    /// Puts what others say behind what these say. Of two gateways the first counts.
    pub fn append(&mut self, others: Self) {
        let Self { workloads, policies, blocklists, quarantines, grants, limits, intents, gateway } = others;
        if self.workloads.is_empty() {
            self.workloads = workloads;
        } else if !workloads.is_empty() {
            Arc::make_mut(&mut self.workloads).extend(Arc::unwrap_or_clone(workloads));
        }
        self.policies.extend(policies);
        self.blocklists.extend(blocklists);
        self.quarantines.extend(quarantines);
        self.grants.extend(grants);
        self.limits.extend(limits);
        self.intents.extend(intents);
        self.gateway = self.gateway.take().or(gateway);
    }

    /// A name for a rule of a policy, as verdicts show it.
    pub fn rule_key(policy: &str, rule: &str) -> String {
        format!("{policy}/{rule}")
    }
}
