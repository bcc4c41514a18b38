//! Numbers of the maps as people know them.

use crate::policy::numbering::Numbering;
use crate::policy::spiffe::SpiffeId;
use crate::state::State;
use datapath::abi::{Action, Binding, Reason};
use std::collections::HashMap;

/// Names of identities and rules.
#[derive(Clone, Debug, Default)]
pub struct Names {
    identities: HashMap<u32, String>,
    rules: HashMap<u32, String>,
}

impl Names {
    /// From the saved state.
    pub fn of(state: &State) -> Self {
        let mut rules: HashMap<_, _> = state.numbering.rules().map(|(n, key)| (n, short(key))).collect();
        rules.extend(state.rules.iter().map(|(n, rule)| (*n, rule.label())));
        Self { identities: identities(&state.numbering), rules }
    }

    /// Adds the name of an identity.
    pub fn learn(&mut self, number: u32, id: &SpiffeId) {
        self.identities.insert(number, id.to_string());
    }

    /// The SPIFFE ID of an identity.
    pub fn identity(&self, number: u32) -> Option<&str> {
        self.identities.get(&number).map(String::as_str)
    }

    /// The label of a rule, `POLICY/RULE`.
    pub fn rule(&self, number: u32) -> Option<&str> {
        self.rules.get(&number).map(String::as_str)
    }
}

fn identities(numbering: &Numbering) -> HashMap<u32, String> {
    let ambiguous = (Binding::AMBIGUOUS, "ambiguous".to_owned());
    numbering.identities().map(|(n, id)| (n, id.to_string())).chain([ambiguous]).collect()
}

/// `policy/NAME/RULE` as `NAME/RULE`; what has no name of its own beside its kind keeps that.
fn short(key: &str) -> String {
    if key.matches('/').count() == 1 {
        return key.to_owned();
    }
    key.split_once('/').map_or(key, |(_, rest)| rest).to_owned()
}

/// The verdict of a record or event.
pub fn verdict(action: u8) -> &'static str {
    Action::from_u8(action).name()
}

/// The reason of a record or event.
pub fn reason(reason: u8) -> &'static str {
    Reason::from_u8(reason).name()
}
