//! Who forwards what passes: a flag of the configuration map, which outlives the daemon.

use crate::exit_code::{Code, Failure, Result};
use datapath::abi::Config;
use loader::{Maps, netdev};

/// Who forwards packets that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Forward {
    /// Linux
    Linux,
    /// XDP, where a packet is plain and leaves by an interface of Tidegate; Linux all else
    Xdp,
}

impl Forward {
    /// What a configuration says.
    pub fn of(config: &Config) -> Self {
        if config.has(Config::FORWARD) { Self::Xdp } else { Self::Linux }
    }

    /// The word of the option.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Xdp => "xdp",
        }
    }
}

/// Sets who forwards; without a word it stays as it was.
pub(super) fn set(maps: &Maps, who: Option<Forward>) -> Result<()> {
    let Some(who) = who else { return Ok(()) };
    let flag = if who == Forward::Xdp { Config::FORWARD } else { 0 };
    maps.config.update(|config| config.flags = config.flags & !Config::FORWARD | flag)?;
    Ok(())
}

/// Refuses what this kernel cannot tell safely.
pub(super) fn check(who: Option<Forward>) -> Result<()> {
    const LOOPBACK: u32 = 1;
    if who == Some(Forward::Xdp) && netdev::xdp_sends(LOOPBACK)?.is_none() {
        let message = "--forward xdp needs Linux 6.3 or newer: before, the kernel does not say which drivers take frames from \
                       XDP, and what one does not take is lost; use --forward linux";
        return Err(Failure::new(Code::Failure, message));
    }
    Ok(())
}

/// Says which interfaces forwarding by XDP leaves out.
pub(super) fn warn(maps: &Maps) -> Result<()> {
    let left = left_to_linux(maps)?;
    if maps.config.get()?.has(Config::FORWARD) && !left.is_empty() {
        tracing::warn!(
            "XDP cannot send by {}: what leaves there is forwarded by Linux (of veth, the peer needs `ethtool -K PEER gro on`)",
            left.join(", ")
        );
    }
    Ok(())
}

/// Interfaces that are judged and by which XDP cannot send now.
pub fn left_to_linux(maps: &Maps) -> Result<Vec<String>> {
    let sends = maps.redirect.all()?;
    let judged = maps.judged_ports.keys()?.into_iter().filter(|port| !sends.contains(port));
    let mut names: Vec<_> = judged.filter_map(netdev::name).collect();
    names.sort();
    Ok(names)
}
