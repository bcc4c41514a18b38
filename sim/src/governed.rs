//! What the governance loop did, read from `tidegate findings`, `audit` and `quarantine`.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

use crate::gateway::Gateway;
use crate::topology::plan::{Contained, ContainmentAct, Expectation, What};

/// Of what a record tells, so much is shown.
const SHOWN: usize = 300;

/// All of it that expectations ask for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Governed {
    /// As `tidegate findings list --all` has them.
    pub findings: Vec<Value>,
    /// In their order.
    pub audit: Vec<Record>,
    /// What `tidegate audit verify` found to be wrong.
    pub broken_audit: Vec<String>,
    /// As `tidegate quarantine list` has them: those that hold.
    pub quarantines: Vec<Value>,
}

/// A record of the audit.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// commit, finding ...
    pub kind: String,
    /// Who did it.
    pub who: String,
    /// By which command, or for what.
    pub how: String,
    /// SPIFFE IDs that it concerns.
    pub about: Vec<String>,
    /// What it tells, with what became of it, as it is written.
    pub what: String,
}

/// A text, or nothing.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Governed {
    /// Asks the gateway for what is needed. Findings need a daemon; the rest does not.
    pub async fn ask(gateway: &Gateway, wanted: &[Expectation]) -> Result<Self> {
        let wants = |is: fn(&What) -> bool| wanted.iter().any(|e| is(&e.what));
        let mut governed = Self::default();
        if wants(|what| matches!(what, What::Finding(_) | What::OtherFinding(_))) {
            governed.findings = gateway.ask(&["findings", "list", "--all"]).await?;
        }
        let of_audit = |what: &What| {
            matches!(what, What::Audit(_) | What::OtherDecision(_) | What::WholeAudit)
                || matches!(what, What::Containment(..) | What::OtherContainment(_))
        };
        if wants(of_audit) {
            governed.audit = gateway.ask(&["audit", "show"]).await?.iter().map(Record::read).collect();
        }
        if wants(|what| matches!(what, What::WholeAudit)) {
            let output = gateway.typed(&["audit", "verify"]).await?;
            if !output.status.success() {
                let said = [output.stdout, output.stderr].concat();
                governed.broken_audit = String::from_utf8_lossy(&said).lines().map(Into::into).collect();
            }
        }
        if wants(|what| matches!(what, What::Containment(..))) {
            governed.quarantines = gateway.ask(&["quarantine", "list"]).await?;
        }
        Ok(governed)
    }

    /// How it stands with an identity, by one act or by any.
    pub fn contained(&self, id: &str, act: Option<ContainmentAct>) -> Contained {
        let is = |quarantine: &&Value| {
            let mut selectors = quarantine["identities"].as_array().into_iter().flatten();
            let is_it = act.is_none_or(|act| act_of(quarantine) == act.name());
            is_it && selectors.any(|selector| selector["spiffeId"] == id)
        };
        if self.quarantines.iter().any(|q| is(&q)) {
            return Contained::Active;
        }
        let was = |record: &Record| {
            let did = record.contains();
            let named = act.is_none_or(|act| record.what.contains(&name(act, id)));
            did && named && record.about.iter().any(|about| about == id)
        };
        if self.audit.iter().any(was) { Contained::Ended } else { Contained::Never }
    }
}

impl Governed {
    /// Identities that were ever contained.
    pub fn ever_contained(&self) -> BTreeSet<&str> {
        let commits = self.audit.iter().filter(|record| record.contains());
        commits.flat_map(|record| record.about.iter().map(String::as_str)).collect()
    }
}

/// By which act a quarantine is one. An act with more to it is an object of one field.
fn act_of(quarantine: &Value) -> &str {
    match &quarantine["act"] {
        Value::Null => ContainmentAct::Quarantine.name(),
        Value::Object(act) => act.keys().next().map_or("", String::as_str),
        act => text(act),
    }
}

/// How tidegate names what is done about an identity, by hand or by the loop.
fn name(act: ContainmentAct, id: &str) -> String {
    match act {
        ContainmentAct::Quarantine => format!("manual:{id}"),
        less => format!("manual:{}:{id}", less.name()),
    }
}

impl Record {
    fn read(value: &Value) -> Self {
        let by = &value["by"];
        let mut about: Vec<_> =
            value["about"].as_array().into_iter().flatten().map(|id| text(id).to_owned()).collect();
        about.sort();
        let mut what = value["what"].to_string();
        if let Some(outcome) = value.get("outcome") {
            what += &format!(" {outcome}");
        }
        Self {
            kind: text(&value["kind"]).into(),
            who: text(&by["who"]).into(),
            how: text(&by["how"]).into(),
            about,
            what,
        }
    }

    /// Whether it is of who is contained.
    fn contains(&self) -> bool {
        self.kind == "commit" && self.what.contains("\"what\":\"quarantine\"")
    }

    /// Whether it is of what the loop or people decided.
    pub fn is_decision(&self) -> bool {
        self.contains() || matches!(self.kind.as_str(), "finding" | "approval" | "brake")
    }

    /// For who looks for another.
    pub fn line(&self) -> String {
        let what: String = self.what.chars().take(SHOWN).collect();
        format!("{} by {} ({}), about {}: {what}", self.kind, self.who, self.how, self.about.join(" "))
    }
}
