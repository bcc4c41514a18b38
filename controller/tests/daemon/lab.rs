//! left (10.1.0.2) - eth1 gateway eth2 - right (10.2.0.2), and the commands to play with it. Gone when dropped.

use loader::Maps;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// `orders` may reach `payments` on 8443.
pub const POLICY: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders}
spec: {spiffeId: spiffe://acme.example/ns/shop/sa/orders, addresses: [10.1.0.2/32]}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: payments}
spec: {spiffeId: spiffe://acme.example/ns/shop/sa/payments, addresses: [10.2.0.2/32]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: shop}
spec:
  rules:
    - name: pay
      action: allow
      from: [{spiffeId: spiffe://acme.example/ns/shop/sa/orders}]
      to: [{spiffeId: spiffe://acme.example/ns/shop/sa/payments}]
      ports: [tcp/8443]
";

/// The identity of the left end.
pub const ORDERS: &str = "spiffe://acme.example/ns/shop/sa/orders";

/// All is allowed; `orders` is for `payments` at 8443 alone, and what becomes of all else `response` says.
pub fn intended(response: &str) -> String {
    let allow = POLICY.replace("ports: [tcp/8443]", "ports: [any]");
    format!(
        "{allow}---
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {{name: orders}}
spec:
  identities: [{{spiffeId: {ORDERS}}}]
  workload: service
  owner: team-shop
  sensitivity: high
  client: [{{to: [{{spiffeId: spiffe://acme.example/ns/shop/sa/payments}}], ports: [tcp/8443]}}]
  response: {response}
"
    )
}

/// In a namespace of its own every port is free.
pub const METRICS: &str = "127.0.0.1:9900";

static NEXT: AtomicU32 = AtomicU32::new(0);

pub fn json(value: impl Into<Value>) -> Value {
    value.into()
}

/// Waits for something that has to come; the limit is for what never does.
pub fn until(done: impl FnMut() -> bool) {
    until_within(60, done);
}

/// The same of what is much work.
pub fn until_within(seconds: u64, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < limit, "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub struct Lab {
    name: String,
    hosts: String,
    owns_hosts: bool,
    dir: tempfile::TempDir,
}

/// Runs in a namespace, on a thread that ends there.
fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("namespace");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().expect("thread"))
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("ip of iproute2");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Lab {
    pub fn new() -> Self {
        let name = format!("tgd{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Self {
            hosts: name.clone(),
            name,
            owns_hosts: true,
            dir: tempfile::tempdir().expect("a temporary folder"),
        };
        let n = &lab.name;
        for host in ["gw", "left", "right"] {
            ip(&format!("netns add {n}-{host}"));
            ip(&format!("-n {n}-{host} link set lo up"));
        }
        for (interface, host, net) in [("eth1", "left", "10.1.0"), ("eth2", "right", "10.2.0")] {
            ip(&format!("link add {interface} netns {n}-gw type veth peer name eth1 netns {n}-{host}"));
            ip(&format!("-n {n}-gw addr add {net}.1/24 dev {interface}"));
            ip(&format!("-n {n}-{host} addr add {net}.2/24 dev eth1"));
            ip(&format!("-n {n}-gw link set {interface} up"));
            ip(&format!("-n {n}-{host} link set eth1 up"));
            ip(&format!("-n {n}-{host} route add default via {net}.1"));
        }
        within(&lab.namespace("gw"), || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .expect("forwarding");
        lab
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.hosts)
    }

    /// Another instance on the same gateway.
    pub fn beside(&self, suffix: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self { name: format!("{}{suffix}", self.name), hosts: self.hosts.clone(), owns_hosts: false, dir }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub fn has_state(&self) -> bool {
        self.state_file().exists()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn state_file(&self) -> PathBuf {
        self.state_dir().join(&self.name).join("state.db")
    }

    /// Has the next daemon that gets there end with a step of a commit, as `kill -9` would.
    pub fn end_at(&self, step: &str) {
        std::fs::write(self.dir.path().join("end-at"), step).expect("a file");
    }

    pub fn pin_dir(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf/tidegate").join(&self.name)
    }

    pub fn pin(&self, map: &str) -> String {
        self.pin_dir().join(map).display().to_string()
    }

    pub fn maps(&self) -> Maps {
        Maps::open(&self.pin_dir()).expect("pinned maps")
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }

    pub fn folder(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::create_dir(&path).expect("a folder");
        path.display().to_string()
    }

    /// Runs in the gateway's namespace, on a thread that ends there.
    pub fn in_gateway_thread<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.namespace("gw"), work)
    }

    /// The same on the left.
    pub fn on_left<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.namespace("left"), work)
    }

    pub fn in_gateway(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace("gw"))).args(["--", program]);
        command.stdin(Stdio::null());
        command
    }

    /// The gateway's end of a pair gets company in its namespace.
    pub fn add_link(&self, words: &str) {
        ip(&format!("-n {} link add {words}", self.namespace("gw")));
    }

    /// `tidegate` as a user who may nothing.
    pub fn tidegate_as_nobody(&self, args: &[&str]) -> Command {
        let mut command = self.in_gateway("setpriv");
        command.args(["--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
        command.args([env!("CARGO_BIN_EXE_tidegate"), "--name", &self.name]).args(args);
        command
    }

    pub fn tidegate(&self, args: &[&str]) -> Command {
        let mut command = self.in_gateway(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["--name", &self.name]);
        for (option, folder) in [("--run-dir", "run"), ("--state-dir", "state")] {
            command.arg(option).arg(self.dir.path().join(folder));
        }
        command.args(args).env("TIDEGATE_END_AT", self.dir.path().join("end-at"));
        command
    }

    /// Starts a daemon and waits until it is ready.
    pub fn run(&self, args: &[&str]) -> Daemon {
        let mut command = self.tidegate(&["run"]);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().expect("tidegate");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout");
        let daemon = Daemon(child);
        assert!(line.starts_with("ready "), "it said {line:?}");
        daemon
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.tidegate(args).output().expect("tidegate");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tidegate {args:?}: {} {said}", output.status);
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The exit code and what was said.
    pub fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.tidegate(args).output().expect("tidegate");
        assert!(!output.status.success(), "tidegate {args:?} did not fail");
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The documents that a command prints.
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        let text = self.ok(&[args, &["-o", "json"]].concat());
        serde_json::Deserializer::from_str(&text).into_iter().map(|value| value.expect("JSON")).collect()
    }

    pub fn flows(&self) -> Vec<Value> {
        self.json(&["flows"])
    }

    pub fn output(&self, program: &str, args: &[&str]) -> String {
        let output = self.in_gateway(program).args(args).output().expect(program);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn metrics(&self) -> String {
        self.http(METRICS, "GET /metrics HTTP/1.0\r\nHost: gw\r\n\r\n")
    }

    /// Whether somebody on the gateway answers there.
    pub fn listens(&self, address: &str) -> bool {
        within(&self.namespace("gw"), || TcpStream::connect(address).is_ok())
    }

    /// The body of the answer to a request on the gateway.
    pub fn http(&self, address: &str, request: &str) -> String {
        within(&self.namespace("gw"), || {
            let mut stream = TcpStream::connect(address).expect(address);
            stream.write_all(request.as_bytes()).expect("request");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("answer");
            text.split_once("\r\n\r\n").expect("a body").1.to_owned()
        })
    }

    /// An echo server on the right, which ends with the process.
    pub fn serve(&self, port: u16) -> std::thread::JoinHandle<()> {
        let listener =
            within(&self.namespace("right"), || TcpListener::bind(("10.2.0.2", port)).expect("bind"));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 512];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                });
            }
        })
    }

    /// One that sends datagrams back, which ends with the process.
    pub fn serve_datagrams(&self, port: u16) -> std::thread::JoinHandle<()> {
        let bind = || std::net::UdpSocket::bind(("10.2.0.2", port)).expect("bind");
        let socket = within(&self.namespace("right"), bind);
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                let _gone_meanwhile = socket.send_to(&buffer[..n], from);
            }
        })
    }

    /// Runs a program on a host.
    pub fn on(&self, host: &str, program: &str, words: &str) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(host))).args(["--", program]);
        let output = command.args(words.split(' ')).output().expect(program);
        assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// IPv4 packets as they are, from a host, to the right.
    pub fn send_raw(&self, host: &str, packets: impl Iterator<Item = Vec<u8>> + Send) {
        self.send_raw_to(host, [10, 2, 0, 2], packets);
    }

    /// The same to another.
    pub fn send_raw_to(&self, host: &str, to: [u8; 4], packets: impl Iterator<Item = Vec<u8>> + Send) {
        within(&self.namespace(host), || {
            const RAW: i32 = 255;
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(RAW.into()));
            let (socket, to) = (socket.expect("a raw socket"), SocketAddr::from((to, 0)));
            for packet in packets {
                // What the local stack has no room for now is no packet of the attack.
                let _ = socket.send_to(&packet, &to.into());
            }
        });
    }

    /// `tidegate` on a host beside the gateway.
    pub fn tidegate_on(&self, host: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(host))).arg("--");
        command.arg(env!("CARGO_BIN_EXE_tidegate")).args(args).stdin(Stdio::null());
        command
    }

    /// A folder of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A connection from the left to the right.
    pub fn client(&self, port: u16) -> std::io::Result<TcpStream> {
        self.client_of("left", ([10, 2, 0, 2], port))
    }

    /// A connection from a host.
    pub fn client_of(&self, host: &str, to: ([u8; 4], u16)) -> std::io::Result<TcpStream> {
        within(&self.namespace(host), || {
            let stream = TcpStream::connect_timeout(&SocketAddr::from(to), Duration::from_millis(1500))?;
            stream.set_read_timeout(Some(Duration::from_millis(1500)))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    /// Whether a connection from another address of the left to the right is made.
    pub fn connects_from(&self, address: &str, port: u16) -> bool {
        let (from, to) =
            (format!("{address}:0").parse::<SocketAddr>(), SocketAddr::from(([10, 2, 0, 2], port)));
        within(&self.namespace("left"), || {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.bind(&from.expect("an address").into()).expect("an address of the left");
            socket.connect_timeout(&to.into(), Duration::from_millis(500)).is_ok()
        })
    }

    /// A socket on the right, for datagrams; one that does not wait for them.
    pub fn receive(&self, port: u16) -> std::net::UdpSocket {
        let socket = within(&self.namespace("right"), || std::net::UdpSocket::bind(("10.2.0.2", port)));
        let socket = socket.expect("bind");
        socket.set_nonblocking(true).expect("a socket");
        socket
    }

    /// A datagram from the left to the right, and what comes of it.
    pub fn datagram(&self, port: u16) -> std::io::Result<usize> {
        self.exchange(port, b"ping")
    }

    /// The same of these bytes.
    pub fn exchange(&self, port: u16, bytes: &[u8]) -> std::io::Result<usize> {
        within(&self.namespace("left"), || {
            let socket = std::net::UdpSocket::bind(("10.1.0.2", 0))?;
            socket.connect(("10.2.0.2", port))?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            socket.send(bytes)?;
            socket.recv(&mut [0; 2048])
        })
    }

    /// Whether a byte goes there and back.
    pub fn connects(&self, port: u16) -> bool {
        let echo = || -> std::io::Result<()> {
            let mut stream = self.client(port)?;
            stream.write_all(b"x")?;
            stream.read_exact(&mut [0])?;
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        };
        echo().is_ok()
    }

    /// The right answers nothing any more: its address is gone, and the gateway sends to a neighbour that is not there.
    pub fn silence_right(&self) {
        ip(&format!("-n {}-right addr del 10.2.0.2/24 dev eth1", self.name));
        ip(&format!("-n {}-gw neigh replace 10.2.0.2 lladdr 02:00:00:00:00:99 dev eth2", self.name));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Filters of clsact are found only where the interface is.
        let _ = within(&self.namespace("gw"), || loader::detach_all(&self.pin_dir()));
        for host in ["gw", "left", "right"].into_iter().filter(|_| self.owns_hosts) {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(host)]).status();
        }
    }
}

/// A daemon, killed when dropped.
pub struct Daemon(Child);

impl Daemon {
    pub fn kill_nine(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }

    /// Waits until it was killed.
    pub fn is_killed(&mut self) {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(self.0.wait().expect("wait").signal(), Some(9));
    }

    /// Lets it have no more than so many open files.
    pub fn limit_files(&self, most: u64) {
        let limit = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit).expect("prlimit");
    }

    /// As an operator would.
    pub fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        assert!(self.0.wait().expect("wait").success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
