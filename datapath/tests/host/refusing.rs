//! What the tables of no engine bring about by themselves: a table that takes no connection, and no configuration. A hash map on
//! the host takes everything and the kernel's sets evict; the kernel's array always has its entry.

use crate::fixtures::{self, START, Setup, frames::Talk};
use datapath::abi::config::PortCounters;
use datapath::abi::packet::Trace;
use datapath::abi::{
    Action, Addr, Attempt, BindingVersions, BlockVersions, Config, DecisionVersions, Direction, FlowKey,
    InterfaceVersions, LimitVersions, PolicyKey, Reason, RuleVersions, Tally,
};
use datapath::frame::SliceFrame;
use datapath::guard::Service;
use datapath::host::{self, Host, HostRules};
use datapath::judge::judge;
use datapath::stage::Stages;
use datapath::tables::{Attempts, Plane, Rules, Table, Tables, whereabouts};
use std::marker::PhantomData;

/// The native tables but for attempts and rules.
struct Refusing<R>(PhantomData<R>);

impl<R: Rules> Tables for Refusing<R> {
    type Slots = <Host as Tables>::Slots;
    type Spill = <Host as Tables>::Spill;
    type Connections = <Host as Tables>::Connections;
    type HalfOpen = Full;
    type Fragments = <Host as Tables>::Fragments;
    type Rules = R;
    type Buckets = <Host as Tables>::Buckets;
    type Sink = <Host as Tables>::Sink;
    type Draft = <Host as Tables>::Draft;
}

impl<R: Rules> Stages<Refusing<R>> for SliceFrame<'_> {}

/// Takes nothing.
struct Full;

impl Table<FlowKey, Attempt> for Full {
    fn get(&mut self, _: &FlowKey) -> Option<&mut Attempt> {
        None
    }

    fn insert(&mut self, _: &FlowKey, _: &Attempt) -> bool {
        false
    }

    fn remove(&mut self, _: &FlowKey) {}
}

impl Attempts for Full {
    fn whereabouts(&mut self, _: &FlowKey) -> u64 {
        whereabouts::ANYWHERE
    }

    fn answered(&mut self, _: &FlowKey) {}
}

/// Rules before there is a configuration.
struct Unconfigured;

impl Rules for Unconfigured {
    fn config(&self) -> Option<&Config> {
        None
    }

    fn coarse_ns(&self, _: &Config) -> u64 {
        START
    }

    fn now_ns(&self, _: &Config) -> u64 {
        START
    }

    fn binding(&self, _: &Addr) -> Option<&BindingVersions> {
        None
    }

    fn scoped(&self, _: u32, _: &Addr, _: u32) -> Option<&BindingVersions> {
        None
    }

    fn block(&self, _: &Addr) -> Option<&BlockVersions> {
        None
    }

    fn guard(&self, _: &PolicyKey) -> Option<&BlockVersions> {
        None
    }

    fn decision(&self, _: &PolicyKey) -> Option<&DecisionVersions> {
        None
    }

    fn interface(&self, _: u32) -> Option<&InterfaceVersions> {
        None
    }

    fn rule(&self, _: u32) -> Option<&RuleVersions> {
        None
    }

    fn limit(&self, _: u32) -> Option<&LimitVersions> {
        None
    }

    fn is_failsafe(&self, _: &Addr, _: Service) -> bool {
        false
    }
}

fn plane<R: Rules>(of: impl FnOnce(HostRules) -> R, config: Config) -> Plane<Refusing<R>> {
    let Plane { slots, spill, connections, fragments, rules, buckets, sink, draft, .. } = host::plane(config);
    Plane { slots, spill, connections, half_open: Full, fragments, rules: of(rules), buckets, sink, draft }
}

/// Judges a SYN by tables and rules that refuse; it is counted by its verdict, and leaves no connection behind. What was told:
/// verdicts and their reasons.
fn judged<R: Rules>(plane: &mut Plane<Refusing<R>>, action: Action, reason: Reason) -> Vec<(u8, u8)> {
    let syn = Talk::new().client("S", b"", action, reason).steps.remove(0);
    let mut trace = Trace::default();
    let frame = SliceFrame { bytes: &syn.frame, ifindex: 1 };
    let judged = judge(&frame, Direction::Ingress, plane, || Some(&mut trace));
    assert_eq!((judged, trace.action(), trace.reason()), (action, action, reason));
    assert_eq!(trace.rule, 0);
    let counts = &plane.sink.ports[&1].counts[Direction::Ingress as usize];
    let at = PortCounters::index(reason as u8, false);
    assert_eq!((counts[at].packets, counts[at].bytes), (1, syn.frame.len() as u64));
    assert_eq!(counts.iter().map(|count| count.packets).sum::<u64>(), 1);
    assert!(plane.connections.entries.is_empty());
    plane.sink.events.iter().map(|event| (event.action, event.reason)).collect()
}

/// As one that gives way to others at once: counted as opened, and nowhere to be found.
#[test]
fn a_connection_that_no_table_takes_passes_and_is_counted_as_opened() {
    for flags in [Config::ENFORCE, 0] {
        for traced in [true, false] {
            let setup = Setup { flags: flags | Config::DEFAULT_ALLOW, ..Setup::default() };
            let mut plane = plane(|rules| rules, fixtures::config(&setup, traced));
            for n in 1..=2 {
                let told = judged(&mut plane, Action::Forwarded, Reason::Forwarded);
                assert_eq!(told, vec![(Action::Forwarded as u8, Reason::Forwarded as u8); n]);
                assert_eq!(plane.sink.lost[Tally::Opened as usize], n as u64);
                plane.sink.ports.clear();
            }
        }
    }
}

#[test]
fn without_a_configuration_everything_is_dropped() {
    let mut plane = plane(|_| Unconfigured, Config::new(64, 0));
    assert_eq!(judged(&mut plane, Action::Dropped, Reason::NoConfiguration), []);
    assert_eq!(plane.sink.lost[Tally::Opened as usize], 0);
}
