//! What is done about an identity for a while: cut off in whole or in part, limited, asked for TLS, its connections cut, its lease
//! revoked. And how the response of an intent grades that.

use super::decode::duration;
use super::fields::{Context, Fields};
use super::limits::{self, RateLimit};
use super::time::duration_text;
use super::yaml::Node;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// It is cut off, but for what is excepted.
    #[default]
    Quarantine,
    /// It keeps what its intents declare, as far as the policy lets it, and is cut off from the rest.
    Restrict,
    /// It has a limit, beside its own or in its place.
    Limit(RateLimit),
    /// Its TCP connections have to begin with a TLS ClientHello, whoever opens them.
    RequireTls,
    /// The connections that it has are over; it may open others.
    CutFlows,
    /// Its lease is over, whatever a source of bindings says.
    RevokeLease,
}

/// An [`Act`] by name.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum ActName {
    /// Cut it off, but for what is excepted
    #[default]
    Quarantine,
    /// Leave it what its intents declare
    Restrict,
    /// Limit its rates
    Limit,
    /// Ask its TCP connections for TLS
    RequireTls,
    /// End the connections that it has
    CutFlows,
    /// End its lease
    RevokeLease,
}

impl ActName {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Quarantine, Self::Restrict, Self::Limit, Self::RequireTls, Self::CutFlows, Self::RevokeLease];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quarantine => "quarantine",
            Self::Restrict => "restrict",
            Self::Limit => "limit",
            Self::RequireTls => "require-tls",
            Self::CutFlows => "cut-flows",
            Self::RevokeLease => "revoke-lease",
        }
    }

    /// What has become of the identity, for people.
    pub const fn done(self) -> &'static str {
        match self {
            Self::Quarantine => "quarantined",
            Self::Restrict => "restricted to what it declares",
            Self::Limit => "limited",
            Self::RequireTls => "asked for TLS",
            Self::CutFlows => "cut from the connections that it had",
            Self::RevokeLease => "without a lease",
        }
    }
}

impl fmt::Display for ActName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Act {
    /// Its name.
    pub fn name(&self) -> ActName {
        match self {
            Self::Quarantine => ActName::Quarantine,
            Self::Restrict => ActName::Restrict,
            Self::Limit(_) => ActName::Limit,
            Self::RequireTls => ActName::RequireTls,
            Self::CutFlows => ActName::CutFlows,
            Self::RevokeLease => ActName::RevokeLease,
        }
    }

    /// Whether it is what most are.
    pub fn is_quarantine(&self) -> bool {
        *self == Self::Quarantine
    }

    /// Whether it cuts off, in whole or in part: that is in the guard lists.
    pub fn cuts_off(&self) -> bool {
        matches!(self, Self::Quarantine | Self::Restrict)
    }
}

impl fmt::Display for Act {
    /// `limit connections 10/s (burst 10)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().name())?;
        if let Self::Limit(rate) = self {
            write!(f, " {}", rate.parts().join(", "))?;
        }
        Ok(())
    }
}

/// One step of a graded response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// For so many seconds.
    pub seconds: u64,
    /// Where it goes on for so many seconds after the step before.
    pub after_s: u64,
}

impl Step {
    /// What `response: {action: contain, for: ...}` says.
    pub fn quarantine(seconds: u64) -> Self {
        Self { act: Act::Quarantine, seconds, after_s: 0 }
    }
}

impl fmt::Display for Step {
    /// `restrict for 30m00s`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.act, duration_text(self.seconds))
    }
}

/// How long a step has to show what it does, where the next does not say.
const AFTER_S: u64 = 10;
const MOST_STEPS: usize = 8;
const EXAMPLE: &str =
    "for example `steps: [{act: limit, rate: {connections: 10/s}, for: 10m}, {act: quarantine, for: 1h}]`";

/// Reads `steps`.
pub(super) fn steps(cx: &mut Context<'_>, node: &Node) -> Option<Vec<Step>> {
    let items = cx.items(node, "`steps`", EXAMPLE);
    if items.len() > MOST_STEPS {
        let what = format!("{} steps are more than {MOST_STEPS}", items.len());
        cx.mistake(node, what, "a response has few steps, the gentlest first");
        return None;
    }
    let steps: Vec<_> = items.iter().enumerate().map(|(n, item)| step(cx, item, n == 0)).collect();
    steps.into_iter().collect::<Option<Vec<_>>>().filter(|steps| !steps.is_empty())
}

fn step(cx: &mut Context<'_>, node: &Node, is_first: bool) -> Option<Step> {
    let fields = Fields::of(cx, node, "a step", &["act", "rate", "for", "after"])?;
    let words = ActName::ALL.map(|act| (act.name(), act));
    let act = fields.required(cx, "act", EXAMPLE).and_then(|node| cx.word(node, "act", &words));
    let seconds = fields.required(cx, "for", EXAMPLE).and_then(|node| duration(cx, node, "`for`"));
    let after = fields.optional("after");
    if let (true, Some(after)) = (is_first, after) {
        cx.mistake(after, "`after` in the first step", "the first step is taken at once");
    }
    let after_s = after.map_or(Some(AFTER_S), |node| duration(cx, node, "`after`"));
    let rate = fields.optional("rate").map(|node| (node, limits::rate_of_identity(cx, node)));
    let act = match (act?, rate) {
        (ActName::Limit, Some((_, rate))) => Act::Limit(rate?),
        (ActName::Limit, None) => {
            cx.mistake(node, "a step that limits does not say to what", EXAMPLE);
            return None;
        }
        (_, Some((node, _))) => {
            cx.mistake(node, "`rate` is for `act: limit`", EXAMPLE);
            return None;
        }
        (ActName::Quarantine, None) => Act::Quarantine,
        (ActName::Restrict, None) => Act::Restrict,
        (ActName::RequireTls, None) => Act::RequireTls,
        (ActName::CutFlows, None) => Act::CutFlows,
        (ActName::RevokeLease, None) => Act::RevokeLease,
    };
    Some(Step { act, seconds: seconds?, after_s: if is_first { 0 } else { after_s? } })
}
