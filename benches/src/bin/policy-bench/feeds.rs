//! Feeds in each form: from `policy apply` until every prefix is judged, and a file that is written again.

use crate::Arguments;
use crate::daemon::{Daemon, fact, times};
use anyhow::{Context, Result, bail};
use datapath::abi::Addr;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tidegate_benches::report::{Fact, Report};

/// So many seconds at most are wanted for a feed.
const MOST: f64 = 3.0;

const EMPTY: &str =
    "apiVersion: tidegate.dev/v1\nkind: Blocklist\nmetadata: {name: bad}\nspec: {entries: []}\n";

/// Measures each form, and a reload.
pub fn measure(report: &mut Report, arguments: &Arguments) -> Result<()> {
    let Arguments { prefixes, rounds, .. } = *arguments;
    for form in [Form::Plain, Form::Cidr, Form::Drop, Form::DropJson, Form::Netset] {
        let daemon = Daemon::start(&arguments.tidegate)?;
        let empty = daemon.file("empty.yaml", EMPTY)?;
        let feed = daemon.file("feed", &form.text(prefixes, 0))?;
        let policy = daemon.file("feed.yaml", &policy(&feed, form))?;
        let mut took = Vec::new();
        for _ in 0..rounds {
            daemon.run(&["policy", "apply", &empty])?;
            took.push(daemon.run(&["policy", "apply", &policy])?);
            // The command returns when the epoch is flipped: what it brought is what counts.
            judged(&daemon, &form, prefixes - 1, 0)?;
        }
        let name = format!("a feed of {prefixes} prefixes, {}", form.name());
        times(report, &format!("{name}, from the command until it is judged by"), &took, Some(MOST));
        daemon.state_memory(report, &name)?;
        if matches!(form, Form::Netset) {
            reload(report, &daemon, &form, &feed, prefixes)?;
        }
    }
    Ok(())
}

/// One in a hundred prefixes goes, and as many come.
fn reload(report: &mut Report, daemon: &Daemon, form: &Form, feed: &str, prefixes: u32) -> Result<()> {
    let part = prefixes / 100;
    let text = form.text(prefixes, part);
    let beside = daemon.file("feed.new", &text)?;
    let begin = Instant::now();
    std::fs::rename(beside, feed).context("renaming the feed")?;
    while judged(daemon, form, prefixes - 1, part).is_err() {
        if begin.elapsed() > Duration::from_secs(60) {
            bail!("the feed was not read again");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = begin.elapsed().as_secs_f64();
    let name = format!(
        "{part} of {prefixes} prefixes replaced in the file, until it is judged by (1 s of it in case that somebody still writes)"
    );
    fact(report, Fact::of(name, took, "s"));
    Ok(())
}

/// Whether the `n`th prefix of a feed that begins at `from` is blocked in the epoch that counts.
fn judged(daemon: &Daemon, form: &Form, n: u32, from: u32) -> Result<()> {
    let maps = daemon.maps()?;
    let epoch = maps.config.get()?.epoch;
    let addr = Addr::v4(form.address(n + from).octets());
    let block = maps.blocklist.longest(&addr, 128)?.context("nothing is said of the last prefix")?;
    if block.at(epoch).rule == 0 {
        bail!("the last prefix is not blocked");
    }
    Ok(())
}

fn policy(feed: &str, form: Form) -> String {
    let format = form.format();
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Blocklist\nmetadata: {{name: bad}}\n\
         spec: {{feeds: [{{name: all, path: {feed}, format: {format}, expiresAfter: 7d}}]}}\n"
    )
}

/// What a feed looks like.
#[derive(Clone, Copy)]
enum Form {
    Plain,
    Cidr,
    Drop,
    DropJson,
    Netset,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Cidr => "CIDR",
            Self::Drop => "Spamhaus DROP",
            Self::DropJson => "Spamhaus DROP in JSON",
            Self::Netset => "FireHOL netset",
        }
    }

    fn format(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Cidr => "cidr",
            Self::Drop | Self::DropJson => "spamhaus-drop",
            Self::Netset => "netset",
        }
    }

    /// The network of the `n`th prefix: every other /24 where there are prefixes, scattered addresses where there are none.
    fn address(self, n: u32) -> Ipv4Addr {
        match self {
            Self::Plain => Ipv4Addr::from(0x0100_0000 + n * 1009),
            _ => Ipv4Addr::from(0x0100_0000 + (n << 9)),
        }
    }

    fn text(self, prefixes: u32, from: u32) -> String {
        let mut text = String::with_capacity(prefixes as usize * 20);
        if let Self::Netset = self {
            let _ = writeln!(
                text,
                "#\n# bench\n#\n# ipv4 hash:net ipset\n#\n# Entries         : {prefixes} subnets\n#"
            );
        }
        for n in from..from + prefixes {
            let address = self.address(n);
            let _ = match self {
                Self::Plain => writeln!(text, "{address}"),
                Self::Cidr | Self::Netset => writeln!(text, "{address}/24"),
                Self::Drop => writeln!(text, "{address}/24 ; SBL{}", n + 1),
                Self::DropJson => {
                    writeln!(
                        text,
                        "{{\"cidr\":\"{address}/24\",\"sblid\":\"SBL{}\",\"rir\":\"arin\"}}",
                        n + 1
                    )
                }
            };
        }
        if let Self::DropJson = self {
            let _ = writeln!(text, "{{\"type\":\"metadata\",\"records\":{prefixes}}}");
        }
        text
    }
}
