//! What grows, and how a kernel gets so much of it.

use anyhow::{Result, ensure};
use loader::{Kernel, Sizes};
use tidegate_benches::programs::{Target, Walk, walker};
use tidegate_benches::scene;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grow {
    /// Answered UDP flows, settled on this CPU.
    Flows,
    /// Policy entries.
    Rules,
    /// Addresses bound to identities.
    Identities,
    /// Blocked prefixes.
    Prefixes,
}

/// Flows that are opened at once: fewer than unanswered ones fit.
const CHUNK: u32 = 8_192;

impl Grow {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Flows, Self::Rules, Self::Identities, Self::Prefixes];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Rules => "rules",
            Self::Identities => "identities",
            Self::Prefixes => "prefixes",
        }
    }

    /// The sizes that are measured. Flows are counted by a mask.
    pub fn sizes(self) -> [u32; 4] {
        match self {
            Self::Flows => [1 << 10, 1 << 14, 1 << 17, 1 << 20],
            Self::Rules => [10, 1_000, 10_000, 100_000],
            Self::Identities => [1, 1_000, 10_000, 100_000],
            Self::Prefixes => [1, 1_000, 100_000, 1_000_000],
        }
    }

    /// Tables with room for it: two slots a flow, so that few share one.
    pub fn tables(self, size: u32) -> Sizes {
        let usual = Sizes::default();
        match self {
            Self::Flows => Sizes {
                flow_slots: usual.flow_slots.max(2 * size),
                // An LRU map gives up entries before the last is taken.
                connections: usual.connections.max(size + size / 4),
                ..usual
            },
            _ => usual,
        }
    }

    /// Puts so much of it into the maps.
    pub fn fill(self, kernel: &Kernel, size: u32) -> Result<()> {
        let maps = kernel.maps();
        for n in 0..size {
            match self {
                Self::Flows => return open(kernel, size),
                Self::Rules => {
                    let (key, bits, versions) = scene::nth_decision(n);
                    maps.policy.insert(&key, bits, &versions)?;
                }
                Self::Identities => {
                    let (addr, bits, versions) = scene::nth_binding(n);
                    maps.bindings.insert(&addr, bits, &versions)?;
                }
                Self::Prefixes => {
                    let (addr, bits, versions) = scene::nth_block(n);
                    maps.blocklist.insert(&addr, bits, &versions)?;
                }
            }
        }
        Ok(())
    }
}

/// Opens the flows of the first clients of the crowd: a datagram, its answer, and one more that is settled.
fn open(kernel: &Kernel, flows: u32) -> Result<()> {
    let ask = walker(Walk::sources(scene::CROWD_SIZE), &Target::Kernel(kernel))?;
    let answer = walker(Walk::destinations(scene::CROWD_SIZE), &Target::Kernel(kernel))?;
    let mut events = kernel.maps().events()?;
    for first in (0..flows).step_by(CHUNK as usize) {
        // A walker counts before it hands on.
        let stream = scene::crowd(first.wrapping_sub(1));
        let count = CHUNK.min(flows - first);
        ask.run(&stream.datagram()?, count)?;
        answer.run(&stream.reversed().datagram()?, count)?;
        ask.run(&stream.datagram()?, count)?;
        events.drain(|_| {});
    }
    let tracked = kernel.maps().connections.len()?;
    ensure!(tracked >= flows as usize / 100 * 99, "{tracked} of {flows} flows are tracked");
    Ok(())
}
