//! Interfaces of the calling thread's network namespace, and which XDP program each has.
//!
//! One question to rtnetlink and one file of /proc; by thread, because sysfs shows the namespace it was mounted in.

use crate::error::{Error, Result};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netdevice, netlink, recv, send,
    socket_with,
};
use std::io;

const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const HEADER: usize = 16;

/// The XDP program of an interface, as the kernel tells it.
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
    query(index).map_err(Error::Netlink)
}

fn query(index: u32) -> io::Result<XdpState> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    // struct nlmsghdr, then struct ifinfomsg with nothing but the index.
    let mut request = [0u8; 2 * HEADER];
    request[0..4].copy_from_slice(&(2 * HEADER as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[HEADER + 4..HEADER + 8].copy_from_slice(&index.to_ne_bytes());
    send(&socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0u8; 64 << 10];
    let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    let answer = buffer.get(..len).unwrap_or_default();
    let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    if kind == Some(NLMSG_ERROR) {
        let code = u32_at(answer, HEADER).unwrap_or(0) as i32;
        return Err(io::Error::from_raw_os_error(-code));
    }
    let mut state = XdpState::default();
    let attributes = answer.get(2 * HEADER..).unwrap_or_default();
    for (_, nested) in Attributes(attributes).filter(|(kind, _)| *kind == IFLA_XDP) {
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
    }
    Ok(state)
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
