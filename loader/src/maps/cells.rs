//! Array maps.

use super::tables::Shared;
use crate::error::{Error, Result};
use crate::pod::P;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use bytemuck::Pod;

/// An array map of one entry.
pub struct Cell<V: Pod> {
    map: Shared<Array<MapData, P<V>>>,
}

impl<V: Pod> Cell<V> {
    pub(crate) fn new((name, map): (&'static str, Map)) -> Result<Self> {
        let map = Array::try_from(map).map_err(|source| Error::Map { map: name, source })?;
        Ok(Self { map: Shared::new(name, map) })
    }

    /// The value.
    pub fn get(&self) -> Result<V> {
        self.map.read().get(&0, 0).map(|P(v)| v).map_err(|e| self.map.error(e))
    }

    /// Writes the value.
    pub fn set(&self, value: &V) -> Result<()> {
        self.map.write().set(0, P(*value), 0).map_err(|e| self.map.error(e))
    }

    /// Changes the value; no other writer of this process comes between.
    pub fn update(&self, change: impl FnOnce(&mut V)) -> Result<V> {
        let mut map = self.map.write();
        let P(mut value) = map.get(&0, 0).map_err(|e| self.map.error(e))?;
        change(&mut value);
        map.set(0, P(value), 0).map_err(|e| self.map.error(e))?;
        Ok(value)
    }
}

/// A per-CPU array map.
pub struct PerCpuCells<V: Pod> {
    map: Shared<PerCpuArray<MapData, P<V>>>,
}

impl<V: Pod> PerCpuCells<V> {
    pub(crate) fn new((name, map): (&'static str, Map)) -> Result<Self> {
        let map = PerCpuArray::try_from(map).map_err(|source| Error::Map { map: name, source })?;
        Ok(Self { map: Shared::new(name, map) })
    }

    /// How many entries there are.
    pub fn len(&self) -> u32 {
        self.map.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of one entry, one a CPU, index = number of the CPU.
    pub fn get(&self, index: u32) -> Result<Vec<V>> {
        let values = self.map.read().get(&index, 0).map_err(|e| self.map.error(e))?;
        Ok(values.iter().map(|P(v)| *v).collect())
    }

    /// Changes the first CPU's value of an entry that no program writes.
    pub fn update_first(&self, index: u32, change: impl FnMut(&mut V)) -> Result<()> {
        let mut values = self.get(index)?;
        values.first_mut().into_iter().for_each(change);
        let write = || -> Result<(), MapError> {
            let values = values.into_iter().map(P).collect::<Vec<_>>();
            let values = PerCpuValues::try_from(values).map_err(MapError::IoError)?;
            self.map.write().set(index, values, 0)
        };
        write().map_err(|e| self.map.error(e))
    }

    /// Writes one value for every CPU.
    pub fn set_all(&self, index: u32, value: &V) -> Result<()> {
        let write = || -> Result<(), MapError> {
            let cpus = aya::util::nr_cpus().map_err(|(_, e)| MapError::IoError(e))?;
            let values = PerCpuValues::try_from(vec![P(*value); cpus]).map_err(MapError::IoError)?;
            self.map.write().set(index, values, 0)
        };
        write().map_err(|e| self.map.error(e))
    }
}
