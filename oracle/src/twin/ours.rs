//! Our side: the policy as the daemon would commit it, each packet by the loaded program and by its native build.

use anyhow::{Context, Result, anyhow};
use datapath::abi::packet::Trace;
use datapath::abi::{Action, Config, Connection, Direction, FlowKey};
use datapath::frame::SliceFrame;
use datapath::host::{Host, plane};
use datapath::judge::judge;
use datapath::tables::Plane;
use jiff::Timestamp;
use loader::{CpuPin, Kernel, LoadOptions, RunResult, Sizes};
use tidegate::daemon::commit;
use tidegate::policy::{Clock, Compiled, Documents, Numbering, compile, diff, host_rules, sweep};

const SLOTS: u32 = 1024;
const SEED: u64 = 0x7477_696e;
const FLAGS: u32 = Config::ENFORCE | Config::FIXED_CLOCK;
const HOUR_NS: u64 = 3_600_000_000_000;
const MS_NS: u64 = 1_000_000;

/// Both engines, with one policy after the other.
pub struct Ours {
    kernel: Kernel,
    host: Plane<Host>,
    live: Compiled,
    now_ns: u64,
    // The program's per-CPU records of a flow are where its packets run.
    pin: CpuPin,
}

/// What both engines say of a packet.
#[derive(Clone, Debug)]
pub struct Verdicts {
    /// The loaded program passed it.
    pub kernel_passes: bool,
    /// The loaded program's reason, where it is another verdict than the native build's.
    pub kernel_reason: Option<&'static str>,
    /// The native build's trace.
    pub host: Trace,
    /// The rule that decided, by its label.
    pub rule: Option<String>,
}

impl Verdicts {
    /// Whether the native build passed it.
    pub fn host_passes(&self) -> bool {
        self.host.action() != Action::Dropped
    }
}

impl Ours {
    /// Loads the programs, with maps of their own.
    pub fn new() -> Result<Self> {
        let pin = CpuPin::here().context("cannot stay on one CPU")?;
        let options = LoadOptions {
            sizes: Sizes {
                flow_slots: SLOTS,
                flow_spill: 16_384,
                connections: 16_384,
                half_open: 16_384,
                policy: 65_536,
                ..Sizes::small()
            },
            fixed_now_ns: Some(HOUR_NS),
            hash_seed: Some(SEED),
            ..LoadOptions::default()
        };
        Ok(Self {
            kernel: Kernel::load(&options)?,
            host: plane(Config::new(SLOTS, SEED)),
            live: Compiled::default(),
            now_ns: HOUR_NS,
            pin,
        })
    }

    /// Commits a policy, an hour after the one before: all connections of that time are over.
    pub fn commit(&mut self, yaml: &str) -> Result<()> {
        let wall_now = Timestamp::now();
        let documents = Documents::parse("random.yaml", yaml, wall_now)
            .map_err(|mistakes| anyhow!("the random policy is refused: {mistakes}\n{yaml}"))?;
        self.now_ns += HOUR_NS;
        let clock = Clock { wall_now, boot_now_ns: self.now_ns };
        let compiled = compile(&documents, &Numbering::default(), &clock);
        self.commit_to_kernel(&compiled)?;
        let mut config = Config::new(SLOTS, SEED);
        config.flags = FLAGS | Config::TRACE | default_allow(&compiled);
        self.host = plane(config);
        let tables = host_rules(&compiled);
        self.host.rules = datapath::host::HostRules { config, ..tables };
        self.live = compiled;
        Ok(())
    }

    fn commit_to_kernel(&mut self, compiled: &Compiled) -> Result<()> {
        let maps = self.kernel.maps();
        let next = maps.config.get()?.epoch.wrapping_add(1);
        for write in &diff(&self.live, compiled, next) {
            commit::write(maps, write)?;
        }
        let now_ns = self.now_ns;
        maps.config.update(|config| {
            config.epoch = next;
            config.fixed_now_ns = now_ns;
            config.flags = FLAGS | default_allow(compiled);
        })?;
        for delete in &sweep(&self.live, compiled) {
            commit::remove(maps, delete)?;
        }
        Ok(())
    }

    /// Judges a packet by both engines, a millisecond after the one before.
    pub fn judge(&mut self, frame: &[u8]) -> Result<Verdicts> {
        let kernel_passes = self.kernel.run_xdp(frame, 1)?.action == RunResult::XDP_PASS;
        let mut trace = Trace::default();
        self.host.rules.config.fixed_now_ns = self.now_ns;
        let view = SliceFrame { bytes: frame, ifindex: 1 };
        judge(&view, Direction::Ingress, &mut self.host, || Some(&mut trace));
        self.host.sink.events.clear();
        let host_passes = trace.action() != Action::Dropped;
        let kernel_reason = if kernel_passes == host_passes {
            None
        } else {
            // What is not settled leaves its trace also where none is asked for.
            self.kernel.maps().trace_of(self.pin.cpu())?.map(|trace| trace.reason().name())
        };
        let rule = self.live.rules.get(&trace.rule).map(|rule| rule.label());
        Ok(Verdicts { kernel_passes, kernel_reason, host: trace, rule })
    }

    /// Lets a millisecond go by.
    pub fn tick(&mut self) -> Result<()> {
        self.now_ns += MS_NS;
        Ok(self.kernel.set_now(self.now_ns)?)
    }

    /// What the loaded program and its native build know of a connection.
    pub fn connection(&mut self, key: &FlowKey) -> Result<[Option<Connection>; 2]> {
        let attempt = self.host.half_open.entries.get(key).map(|attempt| &attempt.connection);
        let host = self.host.connections.entries.get(key).or(attempt);
        Ok([self.kernel.maps().connection(key)?, host.copied()])
    }
}

fn default_allow(compiled: &Compiled) -> u32 {
    if compiled.default_allow { Config::DEFAULT_ALLOW } else { 0 }
}
