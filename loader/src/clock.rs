//! The kernel's tick counter against the boot clock.
//!
//! The programs read the tick counter (two instructions after the JIT) and not the clock (38 ns). What a tick is worth
//! is not told to user space, so it is measured: a little program returns both, and edges of the counter are watched.

use crate::error::{Error, Result};
use rustix::time::{ClockId, clock_gettime};

/// Values of CONFIG_HZ that kernels are built with.
const HZ: [u64; 4] = [100, 250, 300, 1000];
const TICKS_WATCHED: usize = 10;

/// `boot clock = boot_offset_ns + ticks * tick_ns`, late by at most one tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Length of a tick.
    pub tick_ns: u64,
    /// Boot-clock time of tick 0.
    pub boot_offset_ns: u64,
}

/// Now, on the clock that all times of the maps are on.
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The tick counter and the boot clock at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub ticks: u64,
    pub boot_ns: u64,
}

impl Clock {
    /// Watches ten edges of the counter, a tenth of a second with the longest ticks.
    pub(crate) fn calibrate(mut read: impl FnMut() -> Result<Reading>) -> Result<Self> {
        let deadline = boot_ns() + 5_000_000_000;
        let mut edges: Vec<Reading> = Vec::new();
        let mut last = read()?.ticks;
        while edges.len() <= TICKS_WATCHED {
            let now = read()?;
            if now.ticks != last {
                last = now.ticks;
                edges.push(now);
            }
            if now.boot_ns > deadline {
                return Err(Error::Clock { reason: "the kernel's tick counter stands still".into() });
            }
        }
        Self::from_edges(&edges)
    }

    fn from_edges(edges: &[Reading]) -> Result<Self> {
        let (Some(first), Some(last)) = (edges.first(), edges.last()) else {
            return Err(Error::Clock { reason: "no tick was seen".into() });
        };
        let ticks = last.ticks.saturating_sub(first.ticks).max(1);
        let measured = last.boot_ns.saturating_sub(first.boot_ns) / ticks;
        let tick_ns = HZ.map(|hz| 1_000_000_000 / hz).into_iter().min_by_key(|tick| tick.abs_diff(measured));
        let tick_ns = tick_ns.unwrap_or(measured);
        if tick_ns.abs_diff(measured) > tick_ns / 8 {
            let reason = format!("a tick of {measured} ns fits none of 100, 250, 300 and 1000 Hz");
            return Err(Error::Clock { reason });
        }
        // An edge is seen late, never early: the earliest sighting is the nearest to the truth.
        let offset = edges.iter().map(|e| e.boot_ns.wrapping_sub(e.ticks.wrapping_mul(tick_ns)));
        Ok(Self { tick_ns, boot_offset_ns: offset.min_by_key(|o| *o as i64).unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(tick_ns: u64, offset: u64, late_ns: [u64; 11]) -> Vec<Reading> {
        let edge = |(i, late): (usize, u64)| {
            let ticks = 4_294_900_000 + i as u64;
            Reading { ticks, boot_ns: offset.wrapping_add(ticks.wrapping_mul(tick_ns)) + late }
        };
        late_ns.into_iter().enumerate().map(edge).collect()
    }

    #[test]
    fn late_sightings_neither_change_the_tick_nor_move_the_offset() {
        for tick_ns in [10_000_000, 4_000_000, 3_333_333, 1_000_000] {
            // The counter starts five minutes before it wraps, so tick 0 lies before the boot clock's.
            let offset = 3_000_000_000u64.wrapping_sub(4_294_900_000u64.wrapping_mul(tick_ns));
            let seen =
                edges(tick_ns, offset, [900, 300, 80_000, 150, 700, 12_000, 90, 400, 3_000, 800, 20_000]);
            assert_eq!(
                Clock::from_edges(&seen).unwrap(),
                Clock { tick_ns, boot_offset_ns: offset.wrapping_add(90) }
            );
        }
    }

    #[test]
    fn a_tick_that_no_kernel_has_is_refused() {
        let seen = edges(50_000_000, 0, [0; 11]);
        assert!(Clock::from_edges(&seen).unwrap_err().to_string().contains("50000000 ns"));
    }
}
