//! What is worked out from a difference against a compile of everything.

use super::super::act::Act;
use super::super::compile::{Compiled, compile};
use super::super::contain::Changed;
use super::super::diff::{diff, sweep};
use super::super::difference::{Difference, Kept};
use super::super::document::{Documents, Policy, Rule, RuleAction, RuleMode};
use super::super::intent::hours::Hours;
use super::super::numbering::Numbering;
use super::super::ports::PortMatch;
use super::super::quarantine::Quarantine;
use super::super::selector::Selector;
use super::super::target::Target;
use super::{PORTS, clock, documents, place, priority, quarantine};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::HashSet;
use std::sync::Arc;

/// One change of policies. Numbers choose among what is there.
#[derive(Clone, Debug)]
enum Edit {
    Ports(usize, Vec<PortMatch>),
    Turn(usize, RuleAction),
    Audit(usize),
    Lifetime(usize, Option<u64>),
    Hours(usize, Option<bool>),
    Ends(usize, usize),
    Not(usize, usize),
    Again(usize, usize, bool),
    Drop(usize),
    Swap(usize),
    Tier(usize, u32),
    Priority(usize, Option<u32>),
    Move(usize),
    Without(usize),
    Touch(usize),
    Stranger(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let n = 0..1000usize;
    let ports = vec(select(&PORTS[..]).prop_map(|t| t.parse::<PortMatch>().expect(t)), 1..4);
    let actions = select(&[RuleAction::Allow, RuleAction::Deny, RuleAction::Pass][..]);
    prop_oneof![
        4 => (n.clone(), ports).prop_map(|(n, ports)| Edit::Ports(n, ports)),
        3 => (n.clone(), actions).prop_map(|(n, action)| Edit::Turn(n, action)),
        1 => n.clone().prop_map(Edit::Audit),
        2 => (n.clone(), select(&[None, Some(60), Some(3600)][..])).prop_map(|(n, s)| Edit::Lifetime(n, s)),
        2 => (n.clone(), select(&[None, Some(false), Some(true)][..])).prop_map(|(n, open)| Edit::Hours(n, open)),
        3 => (n.clone(), n.clone()).prop_map(|(n, m)| Edit::Ends(n, m)),
        3 => (n.clone(), n.clone()).prop_map(|(n, m)| Edit::Not(n, m)),
        3 => (n.clone(), n.clone(), any::<bool>()).prop_map(|(n, m, front)| Edit::Again(n, m, front)),
        2 => n.clone().prop_map(Edit::Drop),
        2 => n.clone().prop_map(Edit::Swap),
        2 => (n.clone(), select(&[1_u32, 100, 200][..])).prop_map(|(n, tier)| Edit::Tier(n, tier)),
        2 => (n.clone(), priority()).prop_map(|(n, priority)| Edit::Priority(n, priority)),
        1 => n.clone().prop_map(Edit::Move),
        1 => n.clone().prop_map(Edit::Without),
        1 => n.clone().prop_map(Edit::Touch),
        1 => n.prop_map(Edit::Stranger),
    ]
}

impl Edit {
    fn of(self, documents: &mut Documents) {
        let all = &mut documents.policies;
        let rules: Vec<Rule> = all.iter().flat_map(|policy| policy.rules.iter().cloned()).collect();
        if rules.is_empty() {
            return;
        }
        let policies = all.len();
        let mut change = |n: usize, change: &mut dyn FnMut(&mut Rule)| {
            let mut n = n % rules.len();
            for policy in all.iter_mut() {
                if n < policy.rules.len() {
                    // The others stay the same ones.
                    return change(&mut Arc::make_mut(policy).rules[n]);
                }
                n -= policy.rules.len();
            }
        };
        match self {
            Self::Ports(n, ports) => change(n, &mut |rule| rule.ports = ports.clone()),
            Self::Turn(n, action) => change(n, &mut |rule| rule.action = action),
            Self::Audit(n) => change(n, &mut |rule| rule.mode = RuleMode::Audit),
            Self::Lifetime(n, seconds) => change(n, &mut |rule| rule.limits.lifetime_seconds = seconds),
            Self::Hours(n, open) => change(n, &mut |rule| {
                rule.hours = open.map(|open| hours(if open { "06:00" } else { "13:00" }));
            }),
            Self::Ends(n, m) => change(n, &mut |rule| rule.from = rules[m % rules.len()].to.clone()),
            Self::Not(n, m) => change(n, &mut |rule| {
                let other = rules[m % rules.len()].to[0].subject();
                let not = Selector::Not(Box::new(other.clone()));
                match rule.from.iter().position(|selector| *selector == not) {
                    Some(at) if rule.from.len() > 1 => drop(rule.from.remove(at)),
                    _ if *other != Selector::Any => rule.from.push(not),
                    _ => {}
                }
            }),
            Self::Touch(n) => change(n, &mut |rule| rule.place.line += 1),
            Self::Stranger(n) => change(n, &mut |rule| {
                let id = "spiffe://b.example/stranger".parse().expect("an ID");
                rule.to = vec![Selector::SpiffeId(id)];
            }),
            Self::Again(n, m, front) => {
                let policy = Arc::make_mut(&mut all[n % policies]);
                let name = format!("again{}", m % 7);
                if policy.rules.iter().all(|rule| rule.name != name) {
                    let rule = Rule { name, ..rules[m % rules.len()].clone() };
                    policy.rules.insert(if front { 0 } else { policy.rules.len() }, rule);
                }
            }
            Self::Drop(n) => {
                let policy = Arc::make_mut(&mut all[n % policies]);
                policy.rules.pop();
            }
            Self::Swap(n) => Arc::make_mut(&mut all[n % policies]).rules.reverse(),
            Self::Tier(n, tier) => Arc::make_mut(&mut all[n % policies]).tier = tier,
            Self::Priority(n, priority) => Arc::make_mut(&mut all[n % policies]).priority = priority,
            Self::Move(n) => all.rotate_left(n % policies),
            Self::Without(n) => drop(all.remove(n % policies)),
        }
    }
}

/// Until 18:00; it is 12:00.
fn hours(from: &str) -> Hours {
    let span = serde_json::json!({"zone": "UTC", "open": [{"days": 127, "from": minutes(from), "to": minutes("18:00")}]});
    serde_json::from_value(span).expect("hours")
}

fn minutes(text: &str) -> u16 {
    text[..2].parse::<u16>().expect("hours") * 60
}

/// What counts, and what is kept of it.
struct Live {
    documents: Documents,
    compiled: Compiled,
    kept: Kept,
}

impl Live {
    fn of(documents: Documents, numbering: &Numbering) -> Self {
        let compiled = compile(&documents, numbering, &clock());
        let kept =
            Kept::of(&documents, std::iter::empty(), &compiled, (&compiled.numbering, clock().wall_now))
                .expect("kept");
        Self { documents, compiled, kept }
    }

    fn advance(&mut self, after: &Documents) -> Option<Difference> {
        let grants: Vec<_> = after.grants.iter().filter(|g| g.not_after > clock().wall_now).collect();
        let mut numbering = std::mem::take(&mut self.compiled.numbering);
        let found = self.kept.advance(
            (&self.documents, after),
            &grants,
            &self.compiled,
            (&mut numbering, clock().wall_now),
        );
        self.compiled.numbering = numbering;
        found
    }

    fn contain(&mut self, after: &Documents) -> Option<Difference> {
        let changed =
            Changed::between(&self.documents.quarantines, &after.quarantines).expect("cuts in order");
        let ids: HashSet<_> = after
            .workloads
            .iter()
            .filter(|w| changed.fit(&w.spiffe_id, &w.labels))
            .map(|w| &w.spiffe_id)
            .collect();
        let own = after.workloads.iter().filter(|w| ids.contains(&w.spiffe_id)).cloned().collect();
        let concerned = Documents {
            workloads: Arc::new(own),
            blocklists: after.blocklists.clone(),
            quarantines: after.quarantines.clone(),
            ..Documents::default()
        };
        let mut numbering = std::mem::take(&mut self.compiled.numbering);
        let found =
            self.kept.contain(&changed, &concerned, &self.compiled, (&mut numbering, clock().wall_now));
        self.compiled.numbering = numbering;
        found
    }
}

/// One change: of policies, or of who is cut off.
#[derive(Clone, Debug)]
enum Step {
    Rules(Vec<Edit>),
    Cut(usize, Quarantine),
    Free(usize),
    Change(usize, Quarantine),
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0..1000usize;
    // Peers that rules may name too, or nobody.
    let cut = (quarantine(), any::<bool>()).prop_map(|(quarantine, peers)| {
        if peers { quarantine } else { Quarantine { except: Vec::new(), ..quarantine } }
    });
    let cut = cut.boxed();
    prop_oneof![
        2 => vec(edit(), 1..4).prop_map(Step::Rules),
        4 => (n(), cut.clone()).prop_map(|(n, cut)| Step::Cut(n, cut)),
        3 => n().prop_map(Step::Free),
        2 => (n(), cut).prop_map(|(n, cut)| Step::Change(n, cut)),
    ]
}

impl Step {
    fn of(self, documents: &mut Documents) {
        let all = &mut documents.quarantines;
        match self {
            Self::Rules(edits) => edits.into_iter().for_each(|edit| edit.of(documents)),
            Self::Cut(n, cut) if all.iter().all(|q| q.name != format!("x{n}")) => {
                all.push(Quarantine { name: format!("x{n}"), ..cut });
            }
            Self::Free(n) if !all.is_empty() => drop(all.remove(n % all.len())),
            Self::Change(n, cut) if !all.is_empty() => {
                let at = n % all.len();
                all[at] = Quarantine { name: all[at].name.clone(), ..cut };
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_difference_comes_to_is_what_all_comes_to(
        first in documents(),
        edits in vec(vec(edit(), 1..4), 1..6),
    ) {
        let mut live = Live::of(first, &Numbering::default());
        for edits in edits {
            let mut after = live.documents.clone();
            edits.into_iter().for_each(|edit| edit.of(&mut after));
            let wanted = compile(&after, &live.compiled.numbering, &clock());
            let Some(found) = live.advance(&after) else {
                live = Live::of(after, &live.compiled.numbering);
                continue;
            };
            prop_assert_eq!(diff(&found.old, &found.new, 7), diff(&live.compiled, &wanted, 7));
            prop_assert_eq!(sweep(&found.old, &found.new), sweep(&live.compiled, &wanted));
            found.apply(&mut live.compiled);
            prop_assert_eq!(&live.compiled, &wanted);
            live.documents = after;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_is_cut_off_by_a_difference_is_who_is_cut_off_by_a_compile(
        first in documents(),
        steps in vec(step(), 1..8),
    ) {
        let mut live = Live::of(first, &Numbering::default());
        for step in steps {
            let mut after = live.documents.clone();
            let is_of_rules = matches!(step, Step::Rules(_));
            step.of(&mut after);
            let wanted = compile(&after, &live.compiled.numbering, &clock());
            let found = if is_of_rules { live.advance(&after) } else { live.contain(&after) };
            let Some(found) = found else {
                live = Live::of(after, &live.compiled.numbering);
                continue;
            };
            prop_assert_eq!(diff(&found.old, &found.new, 7), diff(&live.compiled, &wanted, 7));
            prop_assert_eq!(sweep(&found.old, &found.new), sweep(&live.compiled, &wanted));
            found.apply(&mut live.compiled);
            prop_assert_eq!(&live.compiled, &wanted);
            live.documents = after;
        }
    }
}

fn rule(name: &str, from: &str, port: u16) -> Rule {
    let end = |id: &str| vec![Selector::SpiffeId(format!("spiffe://td/{id}").parse().expect("an ID"))];
    Rule {
        name: name.into(),
        action: RuleAction::Allow,
        from: end(from),
        to: end("db"),
        ports: vec![PortMatch::Protocol { proto: 6, first: port, last: port }],
        mode: RuleMode::Enforce,
        limits: Default::default(),
        hours: None,
        place: place(),
    }
}

fn policy(rules: Vec<Rule>) -> Documents {
    let head = "apiVersion: tidegate.dev/v1\nkind: Workload\n";
    let workload = |n: u8, name: &str| {
        format!(
            "{head}metadata: {{name: {name}}}\nspec: {{spiffeId: spiffe://td/{name}, addresses: [10.0.0.{n}]}}\n"
        )
    };
    let text = [workload(1, "web"), workload(2, "db")].join("---\n");
    let mut documents = Documents::parse("w.yaml", &text, clock().wall_now).expect("workloads");
    documents.policies.push(Arc::new(Policy {
        name: "p".into(),
        tier: 100,
        priority: None,
        rules,
        place: place(),
    }));
    documents
}

#[test]
fn another_port_or_a_rule_more_of_known_ends_takes_no_compile_and_an_end_that_comes_or_goes_does() {
    let first = policy(vec![rule("a", "web", 1), rule("b", "db", 2)]);
    let advance = |rules: Vec<Rule>| {
        let after = Documents { policies: policy(rules).policies, ..first.clone() };
        let mut live = Live::of(first.clone(), &Numbering::default());
        live.advance(&after).map(|found| diff(&found.old, &found.new, 2).len())
    };
    assert_eq!(advance(vec![rule("a", "web", 3), rule("b", "db", 2)]), Some(2), "a port comes, and one goes");
    assert_eq!(advance(vec![rule("a", "web", 1), rule("b", "db", 2), rule("c", "web", 3)]), Some(1));
    assert_eq!(advance(vec![rule("a", "web", 1), rule("b", "new", 2)]), None, "a new end");
    assert_eq!(advance(vec![rule("b", "db", 2)]), None, "nobody names web any more");
}

#[test]
fn who_is_cut_off_by_its_identity_takes_no_compile_and_a_peer_that_nobody_names_does() {
    let first = policy(vec![rule("a", "web", 1), rule("b", "db", 2)]);
    let cut = |except: &str| Quarantine {
        name: "x".into(),
        identities: vec![Selector::SpiffeId("spiffe://td/web".parse().expect("an ID"))],
        except: match except {
            "" => Vec::new(),
            id => vec![Target {
                selector: Some(Selector::SpiffeId(format!("spiffe://td/{id}").parse().expect("an ID"))),
                ports: Vec::new(),
            }],
        },
        act: Act::Quarantine,
        since: None,
        reason: None,
        not_after: None,
        place: place(),
    };
    let writes = |except: &str| {
        let mut live = Live::of(first.clone(), &Numbering::default());
        let after = Documents { quarantines: vec![cut(except)], ..first.clone() };
        let found = live.contain(&after)?;
        let there = diff(&found.old, &found.new, 2).len();
        found.apply(&mut live.compiled);
        live.documents = after;
        let back = live.contain(&first)?;
        back.apply(&mut live.compiled);
        let before = Live::of(first.clone(), &Numbering::default()).compiled;
        assert_eq!((live.compiled.bindings, live.compiled.guards), (before.bindings, before.guards));
        Some(there)
    };
    assert_eq!(writes(""), Some(2), "the binding names a list of one entry");
    assert_eq!(writes("db"), Some(3), "and one for the peer that stays");
    assert_eq!(writes("new"), None);
}
