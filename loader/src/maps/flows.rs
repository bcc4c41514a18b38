//! Flow records of both levels and all CPUs, merged.

use super::cells::PerCpuCells;
use super::tables::PerCpuTable;
use crate::error::Result;
use aya::maps::Map;
use datapath::abi::{Config, FlowKey, FlowRecord, FlowSlot};
use std::collections::BTreeMap;

/// One flow: what all CPUs counted of one connection of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The two ends.
    pub key: FlowKey,
    /// Counts are sums over CPUs, times the first and the last; the verdict is the latest one.
    pub record: FlowRecord,
}

/// The two levels of the flow table.
pub struct Flows {
    /// The direct-mapped first level.
    pub slots: PerCpuCells<FlowSlot>,
    /// What gave way there.
    pub spill: PerCpuTable<FlowKey, FlowRecord>,
}

#[derive(Default)]
struct Merged(BTreeMap<(FlowKey, u32), FlowRecord>);

impl Merged {
    fn add(&mut self, key: FlowKey, record: FlowRecord) {
        let counted = record.packets[0] | record.packets[1] != 0;
        if !counted || key.family == 0 {
            return;
        }
        self.0.entry((key, record.incarnation)).and_modify(|sum| merge(sum, &record)).or_insert(record);
    }

    fn into_vec(self) -> Vec<Flow> {
        self.0.into_iter().map(|((key, _), record)| Flow { key, record }).collect()
    }
}

/// The later record has the verdict; what counts adds up.
fn merge(sum: &mut FlowRecord, other: &FlowRecord) {
    let later = if other.last_ns > sum.last_ns { *other } else { *sum };
    *sum = FlowRecord {
        packets: [sum.packets[0] + other.packets[0], sum.packets[1] + other.packets[1]],
        bytes: [sum.bytes[0] + other.bytes[0], sum.bytes[1] + other.bytes[1]],
        first_ns: sum.first_ns.min(other.first_ns),
        ..later
    };
}

impl Flows {
    pub(crate) fn new(slots: (&'static str, Map), spill: (&'static str, Map)) -> Result<Self> {
        Ok(Self { slots: PerCpuCells::new(slots)?, spill: PerCpuTable::new(spill)? })
    }

    /// Every flow, ordered by key, with what was counted of attempts.
    pub fn all(
        &self,
        config: &Config,
        attempts: impl Iterator<Item = (FlowKey, FlowRecord)>,
    ) -> Result<Vec<Flow>> {
        let mut merged = Merged::default();
        attempts.for_each(|(key, record)| merged.add(key, record));
        for index in 0..self.slots.len().min(config.flow_mask.saturating_add(1)) {
            for slot in self.slots.get(index)? {
                merged.add(slot.key, slot.record);
            }
        }
        for (key, per_cpu) in self.spill.entries()? {
            per_cpu.into_iter().for_each(|record| merged.add(key, record));
        }
        Ok(merged.into_vec())
    }

    /// How many slots of the fullest CPU hold a record, and how many there are. Which slots are asked does not matter: a
    /// seeded hash names a flow's.
    pub fn slots_used(&self, config: &Config) -> Result<(usize, u32)> {
        const SAMPLE: u32 = 1_024;
        let slots = self.slots.len().min(config.flow_mask.saturating_add(1));
        let asked = slots.min(SAMPLE);
        let mut used: Vec<usize> = Vec::new();
        for index in 0..asked {
            let per_cpu = self.slots.get(index)?;
            used.resize(per_cpu.len(), 0);
            for (n, slot) in used.iter_mut().zip(per_cpu) {
                *n += usize::from(slot.key.family != 0);
            }
        }
        let most = used.into_iter().max().unwrap_or(0);
        Ok((most * slots as usize / asked.max(1) as usize, slots))
    }

    /// The records of one flow, one for each connection of its key that is remembered.
    pub fn of(&self, key: &FlowKey, config: &Config, attempt: Option<FlowRecord>) -> Result<Vec<Flow>> {
        let mut merged = Merged::default();
        attempt.into_iter().for_each(|record| merged.add(*key, record));
        let index = key.hash(&config.hash_keys) & config.flow_mask;
        for slot in self.slots.get(index)?.into_iter().filter(|slot| slot.key == *key) {
            merged.add(slot.key, slot.record);
        }
        for record in self.spill.get(key)?.into_iter().flatten() {
            merged.add(*key, record);
        }
        Ok(merged.into_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    fn record(incarnation: u32, packets: [u64; 2], first_ns: u64, last_ns: u64, rule: u32) -> FlowRecord {
        let bytes = [packets[0] * 100, packets[1] * 100];
        FlowRecord { packets, bytes, first_ns, last_ns, rule, incarnation, ..FlowRecord::zeroed() }
    }

    #[test]
    fn records_of_one_connection_add_up_and_the_latest_verdict_counts() {
        let key = FlowKey { family: 4, proto: 6, ..FlowKey::default() };
        let mut merged = Merged::default();
        merged.add(key, record(1, [3, 0], 50, 90, 7));
        merged.add(key, record(1, [1, 4], 40, 80, 8));
        let flows = merged.into_vec();
        assert_eq!(flows, vec![Flow { key, record: record(1, [4, 4], 40, 90, 7) }]);
    }

    #[test]
    fn incarnations_stay_apart_and_empty_records_are_no_flows() {
        let key = FlowKey { family: 6, proto: 17, ..FlowKey::default() };
        let mut merged = Merged::default();
        merged.add(key, record(1, [1, 0], 1, 1, 0));
        merged.add(key, record(2, [2, 0], 5, 6, 0));
        merged.add(key, record(0, [0, 0], 0, 0, 0));
        merged.add(FlowKey::default(), record(3, [9, 9], 1, 1, 0));
        let packets: Vec<_> = merged.into_vec().iter().map(|f| f.record.packets).collect();
        assert_eq!(packets, vec![[1, 0], [2, 0]]);
    }
}
