//! Names of the rules that verdicts point to.

use std::collections::HashMap;

/// From the number in a verdict to the name in a policy file.
#[derive(Clone, Debug, Default)]
pub struct RuleNames(HashMap<u32, String>);

impl RuleNames {
    /// From numbers and names.
    pub fn new(names: impl IntoIterator<Item = (u32, String)>) -> Self {
        Self(names.into_iter().collect())
    }

    /// The name of a rule; none for 0, which is the default. A number without a name stands for itself.
    pub fn name(&self, rule: u32) -> Option<String> {
        (rule != 0).then(|| self.0.get(&rule).cloned().unwrap_or_else(|| format!("rule {rule}")))
    }
}
