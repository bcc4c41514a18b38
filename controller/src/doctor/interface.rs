//! An interface: what its driver can do, and who is there already. Only asked, never attached to.

use super::{Part, State};
use loader::netdev::{self, XdpFeatures};
use loader::{PinnedPort, Result};

/// A page less what the kernel keeps before and behind the frame, Ethernet header and a VLAN tag: what drivers take
/// with XDP where a frame has one buffer.
const ONE_BUFFER: u32 = 4096 - 256 - 320 - 18;

pub(super) fn checks(name: &str, ours: &[PinnedPort], asked: bool) -> Part {
    let mut part = Part::new(name);
    if let Err(e) = look(&mut part, name, ours, asked) {
        part.warn("interface", e.to_string(), "look at it with `ip -d link show`");
    }
    part
}

fn look(part: &mut Part, name: &str, ours: &[PinnedPort], asked: bool) -> Result<()> {
    let index = netdev::index(name)?;
    let facts = netdev::facts(index)?;
    part.ok("driver", facts.driver.as_deref().unwrap_or("none that it names"));
    let features = netdev::xdp_features(index)?;
    modes(part, features);
    buffers(part, features, facts.mtu);
    if let Some(features) = features {
        sends(part, features, facts.driver.as_deref());
    }
    queues(part, netdev::rx_queues(index)?);
    let our = ours.iter().find(|port| port.interface == name);
    xdp(part, (name, index), netdev::xdp(index)?, our, asked);
    tc(part, name, index)
}

fn modes(part: &mut Part, features: Option<XdpFeatures>) {
    match features {
        Some(features) if features.native() => {
            let offload = if features.offload() { ", offload to the card (Tidegate uses none)" } else { "" };
            part.ok("XDP", format!("native{offload}, generic"));
        }
        Some(_) => part.warn(
            "XDP",
            "generic only: the driver runs no programs",
            "nothing, `--xdp-mode auto` takes generic, which is slower, for the kernel makes a socket buffer first; `--ingress tc` spares it a copy",
        ),
        None => part.warn(
            "XDP",
            "this kernel does not tell whether the driver runs programs",
            "nothing, `--xdp-mode auto` tries native and takes generic otherwise",
        ),
    }
}

fn buffers(part: &mut Part, features: Option<XdpFeatures>, mtu: u32) {
    let mtu_text = format!("MTU {mtu}");
    match features {
        Some(features) if features.native() && !features.frags() && mtu > ONE_BUFFER => part.warn(
            "frames",
            format!("{mtu_text}, and the driver hands over one buffer only"),
            format!("an MTU of {ONE_BUFFER} or less, or the driver refuses native mode and generic is taken"),
        ),
        Some(features) if features.native() && features.frags() => {
            part.ok("frames", format!("{mtu_text}, frames of several buffers"));
        }
        _ => part.ok("frames", mtu_text),
    }
}

fn sends(part: &mut Part, features: XdpFeatures, driver: Option<&str>) {
    if features.sends() {
        return part.ok("sent by XDP", "it takes frames from XDP (--forward xdp)");
    }
    if driver == Some("veth") {
        let to_do = "nothing, unless --forward xdp is wanted: `ethtool -K PEER gro on` at its peer";
        return part.warn("sent by XDP", "it takes no frames from XDP while its peer has GRO off", to_do);
    }
    part.ok("sent by XDP", "it takes no frames from XDP now: Linux forwards what leaves here");
}

fn queues(part: &mut Part, queues: Option<u32>) {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    match queues {
        Some(queues) if queues < cpus => part.warn(
            "receive queues",
            format!("{queues}, and {cpus} CPUs"),
            "as many queues as CPUs where the driver has them: `ethtool -L IF combined N`; each CPU judges what its queue has",
        ),
        Some(queues) => part.ok("receive queues", format!("{queues}, and {cpus} CPUs")),
        None => part.ok("receive queues", format!("the driver does not tell; {cpus} CPUs")),
    }
}

fn xdp(
    part: &mut Part,
    (name, index): (&str, u32),
    there: netdev::XdpState,
    ours: Option<&PinnedPort>,
    asked: bool,
) {
    let id = there.program_id;
    if id == 0 {
        return part.ok("XDP program", "none");
    }
    let mode = if there.generic { "generic" } else { "native" };
    if ours.is_some_and(|port| port.program_id == Some(id)) {
        return part.ok("XDP program", format!("Tidegate's, id {id}, {mode}"));
    }
    let state = if asked { State::Missing } else { State::Warn };
    if let Some(dispatcher) = loader::dispatcher::of(index, id) {
        let found = format!("libxdp's dispatcher, id {id}, {mode}: runs {}", dispatcher.names());
        if ours.is_some_and(|port| !port.beside.is_empty()) {
            return part.ok("XDP program", found);
        }
        let to_do = "`--ingress libxdp` puts Tidegate's program among them, `--ingress tc` judges after them";
        return part.note(state, "XDP program", found, Some(to_do.into()));
    }
    let to_do = format!(
        "`bpftool prog show id {id}` says whose it is (and `tidegate --name NAME status`, if it is another instance's); \
         `ip link set dev {name} xdp off` takes it off if it may go; `--ingress tc` judges beside it"
    );
    part.note(state, "XDP program", format!("somebody else's, id {id}, {mode}"), Some(to_do));
}

fn tc(part: &mut Part, name: &str, index: u32) -> Result<()> {
    let programs = match netdev::tc_programs(name, index) {
        Err(e) if e.is_permission() => {
            part.warn("TC programs", "not permitted to ask for TCX links", "run `tidegate doctor` as root");
            return Ok(());
        }
        programs => programs?,
    };
    let others: Vec<_> = programs.iter().filter(|p| !p.name.starts_with("tidegate")).collect();
    let listed: Vec<_> = programs
        .iter()
        .map(|p| {
            let hook = if p.egress { "egress" } else { "ingress" };
            format!("{} (id {}, {hook}, {})", p.name, p.id, if p.tcx { "TCX" } else { "clsact" })
        })
        .collect();
    let found = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
    if others.iter().any(|p| p.egress) {
        let to_do = "see that those before Tidegate's on egress let on what it is to judge (TCX_NEXT, or no TC_ACT_OK)";
        part.warn("TC programs", found, to_do);
    } else {
        part.ok("TC programs", found);
    }
    Ok(())
}
