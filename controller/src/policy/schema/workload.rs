//! Workloads and their leases.

use super::words::{Cidr, Duration, Labels, Port, SpiffeId, Text, Time};
use schemars::JsonSchema;

/// A workload: an identity at addresses.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WorkloadSpec {
    spiffe_id: SpiffeId,
    #[schemars(length(min = 1))]
    addresses: Vec<Cidr>,
    /// Only what is on this interface.
    interface: Option<Text>,
    /// Only what has this as its outermost VLAN ID.
    vlan: Option<VlanId>,
    /// Only these of its own ports; of single addresses.
    ports: Option<Vec<Port>>,
    #[schemars(default)]
    labels: Option<Labels>,
    lease: Option<Lease>,
}

/// Until when the addresses are the workload's: `for` or `notAfter`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Lease {
    not_after: Option<Time>,
    r#for: Option<Duration>,
    on_expiry: Option<OnExpiry>,
    /// For how long traffic goes on behind the end, up to 18h: with `onExpiry: grace`.
    grace: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum OnExpiry {
    Deny,
    Alert,
    Grace,
}

// Of IEEE 802.1Q, section 9.6, quoted or not.
#[derive(JsonSchema)]
#[schemars(inline, extend("type" = ["integer", "string"], "minimum" = 1, "maximum" = 4094, "pattern" = "^[+]?[0-9]+$"))]
pub(super) struct VlanId(String);
