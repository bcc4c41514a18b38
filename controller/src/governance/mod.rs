//! The governance loop: what an identity does, compared with what it is for; what that means; what is done about it.
//!
//! An event of the data plane becomes a [`Seen`]; [`compare()`] holds it against the intents; [`decide()`] says what a
//! departure leads to and why; the [`Book`] keeps the findings. The daemon does what was decided (docs/governance.md).

mod approvals;
pub mod approvals_cli;
mod baselines;
mod book;
pub mod cli;
mod compare;
mod decide;
mod deeds;
mod failures;
mod file;
mod finding;
mod habits;
mod latency;
pub mod learn;
pub mod lookups;
mod minutes;
mod observed;
mod observed_file;
pub mod places;
pub mod processes;
mod propose;
mod propose_deeds;
mod refusals;
mod retries;
mod roles;
mod rules;
mod scans;
mod signal;
mod table;
mod tenant;
mod terms;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_acts;
#[cfg(test)]
mod tests_of_approvals;
#[cfg(test)]
mod tests_of_rules;
#[cfg(test)]
mod tests_of_signals;
#[cfg(test)]
mod tests_of_tenants;
mod view;

pub use approvals::{Access, Approvals, Asked, Radius, Request, RequestState, Share, reason};
pub use baselines::{Adds, Baselines, Sample};
pub use book::{Book, BookFile, Contain, Noted};
pub use compare::{Departure, End, Role, Seen, compare, compare_hello, denied_although_expected, departs};
pub use decide::{Brake, Confidence, Decision};
pub use deeds::{Deed, Deeds};
pub use failures::Failures;
pub use finding::{Containment, Evidence, Finding, FindingState};
pub use habits::{Counted, Habits};
pub use latency::Latencies;
pub use observed::{Observed, PairSeen, Pairs, With};
pub use observed_file::{Changes, Kept, ObservedFile};
pub use refusals::Refusals;
pub use retries::{Attempt, Retries};
pub use roles::Roles;
pub use rules::{FailingRule, Rules};
pub use scans::Scans;
pub use signal::Signal;
pub use tenant::tenant;
pub use terms::Terms;
