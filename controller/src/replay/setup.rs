//! What an engine starts with: configuration and policy, the same for both engines.

use super::ReplayError;
use super::clock::START_NS;
use super::rules::RuleNames;
use crate::daemon::inspect::{self, Inspect};
use crate::policy::{Clock, Compiled, Documents, MapWrite, Numbering, compile, diff};
use datapath::abi::Config;
use datapath::host::HostRules;
use jiff::Timestamp;
use loader::Maps;
use std::path::PathBuf;

/// First-level flow slots: few, since all are read at the end.
pub const FLOW_SLOTS: u32 = 4096;

/// Any seed will do: a replay has no attacker to hide it from, and one seed for all makes runs alike.
const HASH_SEED: u64 = 0x7469_6465_6761_7465;

/// The epoch of the policy: the first, there is no other in a replay.
const EPOCH: u32 = 1;

/// Configuration and policy.
pub struct Setup {
    enforce: bool,
    /// Tunnels that are looked into: the `INSPECT_` flags.
    inspect: u32,
    compiled: Compiled,
    writes: Vec<MapWrite>,
}

impl Setup {
    /// Reads and compiles a policy whose leases are reckoned from the capture's first frame. Without a path there is
    /// no policy and all is allowed.
    ///
    /// # Errors
    /// The mistakes in the files, with file and line.
    pub fn read(paths: &[PathBuf], enforce: bool, first_ns: u64) -> Result<Self, ReplayError> {
        let nothing = Compiled { default_allow: true, ..Compiled::default() };
        let compiled = if paths.is_empty() {
            nothing
        } else {
            let wall_now = Timestamp::from_nanosecond(i128::from(first_ns)).unwrap_or(Timestamp::MAX);
            let documents = Documents::load(paths, wall_now)
                .map_err(|mistakes| ReplayError::Policy(mistakes.to_string()))?;
            compile(&documents, &Numbering::default(), &Clock { wall_now, boot_now_ns: START_NS })
        };
        let writes = diff(&Compiled::default(), &compiled, EPOCH);
        Ok(Self { enforce, inspect: 0, compiled, writes })
    }

    /// The same, with packets of these tunnels judged by what they carry.
    #[must_use]
    pub fn inspecting(self, kinds: &[Inspect]) -> Self {
        Self { inspect: inspect::flags(kinds), ..self }
    }

    /// Names for the rules in verdicts.
    pub fn rule_names(&self) -> RuleNames {
        RuleNames::new(self.compiled.rules.iter().map(|(number, rule)| (*number, rule.label())))
    }

    /// The configuration at the first frame.
    pub fn config(&self) -> Config {
        let mut config = Config::new(FLOW_SLOTS, HASH_SEED);
        config.epoch = EPOCH;
        // TRACE: every packet leaves what was read from it, settled or not.
        config.flags = Config::FIXED_CLOCK | Config::TRACE | self.inspect;
        if self.enforce {
            config.flags |= Config::ENFORCE;
        }
        crate::policy::gateway::configure(self.compiled.gateway.as_ref(), &mut config);
        if !self.compiled.scoped.is_empty() {
            config.flags |= Config::SCOPED;
        }
        if self.compiled.default_allow {
            config.flags |= Config::DEFAULT_ALLOW;
        }
        if !self.compiled.names_nobody() {
            config.flags |= Config::NOBODY_NAMED;
        }
        config.fixed_now_ns = START_NS;
        config
    }

    /// How many entries the largest table of the policy has.
    pub fn policy_entries(&self) -> u32 {
        self.writes.len() as u32
    }

    /// Writes the policy into native tables.
    pub fn write_to_host(&self, rules: &mut HostRules) {
        for write in &self.writes {
            match *write {
                MapWrite::Binding(prefix, versions) => {
                    rules.bindings.insert(prefix.addr().octets(), prefix.bits(), versions);
                }
                MapWrite::Scoped(prefix, versions) => {
                    rules.scoped.insert(bytemuck::cast(prefix.key), prefix.bits, versions);
                }
                MapWrite::Block(prefix, versions) => {
                    rules.blocklist.insert(prefix.addr().octets(), prefix.bits(), versions);
                }
                MapWrite::Guard(prefix, versions) => {
                    rules.guards.insert(prefix.key.bytes, prefix.bits, versions);
                }
                MapWrite::Decision(prefix, versions) => {
                    rules.policy.insert(prefix.key.bytes, prefix.bits, versions);
                }
                // A capture does not say by which interface of the gateway a frame came.
                MapWrite::Interface(..) => {}
                MapWrite::Rule(number, versions) => {
                    rules.rules.insert(number, versions);
                }
                MapWrite::Limit(identity, versions) => {
                    rules.limits.insert(identity, versions);
                }
            }
        }
    }

    /// Writes the policy into the kernel's maps.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn write_to_kernel(&self, maps: &Maps) -> loader::Result<()> {
        for write in &self.writes {
            match *write {
                MapWrite::Binding(prefix, versions) => {
                    maps.bindings.insert(&prefix.addr(), prefix.bits(), &versions)?;
                }
                MapWrite::Scoped(prefix, versions) => {
                    maps.scoped.insert(&prefix.key, prefix.bits, &versions)?
                }
                MapWrite::Block(prefix, versions) => {
                    maps.blocklist.insert(&prefix.addr(), prefix.bits(), &versions)?;
                }
                MapWrite::Guard(prefix, versions) => {
                    maps.guards.insert(&prefix.key, prefix.bits, &versions)?;
                }
                MapWrite::Decision(prefix, versions) => {
                    maps.policy.insert(&prefix.key, prefix.bits, &versions)?;
                }
                MapWrite::Interface(..) => {}
                MapWrite::Rule(number, versions) => maps.rules.insert(&number, 32, &versions)?,
                MapWrite::Limit(identity, versions) => maps.limits.insert(&identity, 32, &versions)?,
            }
        }
        Ok(())
    }
}
