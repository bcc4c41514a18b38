//! What identities are for.

use super::contain::IdentityRate;
use super::words::{Duration, Flag, Hours, Port, Selector, Sensitivity, Text, Whole};
use schemars::JsonSchema;

/// What identities are for: it decides nothing, what they do is compared with it. At least one of `client`, `server`, `dns`, `hours`,
/// `fanOut`, `rate`, `processes`, `instances` and `rules`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IntentSpec {
    #[schemars(length(min = 1))]
    identities: Vec<Selector>,
    workload: WorkloadKindWord,
    /// Who answers for it.
    owner: Option<Text>,
    sensitivity: Option<Sensitivity>,
    /// Connections that it opens; `[]` for none.
    client: Option<Vec<ExpectedTo>>,
    /// Connections that it answers; `[]` for none.
    server: Option<Vec<ExpectedFrom>>,
    /// Names that it asks name servers for: db.shop.example, or *.shop.example for all below it; `[]` for none.
    dns: Option<Vec<Text>>,
    hours: Option<Hours>,
    fan_out: Option<FanOut>,
    rate: Option<OpenRate>,
    /// What it executes where it runs on this host: /usr/bin/orders, or /opt/orders/* for all below it; `[]` for nothing.
    processes: Option<Vec<Text>>,
    /// At how many addresses one of the identities is at once, by leases.
    #[schemars(range(min = 1, max = 65536))]
    instances: Option<Whole>,
    /// Whether several act under the name of one of the identities, as behind NAT.
    shared: Option<Flag>,
    #[schemars(length(max = 32))]
    rules: Option<Vec<IntentRule>>,
    response: Option<Response>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum WorkloadKindWord {
    Service,
    Batch,
    Agent,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExpectedTo {
    #[schemars(length(min = 1))]
    to: Vec<Selector>,
    ports: Option<Vec<Port>>,
    /// Names in the ClientHello: db.shop.example, or *.shop.example for all below it.
    sni: Option<Vec<Text>>,
    /// Protocols that the ClientHello offers, such as h2.
    alpn: Option<Vec<Text>>,
    /// Fingerprints of the ClientHello.
    ja4: Option<Vec<Text>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExpectedFrom {
    #[schemars(length(min = 1))]
    from: Vec<Selector>,
    ports: Option<Vec<Port>>,
    /// Names in the ClientHello: db.shop.example, or *.shop.example for all below it.
    sni: Option<Vec<Text>>,
    /// Protocols that the ClientHello offers, such as h2.
    alpn: Option<Vec<Text>>,
    /// Fingerprints of the ClientHello.
    ja4: Option<Vec<Text>>,
}

/// To how many peers it opens connections.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FanOut {
    #[schemars(range(min = 1, max = 1024))]
    peers: Whole,
    per: FanOutSpan,
}

/// A duration, or `lease` for the time of one.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^(([0-9]+[smhd])+|lease)$"))]
pub(super) struct FanOutSpan(String);

/// What else is a finding.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IntentRule {
    name: Text,
    /// An expression in CEL, 512 bytes at most.
    #[schemars(length(max = 512))]
    when: String,
    severity: Option<Sensitivity>,
    #[schemars(length(max = 256))]
    message: Text,
}

/// How many connections it opens.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OpenRate {
    /// 1000/s, 600/m, 20/h.
    connections: String,
}

/// What becomes of a departure; a containment ends after `for`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Response {
    action: ResponseAction,
    /// Quarantined for so long.
    r#for: Option<Duration>,
    /// Instead: one after the other for as long as it goes on.
    #[schemars(length(min = 1, max = 8))]
    steps: Option<Vec<ResponseStep>>,
}

/// What is done, and for how long.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ResponseStep {
    act: crate::policy::act::ActName,
    r#for: Duration,
    /// Where it goes on so long after the step before; 10s without it.
    after: Option<Duration>,
    /// Of `act: limit`.
    rate: Option<IdentityRate>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum ResponseAction {
    Flag,
    Contain,
}
