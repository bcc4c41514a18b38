//! The packet path of Tidegate: parse, look up, judge, count, return.
//!
//! One source, compiled for BPF by `xdp/` and `tc/` and natively by everything else, so that a replay is exact.
//! Begin with [`judge::judge`].
#![cfg_attr(not(feature = "host"), no_std)]
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod abi;
pub mod admit;
mod blocked;
mod event;
pub mod follow;
pub mod forward;
mod fragment;
pub mod frame;
pub mod guard;
pub mod hello;
pub mod holdings;
#[cfg(feature = "host")]
pub mod host;
pub mod identity;
pub mod judge;
pub mod lane;
pub mod limits;
pub mod mark;
mod moment;
pub mod newcomer;
pub mod passing;
pub mod policy;
mod record;
pub mod reject;
pub mod related;
pub mod replaced;
pub mod reset;
pub mod scope;
mod settled;
pub mod shadow;
pub mod stage;
pub mod tables;
pub mod track;
pub mod turned;
pub mod weight;
pub mod wire;
