//! What an interface is: its driver, its MTU, its queues.

use super::link_attributes;
use super::netlink::{Attributes, attribute, family, generic, nested, u32_at};
use crate::error::{Error, Result};
use std::io;
use std::path::Path;

const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;

/// An interface, as rtnetlink tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The driver of its device, or its kind where it has no device (`veth`, `bridge`); `None` for what has neither.
    pub driver: Option<String>,
    /// The kernel names a kind for it (veth, tun, bridge and so on): it is no network card.
    pub is_virtual: bool,
    /// The largest packet.
    pub mtu: u32,
}

/// Asks for an interface's facts.
pub fn facts(index: u32) -> Result<Facts> {
    let answer = link_attributes(index)?;
    let mut facts = Facts::default();
    let (mut device, mut bus) = (None, None);
    for (kind, value) in Attributes(&answer) {
        match kind {
            IFLA_MTU => facts.mtu = u32_at(value, 0).unwrap_or(0),
            IFLA_LINKINFO => {
                let kind = Attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                facts.is_virtual = kind.is_some();
                facts.driver = kind.and_then(|(_, name)| text(name));
            }
            IFLA_PARENT_DEV_NAME => device = text(value),
            IFLA_PARENT_DEV_BUS_NAME => bus = text(value),
            _ => {}
        }
    }
    if let (Some(device), Some(bus)) = (device, bus) {
        // Devices are the same in every network namespace.
        let link = Path::new("/sys/bus").join(bus).join("devices").join(device).join("driver");
        let driver = std::fs::read_link(link).ok();
        let name = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        facts.driver = name.or(facts.driver);
    }
    Ok(facts)
}

fn text(value: &[u8]) -> Option<String> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8(value[..end].to_vec()).ok()
}

const ETHTOOL_MSG_CHANNELS_GET: u8 = 17;
const ETHTOOL_A_CHANNELS_HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_CHANNELS_RX_COUNT: u16 = 6;
const ETHTOOL_A_CHANNELS_COMBINED_COUNT: u16 = 9;

/// Queues by which an interface receives; `None` where its driver does not tell.
pub fn rx_queues(index: u32) -> Result<Option<u32>> {
    channels(index).map_err(Error::Netlink)
}

fn channels(index: u32) -> io::Result<Option<u32>> {
    let Some(family) = family("ethtool")? else { return Ok(None) };
    let device = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &index.to_ne_bytes());
    let question = nested(ETHTOOL_A_CHANNELS_HEADER, &device);
    let answer = match generic(family, ETHTOOL_MSG_CHANNELS_GET, &question) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => return Ok(None),
        answer => answer?,
    };
    let counted = |(kind, _): &(u16, &[u8])| {
        *kind == ETHTOOL_A_CHANNELS_RX_COUNT || *kind == ETHTOOL_A_CHANNELS_COMBINED_COUNT
    };
    let counts = Attributes(&answer).filter(counted).filter_map(|(_, value)| u32_at(value, 0));
    Ok(Some(counts.sum()))
}
