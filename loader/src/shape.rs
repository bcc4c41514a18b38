//! What each map has to look like: pinned ones of another build are refused before a program sees them.

use crate::error::{Error, Result};
use aya::maps::{MapData, MapInfo, MapType};
use datapath::abi::packet::Trace;
use datapath::abi::*;
use std::path::Path;

/// Type, key and value of a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub name: &'static str,
    pub map_type: MapType,
    pub key_bytes: usize,
    pub value_bytes: usize,
}

const fn shape<K, V>(name: &'static str, map_type: MapType) -> Shape {
    Shape { name, map_type, key_bytes: size_of::<K>(), value_bytes: size_of::<V>() }
}

/// Longest-prefix keys carry their length before the data.
const fn trie<K, V>(name: &'static str) -> Shape {
    Shape { name, map_type: MapType::LpmTrie, key_bytes: 4 + size_of::<K>(), value_bytes: size_of::<V>() }
}

pub(crate) const SHAPES: [Shape; 31] = [
    shape::<u32, Config>(MapName::CONFIG, MapType::Array),
    shape::<u32, FlowSlot>(MapName::FLOW_SLOTS, MapType::PerCpuArray),
    shape::<u32, FlowTags>(MapName::FLOW_TAGS, MapType::PerCpuArray),
    shape::<FlowKey, FlowRecord>(MapName::FLOW_SPILL, MapType::LruPerCpuHash),
    shape::<FlowKey, Connection>(MapName::CONNECTIONS, MapType::LruHash),
    shape::<u32, AttemptSet>(MapName::HALF_OPEN, MapType::Array),
    shape::<u32, AttemptFilter>(MapName::WHEREABOUTS, MapType::Array),
    trie::<Addr, BindingVersions>(MapName::BINDINGS),
    trie::<ScopedKey, BindingVersions>(MapName::SCOPED),
    trie::<Addr, BlockVersions>(MapName::BLOCKLIST),
    trie::<PolicyKey, BlockVersions>(MapName::GUARDS),
    trie::<u32, InterfaceVersions>(MapName::INTERFACES),
    shape::<ShadowKey, u64>(MapName::SHADOW, MapType::PerCpuHash),
    trie::<PolicyKey, DecisionVersions>(MapName::POLICY),
    trie::<u32, RuleVersions>(MapName::RULES),
    shape::<BucketKey, Bucket>(MapName::BUCKETS, MapType::LruHash),
    trie::<u32, LimitVersions>(MapName::LIMITS),
    shape::<u32, Holdings>(MapName::HOLDINGS, MapType::LruHash),
    shape::<FailsafeKey, u32>(MapName::FAILSAFE, MapType::Hash),
    shape::<FragmentKey, FragmentPorts>(MapName::FRAGMENTS, MapType::LruHash),
    shape::<u32, PortCounters>(MapName::PORTS, MapType::PerCpuArray),
    shape::<HandshakeKey, HandshakeStats>(MapName::HANDSHAKES, MapType::PerCpuHash),
    Shape { name: MapName::EVENTS, map_type: MapType::RingBuf, key_bytes: 0, value_bytes: 0 },
    Shape { name: MapName::HELLOS, map_type: MapType::RingBuf, key_bytes: 0, value_bytes: 0 },
    shape::<u32, u64>(MapName::LOST, MapType::PerCpuArray),
    shape::<u32, EventBudget>(MapName::EVENT_BUDGET, MapType::PerCpuArray),
    shape::<u32, Trace>(MapName::TRACE, MapType::PerCpuArray),
    shape::<u32, EndMemo>(MapName::ENDS, MapType::PerCpuArray),
    shape::<u32, DecisionMemo>(MapName::DECISIONS, MapType::PerCpuArray),
    shape::<u32, JudgedPort>(MapName::JUDGED_PORTS, MapType::Hash),
    // struct bpf_devmap_val: an interface and a program.
    shape::<u32, [u32; 2]>(MapName::REDIRECT, MapType::DevMapHash),
];

impl Shape {
    /// Opens the pinned map if it is there, and refuses it if it is something else.
    pub(crate) fn open(&self, pin_dir: &Path) -> Result<Option<MapData>> {
        let path = pin_dir.join(self.name);
        if !path.exists() {
            return Ok(None);
        }
        let data = MapData::from_pin(&path).map_err(|source| Error::Map { map: self.name, source })?;
        let info = data.info().map_err(|source| Error::Map { map: self.name, source })?;
        self.check(&info, &path)?;
        Ok(Some(data))
    }

    fn check(&self, info: &MapInfo, path: &Path) -> Result<()> {
        let found_type = info.map_type().unwrap_or(MapType::Unspecified);
        let (key, value) = (info.key_size() as usize, info.value_size() as usize);
        if found_type == self.map_type && key == self.key_bytes && value == self.value_bytes {
            return Ok(());
        }
        let describe = |map_type: MapType, key: usize, value: usize| {
            format!("{map_type:?} with keys of {key} and values of {value} bytes")
        };
        Err(Error::MapShape {
            path: path.to_owned(),
            found: describe(found_type, key, value),
            expected: describe(self.map_type, self.key_bytes, self.value_bytes),
        })
    }
}
