//! What an intent that is learned says beside connections: names that were asked for, programs, addresses at once.

use super::deeds::{Deed, DeedSeen};
use super::observed::Observed;
use crate::policy::intent::files::FilePattern;
use crate::policy::intent::hello::NamePattern;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// So many names below one are no list of names, but what is made up or handed out.
const MANY_NAMES: usize = 8;
/// Where everybody may write: whoever gets into a workload executes what he has brought from there.
const WRITABLE: [&str; 5] = ["/tmp/", "/var/tmp/", "/dev/", "/proc/", "/run/user/"];

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    ManyNames,
    NoName,
    NameOnce,
    Relative,
    Writable,
    MoreOnce,
}

impl Why {
    fn words(self) -> &'static str {
        match self {
            Self::ManyNames => "many names below one: as they stand, all below it",
            Self::NoName => "no host name: it cannot be declared, as what a search list makes of one",
            Self::NameOnce => "asked for once: that may be an accident, or a job that runs daily",
            Self::Relative => "no absolute path of 127 bytes at most: it cannot be declared",
            Self::Writable => {
                "it lies where everybody may write: whoever gets in executes what he has brought from there"
            }
            Self::MoreOnce => "at more addresses once: that may be an accident, or how it is replaced",
        }
    }
}

/// A field of an intent whose value is a list: what is proposed, and what is left out, in the form of items.
#[derive(Default)]
struct List {
    kept: BTreeSet<String>,
    left: BTreeMap<Why, BTreeSet<String>>,
}

/// Adds `dns`, `processes` and `instances` to a proposal, of what was seen from then on.
pub fn write(text: &mut String, observed: &Observed, from: Timestamp) {
    let of_window: Vec<_> = observed.deeds.iter().filter(|deed| deed.times.last_seen >= from).collect();
    names(&of_window).write(text, "dns");
    let (programs, unknown) = programs(&of_window);
    programs.write(text, "processes");
    for name in unknown {
        let _ = writeln!(
            text,
            "    # Left out: {} opened connections and was not seen to be executed, so that its path is not known.",
            quoted(&name)
        );
    }
    instances(text, &of_window);
    if observed.deeds_not_kept > 0 {
        let _ = writeln!(
            text,
            "  # {} times there was more of names and programs than is kept of an identity. It is not in here.",
            observed.deeds_not_kept
        );
    }
}

impl List {
    fn leave(&mut self, why: Why, item: &str) {
        self.left.entry(why).or_default().insert(quoted(item));
    }

    fn write(&self, text: &mut String, field: &str) {
        if self.kept.is_empty() && self.left.is_empty() {
            return;
        }
        // A list of comments alone would be none.
        let _ = writeln!(text, "  {}{field}:", if self.kept.is_empty() { "#" } else { "" });
        for item in &self.kept {
            let _ = writeln!(text, "    - {item}");
        }
        for (why, items) in &self.left {
            let _ = writeln!(text, "    # Left out, {}:", why.words());
            for item in items {
                let _ = writeln!(text, "    #- {item}");
            }
        }
    }
}

/// Names, whoever of the class asked: what two of it asked for once was asked for twice.
fn names(deeds: &[&DeedSeen]) -> List {
    let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
    for deed in deeds {
        if let Deed::AsksFor(name) = &deed.of.deed {
            *asked.entry(name).or_default() += deed.times.count;
        }
    }
    let mut below: BTreeMap<&str, usize> = BTreeMap::new();
    for name in asked.keys() {
        if let Some(parent) = parent(name) {
            *below.entry(parent).or_default() += 1;
        }
    }
    let mut list = List::default();
    for (name, count) in &asked {
        let many = parent(name).filter(|parent| below[parent] >= MANY_NAMES);
        match many {
            _ if name.starts_with("*.") || name.parse::<NamePattern>().is_err() => {
                list.leave(Why::NoName, name)
            }
            // As an item that can be moved in, where there is one.
            Some(parent) if format!("*.{parent}").parse::<NamePattern>().is_ok() => {
                list.leave(Why::ManyNames, &format!("*.{parent}"));
            }
            _ if *count <= 1 => list.leave(Why::NameOnce, name),
            _ => drop(list.kept.insert(quoted(name))),
        }
    }
    list
}

/// What a name is below, unless all the world is below it.
fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent).filter(|parent| parent.contains('.'))
}

/// Programs, and processes that opened connections without one of these that they can be of. The kernel tells of a program once, so that how
/// often says nothing.
fn programs(deeds: &[&DeedSeen]) -> (List, BTreeSet<String>) {
    let mut list = List::default();
    let mut files = Vec::new();
    for deed in deeds {
        let Deed::Executes(path) = &deed.of.deed else { continue };
        match path.parse::<FilePattern>() {
            // `/*` at its end would be a folder.
            Ok(_) if path.ends_with("/*") => list.leave(Why::Relative, path),
            Err(_) => list.leave(Why::Relative, path),
            Ok(_) if WRITABLE.iter().any(|folder| path.starts_with(folder)) => {
                list.leave(Why::Writable, path)
            }
            Ok(file) => {
                list.kept.insert(quoted(path));
                files.push(file);
            }
        }
    }
    let opened = deeds.iter().filter_map(|deed| match &deed.of.deed {
        Deed::Opens(name) => Some(name),
        _ => None,
    });
    let unknown = opened.filter(|name| !files.iter().any(|file| file.may_be_named(name)));
    (list, unknown.cloned().collect())
}

/// At how many addresses one of the class was at once.
fn instances(text: &mut String, deeds: &[&DeedSeen]) {
    let mut times: BTreeMap<usize, u64> = BTreeMap::new();
    for deed in deeds {
        if let Deed::Addresses(many) = deed.of.deed {
            *times.entry(many).or_default() += deed.times.count;
        }
    }
    // Whoever is at three addresses was at two before. A lease is given again and again: once is when it was more for a moment.
    let Some((most, _)) = times.iter().rfind(|(many, count)| **count > 1 || **many == 1) else { return };
    let _ = writeln!(text, "  instances: {most}");
    if let Some((more, _)) = times.last_key_value().filter(|(more, _)| *more > most) {
        let _ = writeln!(text, "    # Left out, {}:\n  #instances: {more}", Why::MoreOnce.words());
    }
}

/// In quotes, whatever is in it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::deeds::{DeedOf, Times};
    use super::super::propose::propose;
    use super::*;
    use crate::policy::Documents;
    use jiff::SignedDuration;

    fn now() -> Timestamp {
        "2126-11-25T11:00:00Z".parse().expect("time")
    }

    fn seen(id: &str, deed: Deed, count: u64) -> DeedSeen {
        let at = now() - SignedDuration::from_hours(1);
        let identity = format!("spiffe://a.example/{id}").parse().expect("a SPIFFE ID");
        DeedSeen { of: DeedOf { identity, deed }, times: Times { first_seen: at, last_seen: at, count } }
    }

    fn proposed(who: &str, deeds: Vec<DeedSeen>) -> String {
        let since = now() - SignedDuration::from_hours(30);
        let observed = Observed { since, not_kept: 0, pairs: Vec::new(), deeds, deeds_not_kept: 3 };
        let who = format!("spiffe://a.example/{who}").parse().expect("a pattern");
        propose(&who, &observed, SignedDuration::from_hours(24), now())
    }

    fn parsed(text: &str) -> crate::policy::intent::Intent {
        Documents::parse("learned.yaml", text, now())
            .unwrap_or_else(|e| panic!("{e}:\n{text}"))
            .intents
            .remove(0)
    }

    #[test]
    fn names_programs_and_addresses_are_proposed_and_what_is_left_out_says_why() {
        let asks = |name: &str, count| seen("web", Deed::AsksFor(name.into()), count);
        let executes = |path: &str| seen("web", Deed::Executes(path.into()), 1);
        let mut old = asks("old.example", 9);
        old.times.last_seen = now() - SignedDuration::from_hours(25);
        let mut deeds = vec![
            asks("db.shop.example", 40),
            asks("api.bank.example", 2),
            asks("once.example", 1),
            asks("_srv?.example", 7),
            old,
            executes("/usr/bin/web"),
            executes("bin/helper"),
            executes("/tmp/x"),
            seen("web", Deed::Opens("web".into()), 1),
            seen("web", Deed::Opens("nginx".into()), 1),
            seen("web", Deed::Addresses(1), 9),
            seen("web", Deed::Addresses(2), 5),
            seen("web", Deed::Addresses(3), 1),
        ];
        deeds.extend((0..8).map(|n| asks(&format!("{n}.cdn.example"), 3)));
        let text = proposed("web", deeds);
        let (_, said) = text.split_once("  server: []\n").expect("the sides first");
        assert_eq!(
            said,
            "  \
  dns:
    - \"api.bank.example\"
    - \"db.shop.example\"
    # Left out, many names below one: as they stand, all below it:
    #- \"*.cdn.example\"
    # Left out, no host name: it cannot be declared, as what a search list makes of one:
    #- \"_srv?.example\"
    # Left out, asked for once: that may be an accident, or a job that runs daily:
    #- \"once.example\"
  processes:
    - \"/usr/bin/web\"
    # Left out, no absolute path of 127 bytes at most: it cannot be declared:
    #- \"bin/helper\"
    # Left out, it lies where everybody may write: whoever gets in executes what he has brought from there:
    #- \"/tmp/x\"
    # Left out: \"nginx\" opened connections and was not seen to be executed, so that its path is not known.
  instances: 2
    # Left out, at more addresses once: that may be an accident, or how it is replaced:
  #instances: 3
  # 3 times there was more of names and programs than is kept of an identity. It is not in here.
  response: {action: flag} # or {action: contain, for: 15m}
"
        );
        let intent = parsed(&text);
        assert_eq!(intent.dns.as_ref().map(Vec::len), Some(2));
        assert_eq!((intent.processes.as_ref().map(Vec::len), intent.instances), (Some(1), Some(2)));
        // What can be declared can be moved in as it stands.
        let moved =
            text.replace("#- \"*", "- \"*").replace("#- \"once", "- \"once").replace("#- \"/tmp", "- \"/tmp");
        let intent = parsed(&moved);
        assert_eq!(
            (intent.dns.map(|all| all.len()), intent.processes.map(|all| all.len())),
            (Some(4), Some(2))
        );
    }

    #[test]
    fn of_what_was_not_seen_nothing_is_said_and_what_is_all_left_out_declares_nothing() {
        let text = proposed("web", vec![seen("web", Deed::AsksFor("once.example".into()), 1)]);
        let intent = parsed(&text);
        assert_eq!((intent.dns, intent.processes, intent.instances), (None, None, None), "{text}");
        let moved = text.replace("  #dns:", "  dns:").replace("    #- ", "    - ");
        assert_eq!(parsed(&moved).dns.map(|names| names.len()), Some(1));
    }

    #[test]
    fn jobs_of_one_pattern_are_one_class_of_names_and_each_is_at_its_own_address() {
        let job = |n: u8| {
            let asks = Deed::AsksFor("store.example".into());
            [seen(&format!("job/{n}"), asks, 1), seen(&format!("job/{n}"), Deed::Addresses(1), 1)]
        };
        let intent = parsed(&proposed("job/*", (0..2).flat_map(job).collect()));
        assert_eq!((intent.dns.map(|names| names.len()), intent.instances), (Some(1), Some(1)));
    }
}
