//! The loader against the running kernel: namespaces, interfaces and pins of their own, all gone afterwards.

use datapath::abi::{
    ABI_VERSION, Addr, Binding, BindingVersions, Block, BlockVersions, Config, HashKeys, MapName,
};
use loader::{
    Error, Ingress, JudgedAt, Kernel, LoadOptions, Maps, RunResult, Sizes, TcMode, TcModeChoice, XdpMode,
    XdpModeChoice,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

fn unique(what: &str) -> String {
    format!("tgl{what}{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A pin directory that is removed with all that is in it.
struct PinDir(PathBuf);

impl PinDir {
    fn new() -> Self {
        let base = Path::new("/sys/fs/bpf");
        loader::bpffs::ensure(base).unwrap();
        Self(base.join(unique("pins")))
    }

    fn options(&self) -> LoadOptions {
        LoadOptions { pin_dir: Some(self.0.clone()), sizes: Sizes::small(), ..LoadOptions::default() }
    }
}

impl Drop for PinDir {
    fn drop(&mut self) {
        let _ = loader::detach_all(&self.0);
    }
}

/// A network namespace with a veth pair `tg0`, `tg1`; the calling thread is in it.
struct Netns(String);

impl Netns {
    fn enter() -> Self {
        let netns = Self(unique("ns"));
        ip(&["netns", "add", &netns.0]);
        let file = std::fs::File::open(format!("/run/netns/{}", netns.0)).unwrap();
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&file),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .unwrap();
        ip(&["link", "add", "name", "tg0", "type", "veth", "peer", "name", "tg1"]);
        ip(&["link", "set", "tg0", "up"]);
        ip(&["link", "set", "tg1", "up"]);
        netns
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().expect("ip of iproute2");
    assert!(status.success(), "ip {args:?}");
}

/// Ethernet, IPv4, TCP SYN from 10.0.0.1:40000 to 10.0.0.2:443.
fn syn() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(64, 0);
    frame
}

#[test]
#[ignore = "needs root"]
fn programs_run_on_frames_without_a_pin_and_leave_none() {
    let options = LoadOptions { sizes: Sizes::small(), hash_seed: Some(7), ..LoadOptions::default() };
    let kernel = Kernel::load(&options).unwrap();
    let config = kernel.maps().config.get().unwrap();
    assert_eq!((config.abi_version, config.epoch, config.hash_keys), (ABI_VERSION, 1, HashKeys::new(7)));
    assert_eq!(config.flow_mask, 1023);
    assert_eq!(kernel.run_xdp(&syn(), 3).unwrap().action, RunResult::XDP_PASS);
    let flows = kernel.maps().flow_records().unwrap();
    let packets: u64 = flows.iter().map(|flow| flow.record.packets[0] + flow.record.packets[1]).sum();
    assert_eq!(packets, 3);
    assert_eq!(kernel.maps().flow(&flows[0].key).unwrap(), flows);
    let mut out = [0u8; 128];
    let run = kernel.run_xdp_out(&syn(), &mut out).unwrap();
    assert_eq!(&out[..run.frame_bytes], &syn()[..]);
    let run = kernel.run_tc(&syn(), 0, 1).unwrap();
    assert_ne!(run.action, RunResult::TC_SHOT);
    let mut events = kernel.maps().events().unwrap();
    let mut lengths = Vec::new();
    events.drain(|event| lengths.push(event.len()));
    assert!(lengths.contains(&96), "{lengths:?}");
}

#[test]
#[ignore = "needs root"]
fn ticks_are_the_boot_clock() {
    let kernel = Kernel::load(&LoadOptions { sizes: Sizes::small(), ..LoadOptions::default() }).unwrap();
    let config = kernel.maps().config.get().unwrap();
    assert!([10_000_000, 4_000_000, 3_333_333, 1_000_000].contains(&config.tick_ns));
    assert!(!kernel.recalibrate().unwrap(), "it was right from the start");
    // As after a night's sleep.
    kernel.maps().config.update(|config| config.boot_offset_ns -= 3_600_000_000_000).unwrap();
    assert!(kernel.recalibrate().unwrap());
    let off = kernel.maps().config.get().unwrap().boot_offset_ns.abs_diff(config.boot_offset_ns);
    assert!(off <= config.tick_ns, "off by {off} ns");
    kernel.run_xdp(&syn(), 1).unwrap();
    let last_ns = kernel.maps().flow_records().unwrap()[0].record.last_ns;
    assert!(last_ns <= loader::boot_ns() && last_ns + 60_000_000_000 > loader::boot_ns());
}

#[test]
#[ignore = "needs root"]
fn a_fixed_time_is_set_without_calibration() {
    let options = LoadOptions { sizes: Sizes::small(), fixed_now_ns: Some(1_000), ..LoadOptions::default() };
    let kernel = Kernel::load(&options).unwrap();
    kernel.set_now(5_000).unwrap();
    let config = kernel.maps().config.get().unwrap();
    assert!(config.has(Config::FIXED_CLOCK));
    assert_eq!((config.fixed_now_ns, config.tick_ns), (5_000, 0));
    kernel.run_xdp(&syn(), 1).unwrap();
    let flows = kernel.maps().flow_records().unwrap();
    assert_eq!((flows[0].record.first_ns, flows[0].record.last_ns), (5_000, 5_000));
}

#[test]
#[ignore = "needs root"]
fn a_second_load_takes_over_the_maps() {
    let pins = PinDir::new();
    let binding = Binding { identity: 4, class: 9, ..Binding::NONE };
    let versions = BindingVersions { since: 2, _pad: 0, old: Binding::NONE, new: binding };
    let addr = Addr::v4([10, 0, 0, 7]);
    let seed = {
        let kernel = Kernel::load(&pins.options()).unwrap();
        assert!(!kernel.reused_maps());
        kernel.maps().bindings.insert(&addr, 128, &versions).unwrap();
        kernel.maps().config.get().unwrap().hash_keys
    };
    let kernel = Kernel::load(&pins.options()).unwrap();
    assert!(kernel.reused_maps());
    assert_eq!(kernel.maps().config.get().unwrap().hash_keys, seed);
    drop(kernel);
    let maps = Maps::open(&pins.0).unwrap();
    assert_eq!(maps.bindings.longest(&addr, 128).unwrap(), Some(versions));
    assert_eq!(maps.bindings.longest(&Addr::v4([10, 0, 0, 8]), 128).unwrap(), None);
    assert_eq!(maps.bindings.len().unwrap(), 1);
    assert!(maps.bindings.remove(&addr, 128).unwrap());
    assert!(!maps.bindings.remove(&addr, 128).unwrap());
}

#[test]
#[ignore = "needs root"]
fn maps_of_a_newer_abi_are_refused_and_kept() {
    let pins = PinDir::new();
    let kernel = Kernel::load(&pins.options()).unwrap();
    kernel.maps().config.update(|config| config.abi_version = 99).unwrap();
    drop(kernel);
    let error = Kernel::load(&pins.options()).err().unwrap();
    assert!(matches!(error, Error::AbiVersion { found: 99, expected: ABI_VERSION, .. }), "{error}");
    assert!(matches!(Maps::open(&pins.0).err().unwrap(), Error::AbiVersion { found: 99, .. }));
    assert!(pins.0.join(MapName::CONFIG).exists());
}

#[test]
#[ignore = "needs root"]
fn a_map_of_another_shape_is_refused_by_name() {
    let pins = PinDir::new();
    drop(Kernel::load(&pins.options()).unwrap());
    let (policy, lost) = (pins.0.join(MapName::POLICY), pins.0.join(MapName::LOST));
    std::fs::remove_file(&policy).unwrap();
    std::fs::rename(lost, &policy).unwrap();
    let error = Kernel::load(&pins.options()).err().unwrap().to_string();
    assert!(error.contains(MapName::POLICY) && error.contains("PerCpuArray"), "{error}");
    // What the refused load would have had to make is not there.
    assert!(!pins.0.join(MapName::LOST).exists());
}

#[test]
#[ignore = "needs root"]
fn a_full_map_says_which_and_how_large() {
    let options = LoadOptions { sizes: Sizes { bindings: 2, ..Sizes::small() }, ..LoadOptions::default() };
    let kernel = Kernel::load(&options).unwrap();
    let none = BindingVersions { since: 0, _pad: 0, old: Binding::NONE, new: Binding::NONE };
    let bind = |n| kernel.maps().bindings.insert(&Addr::v4([10, 0, 0, n]), 128, &none);
    bind(1).unwrap();
    bind(2).unwrap();
    let error = bind(3).unwrap_err();
    assert!(matches!(error, Error::MapFull { map: MapName::BINDINGS, max_entries: 2 }), "{error}");
}

#[test]
#[ignore = "needs root"]
fn many_entries_are_written_at_once_and_those_that_fit_before_the_map_is_full_are_counted() {
    let options =
        LoadOptions { sizes: Sizes { blocklist: 5000, ..Sizes::small() }, ..LoadOptions::default() };
    let kernel = Kernel::load(&options).unwrap();
    let blocklist = &kernel.maps().blocklist;
    let block = |rule| Block { rule, ..Block::NONE };
    let entry = |n: u32, rule| {
        let [_, _, c, d] = n.to_be_bytes();
        (
            Addr::v4([10, 0, c, d]),
            128,
            BlockVersions { since: 7, _pad: 0, old: Block::NONE, new: block(rule) },
        )
    };
    blocklist.insert_all((0..4900).map(|n| entry(n, n + 1))).unwrap();
    assert_eq!(blocklist.len().unwrap(), 4900);
    // Some are there already, and have another value then.
    let (written, error) = blocklist.insert_all((4000..6000).map(|n| entry(n, 9))).unwrap_err();
    assert_eq!(written, 1000);
    assert!(matches!(error, Error::MapFull { map: MapName::BLOCKLIST, max_entries: 5000 }), "{error}");
    let entries = blocklist.entries().unwrap();
    let rules = |n: u32| entries.get(&(entry(n, 0).0, 128)).map(|v| (v.since, v.new.rule));
    assert_eq!(
        [0, 3999, 4000, 4999, 5000].map(rules),
        [Some((7, 1)), Some((7, 4000)), Some((7, 9)), Some((7, 9)), None]
    );
    blocklist.insert_all([]).unwrap();
    // Those that are not there, first, last and in between, are no failure, and those behind them go all the same.
    let gone = [6000, 0, 7000, 1, 5500].into_iter().chain(2..4500).chain([4999, 5001]);
    blocklist.remove_all(gone.map(|n| (entry(n, 0).0, 128))).unwrap();
    let left: BTreeSet<_> = blocklist.entries().unwrap().into_keys().collect();
    assert_eq!(left, (4500..4999).map(|n| (entry(n, 0).0, 128)).collect());
    blocklist.remove_all([]).unwrap();
}

const NATIVE: JudgedAt = JudgedAt::Xdp(XdpMode::Native);
const GENERIC: JudgedAt = JudgedAt::Xdp(XdpMode::Generic);
const AT_TC: JudgedAt = JudgedAt::Tc(TcMode::Tcx);

#[test]
#[ignore = "needs root"]
fn attaching_is_native_outlives_the_process_and_is_replaced_in_place() {
    let _netns = Netns::enter();
    let pins = PinDir::new();
    let first = {
        let mut kernel = Kernel::load(&pins.options()).unwrap();
        let attached = kernel.attach("tg0", XdpModeChoice::Auto, TcModeChoice::Auto).unwrap();
        assert_eq!((attached.ingress, attached.tc, attached.replaced), (NATIVE, TcMode::Tcx, false));
        assert_eq!(attached.native_refused, None);
        kernel.programs()[0].id
    };
    let ports = loader::pinned_ports(&pins.0).unwrap();
    assert_eq!(ports.len(), 1);
    assert_eq!(ports[0].interface, "tg0");
    assert_eq!((ports[0].ingress, ports[0].program_id), (Some(NATIVE), Some(first)));
    assert_eq!(ports[0].tc, Some(TcMode::Tcx));
    let ifindex = loader::netdev::index("tg0").unwrap();
    let mut kernel = Kernel::load(&pins.options()).unwrap();
    let port = kernel.maps().judged_ports.get(&ifindex).unwrap().unwrap();
    assert_eq!(port.mac, loader::netdev::link(ifindex).unwrap().mac);
    assert_ne!(port.mac, [0; 6]);
    assert!(kernel.maps().port_counters().unwrap().iter().any(|port| port.ifindex == ifindex));
    assert!(kernel.attach("tg0", XdpModeChoice::Auto, TcModeChoice::Auto).unwrap().replaced);
    let second = kernel.programs()[0].id;
    assert_ne!(first, second);
    assert_eq!(loader::netdev::xdp(ifindex).unwrap().program_id, second);
    assert!(loader::detach(&pins.0, "tg0").unwrap());
    assert_eq!(loader::netdev::xdp(ifindex).unwrap().program_id, 0);
    assert_eq!(kernel.maps().judged_ports.get(&ifindex).unwrap(), None);
    assert_eq!(loader::pinned_ports(&pins.0).unwrap(), vec![]);
    drop(kernel);
    loader::detach_all(&pins.0).unwrap();
    assert!(!pins.0.exists());
}

#[test]
#[ignore = "needs root"]
fn generic_mode_on_request_and_an_interface_that_came_again() {
    let _netns = Netns::enter();
    let pins = PinDir::new();
    let mut kernel = Kernel::load(&pins.options()).unwrap();
    assert_eq!(kernel.attach("tg0", XdpModeChoice::Generic, TcModeChoice::Auto).unwrap().ingress, GENERIC);
    assert_eq!(loader::pinned_ports(&pins.0).unwrap()[0].ingress, Some(GENERIC));
    let native = kernel.attach("tg0", XdpModeChoice::Native, TcModeChoice::Auto).unwrap();
    assert_eq!((native.ingress, native.replaced), (NATIVE, false), "another mode is another link");
    assert_eq!(kernel.attach("tg0", XdpModeChoice::Generic, TcModeChoice::Auto).unwrap().ingress, GENERIC);
    ip(&["link", "del", "tg0"]);
    assert_eq!(loader::pinned_ports(&pins.0).unwrap()[0].ifindex, None);
    ip(&["link", "add", "name", "tg0", "type", "veth", "peer", "name", "tg1"]);
    let attached = kernel.attach("tg0", XdpModeChoice::Auto, TcModeChoice::Auto).unwrap();
    assert_eq!((attached.ingress, attached.tc, attached.replaced), (NATIVE, TcMode::Tcx, false));
    let judged: Vec<u32> = kernel.maps().judged_ports.entries().unwrap().into_keys().collect();
    assert_eq!(judged, vec![attached.ifindex]);
}

#[test]
#[ignore = "needs root"]
fn somebody_elses_program_and_a_missing_interface_are_named_and_nothing_is_left() {
    let _netns = Netns::enter();
    let (ours, theirs) = (PinDir::new(), PinDir::new());
    let mut other = Kernel::load(&theirs.options()).unwrap();
    other.attach("tg0", XdpModeChoice::Auto, TcModeChoice::Auto).unwrap();
    let mut kernel = Kernel::load(&ours.options()).unwrap();
    let id = other.programs()[0].id;
    match kernel.attach("tg0", XdpModeChoice::Auto, TcModeChoice::Auto).unwrap_err() {
        Error::OtherXdp { interface, id: found } => assert_eq!((interface.as_str(), found), ("tg0", id)),
        e => panic!("{e}"),
    }
    match kernel.attach("nope", XdpModeChoice::Auto, TcModeChoice::Auto).unwrap_err() {
        Error::NoInterface { name, present } => {
            assert_eq!((name.as_str(), present), ("nope", vec!["lo".to_owned(), "tg0".into(), "tg1".into()]));
        }
        e => panic!("{e}"),
    }
    assert!(kernel.maps().judged_ports.is_empty().unwrap());
    assert_eq!(loader::pinned_ports(&ours.0).unwrap(), vec![]);
}

/// Ids of the programs at the TC hook for what enters `tg0`.
fn at_tc() -> Vec<u32> {
    use aya::programs::{SchedClassifier, TcAttachType};
    let (_, programs) = SchedClassifier::query_tcx("tg0", TcAttachType::Ingress).unwrap();
    programs.iter().map(|info| info.id()).collect()
}

#[test]
#[ignore = "needs root"]
fn what_comes_in_is_judged_at_tc_on_request_and_by_one_program_at_a_time() {
    let _netns = Netns::enter();
    let pins = PinDir::new();
    let mut kernel = Kernel::load(&pins.options()).unwrap();
    let xdp = || loader::netdev::xdp(loader::netdev::index("tg0").unwrap()).unwrap().program_id;
    let attach = |kernel: &mut Kernel, ingress: Ingress| {
        let attached = kernel.attach("tg0", ingress, TcModeChoice::Auto).unwrap();
        let port = loader::pinned_ports(&pins.0).unwrap().remove(0);
        assert_eq!((port.ingress, port.tc), (Some(attached.ingress), Some(TcMode::Tcx)));
        (attached.ingress, attached.replaced, port.program_id.unwrap())
    };
    let native = Ingress::Xdp(XdpModeChoice::Native);
    let (at, replaced, by_xdp) = attach(&mut kernel, native);
    assert_eq!((at, replaced, xdp(), at_tc()), (NATIVE, false, by_xdp, vec![]));
    assert_eq!(kernel.programs().len(), 2, "the other program is loaded when it is needed");
    let (at, replaced, by_tc) = attach(&mut kernel, Ingress::Tc);
    assert_eq!((at, replaced, xdp(), at_tc()), (AT_TC, true, 0, vec![by_tc]));
    assert_eq!(kernel.programs()[2].id, by_tc);
    drop(kernel);
    let mut kernel = Kernel::load(&pins.options()).unwrap();
    let (at, replaced, next) = attach(&mut kernel, Ingress::Tc);
    assert_eq!((at, replaced, xdp(), at_tc()), (AT_TC, true, 0, vec![next]));
    assert_ne!(next, by_tc);
    let (at, replaced, by_xdp) = attach(&mut kernel, native);
    assert_eq!((at, replaced, xdp(), at_tc()), (NATIVE, true, by_xdp, vec![]));
    let (at, ..) = attach(&mut kernel, Ingress::Auto);
    assert_eq!(at, AT_TC, "veth is virtual");
    assert!(loader::detach(&pins.0, "tg0").unwrap());
    assert_eq!((xdp(), at_tc()), (0, vec![]));
    assert!(kernel.maps().judged_ports.is_empty().unwrap());
}

#[test]
#[ignore = "needs root"]
fn tc_judges_beside_somebody_elses_xdp_program_and_not_beside_forwarding_by_xdp() {
    let _netns = Netns::enter();
    let (ours, theirs) = (PinDir::new(), PinDir::new());
    let mut other = Kernel::load(&theirs.options()).unwrap();
    other.attach("tg0", XdpModeChoice::Native, TcModeChoice::Auto).unwrap();
    let mut kernel = Kernel::load(&ours.options()).unwrap();
    assert_eq!(kernel.attach("tg0", Ingress::Auto, TcModeChoice::Auto).unwrap().ingress, AT_TC);
    kernel.maps().config.update(|config| config.flags |= Config::FORWARD).unwrap();
    match kernel.attach("tg0", Ingress::Tc, TcModeChoice::Auto).unwrap_err() {
        Error::ForwardNeedsXdp { interface } => assert_eq!(interface, "tg0"),
        e => panic!("{e}"),
    }
    assert_eq!(kernel.attach("tg1", Ingress::Auto, TcModeChoice::Auto).unwrap().ingress, NATIVE);
}

#[test]
#[ignore = "needs root"]
fn clsact_is_attached_replaced_and_taken_off() {
    let _netns = Netns::enter();
    let pins = PinDir::new();
    let filters = || {
        let of = |hook| {
            let output = Command::new("tc").args(["filter", "show", "dev", "tg0", hook]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().matches("direct-action").count()
        };
        [of("ingress"), of("egress")]
    };
    let attach = |ingress, tc| {
        let mut kernel = Kernel::load(&pins.options()).unwrap();
        let attached = kernel.attach("tg0", ingress, tc).unwrap();
        let port = loader::pinned_ports(&pins.0).unwrap().remove(0);
        assert_eq!((port.ingress, port.tc), (Some(attached.ingress), Some(attached.tc)));
        (attached.ingress, attached.tc)
    };
    let xdp = Ingress::Xdp(XdpModeChoice::Auto);
    let (clsact, tcx) = (TcMode::Clsact, TcMode::Tcx);
    assert_eq!(attach(xdp, TcModeChoice::Clsact), (NATIVE, clsact));
    assert_eq!(filters(), [0, 1]);
    assert_eq!(attach(xdp, TcModeChoice::Auto), (NATIVE, clsact), "it is replaced where it is");
    assert_eq!(filters(), [0, 1]);
    assert_eq!(attach(Ingress::Tc, TcModeChoice::Clsact), (JudgedAt::Tc(clsact), clsact));
    assert_eq!(filters(), [1, 1]);
    assert_eq!(attach(Ingress::Tc, TcModeChoice::Auto), (JudgedAt::Tc(clsact), clsact));
    assert_eq!(filters(), [1, 1]);
    assert_eq!(attach(Ingress::Tc, TcModeChoice::Tcx), (AT_TC, tcx));
    assert_eq!(filters(), [0, 0]);
    assert_eq!(attach(Ingress::Tc, TcModeChoice::Clsact), (JudgedAt::Tc(clsact), clsact));
    assert!(loader::detach(&pins.0, "tg0").unwrap());
    assert_eq!(filters(), [0, 0]);
}

#[test]
#[ignore = "needs root"]
fn maps_of_an_older_abi_are_set_aside_whatever_their_shape_and_forgotten_or_put_back() {
    let pins = PinDir::new();
    let addr = Addr::v4([10, 0, 0, 7]);
    let versions = BindingVersions {
        since: 1,
        _pad: 0,
        old: Binding::NONE,
        new: Binding { identity: 4, ..Binding::NONE },
    };
    let kernel = Kernel::load(&pins.options()).unwrap();
    kernel.maps().bindings.insert(&addr, 128, &versions).unwrap();
    kernel.maps().config.update(|config| config.abi_version = ABI_VERSION - 1).unwrap();
    drop(kernel);
    // A map that had another shape then.
    let (policy, lost) = (pins.0.join(MapName::POLICY), pins.0.join(MapName::LOST));
    std::fs::remove_file(&policy).unwrap();
    std::fs::rename(lost, &policy).unwrap();
    assert!(loader::replaces_maps(&pins.0).unwrap());
    for is_forgotten in [false, true] {
        let kernel = Kernel::load(&pins.options()).unwrap();
        assert!(!kernel.reused_maps());
        assert_eq!(kernel.maps().config.get().unwrap().abi_version, ABI_VERSION);
        assert_eq!(kernel.maps().bindings.longest(&addr, 128).unwrap(), None);
        drop(kernel);
        // Who died in between has perhaps not filled them: they are not yet what is judged by.
        assert!(!Kernel::load(&pins.options()).unwrap().reused_maps());
        if !is_forgotten {
            loader::put_replaced_maps_back(&pins.0).unwrap();
            let error = Maps::open(&pins.0).err().unwrap();
            assert!(matches!(error, Error::AbiVersion { found, .. } if found == ABI_VERSION - 1), "{error}");
        }
    }
    assert!(loader::forget_replaced_maps(&pins.0).unwrap());
    assert!(!loader::forget_replaced_maps(&pins.0).unwrap());
    assert!(!loader::replaces_maps(&pins.0).unwrap());
    assert!(Kernel::load(&pins.options()).unwrap().reused_maps());
}
