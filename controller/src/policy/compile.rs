//! From documents to what the kernel's maps have to hold.

use super::classes::Classes;
use super::document::{Documents, Open, Policy, Rule, RuleAction, RuleMode};
use super::flatten::{Entry, flatten};
use super::gateway::Gateway;
use super::granted::{Granted, Said, Speaks, beyond};
use super::guards::{Guards, Peers};
use super::hashing::Map;
use super::identity_limits::IdentityLimits;
use super::limits::Limits;
use super::numbering::Numbering;
use super::place::Place;
use super::ports::PortMatch;
use super::prefix::Prefix;
use super::restrictions::Tables;
use super::selector::selectors_text;
use super::time::{Clock, boot_time_ns};
use super::trie::{PolicyPrefix, ScopedPrefix};
use datapath::abi::{Binding, Block, Decision, Interface, LimitOf, Limits as Bits, PolicyKey, RuleSettings};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What the maps have to hold, and the tables that say what its numbers mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Identity, class and lease of every prefix.
    pub bindings: BTreeMap<Prefix, Binding>,
    /// The same of those that do not hold everywhere.
    pub scoped: BTreeMap<ScopedPrefix, Binding>,
    /// Interfaces that bindings name, and their numbers.
    pub named_interfaces: BTreeMap<String, u32>,
    /// Blocked prefixes, and those of which only services are.
    pub blocklist: BTreeMap<Prefix, Block>,
    /// What the lists say that prefixes and identities name: [`datapath::abi::GuardKey`].
    pub guards: BTreeMap<PolicyPrefix, Block>,
    /// What is decided for (source class, destination class, protocol, port).
    pub policy: BTreeMap<PolicyPrefix, Decision>,
    /// Limits of the rules that have some, by the rule's number.
    pub settings: BTreeMap<u32, RuleSettings>,
    /// Which limit is an identity's, by the identity's number; 0 for what has none.
    pub limits: BTreeMap<u32, LimitOf>,
    /// What holds for single interfaces, by index. Whoever knows the interfaces fills it in.
    pub interfaces: BTreeMap<u32, Interface>,
    /// What holds for the gateway as a whole.
    pub gateway: Option<Gateway>,
    /// Numbers given so far; pass them to the next compile.
    pub numbering: Numbering,
    /// What the numbers of rules mean.
    pub rules: BTreeMap<u32, RuleInfo>,
    /// The selectors of each class, as text.
    pub classes: BTreeMap<u32, Vec<String>>,
    /// No policy document at all: everything is let through.
    pub default_allow: bool,
}

impl Compiled {
    /// Whether some rule speaks of sources that have no identity: keys begin with the source's class, and theirs is the least.
    pub fn names_nobody(&self) -> bool {
        self.policy.first_key_value().is_some_and(|(prefix, _)| prefix.key.is_of_nobody())
    }
}

/// A rule or blocklist entry, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInfo {
    /// Its number in verdicts and counters.
    pub number: u32,
    /// A rule of a Policy, an entry or a feed of a Blocklist, a Quarantine, a Grant, or a Limit.
    pub kind: RuleKind,
    /// Name of the Policy or Blocklist; `quarantine`, `grant`, `limit`.
    pub policy: String,
    /// Name of the rule, Quarantine, Grant or Limit; what an entry speaks of.
    pub name: String,
    /// Tier of the policy; 0 for all else.
    pub tier: u32,
    /// Priority of the policy in its tier, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// What it decides.
    pub action: RuleAction,
    /// Whether it is enforced.
    pub mode: RuleMode,
    /// What it asks of the connections that it allows.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// Where it stands.
    pub place: Place,
    /// What it says, in a line.
    pub text: String,
}

/// What a number of the rule table stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleKind {
    /// A rule of a Policy.
    Policy,
    /// An entry of a Blocklist.
    Block,
    /// All entries of a feed of a Blocklist.
    Feed,
    /// A Quarantine.
    Quarantine,
    /// A Grant.
    Grant,
    /// A Limit.
    Limit,
}

impl RuleInfo {
    /// `policy/rule`, as tables and metrics show it.
    pub fn label(&self) -> String {
        Documents::rule_key(&self.policy, &self.name)
    }
}

/// Compiles. `numbering` is that of the compile before, so that numbers keep their meaning.
pub fn compile(documents: &Documents, numbering: &Numbering, clock: &Clock) -> Compiled {
    compile_with(documents, numbering.clone(), clock)
}

/// The same, for who needs the numbering of before no more: it can be long.
pub fn compile_with(documents: &Documents, mut numbering: Numbering, clock: &Clock) -> Compiled {
    let wall_of_boot_ns = numbering.wall_of_boot_ns(clock);
    let ordered = ordered(documents, &mut numbering, clock.wall_now);
    let mut rules: BTreeMap<u32, RuleInfo> = ordered.iter().map(|o| (o.number, o.info())).collect();
    let mut settings: BTreeMap<u32, RuleSettings> =
        ordered.iter().filter_map(|o| Some((o.number, o.settings(wall_of_boot_ns)?))).collect();
    let ends = (wall_of_boot_ns, clock.wall_now);
    let granted = Granted::of(documents, &mut numbering, (&mut rules, &mut settings), ends);
    let mut guards = Guards::of(documents, &mut numbering, &mut rules, wall_of_boot_ns);
    let blocklist = guards.blocklist(&mut numbering);
    let lists = guards.of_workloads(&documents.workloads, &mut numbering);
    let tables =
        Tables { numbering: &mut numbering, rules: &mut rules, settings: &mut settings, wall_of_boot_ns };
    let limits = IdentityLimits::of(documents, tables);
    let classes = Classes::of(documents, &mut numbering, ends, &lists, &limits);
    let limits = limits.by_number(&mut numbering);
    let default_allow = documents.policies.is_empty();
    // Where everything passes, there is nothing to grant.
    let policy = if default_allow { BTreeMap::new() } else { decisions(&ordered, &granted, &classes) };
    let peers = Peers {
        all: &mut classes.selectors.keys().copied(),
        matching: &|selector| classes.matching(std::slice::from_ref(selector)),
    };
    let guards = guards.entries(classes.bindings.values().chain(classes.scoped.values()), peers);
    let texts =
        |selectors: &Vec<&super::selector::Selector>| selectors.iter().map(|s| s.to_string()).collect();
    let class_texts = classes.selectors.iter().map(|(class, selectors)| (*class, texts(selectors))).collect();
    let (bindings, scoped, named_interfaces) = (classes.bindings, classes.scoped, classes.named_interfaces);
    let gateway = documents.gateway.clone();
    let classes = class_texts;
    Compiled {
        bindings,
        scoped,
        named_interfaces,
        blocklist,
        guards,
        policy,
        settings,
        limits,
        interfaces: BTreeMap::new(),
        gateway,
        numbering,
        rules,
        classes,
        default_allow,
    }
}

/// What the numbers of a set of policies' rules mean.
pub fn rules_of_policies(documents: &Documents, numbering: &mut Numbering) -> BTreeMap<u32, RuleInfo> {
    ordered(documents, numbering, Timestamp::UNIX_EPOCH).iter().map(|o| (o.number, o.info())).collect()
}

/// Every rule in the order in which they are asked: tier, priority, deny before allow, order of the files.
pub fn precedence(documents: &Documents) -> Vec<(&Policy, &Rule)> {
    let mut rules: Vec<_> =
        documents.policies.iter().flat_map(|p| p.rules.iter().map(move |r| (&**p, r))).collect();
    rules.sort_by_key(|(policy, rule)| (policy.rank(), rule.action));
    rules
}

fn ordered<'d>(documents: &'d Documents, numbering: &mut Numbering, now: Timestamp) -> Vec<Ordered<'d>> {
    let number = |(policy, rule): (&'d Policy, &'d Rule)| {
        Ordered::at(numbering.rule(&policy.name, &rule.name), (policy, rule), now)
    };
    precedence(documents).into_iter().map(number).collect()
}

/// A rule and its number, at some moment.
pub(super) struct Ordered<'d> {
    pub number: u32,
    pub policy: &'d Policy,
    pub rule: &'d Rule,
    open: Open,
}

impl<'d> Ordered<'d> {
    /// A rule as it is then.
    pub fn at(number: u32, (policy, rule): (&'d Policy, &'d Rule), now: Timestamp) -> Self {
        Self { number, policy, rule, open: rule.open(now) }
    }

    /// What it says; nothing outside its hours.
    pub fn speaks(&self) -> Option<Speaks<'d>> {
        let said = (self.decision(), self.rule.ports.as_slice());
        let (ends, tier) = (self.end().is_some(), self.policy.tier);
        let passes = self.rule.action == RuleAction::Pass;
        (self.open != Open::Shut).then_some(Speaks { said, ends, tier, passes })
    }

    /// Whether nothing behind it is ever reached, where no rule of its tier passes something by it.
    fn closes(&self) -> bool {
        self.open == Open::Always
            && self.rule.ports.contains(&PortMatch::Any)
            && self.rule.action != RuleAction::Pass
    }

    /// The tier that it passes something by.
    fn passes(&self) -> Option<u32> {
        (self.open != Open::Shut && self.rule.action == RuleAction::Pass).then_some(self.policy.tier)
    }

    /// When the kernel ends what it lets pass. What it drops, it drops until the daemon says otherwise.
    fn end(&self) -> Option<Timestamp> {
        match (self.open, self.rule.action) {
            (Open::Until(end), RuleAction::Allow) => Some(end),
            _ => None,
        }
    }

    /// What stands in the table of limits.
    pub fn settings(&self, wall_of_boot_ns: i128) -> Option<RuleSettings> {
        let limits = self.rule.limits.settings();
        let Some(end) = self.end() else { return limits };
        let lifetime_ns = boot_time_ns(end, wall_of_boot_ns);
        Some(RuleSettings { lifetime_ns, timed: RuleSettings::HOURS, ..limits.unwrap_or(RuleSettings::NONE) })
    }

    fn decision(&self) -> Decision {
        let action = match self.rule.action {
            RuleAction::Allow => Decision::ALLOW,
            RuleAction::Deny => Decision::DENY,
            // Never an entry: what comes after it decides.
            RuleAction::Pass => Decision::DEFAULT,
        };
        let audit = u8::from(self.rule.mode == RuleMode::Audit);
        let ends = if self.end().is_some() { Bits::LIFETIME as u8 } else { 0 };
        let limits = self.rule.limits.bits(self.rule.mode) | ends;
        Decision { rule: self.number, action, audit, limits, ..Decision::NONE }
    }

    /// For people.
    pub fn info(&self) -> RuleInfo {
        let Self { number, policy, rule, .. } = self;
        RuleInfo {
            number: *number,
            kind: RuleKind::Policy,
            policy: policy.name.clone(),
            name: rule.name.clone(),
            tier: policy.tier,
            priority: policy.priority,
            action: rule.action,
            mode: rule.mode,
            limits: rule.limits.clone(),
            place: rule.place.clone(),
            text: rule_text(rule),
        }
    }
}

/// A rule in a line.
pub fn rule_text(rule: &Rule) -> String {
    let action = match (rule.action, rule.mode) {
        (RuleAction::Allow, RuleMode::Audit) if !rule.limits.is_none() => "allow (limits audit)",
        (RuleAction::Allow, _) => "allow",
        (RuleAction::Deny, RuleMode::Enforce) if rule.limits.reject => "reject",
        (RuleAction::Deny, RuleMode::Enforce) => "deny",
        (RuleAction::Deny, RuleMode::Audit) => "deny (audit)",
        (RuleAction::Pass, _) => "pass",
    };
    let ports = rule.ports.iter().map(PortMatch::to_string).collect::<Vec<_>>().join(", ");
    let limits = match rule.limits.to_string() {
        none if none.is_empty() => none,
        limits => format!("; {limits}"),
    };
    let hours = rule.hours.as_ref().map(|hours| format!("; hours {hours}")).unwrap_or_default();
    let (from, to) = (selectors_text(&rule.from), selectors_text(&rule.to));
    format!("{action} {ports} from {from} to {to}{limits}{hours}")
}

/// The rules that speak of a pair of classes, in order of precedence, and the grants.
#[derive(Default, PartialEq, Eq, Hash)]
struct Speakers {
    rules: Vec<usize>,
    grants: Vec<usize>,
}

#[derive(Default)]
struct Pair {
    speakers: Speakers,
    reach: Reach,
}

/// How far the rules of a pair of classes are asked, in order of precedence.
#[derive(Default)]
pub(super) struct Reach {
    /// The last tier that a rule passes something by.
    passed: Option<u32>,
    /// The last rule is for every protocol: nothing behind it is reached.
    closed: bool,
}

impl Reach {
    /// Whether a rule is reached that comes behind all that were asked about before.
    pub fn reaches(&mut self, next: &Ordered<'_>) -> bool {
        let reached = !self.closed;
        self.passed = next.passes().or(self.passed);
        self.closed |= next.closes() && self.passed != Some(next.policy.tier);
        reached
    }
}

/// The entries of a pair of classes.
pub(super) fn entries_of(rules: &[Speaks<'_>], grants: &[Said<'_>]) -> Vec<Entry> {
    if !grants.is_empty() || rules.iter().any(|rule| rule.ends || rule.passes) {
        return beyond(rules, grants);
    }
    let said: Vec<Said<'_>> = rules.iter().map(|rule| rule.said).collect();
    flatten(&said)
}

fn decisions(
    ordered: &[Ordered<'_>],
    granted: &Granted<'_>,
    classes: &Classes<'_>,
) -> BTreeMap<PolicyPrefix, Decision> {
    let mut pairs: Map<(u32, u32), Pair> = Map::default();
    for (n, one) in ordered.iter().enumerate().filter(|(_, one)| one.open != Open::Shut) {
        let to = classes.matching(&one.rule.to);
        for src in classes.matching(&one.rule.from) {
            for dst in &to {
                let pair = pairs.entry((src, *dst)).or_default();
                if pair.reach.reaches(one) {
                    pair.speakers.rules.push(n);
                }
            }
        }
    }
    let (grants, granted): (Vec<_>, Vec<Said<'_>>) = granted.iter().unzip();
    for (n, grant) in grants.iter().enumerate() {
        let to = classes.matching(&grant.to);
        for src in classes.matching(&grant.from) {
            to.iter().for_each(|dst| pairs.entry((src, *dst)).or_default().speakers.grants.push(n));
        }
    }
    // Many pairs meet the same rules.
    let mut flat: Map<Speakers, Rc<[Entry]>> = Map::default();
    let mut policy = BTreeMap::new();
    for ((src, dst), pair) in pairs {
        let entries = flat.entry(pair.speakers).or_insert_with_key(|Speakers { rules, grants }| {
            let rules: Vec<Speaks<'_>> = rules.iter().filter_map(|n| ordered[*n].speaks()).collect();
            let grants: Vec<Said<'_>> = grants.iter().map(|n| granted[*n]).collect();
            entries_of(&rules, &grants).into()
        });
        let pair = PolicyKey::new(src, dst, 0, 0);
        let prefix = |e: &Entry| PolicyPrefix::of_service(pair, e.proto, e.port, e.port_bits);
        policy.extend(entries.iter().map(|entry| (prefix(entry), entry.decision)));
    }
    policy
}
