//! Flows that the daemon has heard of lately: those that are over, or were dropped, are in no table any more.

use crate::policy::Flow;
use datapath::abi::{ClosedEvent, Event, Side};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::IpAddr;

/// Flows that are remembered, about 1 MB. Beyond that the quarter goes that was heard of longest ago.
const KEPT: usize = 16_384;

/// Which ends and services were heard of, and when.
#[derive(Debug, Default)]
pub struct Recent {
    heard_ns: HashMap<Flow, u64>,
}

/// A flow, as the daemon tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RecentFlow {
    /// Who opened it.
    pub source: IpAddr,
    /// Who answers.
    pub destination: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Destination port; the type for ICMP.
    pub port: u16,
}

impl From<RecentFlow> for Flow {
    fn from(flow: RecentFlow) -> Self {
        let RecentFlow { source, destination, proto, port } = flow;
        Self { src: source.into(), dst: destination.into(), proto, port }
    }
}

impl Recent {
    /// Remembers the flow that an event tells of, if it does.
    pub fn note(&mut self, bytes: &[u8]) {
        let event = match bytemuck::try_pod_read_unaligned::<ClosedEvent>(bytes) {
            Ok(closed) => closed.event,
            Err(_) => match bytemuck::try_pod_read_unaligned::<Event>(bytes) {
                Ok(event) => event,
                Err(_) => return,
            },
        };
        if event.key.family == 0 || event.kind().is_none() {
            return;
        }
        let originator = if event.originator == 0 { Side::A } else { Side::B };
        if self.heard_ns.len() >= KEPT {
            self.forget();
        }
        self.heard_ns.insert(Flow::of(&event.key, originator), event.time_ns);
    }

    fn forget(&mut self) {
        let mut times: Vec<u64> = self.heard_ns.values().copied().collect();
        let (_, oldest_kept, _) = times.select_nth_unstable(KEPT / 4);
        let oldest_kept = *oldest_kept;
        self.heard_ns.retain(|_, heard| *heard > oldest_kept);
    }

    /// All of them.
    pub fn flows(&self) -> Vec<RecentFlow> {
        let told = |flow: &Flow| RecentFlow {
            source: flow.src.to_ip(),
            destination: flow.dst.to_ip(),
            proto: flow.proto,
            port: flow.port,
        };
        self.heard_ns.keys().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use datapath::abi::{Addr, EventKind, FlowKey};

    fn event(client: u16, time_ns: u64) -> Event {
        let [high, low] = client.to_be_bytes();
        let (a, b) = (Addr::v4([10, 1, high, low]), Addr::v4([10, 2, 0, 2]));
        let key = FlowKey { a, b, a_port: 40_000, b_port: 443, proto: 6, family: 4, ..FlowKey::zeroed() };
        Event { key, originator: 0, time_ns, kind: EventKind::Verdict as u8, ..Event::zeroed() }
    }

    #[test]
    fn a_flow_is_remembered_once_by_who_opened_it_and_the_oldest_are_forgotten() {
        let mut recent = Recent::default();
        for time_ns in [1, 2] {
            recent.note(bytemuck::bytes_of(&event(7, time_ns)));
        }
        let flow = RecentFlow {
            source: [10, 1, 0, 7].into(),
            destination: [10, 2, 0, 2].into(),
            proto: 6,
            port: 443,
        };
        assert_eq!(recent.flows(), [flow]);
        // What is about no flow is not one.
        recent.note(bytemuck::bytes_of(&Event { key: FlowKey::zeroed(), ..event(8, 3) }));
        recent.note(&[1, 2, 3]);
        assert_eq!(recent.flows(), [flow]);
        for n in 0..KEPT as u16 + 10 {
            recent.note(bytemuck::bytes_of(&event(n, 10 + u64::from(n))));
        }
        let kept = recent.flows().len();
        assert!(kept <= KEPT && kept > KEPT / 2, "{kept}");
        assert!(!recent.heard_ns.contains_key(&Flow::of(&event(0, 0).key, Side::A)));
        let latest: Flow = RecentFlow { source: [10, 1, 64, 9].into(), ..flow }.into();
        assert!(recent.heard_ns.contains_key(&latest));
    }
}
