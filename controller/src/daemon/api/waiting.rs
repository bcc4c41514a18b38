//! Connections of whom nobody knows who it is: handshakes that are not done, scrapes, enrolments. Where there are too many, the
//! oldest of whoever has most gives way: who opens many takes nothing from who opens one.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// How many there can be at once.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// In all.
    pub most: usize,
    /// Of one address; of an IPv6 network that one host can have (/64).
    pub most_of_one: usize,
}

#[derive(Debug)]
struct Begun {
    room: Room,
    next: u64,
    all: usize,
    by_address: HashMap<IpAddr, VecDeque<(u64, oneshot::Sender<()>)>>,
}

impl Begun {
    /// The address that has most; of several, whose oldest is the oldest: a handshake that just began is the last to give way
    /// to a flood of which each address has one.
    fn fullest(&self) -> Option<IpAddr> {
        let oldest = |own: &VecDeque<(u64, _)>| own.front().map(|(number, _)| Reverse(*number));
        self.by_address.iter().max_by_key(|(_, own)| (own.len(), oldest(own))).map(|(address, _)| *address)
    }

    /// Gives up the oldest of this address.
    fn give_up(&mut self, address: IpAddr) {
        if let Some(own) = self.by_address.get_mut(&address)
            && own.pop_front().is_some()
        {
            self.all -= 1;
            if own.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }
}

/// Connections that wait.
#[derive(Clone, Debug)]
pub struct Waiting(Arc<Mutex<Begun>>);

impl Waiting {
    /// None yet.
    pub fn new(room: Room) -> Self {
        let (next, all, by_address) = (0, 0, HashMap::new());
        Self(Arc::new(Mutex::new(Begun { room, next, all, by_address })))
    }

    /// One more. The future ends when it has to give way.
    pub fn enter(&self, from: IpAddr) -> (Waits, impl Future<Output = ()> + use<>) {
        let address = network(from);
        let (keep, given_up) = oneshot::channel();
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Room { most, most_of_one } = begun.room;
        if begun.by_address.get(&address).is_some_and(|own| own.len() >= most_of_one) {
            begun.give_up(address);
        } else if begun.all >= most {
            let fullest = begun.fullest().unwrap_or(address);
            begun.give_up(fullest);
        }
        let number = begun.next;
        begun.next += 1;
        begun.all += 1;
        begun.by_address.entry(address).or_default().push_back((number, keep));
        // The sender is dropped where it has to give way.
        (Waits { address, number, waiting: self.clone() }, async move { drop(given_up.await) })
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// A connection that waits, until it is dropped.
#[derive(Debug)]
pub struct Waits {
    address: IpAddr,
    number: u64,
    waiting: Waiting,
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut begun = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = begun.by_address.get_mut(&self.address) else { return };
        let before = own.len();
        own.retain(|(number, _)| *number != self.number);
        let gone = before - own.len();
        if own.is_empty() {
            begun.by_address.remove(&self.address);
        }
        begun.all -= gone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const MOST: usize = 256;
    const MOST_OF_ONE: usize = 32;

    fn room() -> Waiting {
        Waiting::new(Room { most: MOST, most_of_one: MOST_OF_ONE })
    }

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn a_flood_of_one_address_or_of_many_gives_up_its_own() {
        let waiting = room();
        let (_waits, quiet) = waiting.enter(address(1));
        let mut quiet = quiet.boxed();
        let mut flood: Vec<_> = (0..MOST_OF_ONE + 3)
            .map(|_| {
                let (waits, given_up) = waiting.enter(address(2));
                (waits, given_up.boxed())
            })
            .collect();
        let given_up =
            flood.iter_mut().map(|(_, given_up)| given_up.now_or_never().is_some()).collect::<Vec<_>>();
        assert_eq!(given_up.iter().filter(|up| **up).count(), 3);
        assert!(given_up[..3].iter().all(|up| *up), "the oldest");
        // Many addresses, two each: no share is full, all places are.
        let many: Vec<_> = (0..MOST as u32).map(|n| waiting.enter(address(100 + n / 2))).collect();
        assert_eq!(waiting.0.lock().unwrap().all, MOST);
        assert!((&mut quiet).now_or_never().is_none(), "who has one keeps it");
        drop((many, flood));
        let begun = waiting.0.lock().unwrap();
        assert_eq!((begun.all, begun.by_address.len()), (1, 1));
    }

    #[test]
    fn of_a_flood_with_one_handshake_an_address_the_oldest_give_way() {
        let waiting = room();
        let mut flood: Vec<_> = (0..MOST as u32 - 1).map(|n| waiting.enter(address(100 + n))).collect();
        let (_waits, late) = waiting.enter(address(1));
        flood.extend((0..MOST as u32 - 1).map(|n| waiting.enter(address(1000 + n))));
        let mut late = late.boxed();
        assert!((&mut late).now_or_never().is_none(), "{} came after it", MOST - 1);
        let _one_more = waiting.enter(address(2));
        assert!(late.now_or_never().is_some(), "now it is the oldest");
        drop(flood);
    }

    #[test]
    fn a_host_is_one_however_many_addresses_its_network_has() {
        let (a, b): (IpAddr, IpAddr) = ("fd00:1::1".parse().unwrap(), "fd00:1::ffff:2".parse().unwrap());
        assert_eq!(network(a), network(b));
        assert_ne!(network(a), network("fd00:2::1".parse().unwrap()));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), address(1));
    }
}
