//! Which lease the ends of an event had. The kernel is asked when the event is told, by the epoch by which it was judged, and nobody
//! later: what an address is bound to by then may be another lease, or another identity.

use super::inlet::Ends;
use crate::view::event::judged;
use crate::view::flow::Moment;
use datapath::abi::policy::LeaseEnd;
use datapath::abi::{Addr, Binding, BindingVersions, ClosedEvent, Event, FlowKey, NEVER, Side};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Addresses whose bindings are remembered, about 8 MB.
const KNOWN: usize = 65_536;

/// What the kernel says of an address.
pub type Ask = Arc<dyn Fn(&Addr) -> Option<BindingVersions> + Send + Sync>;

/// What addresses are bound to.
pub struct Leases {
    /// What the kernel says.
    pub(super) ask: Ask,
    known: HashMap<Addr, Option<BindingVersions>>,
}

/// An end of which a lease is asked: its address, the number that the event has for it, and the epoch, 0 where it has none.
#[derive(Clone, Copy)]
struct Asked {
    address: Addr,
    identity: u32,
    epoch: u32,
}

impl Leases {
    /// `ask` says what an address is bound to.
    pub fn new(ask: Ask) -> Self {
        Self { ask, known: HashMap::new() }
    }

    /// Bindings have changed.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Adds to an event of the ring buffer what leases its ends had.
    pub fn add(&mut self, bytes: &[u8], told: &mut Value, now: &Moment) {
        let event = match bytemuck::try_pod_read_unaligned::<ClosedEvent>(bytes) {
            Ok(closed) => judged(&closed),
            Err(_) => match bytemuck::try_pod_read_unaligned::<Event>(bytes) {
                Ok(event) => event,
                Err(_) => return,
            },
        };
        if event.key.family != 0 {
            let opener = if event.originator == 0 { Side::A } else { Side::B };
            self.add_both(&event.key, opener, |side| event.identity[side.index()], event.epoch, told, now);
        }
    }

    /// The same of a ClientHello, whose identities are the originator's and the responder's.
    pub fn add_to_hello(
        &mut self,
        (key, originator, identity): (&FlowKey, u8, [u32; 2]),
        told: &mut Value,
        now: &Moment,
    ) {
        let opener = if originator == 0 { Side::A } else { Side::B };
        self.add_both(key, opener, |side| identity[usize::from(side != opener)], 0, told, now);
    }

    fn add_both(
        &mut self,
        key: &FlowKey,
        opener: Side,
        identity: impl Fn(Side) -> u32,
        epoch: u32,
        told: &mut Value,
        now: &Moment,
    ) {
        for (end, side) in [("source", opener), ("destination", opener.other())] {
            let asked = Asked { address: key.end(side).0, identity: identity(side), epoch };
            // Who has no identity has no lease.
            if asked.identity != 0 && asked.identity != Binding::AMBIGUOUS && told[end].is_object() {
                told[end]["lease"] = self.of(asked, now);
            }
        }
    }

    fn of(&mut self, asked: Asked, now: &Moment) -> Value {
        let fits = |versions: &BindingVersions| binding(versions, asked);
        let known = self.known.get(&asked.address).and_then(|known| known.as_ref().and_then(fits));
        let found = known.or_else(|| {
            // It is not known, or was another's: what the kernel says now may still tell of the epoch.
            let versions = (self.ask)(&asked.address);
            if self.known.len() == KNOWN {
                self.known.clear();
            }
            self.known.insert(asked.address, versions);
            versions.as_ref().and_then(fits)
        });
        found.map_or_else(|| json!({"ambiguous": true}), |binding| told(&binding, now))
    }
}

/// Whose lease was over, of the client and the server of a connection that was judged by that. It is asked when the event is read: a lease
/// that is renewed later is another.
pub fn over(ask: impl Fn(&Addr) -> Option<BindingVersions>, event: &Event) -> [bool; 2] {
    Ends::of_event(event).of.map(|(identity, address)| {
        let asked = Asked { address, identity, epoch: event.epoch };
        let own = ask(&address).and_then(|versions| binding(&versions, asked));
        own.is_some_and(|binding| binding.not_after_ns <= event.time_ns)
    })
}

/// The lease of a binding, as an event tells it.
pub fn told(binding: &Binding, now: &Moment) -> Value {
    match binding.not_after_ns {
        NEVER => json!({"not_after": null}),
        not_after_ns => json!({
            "not_after": format!("{:.0}", now.timestamp(not_after_ns)),
            "on_expiry": ON_EXPIRY[usize::from(binding.on_expiry & !Binding::ASKS).min(2)],
        }),
    }
}

/// By [`LeaseEnd`].
const ON_EXPIRY: [&str; 3] = ["deny", "alert", "grace"];
const _: () = assert!(LeaseEnd::Deny as u8 == 0 && LeaseEnd::Alert as u8 == 1 && LeaseEnd::Grace as u8 == 2);

/// The version of a binding that the event was judged by, if it is of the identity that the event names.
fn binding(versions: &BindingVersions, asked: Asked) -> Option<Binding> {
    let is_its = |binding: &&Binding| binding.identity == asked.identity;
    if asked.epoch != 0 {
        return Some(versions.at(asked.epoch)).filter(is_its).copied();
    }
    // The event knows no epoch: the one version that is its identity's, of two the latest.
    Some(&versions.new).filter(is_its).or(Some(&versions.old).filter(is_its)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use datapath::abi::EventKind;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    const ORDERS: u32 = 7;

    fn bound(identity: u32, not_after_ns: u64) -> Binding {
        Binding { identity, not_after_ns, ..Binding::NONE }
    }

    struct Case {
        kernel: Arc<Mutex<Option<BindingVersions>>>,
        asked: Arc<AtomicU64>,
        leases: Leases,
    }

    impl Case {
        /// The kernel has these from epoch 5 on.
        fn new(old: Binding, new: Binding) -> Self {
            let kernel = Arc::new(Mutex::new(Some(BindingVersions { since: 5, _pad: 0, old, new })));
            let asked = Arc::<AtomicU64>::default();
            let (answers, count) = (kernel.clone(), asked.clone());
            let leases = Leases::new(Arc::new(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                *answers.lock().expect("a lock")
            }));
            Self { kernel, asked, leases }
        }

        /// The lease of the opener in a verdict of this epoch.
        fn told(&mut self, epoch: u32) -> Value {
            let mut event = Event { kind: EventKind::Verdict as u8, epoch, ..Event::zeroed() };
            event.key.family = 4;
            event.key.a = Addr::v4([10, 1, 0, 2]);
            event.identity = [ORDERS, 0];
            let mut told = json!({"source": {}, "destination": {}});
            self.leases.add(bytemuck::bytes_of(&event), &mut told, &Moment::now());
            assert_eq!(told["destination"], json!({}), "who has no identity has no lease");
            told["source"]["lease"].clone()
        }
    }

    #[test]
    fn an_event_has_the_lease_of_its_epoch_and_the_kernel_is_asked_once() {
        let now = Moment::now();
        let mut case = Case::new(bound(ORDERS, 9_000_000_000), bound(ORDERS, NEVER));
        let before = format!("{:.0}", now.timestamp(9_000_000_000));
        assert_eq!(case.told(4), json!({"not_after": before, "on_expiry": "deny"}));
        assert_eq!(case.told(5), json!({"not_after": null}));
        assert_eq!(case.asked.load(Ordering::Relaxed), 1);
        case.leases.forget();
        case.told(5);
        assert_eq!(case.asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn whose_lease_was_over_is_said_by_the_epoch_and_the_time_of_the_event() {
        let (client, server) = (Addr::v4([10, 1, 0, 2]), Addr::v4([10, 2, 0, 2]));
        let mut event = Event { epoch: 4, time_ns: 9, ..Event::zeroed() };
        (event.key.family, event.key.a, event.key.b) = (4, client, server);
        event.identity = [ORDERS, 8];
        // From epoch 5 on it has another lease; that of the server goes on.
        let ask = |address: &Addr| {
            let orders = [bound(ORDERS, 9), bound(ORDERS, 20)];
            let [old, new] = if *address == client { orders } else { [bound(8, NEVER); 2] };
            Some(BindingVersions { since: 5, _pad: 0, old, new })
        };
        assert_eq!(over(ask, &event), [true, false]);
        assert_eq!(over(ask, &Event { originator: 1, ..event }), [false, true], "the client stands first");
        assert_eq!(over(ask, &Event { time_ns: 8, ..event }), [false, false]);
        assert_eq!(over(ask, &Event { epoch: 5, ..event }), [false, false]);
        assert_eq!(over(ask, &Event { identity: [7 + ORDERS, 8], ..event }), [false, false]);
        assert_eq!(over(|_| None, &event), [false, false]);
    }

    #[test]
    fn another_identitys_lease_is_nobodys_and_a_change_is_noticed_by_itself() {
        let mut case = Case::new(bound(8, NEVER), bound(9, NEVER));
        assert_eq!(case.told(5), json!({"ambiguous": true}));
        // A commit that nobody has told of yet.
        *case.kernel.lock().expect("a lock") =
            Some(BindingVersions { since: 6, _pad: 0, old: bound(9, NEVER), new: bound(ORDERS, NEVER) });
        assert_eq!(case.told(6), json!({"not_after": null}));
        assert_eq!(case.told(5), json!({"ambiguous": true}), "before it the address was another's");
        *case.kernel.lock().expect("a lock") = None;
        case.leases.forget();
        assert_eq!(case.told(6), json!({"ambiguous": true}));
    }

    #[test]
    fn a_hello_knows_no_epoch_and_has_what_is_its_identitys() {
        let mut case = Case::new(bound(ORDERS, NEVER), bound(9, NEVER));
        let mut key = FlowKey::zeroed();
        (key.family, key.b) = (4, Addr::v4([10, 1, 0, 2]));
        let mut told = json!({"source": {}, "destination": {}});
        case.leases.add_to_hello((&key, 1, [ORDERS, 0]), &mut told, &Moment::now());
        assert_eq!(told, json!({"source": {"lease": {"not_after": null}}, "destination": {}}));
    }
}
