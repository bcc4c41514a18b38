//! What holds for a gateway as a whole.

use super::words::{Duration, Selector, Sensitivity, Text, Whole};
use schemars::JsonSchema;

/// What holds for the gateway as a whole.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GatewaySpec {
    default_action: Option<DefaultAction>,
    midstream: Option<Midstream>,
    timeouts: Option<Timeouts>,
    interfaces: Option<Vec<Interface>>,
    /// Which containments of the governance loop wait for people.
    approvals: Option<Approvals>,
}

/// Which containments wait, for how many people, how long, and what becomes of those that nobody answers.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Approvals {
    /// What a containment may touch without being asked for. Has to be there where `grants` is not.
    over: Option<Thresholds>,
    grants: Option<ApprovedGrants>,
    /// So many people have to agree.
    #[schemars(range(min = 1, max = 8))]
    approvers: Option<Whole>,
    within: Option<Duration>,
    unanswered: Option<crate::policy::approval::Unanswered>,
}

/// Grants by hand that wait: those that any of these fits.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields, extend("minProperties" = 1))]
pub(super) struct ApprovedGrants {
    /// They last for longer.
    longer: Option<Duration>,
    /// They are to one of these. Everything but `cidr`.
    #[schemars(length(min = 1))]
    to: Option<Vec<Selector>>,
    /// They are to an identity whose intents say so, or more.
    sensitivity: Option<Sensitivity>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Thresholds {
    /// Addresses of the identity.
    addresses: Option<Whole>,
    /// Identities and addresses that it has connections with, or had a moment ago.
    peers: Option<Whole>,
    /// Connections that go on.
    connections: Option<u32>,
    /// Percent of the connections to a service that the identity answers.
    #[schemars(range(max = 100))]
    share: Option<Whole>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum DefaultAction {
    Deny,
    Reject,
}

/// What becomes of TCP connections whose beginning was not seen.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Midstream {
    Allow,
    Alert,
    Deny,
}

/// After how long a connection is over.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Timeouts {
    tcp_syn: Option<Duration>,
    tcp_established: Option<Duration>,
    tcp_closed: Option<Duration>,
    datagram: Option<Duration>,
    tcp_handshake: Option<Duration>,
    tcp_half_closed: Option<Duration>,
    tcp_kept: Option<Duration>,
    udp_unreplied: Option<Duration>,
    icmp: Option<Duration>,
    sctp: Option<Duration>,
}

/// What holds for what enters by one interface instead.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Interface {
    name: Text,
    midstream: Option<Midstream>,
    mode: Option<InterfaceMode>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum InterfaceMode {
    Enforce,
    Monitor,
}
