//! Interfaces that XDP may send by.

use super::tables::{Shared, max_entries, write_error};
use crate::error::{Error, Result};
use aya::maps::xdp::{DevMapHash, XdpMapError};
use aya::maps::{Map, MapData};

/// A map of devices by their index. An interface that is gone leaves it by itself.
pub struct Devices {
    map: Shared<DevMapHash<MapData>>,
    max_entries: u32,
}

impl Devices {
    pub(crate) fn new((name, map): (&'static str, Map)) -> Result<Self> {
        let max_entries = max_entries(name, &map)?;
        let map = DevMapHash::try_from(map).map_err(|source| Error::Map { map: name, source })?;
        Ok(Self { map: Shared::new(name, map), max_entries })
    }

    /// The interfaces, by index, in order.
    pub fn all(&self) -> Result<Vec<u32>> {
        let keys: Result<Vec<_>, _> = self.map.read().keys().collect();
        let mut keys = keys.map_err(|e| self.map.error(e))?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// Adds an interface of the calling thread's network namespace.
    pub fn insert(&self, ifindex: u32) -> Result<()> {
        self.map.write().insert(ifindex, ifindex, None, 0).map_err(|e| match e {
            XdpMapError::MapError(e) => write_error(self.map.name, self.max_entries, e),
            // Only chained programs are refused so, and there is none.
            XdpMapError::ChainedProgramNotSupported => {
                Error::Missing { what: "devmap without programs".into() }
            }
        })
    }

    /// How many fit.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// Takes one out; one that is not there is fine.
    pub fn remove(&self, ifindex: u32) -> Result<()> {
        if self.all()?.contains(&ifindex) {
            self.map.write().remove(ifindex).map_err(|e| self.map.error(e))?;
        }
        Ok(())
    }
}
