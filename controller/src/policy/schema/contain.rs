//! What cuts off, lets in and holds back for a while: Blocklist, Quarantine, Grant and Limit.

use super::policy::Burst;
use super::words::{
    Cidr, Duration, Flag, Labels, Name, PerTime, Port, RuleMode, Selector, SpiffeId, Text, Time, Whole,
};
use schemars::JsonSchema;

/// Who may talk to nobody.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields, extend("minProperties" = 1))]
pub(super) struct BlocklistSpec {
    /// Has to be there where `feeds` is not.
    entries: Option<Vec<Entry>>,
    /// Files of prefixes on the gateway, read again when they change.
    #[schemars(length(min = 1))]
    feeds: Option<Vec<Feed>>,
}

/// A file of prefixes that somebody else keeps. Its blocks end when they are in it no more, and by `expiresAfter` or `notAfter`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Feed {
    name: Name,
    /// From the root.
    #[schemars(extend("pattern" = "^/"))]
    path: String,
    format: Option<FeedFormat>,
    /// So long after the file was written, if it is not written again.
    expires_after: Option<Duration>,
    not_after: Option<Time>,
}

/// What the lines of a feed look like; `auto` where it is absent.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum FeedFormat {
    Auto,
    Plain,
    Cidr,
    SpamhausDrop,
    Netset,
}

/// One end (or none for everybody), services, or services of an end.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields, extend("minProperties" = 1))]
pub(super) struct Entry {
    cidr: Option<Cidr>,
    spiffe_id: Option<SpiffeId>,
    spiffe_path: Option<String>,
    trust_domain: Option<Text>,
    labels: Option<Labels>,
    ports: Option<Vec<Port>>,
    reason: Option<Text>,
    r#for: Option<Duration>,
    not_after: Option<Time>,
}

/// Identities that are cut off, both ways.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct QuarantineSpec {
    #[schemars(length(min = 1))]
    identities: Vec<Selector>,
    /// What stays in reach.
    except: Option<Vec<Exception>>,
    reason: Option<Text>,
    r#for: Option<Duration>,
    not_after: Option<Time>,
}

/// A peer, services, or services of a peer.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields, extend("minProperties" = 1))]
pub(super) struct Exception {
    cidr: Option<Cidr>,
    spiffe_id: Option<SpiffeId>,
    spiffe_path: Option<String>,
    trust_domain: Option<Text>,
    labels: Option<Labels>,
    ports: Option<Vec<Port>>,
}

/// Access for a while, beyond what the rules of policies let pass: `for` or `notAfter`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GrantSpec {
    /// Who may open connections: any of these. Everything but `any`.
    #[schemars(length(min = 1))]
    from: Vec<Selector>,
    /// To whom: any of these. Everything but `any`.
    #[schemars(length(min = 1))]
    to: Vec<Selector>,
    #[schemars(length(min = 1))]
    ports: Vec<Port>,
    r#for: Option<Duration>,
    not_after: Option<Time>,
    /// Why it is needed.
    reason: Text,
}

/// What an identity may have, whatever rule lets its connections pass: at least one of `rate`, `maxAttempts` and
/// `maxConnections`, for `identities`, for what is unidentified, or both.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LimitSpec {
    identities: Option<Vec<Selector>>,
    /// Also what has no identity, all of it together.
    unidentified: Option<Flag>,
    rate: Option<IdentityRate>,
    /// Unanswered connections at once.
    #[schemars(range(min = 1))]
    max_attempts: Option<Whole>,
    /// Connections at once, answered or not.
    #[schemars(range(min = 1))]
    max_connections: Option<Whole>,
    mode: Option<RuleMode>,
}

/// How much passes of each identity: at least one of packets, bytes and connections.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IdentityRate {
    packets: Option<PerTime>,
    bytes: Option<PerTime>,
    connections: Option<PerTime>,
    burst: Option<Burst>,
}
