//! Recordings: each of the gateway's links into a pcap file, by AF_PACKET.
//!
//! A recorder listens at the far end of a link. XDP drops before AF_PACKET sees anything on its own interface, so
//! that the gateway's end would lack just the packets that were dropped.

use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike,
    SockaddrStorage, bind, recvmsg, setsockopt, socket, sockopt,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::lab::Lab;
use crate::topology::Plan;
use crate::topology::plan::Kind;
use crate::worker::own_command;

/// Offloaded segments are as long as an IP packet can be.
const SNAPLEN: usize = 65_536 + 64;
/// For bursts that come faster than they are written.
const RECEIVE_BUFFER: usize = 8 << 20;
/// pcap with nanoseconds (draft-ietf-opsawg-pcap, section 4).
const MAGIC_NS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;

/// Starts a recorder for each link of a node that forwards; files are named after its interfaces.
pub async fn start(plan: &Plan, lab: &Lab, folder: &Path) -> Result<Vec<Child>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut recorders = Vec::new();
    for link in &plan.links {
        let [a, b] = &link.ends;
        let forwards = |end: &(usize, String)| matches!(plan.nodes[end.0].kind, Kind::Gateway | Kind::Router);
        let (near, far) = match (forwards(a), forwards(b)) {
            (true, _) => (a, b),
            (_, true) => (b, a),
            _ => continue,
        };
        let file = folder.join(format!("{}-{}.pcap", plan.nodes[near.0].name, near.1));
        let namespace = lab.namespace(&plan.nodes[far.0].name);
        recorders.push(start_one(lab, &namespace, &far.1, file).await?);
    }
    Ok(recorders)
}

async fn start_one(lab: &Lab, namespace: &str, interface: &str, file: PathBuf) -> Result<Child> {
    let mut child = own_command("capture", namespace)?
        .arg("--interface")
        .arg(interface)
        .arg("--file")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a recorder")?;
    lab.record.borrow_mut().add_process(child.id().context("the recorder ended at once")?, "capture")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let line = BufReader::new(stdout).lines().next_line().await?;
    line.with_context(|| format!("the recorder of {interface} in {namespace} did not start"))?;
    Ok(child)
}

/// The recorder itself: writes until it is ended.
pub fn record(interface: &str, file: &Path) -> Result<()> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("cannot open a packet socket")?;
    let address = getifaddrs()?
        .filter(|i| i.interface_name == interface)
        .filter_map(|i| i.address)
        .find(|a| a.family() == Some(AddressFamily::Packet))
        .ok_or_else(|| anyhow!("no interface {interface}"))?;
    // The address has no protocol, which keeps the socket's.
    let address = address.as_link_addr().ok_or_else(|| anyhow!("no link address"))?;
    bind(socket.as_raw_fd(), address).with_context(|| format!("cannot listen on {interface}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    let mut file = File::create(file).with_context(|| format!("cannot make {}", file.display()))?;
    file.write_all(&file_header())?;
    println!("ready");
    let mut buffer = vec![0; SNAPLEN];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    loop {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_TRUNC,
        )?;
        let time = message.cmsgs()?.find_map(|c| match c {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        let time = time.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let whole = message.bytes;
        let record = packet_record(time, whole, &buffer[..whole.min(SNAPLEN)]);
        // One write a packet: whenever this process is killed, the file is whole.
        file.write_all(&record)?;
    }
}

fn file_header() -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(MAGIC_NS.to_le_bytes());
    header.extend(2u16.to_le_bytes());
    header.extend(4u16.to_le_bytes());
    header.extend([0; 8]);
    header.extend((SNAPLEN as u32).to_le_bytes());
    header.extend(LINKTYPE_ETHERNET.to_le_bytes());
    header
}

fn packet_record(time: Duration, whole: usize, captured: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(16 + captured.len());
    // Seconds are 32 bits in this format, until 2106.
    record.extend((time.as_secs() as u32).to_le_bytes());
    record.extend(time.subsec_nanos().to_le_bytes());
    record.extend((captured.len() as u32).to_le_bytes());
    record.extend((whole as u32).to_le_bytes());
    record.extend(captured);
    record
}
