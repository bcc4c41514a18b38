//! The `tidegate` library: what the daemon and the CLI are made of.

pub mod audit;
pub mod bindings;
mod change;
pub mod cli;
pub mod client;
pub mod daemon;
mod dns;
mod doctor;
pub mod enroll;
pub mod exit_code;
pub mod file_watch;
mod governance;
mod grant;
mod guard;
pub mod hello;
mod identity;
pub mod instance;
pub mod names;
pub mod policy;
mod privileges;
mod remote;
pub mod replay;
mod shadow;
pub mod state;
pub mod stream;
pub mod svid;
pub mod view;
