//! Which tunnels are looked into: flags of the configuration map, which outlive the daemon.

use crate::exit_code::Result;
use clap::ValueEnum;
use datapath::abi::Config;
use loader::Maps;

/// A kind of tunnel whose packets are judged by what they carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Inspect {
    /// UDP to port 4789, or 8472, which Linux takes by default
    Vxlan,
    /// UDP to port 6081
    Geneve,
    /// GRE around IPv4, IPv6 or Ethernet
    Gre,
    /// IPv4 or IPv6 in IP
    Ipip,
    /// None of them
    None,
}

impl Inspect {
    fn flag(self) -> u32 {
        match self {
            Self::Vxlan => Config::INSPECT_VXLAN,
            Self::Geneve => Config::INSPECT_GENEVE,
            Self::Gre => Config::INSPECT_GRE,
            Self::Ipip => Config::INSPECT_IPIP,
            Self::None => 0,
        }
    }
}

/// The flags of several kinds.
pub fn flags(kinds: &[Inspect]) -> u32 {
    kinds.iter().fold(0, |flags, kind| flags | kind.flag())
}

/// A kind as it is given on the command line.
pub(super) fn word(kind: Inspect) -> String {
    kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Names of the kinds that are looked into.
pub fn names(config: &Config) -> Vec<&'static str> {
    let kinds = [
        ("vxlan", Config::INSPECT_VXLAN),
        ("geneve", Config::INSPECT_GENEVE),
        ("gre", Config::INSPECT_GRE),
        ("ipip", Config::INSPECT_IPIP),
    ];
    kinds.iter().filter(|(_, flag)| config.has(*flag)).map(|(name, _)| *name).collect()
}

/// Sets the kinds; without one they stay as they were. A commit has to follow: records of tunnels hold for an epoch.
pub(super) fn set(maps: &Maps, kinds: &[Inspect]) -> Result<()> {
    if kinds.is_empty() {
        return Ok(());
    }
    maps.config.update(|config| config.flags = config.flags & !Config::INSPECT | flags(kinds))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_flag_and_name() {
        let mut config = Config::new(64, 7);
        assert_eq!(names(&config), [""; 0]);
        config.flags |= Inspect::Gre.flag() | Inspect::Vxlan.flag();
        assert_eq!(names(&config), ["vxlan", "gre"]);
        let all = [Inspect::Vxlan, Inspect::Geneve, Inspect::Gre, Inspect::Ipip, Inspect::None];
        assert_eq!(flags(&all), Config::INSPECT);
    }
}
