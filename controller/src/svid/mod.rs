//! Who the gateway is, and whom it believes: its X.509-SVID and the trust bundles, as one live value.
//!
//! [`Live`] holds the newest [`Material`]. A source fills it: PEM files ([`pem`]), or an agent of the Workload API
//! ([`workload_api`]). [`tls`] makes rustls configurations
//! of it, which show the newest SVID and verify peers ([`verify`]) by the newest bundles in every handshake.
//! Connections outlive handshakes: whoever keeps one waits for [`Live::changes`] and for [`Peer::not_after`], and asks
//! [`Live::verify_again`].

mod ids;
mod leaf;
mod live;
mod material;
pub mod pem;
mod refusal;
mod source;
#[cfg(test)]
mod tests;
pub mod tls;
mod verify;
pub mod workload_api;

pub use live::{Live, SourceState, Status};
pub use material::{Material, MaterialError};
pub use refusal::{Reason, Refusal, Refused};
pub use source::{Source, SourceArgs};
pub use verify::{Peer, Side};
