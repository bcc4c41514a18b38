//! What a packet is judged by, read once.

use crate::abi::Config;
use crate::abi::packet::Moment;
use crate::tables::Rules;

impl Moment {
    /// Now, by what the controller says.
    #[inline(always)]
    pub fn now<R: Rules>(rules: &R, config: &Config) -> Self {
        Self::at(config, rules.now_ns(config))
    }

    /// Now, for what enters by an interface. `begun` is the epoch by which something of the packet was judged already, 0 for none:
    /// all of it is judged by one.
    #[inline(always)]
    pub fn on<R: Rules>(rules: &R, config: &Config, ifindex: u32, begun: u32) -> Self {
        let mut moment = Self::now(rules, config);
        if begun != 0 {
            moment.epoch = begun;
        }
        if moment.flags & Config::BY_INTERFACE != 0
            && let Some(versions) = rules.interface(ifindex)
        {
            let own = versions.at(moment.epoch);
            moment.flags = moment.flags & !own.mask | own.flags;
        }
        moment
    }

    /// At a given time.
    #[inline(always)]
    pub fn at(config: &Config, now_ns: u64) -> Self {
        let refresh_ns = now_ns + config.shortest_idle_ns / 4;
        Self {
            epoch: config.epoch,
            flags: config.flags,
            now_ns,
            refresh_ns,
            event_limit: config.event_limit,
            segment: 0,
        }
    }
}
