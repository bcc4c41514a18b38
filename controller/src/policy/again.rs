//! Reading files of which most were read before: only those that are others are parsed. What comes of it is what a reading of all
//! comes to; where that is not certain, all are read.

use super::document::{Blocklist, Documents, Policy, Workload};
use super::gateway::Gateway;
use super::grant::Grant;
use super::identity_limits::IdentityLimit;
use super::intent::Intent;
use super::load::SourceFile;
use super::place::{Mistakes, Place};
use super::quarantine::Quarantine;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Something that stands in a file under a name.
trait Document: Clone {
    fn name(&self) -> &str;
    fn place(&self) -> &Place;
}

macro_rules! documents {
    ($($kind:ty),*) => {
        $(impl Document for $kind {
            fn name(&self) -> &str {
                &self.name
            }

            fn place(&self) -> &Place {
                &self.place
            }
        })*
    };
}

impl<D: Document> Document for Arc<D> {
    fn name(&self) -> &str {
        D::name(self)
    }

    fn place(&self) -> &Place {
        D::place(self)
    }
}

documents!(Workload, Policy, Blocklist, Quarantine, Grant, IdentityLimit, Intent, Gateway);

/// What files said the last time.
#[derive(Clone, Copy)]
pub struct Last<'l> {
    /// The files, in their order.
    pub files: &'l [SourceFile],
    /// What they said.
    pub said: &'l Documents,
    /// Those in which workloads stand: these are very many, and most changes are of something else.
    pub homes: &'l HashSet<Arc<str>>,
}

/// Reads files of which most are those of the last time. Nothing where a mistake is found or may be, where texts depend on
/// when they are read, and where no file is the same. Beside it, what those say that were read.
pub fn parse_changed(files: &[SourceFile], now: Timestamp, last: Last<'_>) -> Option<(Documents, Documents)> {
    let known: HashMap<&str, &Arc<str>> =
        last.files.iter().map(|file| (file.name.as_str(), &file.text)).collect();
    let is_same = |file: &&SourceFile| {
        known.get(file.name.as_str()) == Some(&&file.text) && !depends_on_now(&file.text)
    };
    let (same, changed): (Vec<&SourceFile>, Vec<&SourceFile>) = files.iter().partition(is_same);
    if known.len() != last.files.len() || same.is_empty() {
        return None;
    }
    parse_beside(files, &changed, now, last).ok()?
}

/// Reads those `files` that are `changed`, beside what the others said the last time, whatever their texts are. Nothing where a mistake
/// between the two is or may be. Beside it, what those say that were read.
pub fn parse_beside(
    files: &[SourceFile],
    changed: &[&SourceFile],
    now: Timestamp,
    Last { files: last, said, homes }: Last<'_>,
) -> Result<Option<(Documents, Documents)>, Mistakes> {
    let texts: Vec<_> = changed.iter().map(|file| (file.name.as_str(), &*file.text)).collect();
    let new = Documents::parse_all(&texts, now)?;
    let order: HashMap<&str, usize> =
        files.iter().enumerate().map(|(n, file)| (file.name.as_str(), n)).collect();
    let changed: HashSet<&str> = changed.iter().map(|file| file.name.as_str()).collect();
    if order.len() != files.len() {
        return Ok(None);
    }
    let kept = last.iter().filter_map(|file| order.get(file.name.as_str()));
    let in_order = kept.is_sorted();
    let merge = Merge { order, changed, in_order };
    Ok(merge.all(said, homes, new.clone()).map(|all| (all, new)))
}

impl Merge<'_> {
    fn all(&self, said: &Documents, homes: &HashSet<Arc<str>>, new: Documents) -> Option<Documents> {
        let merge = self;
        // Every kind has to be here: a new one does not compile before it is.
        let Documents { workloads, policies, blocklists, quarantines, grants, limits, intents, gateway } =
            new;
        let no_home =
            workloads.is_empty() && homes.iter().all(|file| self.is_kept_file(file)) && self.in_order;
        let workloads = if no_home {
            said.workloads.clone()
        } else {
            if merge.claims_meet(&said.workloads, &workloads) {
                return None;
            }
            Arc::new(merge.of(&said.workloads, Arc::unwrap_or_clone(workloads))?)
        };
        let gateways = |gateway: &Option<Gateway>| gateway.iter().cloned().collect::<Vec<_>>();
        let mut gateways = merge.of(&gateways(&said.gateway), gateways(&gateway))?;
        if gateways.len() > 1 {
            return None;
        }
        Some(Documents {
            workloads,
            policies: merge.of(&said.policies, policies)?,
            blocklists: merge.of(&said.blocklists, blocklists)?,
            quarantines: merge.of(&said.quarantines, quarantines)?,
            grants: merge.of(&said.grants, grants)?,
            limits: merge.of(&said.limits, limits)?,
            intents: merge.of(&said.intents, intents)?,
            gateway: gateways.pop(),
        })
    }
}

/// Whether `for: 1h` may stand in a text, in whichever way YAML has to write it.
pub fn depends_on_now(text: &str) -> bool {
    text.contains("for") || text.contains('\\')
}

struct Merge<'f> {
    /// Where each file stands among all.
    order: HashMap<&'f str, usize>,
    /// Those whose documents are not taken as they were.
    changed: HashSet<&'f str>,
    /// Whether those that are kept stand in the order in which they stood.
    in_order: bool,
}

impl Merge<'_> {
    fn is_kept(&self, document: &impl Document) -> bool {
        self.is_kept_file(&document.place().file)
    }

    fn is_kept_file(&self, file: &str) -> bool {
        self.order.contains_key(file) && !self.changed.contains(file)
    }

    /// Documents of one kind in the order of the files; nothing where a name would stand twice.
    fn of<D: Document>(&self, said: &[D], new: Vec<D>) -> Option<Vec<D>> {
        let names: HashSet<&str> = new.iter().map(D::name).collect();
        let mut kept = said.iter().filter(|document| self.is_kept(*document));
        if !names.is_empty() && kept.clone().any(|document| names.contains(document.name())) {
            return None;
        }
        if new.is_empty() && self.in_order && kept.clone().count() == said.len() {
            return Some(said.to_vec());
        }
        let mut all: Vec<D> = kept.by_ref().cloned().chain(new.iter().cloned()).collect();
        all.sort_by_cached_key(|document| self.position(document));
        Some(all)
    }

    fn position(&self, document: &impl Document) -> usize {
        self.order.get(&*document.place().file).copied().unwrap_or(usize::MAX)
    }

    /// Whether an address of new workloads is one of kept ones, in the same place. Whether that is a mistake, a reading of all says.
    fn claims_meet(&self, said: &[Workload], new: &[Workload]) -> bool {
        let claims = |workload: &'_ Workload| {
            let scope = (workload.scope.interface.clone(), workload.scope.vlan);
            workload.addresses.clone().into_iter().map(move |address| (address, scope.clone()))
        };
        let claimed: HashSet<_> = new.iter().flat_map(claims).collect();
        !claimed.is_empty()
            && said.iter().filter(|w| self.is_kept(*w)).flat_map(claims).any(|claim| claimed.contains(&claim))
    }
}

#[cfg(test)]
mod tests {
    use super::super::people::People;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    const HEAD: &str = "---\napiVersion: tidegate.dev/v1\n";

    /// Documents that often meet: few names, few addresses.
    fn document() -> impl Strategy<Value = String> {
        let name = || select(&["a", "b", "c", "d"][..]);
        let workload = (name(), 0..6u8, any::<bool>()).prop_map(|(name, at, ends)| {
            let lease = if ends { ", lease: {for: 1h}" } else { "" };
            format!("{HEAD}kind: Workload\nmetadata: {{name: {name}}}\nspec: {{spiffeId: spiffe://td/{name}, addresses: [10.0.0.{at}]{lease}}}\n")
        });
        let policy = (name(), 1..9u16).prop_map(|(name, port)| {
            format!("{HEAD}kind: Policy\nmetadata: {{name: {name}}}\nspec: {{rules: [{{name: r, action: allow, from: [{{any: true}}], to: [{{any: true}}], ports: [tcp/{port}]}}]}}\n")
        });
        let list = (name(), 0..6u8).prop_map(|(name, at)| {
            format!("{HEAD}kind: Blocklist\nmetadata: {{name: {name}}}\nspec: {{entries: [{{cidr: 192.0.2.{at}}}]}}\n")
        });
        let gateway =
            Just(format!("{HEAD}kind: Gateway\nmetadata: {{name: g}}\nspec: {{midstream: deny}}\n"));
        let wrong = Just(format!("{HEAD}kind: Nothing\n"));
        prop_oneof![6 => workload, 4 => policy, 3 => list, 1 => gateway, 1 => wrong]
    }

    fn files() -> impl Strategy<Value = Vec<SourceFile>> {
        let text = vec(document(), 0..3).prop_map(|documents| documents.concat());
        let file = (select(&["1.yaml", "2.yaml", "3.yaml"][..]), text);
        vec(file, 1..4).prop_map(|files| {
            files
                .into_iter()
                .map(|(name, text)| SourceFile { name: name.into(), text: text.into() })
                .collect()
        })
    }

    fn parse(files: &[SourceFile], now: Timestamp) -> Option<Documents> {
        let texts: Vec<_> = files.iter().map(|file| (file.name.as_str(), &*file.text)).collect();
        Documents::parse_all(&texts, now).ok()
    }

    /// Most files stay.
    fn edited(last: &[SourceFile], new: Vec<SourceFile>, which: usize) -> Vec<SourceFile> {
        let mut files = last.to_vec();
        for (n, file) in new.into_iter().enumerate() {
            match files.get_mut((which + n) % (last.len() + 1)) {
                Some(old) => *old = file,
                None => files.push(file),
            }
            if which.is_multiple_of(3) {
                break;
            }
        }
        if which.is_multiple_of(5) {
            files.reverse();
        }
        files
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_changed_files_come_to_is_what_all_of_them_come_to(first in files(), second in files(), which in 0..60usize) {
            let [before, now] = ["2027-01-01T00:00:00Z", "2027-01-01T00:10:00Z"].map(|t| t.parse().expect("a time"));
            let Some(said) = parse(&first, before) else { return Ok(()) };
            let files = edited(&first, second, which);
            let last = Last { files: &first, said: &said, homes: &People::of(&said).homes };
            if let Some((found, _)) = parse_changed(&files, now, last) {
                prop_assert_eq!(Some(found), parse(&files, now));
            }
        }
    }

    #[test]
    fn one_changed_file_is_enough_and_what_meets_others_is_read_with_them() {
        let file = |name: &str, text: String| SourceFile { name: name.into(), text: text.into() };
        let workload = |name: &str, at: u8| {
            format!(
                "{HEAD}kind: Workload\nmetadata: {{name: {name}}}\nspec: {{spiffeId: spiffe://td/{name}, addresses: [10.0.0.{at}]}}\n"
            )
        };
        let now = "2027-01-01T00:00:00Z".parse().expect("a time");
        let last = [file("1", workload("a", 1)), file("2", workload("b", 2))];
        let said = parse(&last, now).expect("right");
        let with = |name: &str, at: u8| [file("1", workload("a", 1)), file("2", workload(name, at))];
        let homes = People::of(&said).homes;
        let last = Last { files: &last, said: &said, homes: &homes };
        let found = |files: &[SourceFile]| parse_changed(files, now, last).map(|(all, _)| all);
        assert_eq!(found(&with("c", 3)), parse(&with("c", 3), now));
        assert!(found(&with("c", 3)).is_some());
        assert!(found(&with("a", 3)).is_none(), "a name stands twice");
        assert!(found(&with("c", 1)).is_none(), "an address is claimed twice");
    }
}
