//! Policy: from YAML files to the entries of the kernel's maps, and back to an explanation.
//!
//! [`Documents`] -> [`compile()`] -> [`Compiled`] -> [`diff()`] -> [`MapWrite`]s. Nothing here does I/O except reading
//! files.

mod across;
pub mod act;
pub mod again;
pub mod approval;
pub mod changes;
pub mod check;
pub mod classes;
pub mod compile;
pub mod contain;
mod decode;
pub mod diff;
pub mod difference;
pub mod document;
pub mod explain;
pub mod feed;
mod fields;
mod flatten;
pub mod gateway;
pub mod grant;
mod granted;
mod guards;
mod hashing;
pub mod identity_limits;
pub mod intent;
pub mod kinds;
pub mod limits;
mod load;
mod middle;
pub mod native;
mod nearby;
pub mod numbering;
#[cfg(test)]
mod oracle;
pub mod people;
pub mod place;
mod placed;
pub mod ports;
pub mod prefix;
pub mod quantity;
pub mod quarantine;
mod restrictions;
pub mod schema;
pub mod scope;
pub mod selector;
pub mod spiffe;
pub mod target;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_documents;
#[cfg(test)]
mod tests_of_grants;
#[cfg(test)]
mod tests_of_guards;
#[cfg(test)]
mod tests_of_hours;
#[cfg(test)]
mod tests_of_identity_limits;
#[cfg(test)]
mod tests_of_limits;
#[cfg(test)]
mod tests_of_restrictions;
#[cfg(test)]
mod tests_of_rules;
#[cfg(test)]
mod tests_of_schema;
#[cfg(test)]
mod tests_of_scopes;
pub mod time;
pub mod trie;
pub mod what_if;
mod yaml;

pub use check::{Report, check};
pub use compile::{Compiled, RuleInfo, compile, compile_with};
pub use diff::{MapDelete, MapWrite, diff, sweep};
pub use document::Documents;
pub use explain::{Explanation, Flow, explain};
pub use load::{SourceFile, read_files};
pub use native::host_rules;
pub use numbering::Numbering;
pub use place::{Mistake, Mistakes, Place};
pub use prefix::Prefix;
pub use time::Clock;
pub use trie::{PolicyPrefix, ScopedPrefix};
