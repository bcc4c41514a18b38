//! The twin: a namespace that forwards between two links by nftables, and one that holds their far ends.
//!
//! left (t0) - g0 gateway g1 - (t1) right. The far ends have no addresses: whatever is sent there by hand is all that
//! there is, and next hops are static neighbours.

use super::ns;
use super::port::Port;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::process::{Child, Command, ExitStatus, Stdio};

const PREFIX: &str = "tgo";

/// The gateway's MAC address, on both links.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The MAC address behind both links.
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Both namespaces; gone when dropped.
pub struct Twin {
    gateway: String,
    hosts: String,
}

impl Twin {
    /// Makes the namespaces and links. What runs that were killed have left is removed first.
    pub fn new() -> Result<Self> {
        remove_stale()?;
        let id = std::process::id();
        let twin = Self { gateway: format!("{PREFIX}{id}-gw"), hosts: format!("{PREFIX}{id}-hosts") };
        ns::create(&twin.gateway)?;
        ns::create(&twin.hosts)?;
        twin.wire()?;
        Ok(twin)
    }

    fn wire(&self) -> Result<()> {
        let (gateway, hosts) = (&self.gateway, &self.hosts);
        let set = "net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
                   net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0";
        self.write_sysctls(gateway, set)?;
        // No router solicitations, no duplicate address detection: nothing but what is sent by hand.
        self.write_sysctls(hosts, "net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")?;
        let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
        for n in 0..2 {
            // 10.64 and fd64 are on the left, 10.65 and fd65 on the right.
            let net = 64 + n;
            ip(&format!("link add g{n} netns {gateway} type veth peer name t{n} netns {hosts}"))?;
            ip(&format!("-n {gateway} link set g{n} address {}", mac(GATEWAY_MAC)))?;
            ip(&format!("-n {hosts} link set t{n} address {}", mac(HOST_MAC)))?;
            ip(&format!("-n {gateway} link set g{n} up"))?;
            ip(&format!("-n {hosts} link set t{n} up"))?;
            let next = format!("lladdr {} dev g{n} nud permanent", mac(HOST_MAC));
            ip(&format!("-n {gateway} addr add 192.0.2.{}/30 dev g{n}", n * 4 + 1))?;
            ip(&format!("-n {gateway} neigh add 192.0.2.{} {next}", n * 4 + 2))?;
            ip(&format!("-n {gateway} route add 10.{net}.0.0/16 via 192.0.2.{}", n * 4 + 2))?;
            ip(&format!("-n {gateway} neigh add fe80::ff {next}"))?;
            ip(&format!("-n {gateway} route add fd{net}::/16 via fe80::ff dev g{n}"))?;
        }
        Ok(())
    }

    fn write_sysctls(&self, namespace: &str, assignments: &str) -> Result<()> {
        ns::within(namespace, || {
            for assignment in assignments.split_whitespace() {
                let (name, value) = assignment.split_once('=').unwrap_or((assignment, ""));
                let path = format!("/proc/sys/{}", name.replace('.', "/"));
                std::fs::write(&path, value).with_context(|| format!("cannot write {path}"))?;
            }
            Ok(())
        })
    }

    /// The far ends of both links, left and right.
    pub fn ports(&self) -> Result<[Port; 2]> {
        ns::within(&self.hosts, || Ok([Port::open("t0")?, Port::open("t1")?]))
    }

    /// Replaces the gateway's nftables rules, all at once.
    pub fn load_rules(&self, rules: &str) -> Result<()> {
        let mut child = self.start("nft", &["-f", "-"], Stdio::piped(), Stdio::inherit())?;
        if let Some(stdin) = child.stdin.as_mut() {
            stdin.write_all(rules.as_bytes()).context("cannot hand the rules to nft")?;
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("nft refuses the rules ({status})");
        }
        Ok(())
    }

    /// Forgets all connections.
    pub fn flush_connections(&self) -> Result<()> {
        let status = self.quietly("conntrack", &["-F"])?;
        if !status.success() {
            bail!("conntrack -F failed ({status})");
        }
        Ok(())
    }

    /// Runs a program in the gateway's namespace that says nothing of interest.
    fn quietly(&self, program: &str, args: &[&str]) -> Result<ExitStatus> {
        let mut child = self.start_with(program, args, |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
        })?;
        Ok(child.wait()?)
    }

    /// Starts a program in the gateway's namespace.
    pub fn start(&self, program: &str, args: &[&str], stdin: Stdio, stdout: Stdio) -> Result<Child> {
        self.start_with(program, args, |command| command.stdin(stdin).stdout(stdout))
    }

    /// Starts it with its output and its complaints to be read.
    pub fn listen(&self, program: &str, args: &[&str]) -> Result<Child> {
        self.start_with(program, args, |command| {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
        })
    }

    fn start_with(
        &self,
        program: &str,
        args: &[&str],
        set_up: impl FnOnce(&mut Command) -> &mut Command + Send,
    ) -> Result<Child> {
        // A process is born into the namespace of the thread that starts it.
        ns::within(&self.gateway, || {
            let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
            let mut command = Command::new(program);
            command.args(args).env("PATH", path);
            set_up(&mut command).spawn().with_context(|| {
                format!("cannot start {program} (Debian: apt-get install nftables conntrack)")
            })
        })
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        for name in [&self.gateway, &self.hosts] {
            if let Err(why) = ns::remove(name) {
                eprintln!("{why:#}");
            }
        }
    }
}

/// Namespaces of runs whose process is gone.
fn remove_stale() -> Result<()> {
    let Ok(folder) = std::fs::read_dir(ns::FOLDER) else { return Ok(()) };
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        if let Some((process, _)) = process
            && process.parse::<u32>().is_ok_and(|id| !std::path::Path::new(&format!("/proc/{id}")).exists())
        {
            ns::remove(&name)?;
        }
    }
    Ok(())
}

fn ip(args: &str) -> Result<()> {
    let output = Command::new("ip").args(args.split_whitespace()).output().context("cannot start ip")?;
    if !output.status.success() {
        bail!("ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
