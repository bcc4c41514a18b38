//! Ends that could be: by them `policy check` judges rules for which the files name nobody.
//!
//! A witness of some selectors fits them and, beside them, only what everything fits that fits them: a path that no pattern spells out, no
//! label that is not asked for, an address in no narrower prefix. So a rule without `not` that fits a witness of a selector fits all that
//! the selector fits. What takes away with `not`, or passes a tier by, splits what a selector fits; there is a witness of every part.
//! Where the parts are too many, or two patterns cannot be compared, nothing is said of the rule.

use super::super::compile::entries_of;
use super::super::document::{Documents, Policy, Rule, RuleAction};
use super::super::granted::Speaks;
use super::super::prefix::Prefix;
use super::super::selector::{Selector, added, fits, taken};
use super::super::spiffe::{SpiffeId, SpiffePattern};
use super::rules::Ends;
use datapath::abi::Decision;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// So many selectors at most may split what one selector fits: each doubles its parts.
const MOST_SPLITS: usize = 5;
/// So many pairs of ends at most are looked at for one rule.
const MOST_PAIRS: usize = 4096;

/// An end that could be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    id: Option<SpiffeId>,
    labels: BTreeMap<String, String>,
    /// Its address is in this, and in no narrower prefix that is named.
    within: Option<Prefix>,
}

impl End {
    /// Whether selectors are about it.
    pub fn fits(&self, selectors: &[Selector]) -> bool {
        fits(selectors, |selector| self.matches(selector))
    }

    fn matches(&self, selector: &Selector) -> bool {
        match selector {
            Selector::Any => true,
            Selector::Cidr(prefix) => self.within.is_some_and(|own| prefix.covers(&own)),
            other => self.id.as_ref().is_some_and(|id| other.matches_workload(id, &self.labels)),
        }
    }
}

/// What splits one of the two ends of the rules so far: what they take away, and all that those are about that pass their tier by.
#[derive(Default)]
pub struct Splits<'d>(BTreeSet<&'d Selector>);

impl<'d> Splits<'d> {
    /// Notes an end of a rule.
    pub fn note(&mut self, rule: &Rule, end: &'d [Selector]) {
        self.0.extend(taken(end));
        if rule.action == RuleAction::Pass {
            self.0.extend(added(end).filter(|s| **s != Selector::Any));
        }
    }
}

/// Why there is no witness.
enum No {
    /// Nothing fits them all.
    Nobody,
    /// Nobody knows whether something does.
    Unsure,
}

/// Makes witnesses.
pub struct Witnesses {
    /// Text that no pattern and no ID has in it.
    strange: String,
    strange_domain: String,
    /// More segments than any pattern has.
    depth: usize,
}

impl Witnesses {
    /// For the selectors of these.
    pub fn of(documents: &Documents) -> Self {
        let all: BTreeSet<&Selector> = documents.selectors().collect();
        let patterns =
            || all.iter().filter_map(|s| if let Selector::SpiffePath(p) = s { Some(p) } else { None });
        let ids = || all.iter().filter_map(|s| if let Selector::SpiffeId(id) = s { Some(id) } else { None });
        let used: HashSet<char> = patterns().flat_map(|pattern| pattern.as_str().chars()).collect();
        let letter = ('a'..='z').chain('A'..='Z').chain('0'..='9').find(|c| !used.contains(c));
        // Where patterns use all letters, a run that none of them has does it for all but the patterns of runs.
        let mut strange = String::from(letter.unwrap_or('Z'));
        let has = |text: &str, strange: &str| text.contains(strange);
        while ids().any(|id| has(id.as_str(), &strange)) || patterns().any(|p| has(p.as_str(), &strange)) {
            strange.push(letter.unwrap_or('Z'));
        }
        let mut strange_domain = String::from("w");
        while all.iter().any(|s| domain(s) == Some(&strange_domain)) {
            strange_domain.push('w');
        }
        let depth = 1 + patterns().map(|p| p.as_str().matches('/').count()).max().unwrap_or(0);
        Self { strange, strange_domain, depth }
    }

    /// The ends by which a rule is judged, where those before it split its own by `splits`. Nothing where that is not known.
    pub fn ends_of(&self, rule: &Rule, [from, to]: &[Splits<'_>; 2]) -> Option<Ends<'static, 'static>> {
        let (from, to) = (self.ends(&rule.from, from)?, self.ends(&rule.to, to)?);
        (from.len() * to.len() <= MOST_PAIRS).then_some(Ends::Possible { from, to })
    }

    /// Whether two rules may be about one pair of ends. Where it is not known, they may.
    pub fn may_meet(&self, a: &Rule, b: &Rule) -> bool {
        let meets = |a: &[Selector], b: &[Selector]| {
            added(a).any(|x| added(b).any(|y| !matches!(self.common(&[x, y]), Err(No::Nobody))))
        };
        meets(&a.from, &b.from) && meets(&a.to, &b.to)
    }

    /// Whether the `not` of a list takes away all that its others fit, whoever comes. Where it is not known, it does not.
    pub fn takes_all(&self, selectors: &[Selector]) -> bool {
        self.ends(selectors, &Splits::default()).is_some_and(|left| left.is_empty())
    }

    /// Whether nothing that the others of a list fit is what this takes away, whoever comes. Where it is not known, something is.
    pub fn takes_nothing(&self, gone: &Selector, selectors: &[Selector]) -> bool {
        added(selectors).all(|own| matches!(self.common(&[own, gone]), Err(No::Nobody)))
    }

    fn ends(&self, selectors: &[Selector], splits: &Splits<'_>) -> Option<Vec<End>> {
        let mut ends = BTreeSet::new();
        for own in added(selectors) {
            let whole = self.common(&[own]).ok()?;
            let mut parted = Vec::new();
            for split in splits.0.iter().filter(|split| !whole.iter().all(|end| end.matches(split))) {
                match self.common(&[own, split]) {
                    Ok(_) => parted.push(*split),
                    Err(No::Nobody) => {}
                    Err(No::Unsure) => return None,
                }
            }
            if parted.len() > MOST_SPLITS {
                return None;
            }
            for part in 0..1_usize << parted.len() {
                let with = parted.iter().enumerate().filter(|(n, _)| part >> n & 1 == 1).map(|(_, s)| *s);
                let all: Vec<&Selector> = std::iter::once(own).chain(with).collect();
                match self.common(&all) {
                    Ok(found) => ends.extend(found.into_iter().filter(|end| end.fits(selectors))),
                    Err(No::Nobody) => {}
                    Err(No::Unsure) => return None,
                }
            }
        }
        Some(ends.into_iter().collect())
    }

    /// Witnesses of all these at once, which take nothing away: more than one where IDs of any depth fit.
    fn common(&self, all: &[&Selector]) -> Result<Vec<End>, No> {
        let (mut within, mut labels) = (None::<Prefix>, BTreeMap::new());
        for selector in all {
            match selector {
                Selector::Cidr(prefix) => {
                    within = Some(match within {
                        Some(other) if prefix.covers(&other) => other,
                        Some(other) if !other.covers(prefix) => return Err(No::Nobody),
                        _ => *prefix,
                    });
                }
                Selector::Labels(wanted) => {
                    for (name, value) in wanted {
                        if labels.insert(name.clone(), value.clone()).is_some_and(|other| other != *value) {
                            return Err(No::Nobody);
                        }
                    }
                }
                _ => {}
            }
        }
        let ids = self.ids(all, !labels.is_empty())?;
        Ok(ids.into_iter().map(|id| End { id, labels: labels.clone(), within }).collect())
    }

    /// IDs that fit all those that ask for one; none where nothing does.
    fn ids(&self, all: &[&Selector], by_label: bool) -> Result<Vec<Option<SpiffeId>>, No> {
        let domains: BTreeSet<&str> = all.iter().filter_map(|s| domain(s)).collect();
        if domains.len() > 1 {
            return Err(No::Nobody);
        }
        let fits = |id: &SpiffeId| {
            let asks = |s: &&&Selector| domain(s).is_some();
            all.iter().filter(asks).all(|s| s.matches_workload(id, &BTreeMap::new()))
        };
        let exact = all.iter().find_map(|s| if let Selector::SpiffeId(id) = s { Some(id) } else { None });
        if let Some(id) = exact {
            return if fits(id) { Ok(vec![Some(id.clone())]) } else { Err(No::Nobody) };
        }
        let mut patterns =
            all.iter().filter_map(|s| if let Selector::SpiffePath(p) = s { Some(p) } else { None });
        let Some(first) = patterns.next() else {
            return match domains.first() {
                Some(domain) => self.below(&format!("spiffe://{domain}"), ""),
                None if by_label => self.below(&format!("spiffe://{}", self.strange_domain), ""),
                None => Ok(vec![None]),
            };
        };
        // Those of the narrowest pattern fit the others; of two of which none is the narrower one, nothing is known.
        for pattern in std::iter::once(first).chain(patterns) {
            let ids = self.of_pattern(pattern)?;
            if ids.iter().flatten().all(fits) {
                return Ok(ids);
            }
        }
        Err(No::Unsure)
    }

    fn of_pattern(&self, pattern: &SpiffePattern) -> Result<Vec<Option<SpiffeId>>, No> {
        let text = pattern.as_str();
        match text.strip_suffix("/*") {
            Some(above) => self.below(above, &self.strange),
            None => Ok(vec![Some(self.id(text)?)]),
        }
    }

    /// IDs of every depth below one, the stars of which `star` stands for.
    fn below(&self, above: &str, star: &str) -> Result<Vec<Option<SpiffeId>>, No> {
        let above = above.replace('*', star);
        let segment = format!("/{}", self.strange);
        (1..=self.depth).map(|n| Ok(Some(self.id(&format!("{above}{}", segment.repeat(n)))?))).collect()
    }

    fn id(&self, text: &str) -> Result<SpiffeId, No> {
        text.replace('*', &self.strange).parse().map_err(|_| No::Unsure)
    }
}

/// The trust domain that a selector asks for.
fn domain(selector: &Selector) -> Option<&str> {
    match selector {
        Selector::SpiffeId(id) => Some(id.trust_domain()),
        Selector::SpiffePath(pattern) => Some(pattern.trust_domain()),
        Selector::TrustDomain(domain) => Some(domain.as_str()),
        Selector::Labels(_) | Selector::Cidr(_) | Selector::Any | Selector::Not(_) => None,
    }
}

/// Whether a rule decides on something from one end to another, after those before it. Of those that have hours, what decides may not be
/// there, and what passes its tier by may be.
pub fn decides(
    before: &[(&Policy, &Rule)],
    own: (&Policy, &Rule),
    (source, destination): (&End, &End),
) -> bool {
    const OWN: u32 = 1;
    let speaks = |(policy, rule): &(&Policy, &'_ Rule), number| {
        let action = if rule.action == RuleAction::Allow { Decision::ALLOW } else { Decision::DENY };
        let decision = Decision { rule: number, action, ..Decision::NONE };
        (decision, policy.tier, rule.action == RuleAction::Pass)
    };
    let passes_by =
        |(policy, rule): &(&Policy, &Rule)| rule.action == RuleAction::Pass && policy.tier != own.0.tier;
    let is_about = |(_, rule): &&(&Policy, &Rule)| source.fits(&rule.from) && destination.fits(&rule.to);
    let about: Vec<_> = before.iter().filter(is_about).collect();
    [false, true].into_iter().any(|with_hours| {
        let there = about.iter().filter(|one| one.1.hours.is_none() || with_hours && passes_by(one));
        let numbered = there.map(|one| (**one, OWN + 1)).chain([(own, OWN)]);
        let all: Vec<Speaks<'_>> = numbered
            .map(|(one, number)| {
                let (decision, tier, passes) = speaks(&one, number);
                Speaks { said: (decision, &one.1.ports), ends: false, tier, passes }
            })
            .collect();
        entries_of(&all, &[]).iter().any(|entry| entry.decision.rule == OWN)
    })
}
