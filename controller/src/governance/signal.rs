//! In what an identity departs from its intent, and what each departure leads to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// In what a connection departs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// With this peer nothing is expected.
    NewPeer,
    /// With this peer something is expected, and not this protocol and port.
    NewService,
    /// The name in the ClientHello is not expected, or it has none.
    NewSni,
    /// The ClientHello offers a protocol that is not expected.
    NewAlpn,
    /// The ClientHello has another shape.
    NewJa4,
    /// The name is not expected, and may be a cover: the hello carries an encrypted one, or pretends to.
    HiddenSni,
    /// A name is asked for that is not expected.
    NewName,
    /// It is opened outside the hours.
    OffHours,
    /// It is opened to one peer more than expected.
    FanOut,
    /// It is one more than expected.
    Rate,
    /// It is denied, though the intent expects it.
    ExpectedDenied,
    /// It is one of many services that it is denied.
    Scan,
    /// Its handshake failed, as more do than is usual.
    HandshakeFailures,
    /// Its handshake took longer than is usual, as more than half do.
    LatencyShift,
    /// It is one of many more than is usual in an hour.
    UnusualCount,
    /// The lease of the identity was over.
    ExpiredLease,
    /// The lease of the identity was revoked, and it is used, or another is asked for.
    RevokedLease,
    /// It is one more attempt at a service after many that all failed.
    Retries,
    /// A program is executed that is not expected.
    NewProcess,
    /// A process opens a connection that is of none of the programs that are expected.
    NewOpener,
    /// The identity is at one address more than expected, by leases that hold.
    Instances,
    /// The enrolment of the identity was refused, or somebody at its address failed to prove who he is.
    EnrolmentRefused,
    /// It is what a rule of the intent looks for.
    Rule,
}

/// What a person is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Whether that is as it should be; then the intent is changed, or the workload.
    Review,
    /// What happened there.
    Investigate,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::NewPeer,
        Self::NewService,
        Self::NewSni,
        Self::NewAlpn,
        Self::NewJa4,
        Self::HiddenSni,
        Self::NewName,
        Self::OffHours,
        Self::FanOut,
        Self::Rate,
        Self::ExpectedDenied,
        Self::Scan,
        Self::HandshakeFailures,
        Self::LatencyShift,
        Self::UnusualCount,
        Self::ExpiredLease,
        Self::RevokedLease,
        Self::Retries,
        Self::NewProcess,
        Self::NewOpener,
        Self::Instances,
        Self::EnrolmentRefused,
        Self::Rule,
    ];

    /// In metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NewPeer => "new_peer",
            Self::NewService => "new_service",
            Self::NewSni => "new_sni",
            Self::NewAlpn => "new_alpn",
            Self::NewJa4 => "new_ja4",
            Self::HiddenSni => "hidden_sni",
            Self::NewName => "new_name",
            Self::OffHours => "off_hours",
            Self::FanOut => "fan_out",
            Self::Rate => "rate",
            Self::ExpectedDenied => "expected_denied",
            Self::Scan => "scan",
            Self::HandshakeFailures => "handshake_failures",
            Self::LatencyShift => "latency_shift",
            Self::UnusualCount => "unusual_count",
            Self::ExpiredLease => "expired_lease",
            Self::RevokedLease => "revoked_lease",
            Self::Retries => "retries",
            Self::NewProcess => "new_process",
            Self::NewOpener => "new_opener",
            Self::Instances => "instances",
            Self::EnrolmentRefused => "enrolment_refused",
            Self::Rule => "rule",
        }
    }

    /// What a person is asked to do.
    pub fn asks(self) -> Asks {
        match self {
            Self::NewPeer
            | Self::NewService
            | Self::NewAlpn
            | Self::NewJa4
            | Self::HiddenSni
            | Self::ExpectedDenied
            | Self::Retries
            | Self::NewOpener
            | Self::Rule => Asks::Review,
            Self::NewSni
            | Self::NewName
            | Self::OffHours
            | Self::FanOut
            | Self::Rate
            | Self::Scan
            | Self::HandshakeFailures
            | Self::LatencyShift
            | Self::UnusualCount
            | Self::ExpiredLease
            | Self::RevokedLease
            | Self::NewProcess
            | Self::Instances
            | Self::EnrolmentRefused => Asks::Investigate,
        }
    }

    /// Whether an intent can have who departs so contained. What has harmless causes enough (an update, a holiday, a retry) is not:
    /// cutting it off would do more harm than it.
    pub fn may_contain(self) -> bool {
        match self {
            Self::NewPeer
            | Self::NewService
            | Self::NewSni
            | Self::FanOut
            | Self::Scan
            | Self::NewProcess
            | Self::Instances => true,
            Self::NewAlpn
            | Self::NewJa4
            | Self::HiddenSni
            | Self::NewName
            | Self::OffHours
            | Self::Rate
            | Self::ExpectedDenied
            | Self::HandshakeFailures
            | Self::LatencyShift
            | Self::UnusualCount
            | Self::ExpiredLease
            | Self::RevokedLease
            | Self::Retries
            | Self::NewOpener
            | Self::EnrolmentRefused
            | Self::Rule => false,
        }
    }

    /// Whether it is of what an identity does with all of its peers, and not with one.
    pub fn is_of_many(self) -> bool {
        matches!(
            self,
            Self::NewName
                | Self::OffHours
                | Self::FanOut
                | Self::Rate
                | Self::Scan
                | Self::ExpiredLease
                | Self::RevokedLease
                | Self::NewProcess
                | Self::UnusualCount
        )
    }
}

impl Asks {
    /// In tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Review => "review",
            Self::Investigate => "investigate",
        }
    }
}
