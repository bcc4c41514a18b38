//! What `tidegate run` is asked.

use super::enroll::EnrolArgs;
use super::host::LocalWorkload;
use super::{forward, ingress, inspect, mark};
use crate::exit_code::{Code, Failure, Result};
use crate::stream::deliver::DeliverArgs;
use crate::svid::SourceArgs;
use datapath::abi::MapName;
use loader::{Sizes, TcModeChoice, XdpModeChoice};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Arguments of `tidegate run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Attach to this interface (may be repeated); without one, to those that are attached already
    #[arg(short, long, value_name = "IF")]
    pub interface: Vec<String>,
    /// Apply this file or folder (may be repeated); without one, what was applied last
    #[arg(short, long, value_name = "PATH")]
    pub policy: Vec<PathBuf>,
    /// Bind the workloads of this file or folder, and read it again when it changes (may be repeated)
    #[arg(long, value_name = "PATH")]
    pub identities: Vec<PathBuf>,
    /// Drop what is denied, or only say so [default: as before, at first enforce]
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Where what comes in is judged [default: as before, at first xdp]
    #[arg(long, value_enum, value_name = "WHERE")]
    pub ingress: Option<ingress::IngressArg>,
    /// How XDP runs.
    #[command(flatten)]
    pub how: ingress::How,
    /// How TC programs are attached
    #[arg(long, value_enum, default_value_t)]
    pub tc_mode: TcModeArg,
    /// Serve Prometheus metrics here
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Serve the API here too, over mTLS, to workloads that have a role (--api-roles); needs an SVID
    #[arg(long, value_name = "ADDR:PORT", requires = "api_roles")]
    pub listen: Option<SocketAddr>,
    /// Who may use the API: a file of `kind: RoleBinding`, reloaded when it changes [default: root and the daemon's own user]
    #[arg(long, value_name = "FILE")]
    pub api_roles: Option<PathBuf>,
    /// A service of the gateway itself that no policy cuts, such as tcp/22 (may be repeated) [default: as before, at first
    /// none; `none` ends it]
    #[arg(long, value_name = "PROTO/PORT")]
    pub failsafe: Vec<String>,
    /// Judge packets of these tunnels by what they carry, one level deep [default: as before, at first none]
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub inspect: Vec<inspect::Inspect>,
    /// Who forwards what passes: Linux, or XDP where a packet is plain [default: as before, at first linux]
    #[arg(long, value_enum, value_name = "WHO")]
    pub forward: Option<forward::Forward>,
    /// Bits of the mark of packets that say the number of who sent them, such as 0xffff0000, for netfilter and routing: at
    /// `--ingress tc` alone [default: as before, at first none; `none` ends it]
    #[arg(long, value_name = "MASK")]
    pub mark: Option<mark::Mask>,
    /// Who enrols.
    #[command(flatten)]
    pub enrolment: EnrolArgs,
    /// Who the gateway is.
    #[command(flatten)]
    pub svid: SourceArgs,
    /// Where events go.
    #[command(flatten)]
    pub deliver: DeliverArgs,
    /// Events a second, CPU, kind, reason and identity that are sent up; what is over is counted. 0: no limit
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub event_limit: u32,
    /// The most containments that the governance loop does in an hour; what is over is only found
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub containments_per_hour: usize,
    /// Watch what a workload of this host executes and whereto it connects: its cgroup (version 2), by its path or from where cgroups are
    /// mounted, and who it is (may be repeated)
    #[arg(long, value_name = "CGROUP=SPIFFE-ID")]
    pub local_workload: Vec<LocalWorkload>,
    /// Have time pass so many times as fast for what is compared with intents: for stories, never on a gateway
    #[arg(long, value_name = "TIMES", default_value_t = 1, hide = true, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub compare_pace: u16,
    /// Capacity of a map, such as TG_CONNECTIONS=500000 (may be repeated); counts when the maps are made
    #[arg(long, value_name = "MAP=N")]
    pub map_size: Vec<String>,
}

/// Whether what is denied is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// It is dropped
    Enforce,
    /// It passes, with verdict AUDIT
    Monitor,
}

/// Where the XDP program runs.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum XdpModeArg {
    /// In the driver; in the network stack where the driver cannot
    #[default]
    Auto,
    /// In the driver or not at all
    Native,
    /// In the network stack
    Generic,
}

impl From<XdpModeArg> for XdpModeChoice {
    fn from(mode: XdpModeArg) -> Self {
        match mode {
            XdpModeArg::Auto => Self::Auto,
            XdpModeArg::Native => Self::Native,
            XdpModeArg::Generic => Self::Generic,
        }
    }
}

/// How TC programs are attached.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TcModeArg {
    /// By a TCX link; as a filter of clsact where the kernel has none (before Linux 6.6)
    #[default]
    Auto,
    /// By a TCX link or not at all
    Tcx,
    /// As a filter of clsact, which tools before Linux 6.6 show too
    Clsact,
}

impl From<TcModeArg> for TcModeChoice {
    fn from(mode: TcModeArg) -> Self {
        match mode {
            TcModeArg::Auto => Self::Auto,
            TcModeArg::Tcx => Self::Tcx,
            TcModeArg::Clsact => Self::Clsact,
        }
    }
}

/// Capacities of maps by their names.
pub(super) fn sizes(texts: &[String]) -> Result<Sizes> {
    let mut sizes = Sizes::default();
    for text in texts {
        let parsed =
            text.split_once('=').and_then(|(map, n)| Some((map, n.parse::<u32>().ok().filter(|n| *n > 0)?)));
        let place = parsed.and_then(|(map, n)| {
            let place = match map {
                MapName::FLOW_SLOTS | MapName::FLOW_TAGS => &mut sizes.flow_slots,
                MapName::FLOW_SPILL => &mut sizes.flow_spill,
                MapName::CONNECTIONS => &mut sizes.connections,
                MapName::HALF_OPEN | MapName::WHEREABOUTS => &mut sizes.half_open,
                MapName::BINDINGS => &mut sizes.bindings,
                MapName::SCOPED => &mut sizes.scoped,
                MapName::BLOCKLIST => &mut sizes.blocklist,
                MapName::GUARDS => &mut sizes.guards,
                MapName::POLICY => &mut sizes.policy,
                MapName::INTERFACES => &mut sizes.interfaces,
                MapName::SHADOW => &mut sizes.shadow,
                MapName::RULES => &mut sizes.rules,
                MapName::BUCKETS => &mut sizes.buckets,
                MapName::LIMITS => &mut sizes.limits,
                MapName::HOLDINGS => &mut sizes.holdings,
                MapName::FAILSAFE => &mut sizes.failsafe,
                MapName::FRAGMENTS => &mut sizes.fragments,
                MapName::HANDSHAKES => &mut sizes.handshakes,
                MapName::EVENTS => &mut sizes.event_bytes,
                MapName::HELLOS => &mut sizes.hello_bytes,
                MapName::JUDGED_PORTS => &mut sizes.judged_ports,
                MapName::REDIRECT => &mut sizes.redirect,
                _ => return None,
            };
            Some((place, n))
        });
        let Some((place, n)) = place else {
            let maps: Vec<_> = MapName::ALL.into_iter().filter(|map| sizes.of(map).is_some()).collect();
            let message = format!("--map-size {text}: write MAP=N, where MAP is one of {}", maps.join(", "));
            return Err(Failure::new(Code::Usage, message));
        };
        *place = n;
    }
    Ok(sizes)
}
