//! A commit between any two looks that a packet takes at the epoch: it is judged by the one or by the other, never by some of each.

use crate::engine::HostEngine;
use crate::fixtures::frames::{CLIENT, SERVER, tagged};
use crate::fixtures::packets::{ICMP, TCP, UDP, datagram, icmp, ipv4, ipv4_between, segment};
use crate::fixtures::{self, EPOCH, Engine, START, Setup};
use datapath::abi::packet::Trace;
use datapath::abi::{
    Action, Addr, Binding, BindingVersions, Block, BlockVersions, Config, Decision, DecisionVersions,
    Direction, Interface, InterfaceVersions, LimitVersions, NEVER, PolicyKey, Reason, RuleVersions,
    ScopedKey,
};
use datapath::frame::SliceFrame;
use datapath::guard::Service;
use datapath::host::{Host, HostRules};
use datapath::judge::judge;
use datapath::scope;
use datapath::stage::Stages;
use datapath::tables::{Plane, Rules, Tables};
use std::cell::Cell;

/// The native tables, with rules whose epoch ends while they are asked.
struct Committing;

impl Tables for Committing {
    type Slots = <Host as Tables>::Slots;
    type Spill = <Host as Tables>::Spill;
    type Connections = <Host as Tables>::Connections;
    type HalfOpen = <Host as Tables>::HalfOpen;
    type Fragments = <Host as Tables>::Fragments;
    type Rules = Ending;
    type Buckets = <Host as Tables>::Buckets;
    type Sink = <Host as Tables>::Sink;
    type Draft = <Host as Tables>::Draft;
}

impl Stages<Committing> for SliceFrame<'_> {}

/// Says the next epoch from the look at the configuration on that comes after so many.
struct Ending {
    rules: HostRules,
    next: Config,
    looks: Cell<usize>,
    after: usize,
}

impl Rules for Ending {
    fn config(&self) -> Option<&Config> {
        self.looks.set(self.looks.get() + 1);
        Some(if self.looks.get() > self.after { &self.next } else { &self.rules.config })
    }

    fn coarse_ns(&self, config: &Config) -> u64 {
        self.rules.coarse_ns(config)
    }

    fn now_ns(&self, config: &Config) -> u64 {
        self.rules.now_ns(config)
    }

    fn binding(&self, addr: &Addr) -> Option<&BindingVersions> {
        self.rules.binding(addr)
    }

    fn scoped(&self, segment: u32, addr: &Addr, service: u32) -> Option<&BindingVersions> {
        self.rules.scoped(segment, addr, service)
    }

    fn block(&self, addr: &Addr) -> Option<&BlockVersions> {
        self.rules.block(addr)
    }

    fn guard(&self, key: &PolicyKey) -> Option<&BlockVersions> {
        self.rules.guard(key)
    }

    fn decision(&self, key: &PolicyKey) -> Option<&DecisionVersions> {
        self.rules.decision(key)
    }

    fn interface(&self, ifindex: u32) -> Option<&InterfaceVersions> {
        self.rules.interface(ifindex)
    }

    fn rule(&self, number: u32) -> Option<&RuleVersions> {
        self.rules.rule(number)
    }

    fn limit(&self, identity: u32) -> Option<&LimitVersions> {
        self.rules.limit(identity)
    }

    fn is_failsafe(&self, addr: &Addr, service: Service) -> bool {
        self.rules.is_failsafe(addr, service)
    }
}

type Verdict = (Action, Reason);

/// Tables in which two epochs differ, what came before in the second, and a packet that both drop.
struct Case {
    name: &'static str,
    setup: Setup,
    /// Makes of the first epoch's versions those of both.
    differ: fn(&mut HostRules),
    before: Vec<Vec<u8>>,
    frame: Vec<u8>,
    verdicts: [Verdict; 2],
}

/// Judges the case's packet where the epoch ends after so many looks. Returns the verdict, and how many looks there were.
fn judged(case: &Case, after: usize, traced: bool) -> (Verdict, usize) {
    let mut host = HostEngine::new();
    host.prepare(&case.setup, traced);
    let Plane { slots, spill, connections, half_open, fragments, mut rules, buckets, sink, draft } =
        host.plane;
    (case.differ)(&mut rules);
    rules.config.fixed_now_ns = START;
    let next = Config { epoch: EPOCH + 1, ..rules.config };
    let rules = Ending { rules, next, looks: Cell::new(0), after: 0 };
    let mut plane: Plane<Committing> =
        Plane { slots, spill, connections, half_open, fragments, rules, buckets, sink, draft };
    let mut pass = |frame: &[u8], after: usize| {
        (plane.rules.after, plane.rules.looks) = (after, Cell::new(0));
        let mut trace = Trace::default();
        let frame = SliceFrame { bytes: frame, ifindex: 1 };
        let action = judge(&frame, Direction::Ingress, &mut plane, || Some(&mut trace));
        ((action, trace.reason()), plane.rules.looks.get())
    };
    for frame in &case.before {
        assert_ne!(pass(frame, 0).0.0, Action::Dropped, "{}", case.name);
    }
    pass(&case.frame, after)
}

fn block(before: u32, after: u32) -> BlockVersions {
    let version = |rule| Block { rule, guards: 0, not_after_ns: NEVER };
    BlockVersions { since: EPOCH + 1, _pad: 0, old: version(before), new: version(after) }
}

const NEAR: [u8; 4] = [192, 0, 2, 1];
const FAR: [u8; 4] = [192, 0, 2, 2];
const ROUTER: [u8; 4] = [10, 9, 0, 1];
const DENIED: Verdict = (Action::Dropped, Reason::PolicyDenied);
const STRANGE: Verdict = (Action::Dropped, Reason::InvalidIdentity);
const BLOCKED: Verdict = (Action::Dropped, Reason::Blocklisted);

fn segments(flags: u8) -> Vec<u8> {
    ipv4(TCP, &segment((40_000, 443), flags, &[], b""))
}

fn answer() -> Vec<u8> {
    ipv4_between(SERVER, CLIENT, TCP, &segment((443, 40_000), 0x12, &[], b""))
}

fn vxlan(frame: &[u8]) -> Vec<u8> {
    ipv4_between(NEAR, FAR, UDP, &datagram((50_000, 4789), &[&[8, 0, 0, 0, 0, 0, 7, 0], frame].concat()))
}

/// The second epoch blocks an end of the tunnel, and allows what is in it.
fn tunnel(name: &'static str, before: Vec<Vec<u8>>, inner: &[u8]) -> Case {
    let mut setup = fixtures::protocols::allowing(TCP, Some(443));
    setup.flags |= Config::INSPECT;
    Case {
        name,
        setup,
        differ: |rules| {
            rules.blocklist.insert(Addr::v4(NEAR).octets(), 128, block(0, 9));
            for (key, bits, new) in fixtures::protocols::allowing(TCP, Some(443)).policy {
                let versions = DecisionVersions { since: EPOCH + 1, _pad: 0, old: Decision::NONE, new };
                rules.policy.insert(key.bytes, bits, versions);
            }
        },
        before,
        frame: vxlan(inner),
        verdicts: [DENIED, BLOCKED],
    }
}

fn cases() -> Vec<Case> {
    let established = vec![segments(2), answer(), segments(0x10), segments(0x10)];
    let question = ipv4(UDP, &datagram((40_000, 53), &[7; 32]));
    vec![
        tunnel("what a tunnel carries", vec![], &segments(2)),
        tunnel("what a tunnel carries, settled", established, &segments(0x10)),
        Case {
            // An interface gets another number, and who is bound to the old number is somebody.
            name: "a binding that holds on an interface",
            setup: Setup {
                flags: Config::ENFORCE | Config::SCOPED,
                ..fixtures::protocols::allowing(TCP, Some(443))
            },
            differ: |rules| {
                let interface = |number| Interface { number, ..Interface::NONE };
                let versions =
                    InterfaceVersions { since: EPOCH + 1, _pad: 0, old: interface(1), new: interface(2) };
                rules.interfaces.insert(1, versions);
                let asks = Binding { on_expiry: Binding::ASKS_INTERFACE, ..Binding::NONE };
                let asking = BindingVersions { since: 0, _pad: 0, old: asks, new: asks };
                rules.bindings.insert(Addr::v4(CLIENT).octets(), 128, asking);
                let new = Binding {
                    identity: 12,
                    class: fixtures::policy::CLIENT_CLASS,
                    not_after_ns: NEVER,
                    ..Binding::NONE
                };
                let somebody = BindingVersions { since: EPOCH + 1, _pad: 0, old: Binding::NOT_HERE, new };
                let key = ScopedKey::new(scope::segment(1, 0), &Addr::v4(CLIENT), 0);
                rules.scoped.insert(bytemuck::cast(key), ScopedKey::SEGMENT_BITS + 128, somebody);
            },
            before: vec![],
            frame: tagged(&segments(2), &[]),
            verdicts: [STRANGE, STRANGE],
        },
        Case {
            // The router is blocked no more, and the client is nobody any more.
            name: "a path-MTU message",
            setup: fixtures::protocols::allowing(UDP, Some(53)),
            differ: |rules| {
                rules.blocklist.insert(Addr::v4(ROUTER).octets(), 128, block(9, 0));
                let old = *rules.binding(&Addr::v4(CLIENT)).expect("the client").at(EPOCH);
                let versions = BindingVersions { since: EPOCH + 1, _pad: 0, old, new: Binding::NONE };
                rules.bindings.insert(Addr::v4(CLIENT).octets(), 128, versions);
            },
            before: vec![],
            frame: ipv4_between(ROUTER, CLIENT, ICMP, &icmp(3, 4, &question[14..42])),
            verdicts: [BLOCKED, STRANGE],
        },
    ]
}

#[test]
fn a_packet_is_judged_by_one_epoch_wherever_that_ends() {
    for case in cases() {
        for traced in [true, false] {
            let (first, looks) = judged(&case, usize::MAX, traced);
            let (second, _) = judged(&case, 0, traced);
            assert_eq!([first, second], case.verdicts, "{}", case.name);
            assert!(looks > 3, "{}", case.name);
            for after in 1..looks {
                let (verdict, _) = judged(&case, after, traced);
                assert!(case.verdicts.contains(&verdict), "{}: {verdict:?} after {after} looks", case.name);
            }
        }
    }
}
