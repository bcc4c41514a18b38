//! JSON Schema of the files, for editors and other tools. What they accept is a little less strict than the decoder, which
//! also looks across documents; a test holds the fields, those that have to be there and the words to the decoder's.
//!
//! The decoder reads trees that know their lines, not these types: they are here for their shape alone.
#![allow(dead_code)]

use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::collections::BTreeMap;

/// The one version of the files.
#[derive(JsonSchema)]
enum ApiVersion {
    #[schemars(rename = "tidegate.dev/v1")]
    V1,
}

/// What verdicts, metrics and other documents call it by.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Metadata {
    name: Name,
}

/// A name: 1 to 253 of a-z, A-Z, 0-9, `.`, `-`, `_`.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[A-Za-z0-9._-]{1,253}$"))]
struct Name(String);

macro_rules! documents {
    ($($kind:ident $document:ident $word:ident $spec:ident;)*) => {
        $(
            #[derive(JsonSchema)]
            enum $word {
                $kind,
            }

            #[derive(JsonSchema)]
            #[schemars(rename_all = "camelCase", deny_unknown_fields)]
            struct $document {
                api_version: ApiVersion,
                kind: $word,
                metadata: Metadata,
                spec: $spec,
            }
        )*

        /// A document of a policy file.
        #[derive(JsonSchema)]
        #[schemars(untagged)]
        enum AnyDocument {
            $($kind($document),)*
        }

        /// The kinds of documents.
        pub const KINDS: &[&str] = &[$(stringify!($kind)),*];

        /// The schema of one kind; nothing where there is no such kind.
        pub fn of(kind: &str) -> Option<Schema> {
            match kind {
                $(stringify!($kind) => Some(SchemaGenerator::default().into_root_schema_for::<$document>()),)*
                _ => None,
            }
        }
    };
}

documents! {
    Workload WorkloadDocument WorkloadKind WorkloadSpec;
    Policy PolicyDocument PolicyKind PolicySpec;
    Blocklist BlocklistDocument BlocklistKind BlocklistSpec;
    Quarantine QuarantineDocument QuarantineKind QuarantineSpec;
    Grant GrantDocument GrantKind GrantSpec;
    Limit LimitDocument LimitKind LimitSpec;
    Gateway GatewayDocument GatewayKind GatewaySpec;
    Intent IntentDocument IntentKind IntentSpec;
}

/// The schema of a document of any kind.
pub fn all() -> Schema {
    SchemaGenerator::default().into_root_schema_for::<AnyDocument>()
}

/// `90s`, `10m`, `1h30m`, `7d`.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^([0-9]+[smhd])+$"))]
struct Duration(String);

/// RFC 3339 with a zone, such as 2027-01-01T00:00:00Z.
#[derive(JsonSchema)]
#[schemars(extend("format" = "date-time"))]
struct Time(String);

/// Such as spiffe://acme.example/ns/shop/sa/orders.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^spiffe://[a-z0-9._-]+"))]
struct SpiffeId(String);

/// An address or a prefix, such as 10.1.0.2 or fd00:1::/64.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$"))]
struct Cidr(String);

/// `tcp/443`, `udp/5000-5010`, `icmp`, `any`.
#[derive(JsonSchema)]
struct Port(String);

/// YAML reads some texts as numbers.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Scalar {
    Text(String),
    Number(f64),
    Word(bool),
}

type Labels = BTreeMap<String, Scalar>;

/// A workload: an identity at addresses.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct WorkloadSpec {
    spiffe_id: SpiffeId,
    #[schemars(length(min = 1))]
    addresses: Vec<Cidr>,
    /// Only what is on this interface.
    interface: Option<String>,
    /// Only what has this as its outermost VLAN ID.
    vlan: Option<u16>,
    /// Only these of its own ports; of single addresses.
    ports: Option<Vec<Port>>,
    #[schemars(default)]
    labels: Option<Labels>,
    lease: Option<Lease>,
}

/// Until when the addresses are the workload's: `for` or `notAfter`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Lease {
    not_after: Option<Time>,
    r#for: Option<Duration>,
    on_expiry: Option<OnExpiry>,
    /// For how long traffic goes on behind the end, up to 18h: with `onExpiry: grace`.
    grace: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum OnExpiry {
    Deny,
    Alert,
    Grace,
}

/// Rules of one tier.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct PolicySpec {
    /// Lower tiers decide first; 100 where it is absent.
    tier: Option<u32>,
    /// Inside a tier, lower ones decide first; last where it is absent.
    priority: Option<u32>,
    rules: Vec<Rule>,
}

/// A rule.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
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
enum Action {
    Allow,
    Pass,
    Deny,
    Reject,
}

/// `audit`: what would be dropped passes, and is told.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum RuleMode {
    Enforce,
    Audit,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Tls {
    Required,
    Optional,
}

/// `N/s`, `N/m` or `N/h`; bytes with a unit, such as 10MB/s.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-9]+ *[A-Za-z]*/[smh]$"))]
struct PerTime(String);

/// How much passes: at least one of packets, bytes and connections.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Rate {
    packets: Option<PerTime>,
    bytes: Option<PerTime>,
    connections: Option<PerTime>,
    burst: Option<Burst>,
    per: Option<Per>,
}

/// What each bucket holds; without it what flows in within a second.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Burst {
    packets: Option<Scalar>,
    bytes: Option<Scalar>,
    connections: Option<Scalar>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Per {
    Rule,
    Identity,
}

/// One field, which an end has to fit.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum Selector {
    SpiffeId(SpiffeId),
    /// A pattern, such as spiffe://acme.example/ns/shop/*.
    SpiffePath(String),
    TrustDomain(String),
    /// Workloads that carry all of these.
    Labels(Labels),
    Cidr(Cidr),
    /// Everything, also what has no identity.
    Any(True),
}

/// The same, or `not`, which takes away. A list of `not` alone is everything else.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum RuleSelector {
    SpiffeId(SpiffeId),
    /// A pattern, such as spiffe://acme.example/ns/shop/*.
    SpiffePath(String),
    TrustDomain(String),
    /// Workloads that carry all of these.
    Labels(Labels),
    Cidr(Cidr),
    /// Everything, also what has no identity.
    Any(True),
    /// Not what this fits.
    Not(Selector),
}

#[derive(JsonSchema)]
#[schemars(extend("const" = true))]
struct True(bool);

/// Who may talk to nobody.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields, extend("minProperties" = 1))]
struct BlocklistSpec {
    /// Has to be there where `feeds` is not.
    entries: Option<Vec<Entry>>,
    /// Files of prefixes on the gateway, read again when they change.
    #[schemars(length(min = 1))]
    feeds: Option<Vec<Feed>>,
}

/// A file of prefixes that somebody else keeps. Its blocks end when they are in it no more, and by `expiresAfter` or `notAfter`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Feed {
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
enum FeedFormat {
    Auto,
    Plain,
    Cidr,
    SpamhausDrop,
    Netset,
}

/// One end (or none for everybody), services, or services of an end.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields, extend("minProperties" = 1))]
struct Entry {
    cidr: Option<Cidr>,
    spiffe_id: Option<SpiffeId>,
    spiffe_path: Option<String>,
    trust_domain: Option<String>,
    labels: Option<Labels>,
    ports: Option<Vec<Port>>,
    reason: Option<String>,
    r#for: Option<Duration>,
    not_after: Option<Time>,
}

/// Identities that are cut off, both ways.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct QuarantineSpec {
    #[schemars(length(min = 1))]
    identities: Vec<Selector>,
    /// What stays in reach.
    except: Option<Vec<Exception>>,
    reason: Option<String>,
    r#for: Option<Duration>,
    not_after: Option<Time>,
}

/// A peer, services, or services of a peer.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields, extend("minProperties" = 1))]
struct Exception {
    cidr: Option<Cidr>,
    spiffe_id: Option<SpiffeId>,
    spiffe_path: Option<String>,
    trust_domain: Option<String>,
    labels: Option<Labels>,
    ports: Option<Vec<Port>>,
}

/// Access for a while, beyond what the rules of policies let pass: `for` or `notAfter`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct GrantSpec {
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
    reason: String,
}

/// What an identity may have, whatever rule lets its connections pass: at least one of `rate`, `maxAttempts` and
/// `maxConnections`, for `identities`, for what is unidentified, or both.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct LimitSpec {
    identities: Option<Vec<Selector>>,
    /// Also what has no identity, all of it together.
    unidentified: Option<bool>,
    rate: Option<IdentityRate>,
    /// Unanswered connections at once.
    #[schemars(range(min = 1))]
    max_attempts: Option<u32>,
    /// Connections at once, answered or not.
    #[schemars(range(min = 1))]
    max_connections: Option<u32>,
    mode: Option<RuleMode>,
}

/// How much passes of each identity: at least one of packets, bytes and connections.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct IdentityRate {
    packets: Option<PerTime>,
    bytes: Option<PerTime>,
    connections: Option<PerTime>,
    burst: Option<Burst>,
}

/// What holds for the gateway as a whole.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct GatewaySpec {
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
struct Approvals {
    /// What a containment may touch without being asked for. Has to be there where `grants` is not.
    over: Option<Thresholds>,
    grants: Option<ApprovedGrants>,
    /// So many people have to agree.
    #[schemars(range(min = 1, max = 8))]
    approvers: Option<u32>,
    within: Option<Duration>,
    unanswered: Option<super::approval::Unanswered>,
}

/// Grants by hand that wait: those that any of these fits.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields, extend("minProperties" = 1))]
struct ApprovedGrants {
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
struct Thresholds {
    /// Addresses of the identity.
    addresses: Option<u32>,
    /// Identities and addresses that it has connections with, or had a moment ago.
    peers: Option<u32>,
    /// Connections that go on.
    connections: Option<u32>,
    /// Percent of the connections to a service that the identity answers.
    #[schemars(range(max = 100))]
    share: Option<u32>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum DefaultAction {
    Deny,
    Reject,
}

/// What becomes of TCP connections whose beginning was not seen.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Midstream {
    Allow,
    Alert,
    Deny,
}

/// After how long a connection is over.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Timeouts {
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
struct Interface {
    name: String,
    midstream: Option<Midstream>,
    mode: Option<InterfaceMode>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum InterfaceMode {
    Enforce,
    Monitor,
}

/// What identities are for: it decides nothing, what they do is compared with it. At least one of `client`, `server`, `dns`, `hours`,
/// `fanOut`, `rate`, `processes`, `instances` and `rules`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct IntentSpec {
    #[schemars(length(min = 1))]
    identities: Vec<Selector>,
    workload: WorkloadKindWord,
    /// Who answers for it.
    owner: Option<String>,
    sensitivity: Option<Sensitivity>,
    /// Connections that it opens; `[]` for none.
    client: Option<Vec<ExpectedTo>>,
    /// Connections that it answers; `[]` for none.
    server: Option<Vec<ExpectedFrom>>,
    /// Names that it asks name servers for: db.shop.example, or *.shop.example for all below it; `[]` for none.
    dns: Option<Vec<String>>,
    hours: Option<Hours>,
    fan_out: Option<FanOut>,
    rate: Option<OpenRate>,
    /// What it executes where it runs on this host: /usr/bin/orders, or /opt/orders/* for all below it; `[]` for nothing.
    processes: Option<Vec<String>>,
    /// At how many addresses one of the identities is at once, by leases.
    #[schemars(range(min = 1, max = 65536))]
    instances: Option<u32>,
    #[schemars(length(max = 32))]
    rules: Option<Vec<IntentRule>>,
    response: Option<Response>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum WorkloadKindWord {
    Service,
    Batch,
    Agent,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Sensitivity {
    Low,
    Medium,
    High,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct ExpectedTo {
    #[schemars(length(min = 1))]
    to: Vec<Selector>,
    ports: Option<Vec<Port>>,
    /// Names in the ClientHello: db.shop.example, or *.shop.example for all below it.
    sni: Option<Vec<String>>,
    /// Protocols that the ClientHello offers, such as h2.
    alpn: Option<Vec<String>>,
    /// Fingerprints of the ClientHello.
    ja4: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct ExpectedFrom {
    #[schemars(length(min = 1))]
    from: Vec<Selector>,
    ports: Option<Vec<Port>>,
    /// Names in the ClientHello: db.shop.example, or *.shop.example for all below it.
    sni: Option<Vec<String>>,
    /// Protocols that the ClientHello offers, such as h2.
    alpn: Option<Vec<String>>,
    /// Fingerprints of the ClientHello.
    ja4: Option<Vec<String>>,
}

/// Spans of the week.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Hours {
    /// Of the IANA database, such as Europe/Berlin.
    zone: String,
    #[schemars(length(min = 1))]
    open: Vec<OpenSpan>,
}

/// Over midnight where `to` is not later than `from`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct OpenSpan {
    /// `mon`, `mon-fri`; every day without it.
    days: Option<Vec<String>>,
    from: DayTime,
    to: DayTime,
}

/// 00:00 to 24:00.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-2][0-9]:[0-5][0-9]$"))]
struct DayTime(String);

/// To how many peers it opens connections.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct FanOut {
    #[schemars(range(min = 1, max = 1024))]
    peers: u32,
    per: FanOutSpan,
}

/// A duration, or `lease` for the time of one.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^(([0-9]+[smhd])+|lease)$"))]
struct FanOutSpan(String);

/// What else is a finding.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct IntentRule {
    name: String,
    /// An expression in CEL, 512 bytes at most.
    #[schemars(length(max = 512))]
    when: String,
    severity: Option<Sensitivity>,
    #[schemars(length(max = 256))]
    message: String,
}

/// How many connections it opens.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct OpenRate {
    /// 1000/s, 600/m, 20/h.
    connections: String,
}

/// What becomes of a departure; a containment ends after `for`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Response {
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
struct ResponseStep {
    act: super::act::ActName,
    r#for: Duration,
    /// Where it goes on so long after the step before; 10s without it.
    after: Option<Duration>,
    /// Of `act: limit`.
    rate: Option<IdentityRate>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum ResponseAction {
    Flag,
    Contain,
}
