//! Sources of bindings.

use super::encode::{counter, gauge, labels};
use super::kept::OTHER;
use crate::daemon::{Shared, lock};
use prometheus::proto::MetricFamily;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Sources that have labels of their own; the rest add up.
pub(super) const SOURCES: usize = 16;

/// What sources of bindings say.
pub(super) fn sources(shared: &Shared) -> Vec<MetricFamily> {
    let (mut by_source, ambiguous, prefixes) = {
        let committed = lock(&shared.committed);
        let mut by_source =
            BTreeMap::from([("policy".into(), committed.state.documents().workloads.len() as u64)]);
        for (source, _) in committed.state.bindings.iter() {
            *by_source.entry(source.to_string()).or_default() += 1;
        }
        let feeds = committed.state.documents().feeds();
        let prefixes: usize = feeds.map(|feed| feed.entries.list().len()).sum();
        (by_source, committed.ambiguous().count(), prefixes)
    };
    if by_source.len() > SOURCES {
        let beyond: Vec<String> = by_source.keys().skip(SOURCES).cloned().collect();
        let other = beyond.iter().filter_map(|name| by_source.remove(name)).sum();
        by_source.insert(OTHER.into(), other);
    }
    let (reloads, feeds) = (&shared.reloads, &shared.feeds);
    let read = [("taken", &feeds.taken), ("refused", &feeds.refused)];
    let results = [("taken", &reloads.taken), ("refused", &reloads.refused)];
    vec![
        gauge(
            "tidegate_bindings",
            "Bindings by source; of `policy`, workloads in the files that were applied.",
            by_source.iter().map(|(source, n)| (labels(&[("source", source)]), *n as f64)),
        ),
        gauge(
            "tidegate_ambiguous_bindings",
            "Addresses and prefixes that several identities claim: they have none.",
            [(vec![], ambiguous as f64)].into_iter(),
        ),
        counter(
            "tidegate_identity_reloads_total",
            "Times that changed files of --identities were taken, or were wrong and changed nothing.",
            results.iter().map(|(result, n)| (labels(&[("result", result)]), n.load(Ordering::Relaxed))),
        ),
        gauge(
            "tidegate_identity_files_wrong",
            "1 while what stands in the files of --identities is wrong, and what they said before goes on.",
            [(vec![], reloads.is_wrong.load(Ordering::Relaxed) as f64)].into_iter(),
        ),
        gauge(
            "tidegate_feed_prefixes",
            "Prefixes in all feeds of blocklists.",
            [(vec![], prefixes as f64)].into_iter(),
        ),
        counter(
            "tidegate_feed_reloads_total",
            "Times that the written file of a feed was taken, or was wrong and changed nothing.",
            read.iter().map(|(result, n)| (labels(&[("result", result)]), n.load(Ordering::Relaxed))),
        ),
        gauge(
            "tidegate_feeds_wrong",
            "Feeds whose files are wrong or not there, and what they said before goes on.",
            [(vec![], feeds.wrong.load(Ordering::Relaxed) as f64)].into_iter(),
        ),
    ]
}
