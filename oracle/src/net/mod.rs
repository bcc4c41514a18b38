//! Namespaces, links and raw frames for the twin.

#[path = "../../../sim/src/ns.rs"]
#[allow(dead_code, reason = "the simulator uses all of it")]
pub mod ns;
mod port;
mod twin;

pub use port::Port;
pub use twin::{GATEWAY_MAC, HOST_MAC, Twin};
