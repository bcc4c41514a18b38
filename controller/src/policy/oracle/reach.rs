//! What `policy check` says of rules, of whatever workloads it knows, against who may come.

use super::*;
use crate::policy::check::{OF_THE_NAMED, WarningKind, check_documents};

/// The documents' policies, each rule at a line of its own, and workloads if they are `named`.
fn policies(mut documents: Documents, named: bool) -> Documents {
    let mut line = 0;
    for policy in &mut documents.policies {
        for rule in &mut Arc::make_mut(policy).rules {
            line += 1;
            rule.place.line = line;
        }
    }
    let workloads = if named { documents.workloads } else { Arc::default() };
    Documents { policies: documents.policies, workloads, ..Documents::default() }
}

/// Lines of the rules of which something of these kinds is said.
fn said(documents: &Documents, said: impl Fn(WarningKind, &str) -> bool) -> BTreeSet<u32> {
    let warnings = check_documents(documents, moment(0)).warnings;
    let found = warnings.into_iter().filter(|warning| said(warning.kind, &warning.text));
    found.filter_map(|warning| Some(warning.place?.line)).collect()
}

/// Documents without a rule.
fn without(documents: &Documents, line: u32) -> Documents {
    let policies = documents.policies.iter().map(|policy| {
        let rules = policy.rules.iter().filter(|rule| rule.place.line != line).cloned().collect();
        Arc::new(Policy { rules, ..(**policy).clone() })
    });
    Documents { policies: policies.collect(), ..documents.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_never_reached_nobody_reaches_who_comes_later_and_what_changes_nothing_changes_nothing_for_them(
        documents in documents(),
        named in any::<bool>(),
        fleets in vec(vec(workload(), 1..6), 6),
        flows in flows(),
    ) {
        let own = policies(documents, named);
        let of_all = |text: &str| !text.ends_with(OF_THE_NAMED);
        let is_unreached = |kind| matches!(kind, WarningKind::Unreachable | WarningKind::Contradiction);
        let unreached = said(&own, |kind, text| is_unreached(kind) && of_all(text));
        let idle = said(&own, |_, text| text.contains("changes nothing: no rule of its tier") && of_all(text));
        let without: Vec<Documents> = idle.iter().map(|line| without(&own, *line)).collect();
        for workloads in fleets {
            let workloads = Arc::new(own.workloads.iter().cloned().chain(workloads).collect::<Vec<_>>());
            let with = |documents: &Documents| Documents { workloads: workloads.clone(), ..documents.clone() };
            let fleet = with(&own);
            let others: Vec<Documents> = without.iter().map(with).collect();
            for (src, dst, proto, port) in &flows {
                let decided = |d: &Documents| {
                    naive_rule(d, addr(src), addr(dst), *proto, *port).map(|(_, rule)| rule.place.line)
                };
                let line = decided(&fleet);
                prop_assert!(
                    line.is_none_or(|line| !unreached.contains(&line)),
                    "line {:?} is reached by {} -> {}", line, src, dst
                );
                for other in &others {
                    prop_assert_eq!(decided(other), line);
                }
            }
        }
    }
}
