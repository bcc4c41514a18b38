//! Intents in words.

use super::hello::name_list;
use super::{Expected, FanOut, Intent, Response, Sensitivity, WorkloadKind, files};
use crate::policy::act::Step;
use crate::policy::ports::PortMatch;
use crate::policy::selector::selectors_text;
use crate::policy::time::duration_text;
use std::fmt;

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.workload.name(), selectors_text(&self.identities))?;
        for (verb, side) in [("opens to", &self.client), ("answers", &self.server)] {
            let Some(expected) = side else { continue };
            let all: Vec<_> = expected.iter().map(Expected::to_string).collect();
            let all = if all.is_empty() { "nobody".to_owned() } else { all.join(", ") };
            write!(f, "; {verb} {all}")?;
        }
        if let Some(names) = &self.dns {
            write!(f, "; asks for {}", name_list(names))?;
        }
        if let Some(hours) = &self.hours {
            write!(f, "; opens {hours}")?;
        }
        if let Some(fan_out) = &self.fan_out {
            write!(f, "; opens to {fan_out}")?;
        }
        if let Some(rate) = &self.rate {
            write!(f, "; opens {rate}")?;
        }
        if let Some(files) = &self.processes {
            write!(f, "; executes {}", files::list(files))?;
        }
        if let Some(instances) = self.instances {
            write!(f, "; is at {} at once", addresses(instances))?;
        }
        if self.shared {
            f.write_str("; is shared")?;
        }
        for rule in &self.rules {
            write!(f, "; looks for {} ({})", rule.name, String::from(rule.when.clone()))?;
        }
        write!(f, "; {} sensitivity", self.sensitivity.name())?;
        if let Some(owner) = &self.owner {
            write!(f, ", of {owner}")?;
        }
        match &self.response {
            Response::Flag => f.write_str("; flagged"),
            Response::Contain { seconds } => write!(f, "; contained for {}", duration_text(*seconds)),
            Response::Graded { steps } => {
                let then = |(n, step): (usize, &Step)| match n {
                    0 => step.to_string(),
                    _ => format!("after {} {step}", duration_text(step.after_s)),
                };
                let steps: Vec<_> = steps.iter().enumerate().map(then).collect();
                write!(f, "; contained by {}", steps.join(", "))
            }
        }
    }
}

/// `1 address`, `3 addresses`
pub fn addresses(number: u32) -> String {
    format!("{number} address{}", if number == 1 { "" } else { "es" })
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<_> = self.ports.iter().map(PortMatch::to_string).collect();
        write!(f, "{} at {}", selectors_text(&self.peers), ports.join(" or "))?;
        if self.hello.is_empty() { Ok(()) } else { write!(f, " with {}", self.hello) }
    }
}

impl fmt::Display for FanOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            Some(seconds) => write!(f, "{} peers in {}", self.peers, duration_text(seconds)),
            None => write!(f, "{} peers in the time of a lease", self.peers),
        }
    }
}

impl WorkloadKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Batch => "batch",
            Self::Agent => "agent",
        }
    }
}

impl Sensitivity {
    /// As they are written.
    pub const WORDS: [(&str, Self); 3] = [("low", Self::Low), ("medium", Self::Medium), ("high", Self::High)];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}
