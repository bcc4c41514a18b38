//! The embedded objects.

use aya::include_bytes_aligned;

/// The object of `xdp/`: the program `tidegate_xdp` and the clock program.
pub(crate) static XDP: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate-xdp.o"));
/// The other object of `xdp/`: the program `tidegate_gate`, for libbpf.
pub(crate) static GATE: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate-gate.o"));
/// The object of `tc/`: the program `tidegate_tc`.
pub(crate) static TC: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate-tc.o"));
/// The other object of `tc/`: the program `tidegate_tc_in`.
pub(crate) static TC_IN: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate-tc-ingress.o"));

/// The object of `host/`: the programs that watch local workloads.
pub(crate) static HOST: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate-host.o"));

/// Names of the programs in the objects.
pub(crate) const XDP_PROGRAM: &str = "tidegate_xdp";
pub(crate) const CLOCK_PROGRAM: &str = "tidegate_clock";
pub(crate) const TC_PROGRAM: &str = "tidegate_tc";
pub(crate) const TC_IN_PROGRAM: &str = "tidegate_tc_in";
