//! What many documents are written with: names, lengths of time, ends, rates, selectors.

use schemars::JsonSchema;
use std::collections::BTreeMap;

/// A name: 1 to 253 of a-z, A-Z, 0-9, `.`, `-`, `_`.
#[derive(JsonSchema)]
#[schemars(extend("type" = ["string", "number", "boolean"], "pattern" = "^[A-Za-z0-9._-]{1,253}$"))]
pub(super) struct Name(String);

// What people write. YAML reads some of it as numbers.
#[derive(JsonSchema)]
#[schemars(inline, extend("type" = ["string", "number", "boolean"]))]
pub(super) struct Text(String);

// A whole number, quoted or not.
#[derive(JsonSchema)]
#[schemars(inline, extend("type" = ["integer", "string"], "minimum" = 0, "maximum" = u32::MAX, "pattern" = "^[+]?[0-9]+$"))]
pub(super) struct Whole(String);

// Quoted or not.
#[derive(JsonSchema)]
#[schemars(inline, extend("type" = ["boolean", "string"], "enum" = [true, false, "true", "false"]))]
pub(super) struct Flag(String);

/// `90s`, `10m`, `1h30m`, `7d`.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^([0-9]+[smhd])+$"))]
pub(super) struct Duration(String);

/// RFC 3339 with a zone, such as 2027-01-01T00:00:00Z.
#[derive(JsonSchema)]
#[schemars(extend("format" = "date-time"))]
pub(super) struct Time(String);

/// Such as spiffe://acme.example/ns/shop/sa/orders.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^spiffe://[a-z0-9._-]+"))]
pub(super) struct SpiffeId(String);

/// An address or a prefix, such as 10.1.0.2 or fd00:1::/64.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$"))]
pub(super) struct Cidr(String);

/// `tcp/443`, `udp/5000-5010`, `icmp/8`, `icmp`, `any`.
#[derive(JsonSchema)]
pub(super) struct Port(String);

/// YAML reads some texts as numbers.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Scalar {
    Text(String),
    Number(f64),
    Word(bool),
}

pub(super) type Labels = BTreeMap<Text, Scalar>;

/// `N/s`, `N/m` or `N/h`; bytes with a unit, such as 10MB/s.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-9]+ *[A-Za-z]*/[smh]$"))]
pub(super) struct PerTime(String);

/// `audit`: what would be dropped passes, and is told.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum RuleMode {
    Enforce,
    Audit,
}

/// One field, which an end has to fit.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub(super) enum Selector {
    SpiffeId(SpiffeId),
    /// A pattern, such as spiffe://acme.example/ns/shop/*.
    SpiffePath(String),
    TrustDomain(Text),
    /// Workloads that carry all of these.
    Labels(Labels),
    Cidr(Cidr),
    /// Everything, also what has no identity.
    Any(True),
}

#[derive(JsonSchema)]
#[schemars(extend("type" = ["boolean", "string"], "enum" = [true, "true"]))]
pub(super) struct True(bool);

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Sensitivity {
    Low,
    Medium,
    High,
}

/// Spans of the week.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Hours {
    /// Of the IANA database, such as Europe/Berlin.
    zone: Text,
    #[schemars(length(min = 1))]
    open: Vec<OpenSpan>,
}

/// Over midnight where `to` is not later than `from`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OpenSpan {
    /// `mon`, `mon-fri`; every day without it.
    days: Option<Vec<Text>>,
    from: DayTime,
    to: DayTime,
}

/// 00:00 to 24:00.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-2][0-9]:[0-5][0-9]$"))]
pub(super) struct DayTime(String);
