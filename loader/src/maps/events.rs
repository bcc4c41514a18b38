//! The ring buffers.

use crate::error::{Error, Result};
use aya::maps::{Map, MapData, MapError, RingBuf};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// The consumer's end of a ring buffer. Readable, in the sense of poll and epoll, when there are events.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(crate) fn new(name: &'static str, map: &MapData) -> Result<Self> {
        let open = || -> Result<RingBuf<MapData>, MapError> {
            let fd = map.fd().as_fd().try_clone_to_owned().map_err(MapError::IoError)?;
            RingBuf::try_from(Map::RingBuf(MapData::from_fd(fd)?))
        };
        Ok(Self { ring: open().map_err(|source| Error::Map { map: name, source })? })
    }

    /// Hands every event that is there to `take`; returns how many there were.
    pub fn drain(&mut self, take: impl FnMut(&[u8])) -> usize {
        self.drain_some(usize::MAX, take)
    }

    /// Hands so many of the events that are there to `take` at most; returns how many there were.
    pub fn drain_some(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut n = 0;
        while n < most
            && let Some(event) = self.ring.next()
        {
            take(&event);
            n += 1;
        }
        n
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
