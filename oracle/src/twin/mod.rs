//! The same random policy and the same random packets, judged by the shipped program, by its native build, and by
//! nftables in a namespace of its own.

mod flows;
mod frame;
mod ours;
mod packets;
mod policy;
mod round;
mod rules;
mod states;

pub use round::{Args, run};
pub use states::{StateArgs, run as run_states};
