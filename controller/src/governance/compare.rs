//! What was seen against what was declared.

use crate::policy::Prefix;
use crate::policy::intent::{Expected, Intent};
use crate::policy::ports::protocol_and_port;
use crate::policy::selector::Selector;
use crate::policy::spiffe::SpiffeId;
use datapath::abi::Addr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// An end of a connection, as it was when the connection was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody.
    Identified {
        /// Who.
        id: SpiffeId,
        /// The labels of its workload.
        labels: BTreeMap<String, String>,
        /// Where.
        address: Addr,
    },
    /// Nobody who is known.
    Unidentified(Addr),
    /// Several identities claim the address: nobody is blamed for what it does.
    Ambiguous(Addr),
}

impl End {
    /// Where it is.
    pub fn address(&self) -> Addr {
        match self {
            Self::Identified { address, .. } | Self::Unidentified(address) | Self::Ambiguous(address) => {
                *address
            }
        }
    }

    fn is(&self, selector: &Selector) -> bool {
        match (selector, self) {
            (Selector::Any, _) => true,
            (Selector::Cidr(prefix), end) => prefix.covers(&Prefix::host(end.address())),
            (selector, Self::Identified { id, labels, .. }) => selector.matches_workload(id, labels),
            _ => false,
        }
    }

    fn is_any_of(&self, selectors: &[Selector]) -> bool {
        selectors.iter().any(|selector| self.is(selector))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identified { id, address, .. } => write!(f, "{id} ({})", address.to_ip()),
            Self::Unidentified(address) => write!(f, "{}", address.to_ip()),
            Self::Ambiguous(address) => write!(f, "{} (ambiguous)", address.to_ip()),
        }
    }
}

/// A connection that was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who opened it.
    pub client: End,
    /// Who answers.
    pub server: End,
    /// IP protocol number.
    pub proto: u8,
    /// Destination port; the type for ICMP.
    pub port: u16,
}

impl Seen {
    /// `tcp/443`
    pub fn service(&self) -> String {
        protocol_and_port(self.proto, self.port)
    }

    fn end(&self, role: Role) -> &End {
        match role {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }
}

/// On which side of a connection the identity stands whose intent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It opened the connection.
    Client,
    /// It was opened to.
    Server,
}

/// In what a connection departs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// With this peer nothing is expected.
    NewPeer,
    /// With this peer something is expected, and not this protocol and port.
    NewService,
}

impl Signal {
    /// In metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NewPeer => "new_peer",
            Self::NewService => "new_service",
        }
    }
}

/// A connection that an intent does not expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure<'s> {
    /// The first intent of the identity that declares something of this side.
    pub intent: &'s Intent,
    /// Whose intent it is.
    pub id: &'s SpiffeId,
    /// That identity's end.
    pub own: &'s End,
    /// Its side.
    pub role: Role,
    /// Who is at the other.
    pub peer: &'s End,
    /// In what it departs.
    pub signal: Signal,
}

/// What departs of a connection, on either side; nothing where it is expected, or where nothing is declared.
///
/// Several intents may be of one identity: what one of them expects is expected.
pub fn compare<'s>(intents: &'s [Intent], seen: &'s Seen) -> Vec<Departure<'s>> {
    [Role::Client, Role::Server].into_iter().filter_map(|role| departure(intents, seen, role)).collect()
}

fn departure<'s>(intents: &'s [Intent], seen: &'s Seen, role: Role) -> Option<Departure<'s>> {
    let (own, peer) = match role {
        Role::Client => (seen.end(Role::Client), seen.end(Role::Server)),
        Role::Server => (seen.end(Role::Server), seen.end(Role::Client)),
    };
    let End::Identified { id, .. } = own else { return None };
    let declared: Vec<(&Intent, &[Expected])> = intents
        .iter()
        .filter(|intent| own.is_any_of(&intent.identities))
        .filter_map(|intent| Some((intent, declared(intent, role)?)))
        .collect();
    let (intent, _) = *declared.first()?;
    let known: Vec<&Expected> = declared
        .iter()
        .flat_map(|(_, expected)| expected.iter())
        .filter(|expected| peer.is_any_of(&expected.peers))
        .collect();
    let at = |expected: &&Expected| expected.ports.iter().any(|ports| ports.matches(seen.proto, seen.port));
    if known.iter().any(at) {
        return None;
    }
    let signal = if known.is_empty() { Signal::NewPeer } else { Signal::NewService };
    Some(Departure { intent, id, own, role, peer, signal })
}

fn declared(intent: &Intent, role: Role) -> Option<&[Expected]> {
    match role {
        Role::Client => intent.client.as_deref(),
        Role::Server => intent.server.as_deref(),
    }
}

impl Departure<'_> {
    /// What the intent expects on this side, in words.
    pub fn expectation(&self) -> String {
        let verb = match self.role {
            Role::Client => "opens connections to",
            Role::Server => "is opened to by",
        };
        match declared(self.intent, self.role).unwrap_or_default() {
            [] => format!("{verb} nobody"),
            expected => {
                let all: Vec<_> = expected.iter().map(Expected::to_string).collect();
                format!("{verb} {}", all.join(", "))
            }
        }
    }
}
