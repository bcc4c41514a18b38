//! `policy check`: what is wrong, and what is right but probably not meant.

mod rules;
#[cfg(test)]
mod tests;
mod witness;

use super::compile::{Compiled, compile};
use super::document::{Blocklist, Documents, Policy, Rule, Workload};
use super::feed::Feed;
use super::load;
use super::numbering::Numbering;
use super::place::{Mistake, Mistakes, Place};
use super::schema::Schemas;
use super::selector::Selector;
use super::time::Clock;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// With one of these, nothing is applied.
    pub mistakes: Vec<Mistake>,
    /// Right, but probably not meant.
    pub warnings: Vec<Warning>,
    /// What was read.
    pub counts: Counts,
}

/// How many documents, rules and map entries there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Workloads.
    pub workloads: usize,
    /// Rules of all policies.
    pub rules: usize,
    /// Blocklist entries.
    pub blocks: usize,
    /// Identity classes.
    pub classes: usize,
    /// Entries of the policy map.
    pub policy_entries: usize,
}

/// Something that is right, but probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Which kind.
    pub kind: WarningKind,
    /// Where.
    pub place: Option<Place>,
    /// What.
    pub text: String,
}

/// Of whom something is so that need not be so of an identity that comes later.
pub(super) const OF_THE_NAMED: &str = ", for the workloads that these files name: one that enrols may differ";
/// Who matches nothing until somebody comes.
const NOBODY_NAMED: &str = "no workload that these files name";

/// Kinds of warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// Rules before it decide all that it could.
    Unreachable,
    /// The same, and one of the same tier decides the opposite.
    Contradiction,
    /// A selector that no workload matches which the files name.
    MatchesNobody,
    /// Something that changes nothing.
    NoEffect,
    /// A lease or block that is over already.
    Over,
    /// No policy: everything is let through.
    DefaultAllow,
    /// The file of a feed is not on this host.
    NoFeed,
}

impl Report {
    /// Whether anything is wrong.
    pub fn has_mistakes(&self) -> bool {
        !self.mistakes.is_empty()
    }
}

/// Reads and checks files and directories.
pub fn check(paths: &[impl AsRef<Path>], now: Timestamp) -> Report {
    let wrong = |mistakes: Mistakes| Report { mistakes: mistakes.0, ..Report::default() };
    let mut documents = match load_as_schemas_say(paths, now) {
        Ok(documents) => documents,
        Err(mistakes) => return wrong(mistakes),
    };
    // The gateway's files need not be here.
    let absent: Vec<Warning> =
        documents.feeds().filter(|feed| !Path::new(&feed.path).exists()).map(absent).collect();
    if absent.is_empty()
        && let Err(mistakes) = documents.read_feeds()
    {
        return wrong(mistakes);
    }
    let mut report = check_documents(&documents, now);
    report.warnings.extend(absent);
    report.warnings.sort_by(|a, b| a.place.cmp(&b.place));
    report
}

/// The documents, of which each is also as the schema of its kind says.
fn load_as_schemas_say(paths: &[impl AsRef<Path>], now: Timestamp) -> Result<Documents, Mistakes> {
    let (files, mut mistakes) = load::read_what_is_there(paths);
    let files: Vec<_> = files.iter().map(|file| (file.name.as_str(), &*file.text)).collect();
    let decoded = Documents::parse_all(&files, now);
    mistakes.extend(decoded.as_ref().err().into_iter().flat_map(|found| found.0.clone()));
    match Schemas::generated() {
        Ok(schemas) => mistakes.extend(schemas.mistakes(&files, &mistakes)),
        Err(error) => mistakes.push(Mistake::unplaced(error, "this is a mistake of the program: report it")),
    }
    if mistakes.is_empty() { decoded } else { Err(Mistakes(mistakes)) }
}

fn absent(feed: &Feed) -> Warning {
    let text =
        format!("the feed {} is not here: whether it is right, the gateway's daemon finds out", feed.path);
    Warning { kind: WarningKind::NoFeed, place: Some(feed.place.clone()), text }
}

/// Looks for what is probably not meant.
pub fn check_documents(documents: &Documents, now: Timestamp) -> Report {
    let compiled = compile(documents, &Numbering::default(), &Clock { wall_now: now, boot_now_ns: 0 });
    let counts = Counts {
        workloads: documents.workloads.len(),
        rules: documents.policies.iter().map(|p| p.rules.len()).sum(),
        blocks: documents.blocklists.iter().map(blocks).sum(),
        classes: compiled.classes.len(),
        policy_entries: compiled.policy.len(),
    };
    let deciding = decisive(&compiled);
    let mut warnings = Vec::new();
    if documents.policies.is_empty() {
        let text = "no Policy: everything that no blocklist or lease stops is let through".to_owned();
        warnings.push(Warning { kind: WarningKind::DefaultAllow, place: None, text });
    }
    let has_hours = documents.policies.iter().flat_map(|policy| &policy.rules).any(|r| r.hours.is_some());
    if documents.grants.is_empty() && !has_hours {
        rules::check(documents, &deciding, &mut warnings);
    } else {
        // What is let pass for a while makes no rule one that is never reached; nor does a rule that is not always there.
        let without = Documents { grants: Vec::new(), ..documents.clone() };
        let sides = [of_rules(&without, |_| true), of_rules(&without, |rule| rule.hours.is_none())];
        let clock = Clock { wall_now: now, boot_now_ns: 0 };
        let both = sides.map(|side| compile(&side, &Numbering::default(), &clock));
        rules::check(documents, &both.iter().flat_map(decisive).collect(), &mut warnings);
        grants(documents, &deciding, now, &mut warnings);
    }
    over(documents, now, &mut warnings);
    if documents.workloads.is_empty() {
        unnamed(documents, &mut warnings);
    } else {
        nobody(documents, &mut warnings);
    }
    warnings.sort_by(|a, b| a.place.cmp(&b.place));
    Report { mistakes: Vec::new(), warnings, counts }
}

/// The same with those rules alone of which it is true, whatever their hours.
fn of_rules(documents: &Documents, is_there: impl Fn(&Rule) -> bool) -> Documents {
    let always = |rule: &Rule| Rule { hours: None, ..rule.clone() };
    let policy = |policy: &Arc<Policy>| {
        let rules = policy.rules.iter().filter(|rule| is_there(rule)).map(always).collect();
        Arc::new(Policy { rules, ..(**policy).clone() })
    };
    let policies = documents.policies.iter().map(policy).collect();
    Documents { policies, ..documents.clone() }
}

/// Where what decides stands.
fn decisive(compiled: &Compiled) -> HashSet<&Place> {
    let numbers: HashSet<u32> = compiled.policy.values().map(|decision| decision.rule).collect();
    numbers.into_iter().filter_map(|n| compiled.rules.get(&n)).map(|rule| &rule.place).collect()
}

/// Grants that let nothing pass: everything that they are for passes anyhow.
fn grants(documents: &Documents, decisive: &HashSet<&Place>, now: Timestamp, warnings: &mut Vec<Warning>) {
    let fits = |w: &Workload, s: &Selector| s.matches_workload(&w.spiffe_id, &w.labels);
    let is_somebody = |selectors: &[Selector]| {
        let is_there =
            |s: &Selector| matches!(s, Selector::Cidr(_)) || documents.workloads.iter().any(|w| fits(w, s));
        selectors.iter().any(is_there)
    };
    for grant in documents.grants.iter().filter(|grant| grant.not_after > now) {
        if is_somebody(&grant.from) && is_somebody(&grant.to) && !decisive.contains(&grant.place) {
            let name = &grant.name;
            let text = format!(
                "the grant {name} changes nothing: all that it is for passes without it{OF_THE_NAMED}"
            );
            let place = Some(grant.place.clone());
            warnings.push(Warning { kind: WarningKind::NoEffect, place, text });
        }
    }
}

fn blocks(list: &Blocklist) -> usize {
    list.entries.len() + list.feeds.iter().map(|feed| feed.entries.list().len()).sum::<usize>()
}

fn over(documents: &Documents, now: Timestamp, warnings: &mut Vec<Warning>) {
    for workload in documents.workloads.iter() {
        if let Some(lease) = workload.lease.filter(|lease| lease.not_after <= now) {
            let text = format!("the lease of workload {} ended at {:.0}", workload.name, lease.not_after);
            warnings.push(Warning { kind: WarningKind::Over, place: Some(workload.place.clone()), text });
        }
    }
    for entry in documents.blocklists.iter().flat_map(|b| &b.entries) {
        if let Some(end) = entry.not_after.filter(|end| *end <= now) {
            let text = format!("the block of {} ended at {end:.0}", entry.target);
            warnings.push(Warning { kind: WarningKind::Over, place: Some(entry.place.clone()), text });
        }
    }
    for grant in documents.grants.iter().filter(|grant| grant.not_after <= now) {
        let text = format!("the grant {} ended at {:.0}", grant.name, grant.not_after);
        warnings.push(Warning { kind: WarningKind::Over, place: Some(grant.place.clone()), text });
    }
    for quarantine in &documents.quarantines {
        if let Some(end) = quarantine.not_after.filter(|end| *end <= now) {
            let text = format!("the quarantine {} ended at {end:.0}", quarantine.name);
            warnings.push(Warning { kind: WarningKind::Over, place: Some(quarantine.place.clone()), text });
        }
    }
}

/// Said once where no file names a workload: a warning for each selector would be one for each there is.
fn unnamed(documents: &Documents, warnings: &mut Vec<Warning>) {
    let asks = |s: &&Selector| !matches!(s, Selector::Any | Selector::Cidr(_));
    if documents.selectors().any(|s| asks(&s)) {
        let text =
            "no Workload: whom the selectors match is known when workloads enrol or are bound".to_owned();
        warnings.push(Warning { kind: WarningKind::MatchesNobody, place: None, text });
    }
}

/// Selectors of blocks, quarantines, grants and limits that no workload matches: they do nothing until one does.
fn nobody(documents: &Documents, warnings: &mut Vec<Warning>) {
    let is_nobody = |selector: &Selector| {
        let fits = |w: &Workload| selector.matches_workload(&w.spiffe_id, &w.labels);
        !matches!(selector, Selector::Cidr(_)) && !documents.workloads.iter().any(fits)
    };
    let mut warn = |selector: &Selector, place: &Place| {
        let text = format!("{NOBODY_NAMED} matches {selector}");
        warnings.push(Warning { kind: WarningKind::MatchesNobody, place: Some(place.clone()), text });
    };
    for entry in documents.blocklists.iter().flat_map(|b| &b.entries) {
        entry.target.selector.iter().filter(|s| is_nobody(s)).for_each(|s| warn(s, &entry.place));
    }
    for quarantine in &documents.quarantines {
        let peers = quarantine.except.iter().filter_map(|t| t.selector.as_ref());
        let named = quarantine.identities.iter().chain(peers);
        named.filter(|s| is_nobody(s)).for_each(|s| warn(s, &quarantine.place));
    }
    for grant in &documents.grants {
        let named = grant.from.iter().chain(&grant.to);
        named.filter(|s| is_nobody(s)).for_each(|s| warn(s, &grant.place));
    }
    for limit in &documents.limits {
        let named = limit.identities.iter().filter(|s| **s != Selector::Any);
        named.filter(|s| is_nobody(s)).for_each(|s| warn(s, &limit.place));
    }
    for intent in &documents.intents {
        let expected = intent.client.iter().chain(&intent.server).flatten().flat_map(|e| &e.peers);
        let named = intent.identities.iter().chain(expected).filter(|s| **s != Selector::Any);
        named.filter(|s| is_nobody(s)).for_each(|s| warn(s, &intent.place));
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: warning: {}", self.text),
            None => write!(f, "warning: {}", self.text),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_mistakes() {
            return Mistakes(self.mistakes.clone()).fmt(f);
        }
        for warning in &self.warnings {
            writeln!(f, "{warning}")?;
        }
        let Counts { workloads, rules, blocks, classes, policy_entries } = self.counts;
        write!(
            f,
            "ok: workloads {workloads}, rules {rules}, blocked prefixes {blocks}; classes {classes}, policy entries {policy_entries}, warnings {}",
            self.warnings.len()
        )
    }
}
