//! `tidegate block list`: entries one by one, feeds as a whole, and what of them concerns an address.

use super::table::{self, or_dash};
use super::{Format, OutputArg, lists::remaining, print_json, say};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::document::{BlockEntry, Blocklist};
use crate::policy::feed::{Entry, Feed};
use crate::policy::selector::Selector;
use crate::policy::{Documents, Prefix};
use crate::state::{MANUAL_BLOCKLIST, State};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Which blocks.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Which {
    /// Only those that concern these addresses, entries of feeds too
    #[arg(long, value_name = "CIDR")]
    pub of: Option<Prefix>,
    /// Every entry of one feed
    #[arg(long, value_name = "BLOCKLIST/FEED", conflicts_with = "of")]
    pub feed: Option<String>,
}

/// Which blocks, and how to print them.
#[derive(Clone, Debug, clap::Args)]
pub struct BlockListArgs {
    #[command(flatten)]
    which: Which,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArg,
}

impl BlockListArgs {
    /// Where the daemon shows it.
    pub fn path(&self) -> String {
        let Which { of, feed } = &self.which;
        let of = of.map(|of| format!("?of={of}"));
        let feed = feed.as_ref().map(|feed| format!("?feed={feed}"));
        format!("/v1/blocks{}", of.or(feed).unwrap_or_default())
    }

    /// Prints them.
    pub fn print(&self, state: &State) -> Result<()> {
        print(state, &self.which, self.output.output)
    }
}

/// Something that is blocked.
enum Block<'d> {
    Entry(&'d Blocklist, &'d BlockEntry),
    Feed(&'d Blocklist, &'d Feed),
    OfFeed(&'d Blocklist, &'d Feed, &'d Entry),
}

/// Prints what is blocked.
pub fn print(state: &State, which: &Which, format: Format) -> Result<()> {
    let now = Timestamp::now();
    let documents = state.effective(now);
    let blocks = found(&documents, which)?;
    if format == Format::Json {
        return print_json(&blocks.iter().map(Block::json).collect::<Vec<_>>());
    }
    if blocks.is_empty() {
        return say(if which.of.is_some() { "nothing of it is blocked" } else { "nothing is blocked" });
    }
    let mut out = table::table(&["WHAT", "ENDS", "REASON", "FROM"]);
    for block in &blocks {
        out.add_row(block.row(now));
    }
    say(&table::text(&out))
}

fn found<'d>(documents: &'d Documents, which: &Which) -> Result<Vec<Block<'d>>> {
    let lists = &documents.blocklists;
    let feeds = || lists.iter().flat_map(|list| list.feeds.iter().map(move |feed| (list, feed)));
    if let Some(name) = &which.feed {
        let named = feeds().find(|(list, feed)| Documents::rule_key(&list.name, &feed.name) == *name);
        let Some((list, feed)) = named else {
            let message = format!("there is no feed `{name}`: `tidegate block list` names them");
            return Err(Failure::new(Code::Usage, message));
        };
        return Ok(feed.entries.list().iter().map(|entry| Block::OfFeed(list, feed, entry)).collect());
    }
    let entries =
        lists.iter().flat_map(|list| list.entries.iter().map(move |entry| Block::Entry(list, entry)));
    let Some(of) = which.of else {
        return Ok(entries.chain(feeds().map(|(list, feed)| Block::Feed(list, feed))).collect());
    };
    let concerns = |block: &Block<'_>| match block {
        Block::Entry(_, BlockEntry { target, .. }) => match &target.selector {
            Some(Selector::Cidr(cidr)) => cidr.covers(&of),
            Some(_) => false, // who has the address is for `tidegate why` to say
            None => true,
        },
        _ => true,
    };
    let of_feeds = feeds().flat_map(|(list, feed)| {
        feed.entries.covering(&of).map(move |entry| Block::OfFeed(list, feed, entry))
    });
    Ok(entries.filter(concerns).chain(of_feeds).collect())
}

impl Block<'_> {
    fn json(&self) -> Value {
        match self {
            Self::Entry(list, entry) => {
                let mut row =
                    json!({"reason": entry.reason, "not_after": entry.not_after, "blocklist": list.name});
                // `cidr`, `spiffeId`, `ports` and so on, as in the file.
                if let (Value::Object(row), Ok(Value::Object(target))) =
                    (&mut row, serde_json::to_value(&entry.target))
                {
                    row.extend(target);
                }
                row
            }
            Self::Feed(list, feed) => json!({
                "blocklist": list.name, "feed": feed.name, "path": feed.path, "format": feed.format,
                "prefixes": feed.entries.list().len(), "written_at": feed.entries.written_at(),
                "not_after": feed.not_after(), "digest": feed.entries.digest(),
            }),
            Self::OfFeed(list, feed, entry) => json!({
                "blocklist": list.name, "feed": feed.name, "path": feed.path, "cidr": entry.prefix,
                "line": entry.line, "sbl": (entry.sbl != 0).then(|| format!("SBL{}", entry.sbl)),
                "not_after": feed.not_after(),
            }),
        }
    }

    fn row(&self, now: Timestamp) -> [String; 4] {
        let ends = |end: Option<Timestamp>| {
            if end.is_none() { "never".into() } else { remaining(end, now) }
        };
        match self {
            Self::Entry(list, entry) => {
                let manual = list.name == MANUAL_BLOCKLIST;
                let from = if manual { "block add".to_owned() } else { entry.place.to_string() };
                [entry.target.to_string(), ends(entry.not_after), or_dash(entry.reason.as_deref()), from]
            }
            Self::Feed(list, feed) => {
                let what = format!("{} prefixes", feed.entries.list().len());
                [what, ends(feed.not_after()), format!("feed {}/{}", list.name, feed.name), feed.path.clone()]
            }
            Self::OfFeed(list, feed, entry) => [
                entry.prefix.to_string(),
                ends(feed.not_after()),
                format!("feed {}/{}", list.name, feed.name),
                feed.source(entry),
            ],
        }
    }
}
