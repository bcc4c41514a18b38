//! `tidegate story`: what happened to an identity, from the files of events.

use super::{Format, OutputArg, encoded, print_json, say};
use crate::audit::when;
use crate::exit_code::Result;
use crate::instance::Instance;
use crate::stream::Files;
use crate::stream::story::{Story, Wanted};
use jiff::Timestamp;

/// Whose story.
#[derive(Clone, Debug, clap::Args)]
pub struct StoryArgs {
    /// A SPIFFE ID, or a part of several
    identity: String,
    /// From then on: a time (RFC 3339), or so long ago, such as 24h
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<Timestamp>,
    /// Until then
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<Timestamp>,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArg,
}

impl StoryArgs {
    /// Where the daemon shows it.
    pub fn path(&self) -> String {
        let time = |name: &str, time: &Option<Timestamp>| {
            time.map(|time| format!("&{name}={}", encoded(&time.to_string()))).unwrap_or_default()
        };
        let (since, until) = (time("since", &self.since), time("until", &self.until));
        format!("/v1/story?identity={}{since}{until}", encoded(&self.identity))
    }

    /// What is wanted.
    pub fn wanted(&self) -> Wanted {
        Wanted { identity: self.identity.clone(), since: self.since, until: self.until }
    }
}

/// Prints it: for programs, the events themselves.
pub fn print(instance: &Instance, wanted: &Wanted, format: Format) -> Result<()> {
    let (files, mut chosen) = (Files::new(instance.events_dir()), wanted.chosen());
    let may_be = |line: &str| wanted.may_be(line);
    if format == Format::Json {
        let mut printed = Ok(());
        files.each(may_be, |event| {
            if printed.is_ok() && chosen.takes(&event) {
                printed = print_json(&event);
            }
        })?;
        return printed;
    }
    let mut story = Story::of(&wanted.identity);
    files.each(may_be, |event| {
        if chosen.takes(&event) {
            story.add(&event);
        }
    })?;
    let lines: Vec<_> = story.lines().collect();
    if lines.is_empty() {
        return say(&format!("no event that is kept tells of {}", wanted.identity));
    }
    lines.iter().try_for_each(|line| say(line))
}
