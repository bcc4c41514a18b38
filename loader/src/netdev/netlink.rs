//! Netlink: one question, its answer, and attributes.

use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send,
    socket_with,
};
use std::io;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 0x8000;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const GENL_HEADER: usize = 4;

/// The number of a family of generic netlink; `None` where the kernel has none of that name.
pub(super) fn family(name: &str) -> io::Result<Option<u16>> {
    let name = [name.as_bytes(), &[0]].concat();
    let answer = match generic(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &attribute(CTRL_ATTR_FAMILY_NAME, &name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        answer => answer?,
    };
    let id = Attributes(&answer).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
    Ok(id.and_then(|(_, value)| value.first_chunk().map(|id| u16::from_ne_bytes(*id))))
}

/// A question of generic netlink; the attributes of the answer.
pub(super) fn generic(family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let body = [&[command, 1, 0, 0], attributes].concat();
    let answer = ask(Some(netlink::GENERIC), family, &body)?;
    Ok(answer.get(GENL_HEADER..).unwrap_or_default().to_vec())
}

/// An attribute, padded.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute of attributes.
pub(super) fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, attributes)
}

/// Asks one question; what follows the header of the answer.
pub(super) fn ask(protocol: Option<Protocol>, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let socket = request(protocol, kind, NLM_F_REQUEST, body)?;
    let answer = receive(&socket)?;
    refused(&answer)?;
    Ok(answer.get(HEADER..).unwrap_or_default().to_vec())
}

/// Asks for all there is of a kind; what follows the header of each.
pub(super) fn ask_all(kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let socket = request(None, kind, NLM_F_REQUEST | NLM_F_DUMP, body)?;
    let mut all = Vec::new();
    loop {
        let answer = receive(&socket)?;
        let mut rest = &answer[..];
        while let Some(len) = u32_at(rest, 0).map(|len| len as usize).filter(|len| *len >= HEADER) {
            refused(rest)?;
            if rest.get(4..6) == Some(&NLMSG_DONE.to_ne_bytes()) {
                return Ok(all);
            }
            all.push(rest.get(HEADER..len).unwrap_or_default().to_vec());
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn request(protocol: Option<Protocol>, kind: u16, flags: u16, body: &[u8]) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut request = vec![0u8; HEADER];
    request[0..4].copy_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request.extend(body);
    send(&socket, &request, SendFlags::empty())?;
    Ok(socket)
}

fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; 64 << 10];
    let (len, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
    buffer.truncate(len);
    Ok(buffer)
}

/// The kernel's error, if the message is one.
fn refused(message: &[u8]) -> io::Result<()> {
    if message.get(4..6) != Some(&NLMSG_ERROR.to_ne_bytes()) {
        return Ok(());
    }
    let code = u32_at(message, HEADER).unwrap_or(0) as i32;
    Err(io::Error::from_raw_os_error(-code))
}

/// Netlink attributes: length, type, value, padded to four bytes.
pub(super) struct Attributes<'a>(pub &'a [u8]);

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

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
