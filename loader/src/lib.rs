//! Loads the BPF programs of Tidegate, pins and attaches them, and reads and writes their maps.
//!
//! The only crate that knows aya. The objects of `xdp/`, `tc/` and `host/` are built by this crate's build script and embedded,
//! so that one file is deployed. Begin with [`Kernel::load`]; to read what a daemon left pinned, [`Maps::open`].

mod aside;
mod attach;
mod behind;
pub mod bpffs;
mod clock;
pub mod dispatcher;
mod error;
mod gate;
mod grace;
mod hooks;
pub mod host;
mod kernel;
mod libxdp;
mod links;
pub mod maps;
pub mod netdev;
mod object;
mod peer;
mod pod;
mod ports;
pub mod probe;
mod run;
mod shape;
mod sizes;

pub use aside::{forget_replaced_maps, put_replaced_maps_back, replaces_maps};
pub use attach::{Attached, Ingress, JudgedAt, Share, TcMode, TcModeChoice, XdpMode, XdpModeChoice};
pub use clock::{Clock, boot_ns};
pub use error::{Error, Result};
pub use grace::wait_for_programs;
pub use kernel::{Kernel, LoadOptions, ProgramFacts, VerifierLog};
pub use links::{PinnedPort, detach, detach_all, pinned_ports};
pub use maps::Maps;
pub use peer::{PeerXdp, PinnedXdp};
pub use pod::P;
pub use ports::refresh_ports;
pub use run::{Beside, CpuPin, RunResult};
pub use sizes::Sizes;
