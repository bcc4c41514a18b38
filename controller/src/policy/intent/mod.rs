//! `kind: Intent`: what identities are for. It lets nothing pass and drops nothing: what they do is compared with it.

mod decode;
pub mod facts;
pub mod files;
pub mod hello;
pub mod hours;
pub mod rules;
mod words;

pub(super) use decode::decode;
pub use words::addresses;

use super::act::Step;
use super::place::Place;
use super::ports::PortMatch;
use super::quantity::{Count, RateOf};
use super::selector::Selector;
use files::FilePattern;
use hello::{Hellos, NamePattern};
use hours::Hours;
use rules::Rule;
use serde::{Deserialize, Serialize};

/// What identities are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// metadata.name
    pub name: String,
    /// Whose intent it is: any of these. No `cidr` and no `any`: what is nobody's has no purpose.
    pub identities: Vec<Selector>,
    /// What kind of workload that is.
    pub workload: WorkloadKind,
    /// Who answers for it: findings are theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How much harm a departure can do.
    #[serde(default)]
    pub sensitivity: Sensitivity,
    /// Connections that it opens; absent where nothing is declared of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Vec<Expected>>,
    /// Connections that it answers; absent where nothing is declared of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Vec<Expected>>,
    /// Names that it asks for; absent where nothing is declared of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<NamePattern>>,
    /// When it opens connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// To how many peers it opens connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan_out: Option<FanOut>,
    /// How many connections it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateOf<Count>>,
    /// What it executes where it runs on this host; absent where nothing is declared of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<Vec<FilePattern>>,
    /// At how many addresses one of the identities is at once, by leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Whether several act under the name of one of the identities, as behind NAT: nobody is blamed for what it does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// What else is a finding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// What becomes of a departure.
    #[serde(default)]
    pub response: Response,
    /// Where it begins.
    pub place: Place,
}

/// Connections that are expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// With whom: any of these.
    pub peers: Vec<Selector>,
    /// To which protocols and ports: any of these.
    pub ports: Vec<PortMatch>,
    /// With which ClientHellos, where they are TLS or QUIC.
    #[serde(default, skip_serializing_if = "Hellos::is_empty")]
    pub hello: Hellos,
}

/// To how many peers an identity opens connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOut {
    /// So many at most.
    pub peers: u32,
    /// In so many seconds; nothing where it is the time of a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// What an identity runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// Runs always, behind one identity.
    Service,
    /// Comes and goes, each run perhaps with an identity of its own.
    Batch,
    /// Decides by itself what it reaches for.
    Agent,
}

/// How much harm a departure can do: the severity of findings.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Sensitivity {
    /// Little.
    Low,
    /// Some.
    #[default]
    Medium,
    /// Much.
    High,
}

/// What becomes of a departure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// A finding.
    #[default]
    Flag,
    /// A finding, and whoever departs is quarantined.
    Contain {
        /// For so long.
        seconds: u64,
    },
    /// A finding, and whoever departs is met with one step after the other for as long as it goes on.
    Graded {
        /// The gentlest first; never none.
        steps: Vec<Step>,
    },
}

impl Response {
    /// What is done first, next, and so on; the last again where there are no more.
    pub fn step(&self, n: usize) -> Option<Step> {
        match self {
            Self::Flag => None,
            Self::Contain { seconds } => Some(Step::quarantine(*seconds)),
            Self::Graded { steps } => steps.get(n).or(steps.last()).cloned(),
        }
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        match self {
            Self::Flag => 0,
            Self::Contain { .. } => 1,
            Self::Graded { steps } => steps.len(),
        }
    }
}
