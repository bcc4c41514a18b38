//! What was seen against what was declared.

use super::finding::Peer;
pub use super::signal::Signal;
use crate::hello::ClientHello;
use crate::policy::Prefix;
use crate::policy::intent::files;
use crate::policy::intent::hello::{Misfit, name_list};
use crate::policy::intent::rules::Rule;
use crate::policy::intent::{Expected, Intent, Sensitivity, addresses};
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
        /// Whether several act under its name, as one of its intents says: nobody is blamed for what it does.
        is_shared: bool,
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

    /// The same, by what intents say of it.
    pub fn known_by(self, intents: &[Intent]) -> Self {
        let says = |intent: &Intent| intent.shared && self.is_any_of(&intent.identities);
        let is_said = intents.iter().any(says);
        match self {
            Self::Identified { id, labels, address, .. } => {
                Self::Identified { id, labels, address, is_shared: is_said }
            }
            nobody => nobody,
        }
    }

    /// Whether nobody can be blamed for what it does: several claim the address, or act under its name.
    pub fn is_several(&self) -> bool {
        matches!(self, Self::Ambiguous(_) | Self::Identified { is_shared: true, .. })
    }

    /// Whether one of these is about it.
    pub fn is_any_of(&self, selectors: &[Selector]) -> bool {
        selectors.iter().any(|selector| self.is(selector))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identified { id, address, is_shared: false, .. } => write!(f, "{id} ({})", address.to_ip()),
            Self::Identified { id, address, .. } => write!(f, "{id} ({}, shared)", address.to_ip()),
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

/// In place of a port, of what no protocol carries.
const ON_HOST: u16 = 1;

impl Seen {
    /// Of what an identity does by itself: it is given a lease, or is refused one.
    pub fn alone(own: End) -> Self {
        Self { client: own.clone(), server: own, proto: 0, port: 0 }
    }

    /// Of what a process of it does on its host.
    pub fn on_host(own: End) -> Self {
        Self { port: ON_HOST, ..Self::alone(own) }
    }

    /// Whether an identity does it by itself.
    pub fn is_alone(&self) -> bool {
        self.proto == 0 && self.port <= ON_HOST
    }

    /// `tcp/443`; `enrolment` and `exec` of what an identity does by itself.
    pub fn service(&self) -> String {
        match (self.proto, self.port) {
            (0, 0) => "enrolment".to_owned(),
            (0, ON_HOST) => "exec".to_owned(),
            (proto, port) => protocol_and_port(proto, port),
        }
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
    /// More of it, in words.
    pub detail: Option<String>,
    /// The rule of the intent that looks for it.
    pub rule: Option<&'s Rule>,
}

/// What departs of a connection, on either side; nothing where it is expected, or where nothing is declared.
///
/// Several intents may be of one identity: what one of them expects is expected.
pub fn compare<'s>(intents: &'s [Intent], seen: &'s Seen) -> Vec<Departure<'s>> {
    [Role::Client, Role::Server].into_iter().filter_map(|role| departure(intents, seen, role)).collect()
}

/// What departs of the ClientHello of a connection that is expected otherwise. Of one that is not, its verdict tells.
pub fn compare_hello<'s>(intents: &'s [Intent], seen: &'s Seen, hello: &ClientHello) -> Vec<Departure<'s>> {
    let misfit = |role| {
        let side = Side::of(intents, seen, role)?;
        let known = side.expected_at(seen);
        let misfits: Vec<Misfit> = known.iter().filter_map(|expected| expected.hello.misfit(hello)).collect();
        // One that fits is enough.
        let most = misfits.iter().max().filter(|_| misfits.len() == known.len())?;
        let is_hidden = hello.tls_ech.is_some();
        let signal = match most {
            Misfit::Sni if is_hidden => Signal::HiddenSni,
            Misfit::Sni => Signal::NewSni,
            Misfit::Alpn => Signal::NewAlpn,
            Misfit::Ja4 => Signal::NewJa4,
        };
        Some(Departure { detail: Some(hello.told()), ..side.departs(signal) })
    };
    [Role::Client, Role::Server].into_iter().filter_map(misfit).collect()
}

/// That the client was denied what its intent expects.
pub fn denied_although_expected<'s>(intents: &'s [Intent], seen: &'s Seen) -> Option<Departure<'s>> {
    let side = Side::of(intents, seen, Role::Client)?;
    (!side.expected_at(seen).is_empty()).then(|| side.departs(Signal::ExpectedDenied))
}

/// A departure of an end that has an intent, whatever that says of connections.
pub fn departs<'s>(
    intents: &'s [Intent],
    seen: &'s Seen,
    role: Role,
    (signal, detail): (Signal, Option<String>),
) -> Option<Departure<'s>> {
    let (own, peer) = match role {
        Role::Client => (&seen.client, &seen.server),
        Role::Server => (&seen.server, &seen.client),
    };
    let End::Identified { id, .. } = own else { return None };
    let intent = intents.iter().find(|intent| own.is_any_of(&intent.identities))?;
    Some(Departure { intent, id, own, role, peer, signal, detail, rule: None })
}

fn departure<'s>(intents: &'s [Intent], seen: &'s Seen, role: Role) -> Option<Departure<'s>> {
    let side = Side::of(intents, seen, role)?;
    if !side.expected_at(seen).is_empty() {
        return None;
    }
    let signal = if side.known().next().is_none() { Signal::NewPeer } else { Signal::NewService };
    Some(side.departs(signal))
}

/// A side of a connection of which something is declared.
struct Side<'s> {
    role: Role,
    id: &'s SpiffeId,
    own: &'s End,
    peer: &'s End,
    /// The intents of the identity that declare something of it; never none.
    declared: Vec<(&'s Intent, &'s [Expected])>,
}

impl<'s> Side<'s> {
    fn of(intents: &'s [Intent], seen: &'s Seen, role: Role) -> Option<Self> {
        let (own, peer) = match role {
            Role::Client => (seen.end(Role::Client), seen.end(Role::Server)),
            Role::Server => (seen.end(Role::Server), seen.end(Role::Client)),
        };
        let End::Identified { id, .. } = own else { return None };
        let declared: Vec<_> = intents
            .iter()
            .filter(|intent| own.is_any_of(&intent.identities))
            .filter_map(|intent| Some((intent, declared(intent, role)?)))
            .collect();
        (!declared.is_empty()).then_some(Self { role, id, own, peer, declared })
    }

    /// What is expected with the peer.
    fn known(&self) -> impl Iterator<Item = &'s Expected> {
        let all = self.declared.iter().flat_map(|(_, expected)| expected.iter());
        all.filter(|expected| self.peer.is_any_of(&expected.peers))
    }

    /// That, at this service.
    fn expected_at(&self, seen: &Seen) -> Vec<&'s Expected> {
        let at =
            |expected: &&Expected| expected.ports.iter().any(|ports| ports.matches(seen.proto, seen.port));
        self.known().filter(at).collect()
    }

    fn departs(&self, signal: Signal) -> Departure<'s> {
        let (intent, _) = self.declared[0];
        let Self { role, id, own, peer, .. } = *self;
        Departure { intent, id, own, role, peer, signal, detail: None, rule: None }
    }
}

fn declared(intent: &Intent, role: Role) -> Option<&[Expected]> {
    match role {
        Role::Client => intent.client.as_deref(),
        Role::Server => intent.server.as_deref(),
    }
}

impl Departure<'_> {
    /// With whom, as far as that tells findings apart.
    pub fn with(&self) -> Peer {
        match (self.signal, self.role) {
            // Of a server's clients, a job that comes and goes is not one of its own.
            (Signal::HandshakeFailures | Signal::LatencyShift, Role::Server) => Peer::Several,
            // It has no peer but itself.
            (Signal::Instances | Signal::EnrolmentRefused, _) => Peer::Several,
            (Signal::Rule, _) if self.own == self.peer => Peer::Several,
            (signal, _) if signal.is_of_many() => Peer::Several,
            _ => Peer::of(self.peer),
        }
    }

    /// How much harm it can do.
    pub fn severity(&self) -> Sensitivity {
        self.rule.and_then(|rule| rule.severity).unwrap_or(self.intent.sensitivity)
    }

    /// What the intent expects, in words.
    pub fn expectation(&self) -> String {
        let Intent { hours, fan_out, rate, .. } = self.intent;
        let opens = |what: Option<String>| format!("opens connections {}", what.unwrap_or_default());
        match self.signal {
            Signal::OffHours => opens(hours.as_ref().map(ToString::to_string)),
            Signal::FanOut => opens(fan_out.map(|fan_out| format!("to {fan_out}"))),
            Signal::UnusualCount => "is the class whose usual count that is".to_owned(),
            Signal::LatencyShift => "is the class whose usual time that is".to_owned(),
            Signal::HandshakeFailures => "is the class whose usual share that is".to_owned(),
            Signal::Scan
            | Signal::ExpiredLease
            | Signal::RevokedLease
            | Signal::Retries
            | Signal::EnrolmentRefused => "is its own".to_owned(),
            Signal::Instances => {
                format!("is at {} at once", self.intent.instances.map(addresses).unwrap_or_default())
            }
            Signal::Rule => match self.rule {
                Some(Rule { name, when, .. }) => format!("looks for {name}: {}", String::from(when.clone())),
                None => "looks for it".to_owned(),
            },
            Signal::NewProcess | Signal::NewOpener => {
                format!("executes {}", self.intent.processes.as_deref().map(files::list).unwrap_or_default())
            }
            Signal::NewName => {
                format!("asks for {}", self.intent.dns.as_deref().map(name_list).unwrap_or_default())
            }
            Signal::Rate => opens(rate.map(|rate| format!("at {rate}"))),
            _ => self.expected_connections(),
        }
    }

    fn expected_connections(&self) -> String {
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
