//! What a driver can do with XDP, as it says itself: the family "netdev" of generic netlink (Linux 6.3).

use super::netlink::{Attributes, attribute, family, generic};
use crate::error::{Error, Result};
use std::io;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// What a driver can do with XDP now: `enum netdev_xdp_act` of include/uapi/linux/netdev.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    /// It runs programs (`NETDEV_XDP_ACT_BASIC`): without it they run in the network stack.
    pub fn native(self) -> bool {
        self.0 & 1 != 0
    }

    /// Programs may send frames by it (`NETDEV_XDP_ACT_NDO_XMIT`).
    pub fn sends(self) -> bool {
        self.0 & 1 << 2 != 0
    }

    /// The card itself can run programs (`NETDEV_XDP_ACT_HW_OFFLOAD`).
    pub fn offload(self) -> bool {
        self.0 & 1 << 4 != 0
    }

    /// It hands over frames of several buffers (`NETDEV_XDP_ACT_RX_SG`).
    pub fn frags(self) -> bool {
        self.0 & 1 << 5 != 0
    }
}

/// Whether XDP may send frames by an interface now. A driver may say so only while it has queues for it: veth does while
/// its peer has GRO on or an XDP program. `None` where the kernel does not tell (before Linux 6.3).
pub fn xdp_sends(index: u32) -> Result<Option<bool>> {
    xdp_features(index).map(|features| features.map(XdpFeatures::sends))
}

/// What an interface's driver can do with XDP now. `None` where the kernel does not tell (before Linux 6.3).
pub fn xdp_features(index: u32) -> Result<Option<XdpFeatures>> {
    features(index).map_err(Error::Netlink)
}

fn features(index: u32) -> io::Result<Option<XdpFeatures>> {
    let Some(family) = family("netdev")? else { return Ok(None) };
    let device = attribute(NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes());
    let answer = generic(family, NETDEV_CMD_DEV_GET, &device)?;
    let bits = Attributes(&answer).find(|(kind, _)| *kind == NETDEV_A_DEV_XDP_FEATURES);
    Ok(bits.and_then(|(_, value)| value.first_chunk().map(|bits| XdpFeatures(u64::from_ne_bytes(*bits)))))
}
