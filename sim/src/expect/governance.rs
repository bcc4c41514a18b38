//! What the governance loop found, what it did, and what the record of that says.

use crate::governed::{Governed, Record, text};
use crate::topology::plan::{
    AuditSays, Contained, ContainmentAct, Decision, FindingSays, FindingState, Level, What,
};
use serde_json::Value;

/// So many that are as they have to be.
pub fn count(what: &What, governed: &Governed) -> u64 {
    let findings = governed.findings.iter();
    let found = match what {
        What::Finding(says) => findings.filter(|f| says.is(f)).count(),
        What::OtherFinding(named) => findings.filter(|f| !named.iter().any(|says| says.is(f))).count(),
        What::Audit(says) => governed.audit.iter().filter(|r| says.is(r)).count(),
        What::OtherDecision(named) => other_decisions(named, governed).count(),
        What::WholeAudit => usize::from(governed.broken_audit.is_empty()),
        What::Containment(id, act, state) => usize::from(governed.contained(id, *act) == *state),
        What::OtherContainment(named) => other_contained(named, governed).count(),
        What::Drop { .. } | What::Flow { .. } | What::Handshake { .. } => 0,
    };
    found as u64
}

/// What there is of a kind, for who looked for something else.
pub fn instead(what: &What, governed: &Governed) -> Vec<String> {
    let none = |what: &str, mut all: Vec<String>| {
        if all.is_empty() {
            all.push(format!("no {what}"));
        }
        all
    };
    match what {
        What::Finding(_) => none("finding", governed.findings.iter().map(finding_line).collect()),
        What::OtherFinding(named) => {
            let others = governed.findings.iter().filter(|f| !named.iter().any(|says| says.is(f)));
            others.map(finding_line).collect()
        }
        What::Audit(says) => {
            let of_kind = |r: &&Record| says.kind.as_ref().is_none_or(|kind| r.kind == *kind);
            none("such record", governed.audit.iter().filter(of_kind).map(Record::line).collect())
        }
        What::OtherDecision(named) => other_decisions(named, governed).map(Record::line).collect(),
        What::WholeAudit => governed.broken_audit.clone(),
        What::OtherContainment(named) => other_contained(named, governed).map(str::to_owned).collect(),
        What::Containment(id, act, _) => {
            vec![format!("{id} stands so: {}{}", governed.contained(id, *act).words(), by(*act))]
        }
        What::Drop { .. } | What::Flow { .. } | What::Handshake { .. } => Vec::new(),
    }
}

/// For sentences.
pub fn words(what: &What) -> String {
    match what {
        What::Finding(says) => format!("findings{}", says.words()),
        What::OtherFinding(named) if named.is_empty() => "findings".into(),
        What::OtherFinding(_) => "findings beside those".into(),
        What::Audit(says) => format!("audit records{}", says.words()),
        What::OtherDecision(_) => "audit records of decisions beside those".into(),
        What::OtherContainment(named) if named.is_empty() => "identities contained".into(),
        What::OtherContainment(_) => "identities contained beside those".into(),
        What::WholeAudit => "audit record that is whole".into(),
        What::Containment(id, act, state) => format!("{id}: {}{}", state.words(), by(*act)),
        What::Drop { .. } | What::Flow { .. } | What::Handshake { .. } => String::new(),
    }
}

fn other_decisions<'g>(named: &[AuditSays], governed: &'g Governed) -> impl Iterator<Item = &'g Record> {
    governed.audit.iter().filter(|r| r.is_decision() && !named.iter().any(|says| says.is(r)))
}

fn other_contained<'g>(named: &[String], governed: &'g Governed) -> impl Iterator<Item = &'g str> {
    governed.ever_contained().into_iter().filter(|id| !named.iter().any(|other| other == id))
}

impl FindingSays {
    fn is(&self, finding: &Value) -> bool {
        let says = |wanted: &Option<String>, field: &str| {
            wanted.as_ref().is_none_or(|wanted| text(&finding[field]) == wanted)
        };
        let level = |wanted: Option<Level>, field: &str| {
            wanted.is_none_or(|wanted| text(&finding[field]) == wanted.name())
        };
        let mut ids = finding["identities"].as_array().into_iter().flatten();
        says(&self.intent, "intent")
            && says(&self.signal, "signal")
            && says(&self.role, "role")
            && level(self.confidence, "confidence")
            && level(self.severity, "severity")
            && self.identity.as_ref().is_none_or(|wanted| ids.any(|id| text(id) == wanted))
            && self.peer.as_ref().is_none_or(|wanted| peer(finding) == wanted)
            && self.state.is_none_or(|wanted| text(&finding["state"]) == wanted.name())
            && self.decision.is_none_or(|wanted| decision(finding) == wanted)
            && self.why.as_ref().is_none_or(|part| text(&finding["why"]).contains(part))
            && finding["count"].as_u64().unwrap_or(0) >= self.departures
    }

    fn words(&self) -> String {
        let fields = [
            ("intent", self.intent.as_deref()),
            ("signal", self.signal.as_deref()),
            ("role", self.role.as_deref()),
            ("identity", self.identity.as_deref()),
            ("peer", self.peer.as_deref()),
            ("state", self.state.map(FindingState::name)),
            ("decision", self.decision.map(Decision::name)),
            ("confidence", self.confidence.map(Level::name)),
            ("severity", self.severity.map(Level::name)),
            ("why", self.why.as_deref()),
        ];
        let mut words = said(&fields);
        if self.departures > 1 {
            words += &format!(", of {} departures or more", self.departures);
        }
        words
    }
}

impl AuditSays {
    fn is(&self, record: &Record) -> bool {
        let says = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has);
        says(&self.kind, &record.kind)
            && says(&self.who, &record.who)
            && says(&self.how, &record.how)
            && self.identity.as_ref().is_none_or(|id| record.about.contains(id))
            && self.says.iter().all(|part| record.what.contains(part))
    }

    fn words(&self) -> String {
        let fields = [
            ("kind", self.kind.as_deref()),
            ("who", self.who.as_deref()),
            ("how", self.how.as_deref()),
            ("identity", self.identity.as_deref()),
        ];
        let mut words = said(&fields);
        self.says.iter().for_each(|part| words += &format!(", saying `{part}`"));
        words
    }
}

fn said(fields: &[(&str, Option<&str>)]) -> String {
    fields.iter().filter_map(|(name, value)| Some(format!(", {name} {}", (*value)?))).collect()
}

fn peer(finding: &Value) -> &str {
    let peer = &finding["peer"];
    peer["spiffe_id"].as_str().unwrap_or_else(|| text(peer))
}

fn decision(finding: &Value) -> Decision {
    match (text(&finding["decision"]), finding["held_back"].is_null()) {
        ("contain", true) => Decision::Contain,
        ("contain", false) => Decision::HeldBack,
        _ => Decision::Flag,
    }
}

fn finding_line(finding: &Value) -> String {
    let field = |name: &str| text(&finding[name]).to_owned();
    format!(
        "finding {}: {} as {} of intent {}, peer {}, {}, {}, confidence {}, {} departures: {}",
        finding["id"],
        field("signal"),
        field("role"),
        field("intent"),
        peer(finding),
        field("state"),
        decision(finding).name(),
        field("confidence"),
        finding["count"],
        field("why"),
    )
}

/// ` by limit`
fn by(act: Option<ContainmentAct>) -> String {
    act.map(|act| format!(" by {}", act.name())).unwrap_or_default()
}

impl Contained {
    fn words(self) -> &'static str {
        match self {
            Self::Active => "cut off now",
            Self::Ended => "was cut off and is no more",
            Self::Never => "was never cut off",
        }
    }
}

impl FindingState {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Muted => "muted",
            Self::Resolved => "resolved",
        }
    }
}

impl Decision {
    fn name(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Contain => "contain",
            Self::HeldBack => "held_back",
        }
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}
