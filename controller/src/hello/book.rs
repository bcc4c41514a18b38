//! Hellos by connection, in bounded memory.

use super::ClientHello;
use super::assembly::Assembly;
use datapath::abi::{FlowKey, HelloSegment};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Bytes of hellos that are not whole yet. When they are more, the oldest are read as far as they go.
const MAX_PENDING_BYTES: usize = 16 << 20;
/// Hellos that are remembered. When there are more, the oldest are forgotten.
const MAX_KNOWN: usize = 65_536;

/// Which connection: its key, and when its hello began.
type Id = (FlowKey, u64);

/// A hello that was read, and the last piece of it without its bytes.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it came from; its bytes are what the piece held.
    pub segment: Box<HelloSegment>,
    /// What it says.
    pub hello: Arc<ClientHello>,
}

struct Pending {
    assembly: Assembly,
    last: Box<HelloSegment>,
}

/// Hellos that come in, and those that were read.
pub struct Hellos {
    pending: HashMap<Id, Pending>,
    /// Ids of `pending` in the order in which they began; some may be done.
    began: VecDeque<Id>,
    pending_bytes: usize,
    known: HashMap<FlowKey, (u64, Arc<ClientHello>)>,
    /// Ids of `known` in the order in which they were read; some may have given way to a later one of their key.
    read: VecDeque<Id>,
    max_known: usize,
}

impl Default for Hellos {
    fn default() -> Self {
        Self::with_room(MAX_KNOWN)
    }
}

impl Hellos {
    /// Remembers so many.
    pub fn with_room(max_known: usize) -> Self {
        Self {
            pending: HashMap::new(),
            began: VecDeque::new(),
            pending_bytes: 0,
            known: HashMap::new(),
            read: VecDeque::new(),
            max_known,
        }
    }

    /// Takes a piece. Returns what was read because of it: its own hello, or others that had to make room.
    pub fn take(&mut self, segment: &HelloSegment) -> Vec<Found> {
        let id = (segment.key, segment.hello_ns);
        if segment.length == 0 || self.of(&id.0, id.1).is_some() {
            return Vec::new();
        }
        let pending = self.pending.entry(id).or_insert_with(|| {
            self.began.push_back(id);
            Pending { assembly: Assembly::of(segment), last: Box::new(*segment) }
        });
        let before = pending.assembly.bytes();
        pending.assembly.add(segment);
        *pending.last = *segment;
        // Pieces of a datagram that was read are gone.
        self.pending_bytes = self.pending_bytes + pending.assembly.bytes() - before;
        if let Some(hello) = pending.assembly.whole() {
            return self.finish(&id, Some(hello)).into_iter().collect();
        }
        let mut found = Vec::new();
        while self.pending_bytes > MAX_PENDING_BYTES
            && let Some(oldest) = self.began.pop_front()
        {
            found.extend(self.finish(&oldest, None));
        }
        found
    }

    /// Reads as far as they go those of which nothing came since `before_ns`.
    pub fn give_up(&mut self, before_ns: u64) -> Vec<Found> {
        let is_old = |(_, pending): &(&Id, &Pending)| pending.last.time_ns < before_ns;
        let old: Vec<Id> = self.pending.iter().filter(is_old).map(|(id, _)| *id).collect();
        self.began.retain(|id| self.pending.contains_key(id) && !old.contains(id));
        old.iter().filter_map(|id| self.finish(id, None)).collect()
    }

    fn finish(&mut self, id: &Id, whole: Option<ClientHello>) -> Option<Found> {
        let pending = self.pending.remove(id)?;
        self.pending_bytes -= pending.assembly.bytes();
        let hello = Arc::new(whole.unwrap_or_else(|| pending.assembly.partial()));
        self.known.insert(id.0, (id.1, hello.clone()));
        self.read.push_back(*id);
        while self.known.len() > self.max_known
            && let Some((key, hello_ns)) = self.read.pop_front()
        {
            if self.known.get(&key).is_some_and(|(known_ns, _)| *known_ns == hello_ns) {
                self.known.remove(&key);
            }
        }
        if self.began.len() > 2 * self.pending.len() + 1024 {
            self.began.retain(|id| self.pending.contains_key(id));
        }
        if self.read.len() > 2 * self.known.len() + 1024 {
            self.read.retain(|(key, ns)| self.known.get(key).is_some_and(|(known_ns, _)| known_ns == ns));
        }
        Some(Found { segment: pending.last, hello })
    }

    /// The hello of a connection, if it was read.
    pub fn of(&self, key: &FlowKey, hello_ns: u64) -> Option<Arc<ClientHello>> {
        let (known_ns, hello) = self.known.get(key)?;
        (*known_ns == hello_ns).then(|| hello.clone())
    }

    /// The hello that was read last of the connections of a key.
    pub fn latest(&self, key: &FlowKey) -> Option<Arc<ClientHello>> {
        self.known.get(key).map(|(_, hello)| hello.clone())
    }

    /// All that are remembered.
    pub fn all(&self) -> impl Iterator<Item = (&FlowKey, u64, &ClientHello)> {
        self.known.iter().map(|(key, (hello_ns, hello))| (key, *hello_ns, hello.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use datapath::abi::HandshakeKind;

    fn piece(port: u16, hello_ns: u64, offset: u32, bytes: &[u8]) -> HelloSegment {
        let mut segment = HelloSegment::zeroed();
        segment.key = FlowKey { a_port: port, family: 4, proto: 6, ..FlowKey::default() };
        (segment.hello_ns, segment.time_ns) = (hello_ns, hello_ns);
        segment.kind = HandshakeKind::Tls as u8;
        (segment.offset, segment.length) = (offset, bytes.len() as u32);
        segment.bytes[..bytes.len()].copy_from_slice(bytes);
        segment
    }

    /// A record with a hello of no cipher and no extension.
    fn hello() -> Vec<u8> {
        let body = [&[3, 3][..], &[7; 32], &[0, 0, 0, 1, 0]].concat();
        [&[22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8][..], &body].concat()
    }

    #[test]
    fn pieces_may_come_in_any_order_and_more_than_once() {
        let (hello, mut hellos) = (hello(), Hellos::default());
        for (from, to) in [(20, 30), (0, 10), (0, 10), (30, hello.len())] {
            assert!(hellos.take(&piece(1, 5, from as u32, &hello[from..to])).is_empty());
        }
        // One that overlaps what is there fills the gap.
        let found = hellos.take(&piece(1, 5, 5, &hello[5..25]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].hello.tls_hello_partial, Some(false));
        assert_eq!(found[0].hello.tls_ja4.as_deref(), Some("t12i000000_000000000000_000000000000"));
        assert_eq!(hellos.of(&found[0].segment.key, 5), Some(found[0].hello.clone()));
        assert_eq!(hellos.of(&found[0].segment.key, 6), None);
        assert_eq!((hellos.pending.len(), hellos.pending_bytes), (0, 0));
        assert!(hellos.take(&piece(1, 5, 0, &hello)).is_empty(), "it was told once");
    }

    #[test]
    fn one_that_stays_cut_off_is_told_as_partial() {
        let (hello, mut hellos) = (hello(), Hellos::default());
        hellos.take(&piece(1, 5, 0, &hello[..30]));
        assert!(hellos.give_up(5).is_empty());
        let found = hellos.give_up(6);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].hello.tls_hello_partial, Some(true));
        assert!(hellos.give_up(u64::MAX).is_empty());
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_make_room() {
        let bytes = [0x16; HelloSegment::BYTES];
        let mut hellos = Hellos::with_room(10);
        let mut told = Vec::new();
        let many = MAX_PENDING_BYTES / HelloSegment::BYTES + 5;
        for i in 0..many {
            let mut piece = piece(1, 0, 0, &bytes);
            piece.key.a.words[0] = i as u64;
            told.extend(hellos.take(&piece).iter().map(|found| found.segment.key.a.words[0]));
            assert!(hellos.pending_bytes <= MAX_PENDING_BYTES);
        }
        assert_eq!(told, (0..told.len() as u64).collect::<Vec<_>>());
        assert_eq!(told.len() + hellos.pending.len(), many);
        hellos.give_up(u64::MAX);
        assert_eq!(hellos.known.len(), 10);
        assert!(hellos.read.len() <= 2 * 10 + 1024);
    }
}
