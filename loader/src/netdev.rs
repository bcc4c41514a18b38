//! Interfaces of the calling thread's network namespace, and which XDP program each has.
//!
//! Questions to rtnetlink and the family "netdev", and one file of /proc; by thread, because sysfs shows the namespace it was mounted in.

use crate::error::{Error, Result};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netdevice, netlink, recv,
    send, socket_with,
};
use std::io;

const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const IFLA_ADDRESS: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const HEADER: usize = 16;

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
    // struct ifinfomsg with nothing but the index.
    let mut body = [0u8; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let answer = ask(None, RTM_GETLINK, &body).map_err(Error::Netlink)?;
    let mut state = LinkState::default();
    for (kind, value) in Attributes(answer.get(body.len()..).unwrap_or_default()) {
        match kind {
            IFLA_ADDRESS => state.mac = value.try_into().unwrap_or_default(),
            IFLA_XDP => state.xdp = xdp_state(value),
            _ => {}
        }
    }
    Ok(state)
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

/// Whether XDP may send frames by an interface now. A driver may say so only while it has queues for it: veth does while
/// its peer has GRO on or an XDP program. `None` where the kernel does not tell (before Linux 6.3).
pub fn xdp_sends(index: u32) -> Result<Option<bool>> {
    features(index).map(|features| features.map(|bits| bits & NDO_XMIT != 0)).map_err(Error::Netlink)
}

/// `NETDEV_XDP_ACT_NDO_XMIT` of include/uapi/linux/netdev.h.
const NDO_XMIT: u64 = 1 << 2;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const GENL_HEADER: usize = 4;

fn features(index: u32) -> io::Result<Option<u64>> {
    let family = match generic(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, b"netdev\0") {
        Ok(answer) => Attributes(&answer)
            .find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)
            .and_then(|(_, value)| value.first_chunk().map(|id| u16::from_ne_bytes(*id))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let Some(family) = family else { return Ok(None) };
    let answer = generic(family, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes())?;
    let bits = Attributes(&answer).find(|(kind, _)| *kind == NETDEV_A_DEV_XDP_FEATURES);
    Ok(bits.and_then(|(_, value)| value.first_chunk().map(|bits| u64::from_ne_bytes(*bits))))
}

/// A question of generic netlink with one attribute; the attributes of the answer.
fn generic(family: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = vec![command, 1, 0, 0];
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(attribute.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
    let answer = ask(Some(netlink::GENERIC), family, &body)?;
    Ok(answer.get(GENL_HEADER..).unwrap_or_default().to_vec())
}

/// Asks one question; what follows the header of the answer.
fn ask(protocol: Option<Protocol>, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut request = vec![0u8; HEADER];
    request[0..4].copy_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request.extend(body);
    send(&socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0u8; 64 << 10];
    let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    buffer.truncate(len);
    if buffer.get(4..6) == Some(&NLMSG_ERROR.to_ne_bytes()) {
        let code = u32_at(&buffer, HEADER).unwrap_or(0) as i32;
        return Err(io::Error::from_raw_os_error(-code));
    }
    Ok(buffer.get(HEADER..).unwrap_or_default().to_vec())
}

/// Netlink attributes: length, type, value, padded to four bytes.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
