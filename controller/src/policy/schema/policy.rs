//! Policies: rules, their ends, and what they ask of connections.

use super::words::{
    Cidr, Duration, Hours, Labels, Name, PerTime, Port, RuleMode, Scalar, Selector, SpiffeId, Text, True,
    Whole,
};
use schemars::JsonSchema;

/// Rules of one tier.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PolicySpec {
    /// Lower tiers decide first; 100 where it is absent.
    tier: Option<Whole>,
    /// Inside a tier, lower ones decide first; last where it is absent.
    priority: Option<Whole>,
    rules: Vec<Rule>,
}

/// A rule.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rule {
    name: Name,
    action: Action,
    /// Who opens the connection: any of these that is no `not`, and none that is.
    #[schemars(length(min = 1))]
    from: Vec<RuleSelector>,
    /// Who answers: any of these that is no `not`, and none that is.
    #[schemars(length(min = 1))]
    to: Vec<RuleSelector>,
    /// All protocols and ports where it is absent.
    #[schemars(length(min = 1))]
    ports: Option<Vec<Port>>,
    mode: Option<RuleMode>,
    /// Whether a connection has to begin with a TLS ClientHello.
    tls: Option<Tls>,
    /// How long a connection may last.
    lifetime: Option<Duration>,
    rate: Option<Rate>,
    /// When it is there: always without.
    hours: Option<Hours>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Action {
    Allow,
    Pass,
    Deny,
    Reject,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Tls {
    Required,
    Optional,
}

/// How much passes: at least one of packets, bytes and connections.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rate {
    packets: Option<PerTime>,
    bytes: Option<PerTime>,
    connections: Option<PerTime>,
    burst: Option<Burst>,
    per: Option<Per>,
}

/// What each bucket holds; without it what flows in within a second.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Burst {
    packets: Option<Scalar>,
    bytes: Option<Scalar>,
    connections: Option<Scalar>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Per {
    Rule,
    Identity,
}

/// The same, or `not`, which takes away. A list of `not` alone is everything else.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub(super) enum RuleSelector {
    SpiffeId(SpiffeId),
    /// A pattern, such as spiffe://acme.example/ns/shop/*.
    SpiffePath(String),
    TrustDomain(Text),
    /// Workloads that carry all of these.
    Labels(Labels),
    Cidr(Cidr),
    /// Everything, also what has no identity.
    Any(True),
    /// Not what this fits.
    Not(Selector),
}
