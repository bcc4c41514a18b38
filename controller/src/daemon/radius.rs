//! What a containment would touch: addresses, peers, connections, and how much of a service.
//!
//! A service is who answers it, a protocol and a port. Identities of an intent within a tenant answer as one, as replicas do; whoever has
//! no intent answers alone, however many others have something at the same port.

use super::Shared;
use crate::bindings::labels_of;
use crate::exit_code::Result;
use crate::governance::{End, Radius, Share, tenant};
use crate::policy::explain::Flow;
use crate::policy::ports::protocol_and_port;
use crate::policy::spiffe::SpiffeId;
use crate::state::State;
use datapath::abi::{Addr, Binding, Connection, FlowKey};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

impl Shared {
    /// What quarantining an identity would touch now.
    pub(super) fn radius(&self, id: &SpiffeId) -> Result<Radius> {
        let (number, addresses, set) = self.with_state(|state| {
            (state.numbering.identity_number(id), addresses(state, id), state.set.clone())
        });
        let Some(number) = number else { return Ok(Radius { addresses, ..Radius::default() }) };
        let names = self.hub.names();
        let mut known: HashMap<u32, Rc<str>> = HashMap::new();
        let servers = |number: u32| {
            let of = || match names.identity(number).and_then(|id| id.parse().ok()) {
                Some(id) => answering(&set.documents, &id).into(),
                None => number.to_string().into(),
            };
            known.entry(number).or_insert_with(of).clone()
        };
        Ok(Radius { addresses, ..measured(number, &self.maps.tracked()?, servers) })
    }
}

/// Who answers as one with an identity, in words.
fn answering(documents: &crate::policy::Documents, id: &SpiffeId) -> String {
    // Whose workload it is counts, and not where it is.
    let labels = labels_of(&documents.workloads, id).clone();
    let end = End::Identified { id: id.clone(), labels, address: Addr::v4([0; 4]), is_shared: false };
    match documents.intents.iter().find(|intent| end.is_any_of(&intent.identities)) {
        Some(intent) => format!("intent {} in {}", intent.name, tenant(id.as_str())),
        None => id.to_string(),
    }
}

/// All but the addresses. `servers` says with whom an identity answers as one.
fn measured(
    number: u32,
    tracked: &HashMap<FlowKey, Connection>,
    mut servers: impl FnMut(u32) -> Rc<str>,
) -> Radius {
    let mut radius = Radius::default();
    let mut peers = HashSet::new();
    // Of each service that it answers: its connections, and those of all who answer it.
    let mut services: BTreeMap<(u8, u16), [u64; 2]> = BTreeMap::new();
    // Those that have just ended count too, for peers and services: who opens a connection a request depends on it no less.
    for (key, connection) in tracked {
        let [(opener, _), (answerer, port)] = ends(key, connection);
        let [from, to] = connection.identity;
        if from != number && to != number {
            continue;
        }
        radius.connections += u64::from(connection.closed_ns == 0);
        let (peer, address) = if from == number { (to, answerer) } else { (from, opener) };
        // Who has no identity is known by the address.
        peers.insert((peer, (!is_somebody(peer)).then_some(address)));
        if to == number {
            services.entry((key.proto, port)).or_default()[0] += 1;
        }
    }
    let own = servers(number);
    for (key, connection) in tracked {
        let [_, (_, port)] = ends(key, connection);
        let [_, to] = connection.identity;
        if let Some([_, all]) = services.get_mut(&(key.proto, port))
            && is_somebody(to)
            && servers(to) == own
        {
            *all += 1;
        }
    }
    radius.peers = peers.len() as u64;
    let share = |((proto, port), [its, all]): ((u8, u16), [u64; 2])| Share {
        service: format!("{} of {own}", protocol_and_port(proto, port)),
        percent: (its * 100 / all.max(1)) as u32,
    };
    radius.service = services.into_iter().map(share).max_by_key(|share| share.percent);
    radius
}

/// Opener and answerer, with the port of the service; the type of ICMP.
fn ends(key: &FlowKey, connection: &Connection) -> [(Addr, u16); 2] {
    let opener = connection.originator_side();
    let port = Flow::of(key, opener).port;
    [key.end(opener), (key.end(opener.other()).0, port)]
}

fn is_somebody(identity: u32) -> bool {
    identity != 0 && identity != Binding::AMBIGUOUS
}

/// Addresses and prefixes that are bound to it.
fn addresses(state: &State, id: &SpiffeId) -> u64 {
    let workloads = state.documents().workloads.iter().filter(|w| w.spiffe_id == *id);
    let named: usize = workloads.map(|w| w.addresses.len()).sum();
    let bound = state.bindings.of_identity(id).count();
    (named + bound) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Documents;
    use bytemuck::Zeroable;

    const INTENT: &str = "\
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: web}
spec:
  identities: [{spiffePath: \"spiffe://a.example/*\"}]
  workload: service
  server: [{from: [{any: true}], ports: [tcp/443]}]
";

    /// Connections of client 1 with these at `tcp/PORT`.
    fn tracked(to: &[(u32, u16)]) -> HashMap<FlowKey, Connection> {
        let one = |(n, (to, port)): (usize, &(u32, u16))| {
            let key = FlowKey {
                family: 4,
                proto: 6,
                a: Addr::v4([10, 1, 0, 2]),
                b: Addr::v4([10, 2, 0, *to as u8]),
                a_port: 30_000 + n as u16,
                b_port: *port,
                ..FlowKey::zeroed()
            };
            (key, Connection { identity: [1, *to], ..Connection::zeroed() })
        };
        to.iter().enumerate().map(one).collect()
    }

    fn share(number: u32, to: &[(u32, u16)], servers: &[(u32, &'static str)]) -> Option<(String, u32)> {
        let servers = |number| -> Rc<str> {
            let of = servers.iter().find(|(server, _)| *server == number);
            of.map_or_else(|| format!("identity {number}").into(), |(_, name)| (*name).into())
        };
        measured(number, &tracked(to), servers).service.map(|share| (share.service, share.percent))
    }

    #[test]
    fn who_answers_alone_answers_all_of_its_service_whoever_else_has_something_at_that_port() {
        let others = [(2, 443), (3, 443), (3, 443), (3, 443), (0, 443), (Binding::AMBIGUOUS, 443)];
        assert_eq!(share(2, &others, &[]), Some(("tcp/443 of identity 2".into(), 100)));
        assert_eq!(share(1, &others, &[]), None, "it answers nothing");
    }

    #[test]
    fn who_answers_with_others_has_a_share_and_the_service_of_which_it_has_most_counts() {
        let web = [(2, "intent web"), (3, "intent web"), (4, "intent web")];
        let to = [(2, 443), (3, 443), (3, 443), (4, 443), (5, 443), (2, 80), (3, 80), (5, 80)];
        assert_eq!(share(2, &to, &web), Some(("tcp/80 of intent web".into(), 50)));
        assert_eq!(share(4, &to, &web), Some(("tcp/443 of intent web".into(), 25)));
    }

    #[test]
    fn identities_of_an_intent_answer_as_one_within_a_tenant() {
        let documents = Documents::parse("web.yaml", INTENT, jiff::Timestamp::now()).expect("an intent");
        let of = |id: &str| answering(&documents, &id.parse().expect("a SPIFFE ID"));
        assert_eq!(of("spiffe://a.example/ns/shop/sa/web-1"), "intent web in a.example/ns/shop");
        assert_eq!(of("spiffe://a.example/ns/bank/sa/web-1"), "intent web in a.example/ns/bank");
        assert_eq!(of("spiffe://b.example/web"), "spiffe://b.example/web");
    }
}
