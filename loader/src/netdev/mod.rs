//! Interfaces of the calling thread's network namespace, and which XDP program each has.
//!
//! Questions to rtnetlink and generic netlink, and one file of /proc; by thread, because sysfs shows the namespace it was mounted in.

mod facts;
mod features;
mod filters;
mod netlink;

pub use facts::{Facts, facts, rx_queues};
pub use features::{XdpFeatures, xdp_features, xdp_sends};
pub use filters::{TcProgram, tc_programs};

use crate::error::{Error, Result};
use netlink::{Attributes, ask, u32_at};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;

/// An interface and its XDP program, as the kernel tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Its hardware address; zero where it has none of six bytes.
    pub mac: [u8; 6],
    /// Its XDP program.
    pub xdp: XdpState,
}

/// The XDP program of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpState {
    /// Id of the program, 0 for none.
    pub program_id: u32,
    /// It runs in the network stack, not in the driver.
    pub generic: bool,
}

/// Names of all interfaces.
pub fn names() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let name = |line: &str| line.split_once(':').map(|(name, _)| name.trim().to_owned());
    let mut names: Vec<_> = table.lines().skip(2).filter_map(name).collect();
    names.sort();
    names
}

/// The index of an interface.
pub fn index(name: &str) -> Result<u32> {
    let missing = || Error::NoInterface { name: name.to_owned(), present: names() };
    if name.is_empty() || name.len() > 15 {
        return Err(missing());
    }
    netdevice::name_to_index(any_socket()?, name).map_err(|_| missing())
}

/// The name of an interface, `None` if there is none of this index.
pub fn name(index: u32) -> Option<String> {
    netdevice::index_to_name(any_socket().ok()?, index).ok()
}

fn any_socket() -> Result<rustix::fd::OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| Error::Netlink(e.into()))
}

/// The XDP program of an interface.
pub fn xdp(index: u32) -> Result<XdpState> {
    link(index).map(|link| link.xdp)
}

/// An interface's hardware address and XDP program.
pub fn link(index: u32) -> Result<LinkState> {
    let answer = link_attributes(index)?;
    let mut state = LinkState::default();
    for (kind, value) in Attributes(&answer) {
        match kind {
            IFLA_ADDRESS => state.mac = value.try_into().unwrap_or_default(),
            IFLA_XDP => state.xdp = xdp_state(value),
            _ => {}
        }
    }
    Ok(state)
}

/// All that rtnetlink tells of an interface.
fn link_attributes(index: u32) -> Result<Vec<u8>> {
    // struct ifinfomsg with nothing but the index.
    let mut body = [0u8; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let answer = ask(None, RTM_GETLINK, &body).map_err(Error::Netlink)?;
    Ok(answer.get(body.len()..).unwrap_or_default().to_vec())
}

fn xdp_state(nested: &[u8]) -> XdpState {
    let mut state = XdpState::default();
    for (kind, value) in Attributes(nested) {
        match kind {
            IFLA_XDP_ATTACHED => state.generic = value.first() == Some(&2),
            // With a program in each place the kernel sends no IFLA_XDP_PROG_ID.
            IFLA_XDP_PROG_ID => state.program_id = u32_at(value, 0).unwrap_or(0),
            IFLA_XDP_SKB_PROG_ID if state.program_id == 0 => {
                state.program_id = u32_at(value, 0).unwrap_or(0);
            }
            _ => {}
        }
    }
    state
}
