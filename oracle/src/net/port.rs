//! One end of a link: frames out, frames in.

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send, setsockopt,
    socket, sockopt,
};
use std::os::fd::{AsRawFd, OwnedFd};

/// Rounds are bursts; what is not read yet waits here.
const RECEIVE_BUFFER: usize = 64 << 20;

/// An interface, opened for raw frames in both directions.
pub struct Port {
    out: OwnedFd,
    inward: OwnedFd,
    buffer: Vec<u8>,
}

impl Port {
    /// Opens an interface of the calling thread's namespace.
    pub fn open(interface: &str) -> Result<Self> {
        let out = packet_socket(interface, None)?;
        let inward = packet_socket(interface, Some(SockProtocol::EthAll))?;
        setsockopt(&inward, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        Ok(Self { out, inward, buffer: vec![0; 65_536] })
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        loop {
            match send(self.out.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => std::thread::yield_now(),
                Err(error) => return Err(error).context("cannot send a frame"),
            }
        }
    }

    /// The next frame, if one is waiting.
    pub fn receive(&mut self) -> Result<Option<&[u8]>> {
        match recv(self.inward.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => Ok(Some(&self.buffer[..len])),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error).context("cannot receive frames"),
        }
    }
}

/// Without a protocol the socket receives nothing, and sends all the same.
fn packet_socket(interface: &str, protocol: Option<SockProtocol>) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .context("cannot open a packet socket")?;
    let address = getifaddrs()?
        .filter(|i| i.interface_name == interface)
        .filter_map(|i| i.address)
        .find(|a| a.family() == Some(AddressFamily::Packet))
        .ok_or_else(|| anyhow!("no interface {interface}"))?;
    // The address has no protocol, which keeps the socket's.
    let address = address.as_link_addr().ok_or_else(|| anyhow!("no link address"))?;
    bind(socket.as_raw_fd(), address).with_context(|| format!("cannot use {interface}"))?;
    Ok(socket)
}
