//! left (10.1.0.2) - tg0 gateway tg1 - right (10.2.0.2), and tg2 - aside (10.3.0.2), on which nothing is attached. Hosts
//! are packet sockets: nobody speaks there but the test. Gone when dropped.

use datapath::abi::{Config, Direction, PortCounters, Reason};
use loader::{Kernel, LoadOptions, Sizes, TcModeChoice, XdpModeChoice};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send, setsockopt,
    socket, sockopt,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// After this long without a frame the test has failed: far beyond what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Room for frames of several buffers.
const MTU: &str = "9000";

/// Each host's name and network: its own address ends with 2, the gateway's with 1.
const HOSTS: [(&str, u8); 3] = [("left", 1), ("right", 2), ("aside", 3)];

/// The gateway's hardware address on the way to a host, and the host's.
pub fn macs(net: u8) -> ([u8; 6], [u8; 6]) {
    ([2, 0, 0, 0, net, 1], [2, 0, 0, 0, net, 2])
}

pub fn v4(net: u8, host: u8) -> [u8; 4] {
    [10, net, 0, host]
}

pub fn v6(net: u8, host: u8) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[1], address[3], address[15]) = (0xfd, 0, net, host);
    address
}

pub struct Lab {
    name: String,
    pins: PathBuf,
}

impl Lab {
    /// The calling thread is in the gateway's namespace from here on.
    pub fn enter() -> Self {
        let name = format!("tgw{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let bpffs = Path::new("/sys/fs/bpf");
        loader::bpffs::ensure(bpffs).expect("a bpffs");
        let lab = Self { pins: bpffs.join(&name), name };
        ip(&format!("netns add {}", lab.space("gateway")));
        enter(&lab.space("gateway"));
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding");
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("forwarding");
        std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").expect("no duplicate detection");
        for (at, (host, net)) in HOSTS.iter().enumerate() {
            let (space, own) = (lab.space(host), format!("tg{at}"));
            ip(&format!("netns add {space}"));
            ip(&format!("link add {own} mtu {MTU} type veth peer name end mtu {MTU} netns {space}"));
            let [gateway, end] = [macs(*net).0, macs(*net).1].map(text);
            ip(&format!("link set {own} address {gateway} up"));
            ip(&format!("-n {space} link set end address {end} up"));
            run("nsenter", &format!("--net=/run/netns/{space} ethtool -K end gro on"));
            ip(&format!("addr add 10.{net}.0.1/24 dev {own}"));
            ip(&format!("addr add fd00:{net}::1/64 dev {own}"));
            for host in [format!("10.{net}.0.2"), format!("10.{net}.0.3"), format!("fd00:{net}::2")] {
                ip(&format!("neigh add {host} lladdr {end} dev {own}"));
            }
        }
        lab
    }

    /// Where the programs are pinned.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    fn space(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// Loads the programs, which let everything pass, with flags beside that.
    pub fn load(&self, flags: u32) -> Kernel {
        let sizes = Sizes::small();
        let options = LoadOptions { pin_dir: Some(self.pins.clone()), sizes, ..LoadOptions::default() };
        let kernel = Kernel::load(&options).expect("the programs load");
        kernel.maps().config.update(|config| config.flags |= Config::ENFORCE | flags).expect("flags");
        kernel
    }

    /// Puts them on `tg0` and `tg1`.
    pub fn attach(&self, kernel: &mut Kernel) {
        for interface in ["tg0", "tg1"] {
            kernel.attach(interface, XdpModeChoice::Native, TcModeChoice::Auto).expect("the programs attach");
        }
    }

    /// A packet socket of a host.
    pub fn wire(&self, host: &str) -> Wire {
        self.at(host, || Wire(packets_of("end")))
    }

    /// Does something in a host's namespace, on a thread of its own.
    pub fn at<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> T {
        let space = self.space(host);
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                enter(&space);
                work()
            });
            inside.join().expect("a thread")
        })
    }

    pub fn run_at(&self, host: &str, program: &str, words: &str) {
        run("nsenter", &format!("--net=/run/netns/{} {program} {words}", self.space(host)));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = loader::detach_all(&self.pins);
        for host in ["gateway", "left", "right", "aside"] {
            let _ = Command::new("ip").args(["netns", "del", &self.space(host)]).status();
        }
    }
}

fn enter(space: &str) {
    let file = std::fs::File::open(format!("/run/netns/{space}")).expect("the namespace");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

pub fn ip(words: &str) {
    run("ip", words);
}

pub fn run(program: &str, words: &str) {
    let output = Command::new(program).args(words.split(' ')).output().expect(program);
    assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Packets and bytes of one reason on an interface.
pub fn counted(kernel: &Kernel, interface: &str, direction: Direction, reason: Reason) -> (u64, u64) {
    let ifindex = loader::netdev::index(interface).expect("the interface");
    let ports = kernel.maps().port_counters().expect("counters");
    let port = ports.iter().find(|port| port.ifindex == ifindex).expect("its counters");
    let count = port.counts[direction as usize][PortCounters::index(reason as u8, false)];
    (count.packets, count.bytes)
}

fn packets_of(interface: &str) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).expect("a packet socket");
    let address = getifaddrs()
        .expect("interfaces")
        .filter(|i| i.interface_name == interface)
        .filter_map(|i| i.address)
        .find(|address| address.family() == Some(AddressFamily::Packet))
        .expect("the interface");
    bind(socket.as_raw_fd(), address.as_link_addr().expect("a link address")).expect("bound");
    setsockopt(&socket, sockopt::RcvBufForce, &(1 << 20)).expect("a buffer");
    socket
}

/// Waits for something that has to come.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A host's end of its link.
pub struct Wire(OwnedFd);

impl Wire {
    pub fn send(&self, frame: &[u8]) {
        assert_eq!(send(self.0.as_raw_fd(), frame, MsgFlags::empty()), Ok(frame.len()));
    }

    /// The next frame that came, whoever sent it.
    pub fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 16 << 10];
        match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(len) => {
                buffer.truncate(len);
                Some(buffer)
            }
            Err(nix::Error::EAGAIN) => None,
            Err(e) => panic!("the socket: {e}"),
        }
    }

    /// Frames that hold `mark`, up to the first that ends with `last`, which is left out.
    pub fn until(&self, last: &[u8], mark: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        wait_for("what has to come did not", || {
            while let Some(frame) = self.next() {
                if frame.ends_with(last) {
                    return Some(());
                }
                frames.push(frame);
            }
            None
        });
        frames.retain(|frame| frame.windows(mark.len()).any(|part| part == mark));
        frames
    }
}
