//! What a workload and a gateway say to each other: JSON over HTTP over mutual TLS, one request a connection.

use crate::policy::spiffe::SpiffeId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// POST an [`AskLease`], get an [`Enrolled`].
pub const ENROLL: &str = "/v1/enroll";
/// POST anything, get a [`Withdrawn`].
pub const WITHDRAW: &str = "/v1/enroll/withdraw";

/// What a workload wants. Who it is and where is proven by the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskLease {
    /// No longer than this.
    #[serde(default)]
    pub lease_seconds: Option<u64>,
}

/// What it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The address it came from.
    pub address: IpAddr,
    /// Whose that is.
    pub spiffe_id: SpiffeId,
    /// Until when.
    pub not_after: Timestamp,
}

/// What it gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// The address it came from.
    pub address: IpAddr,
}
