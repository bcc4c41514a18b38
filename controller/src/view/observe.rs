//! `tidegate observe`: events as they happen, and which of them somebody wants to see.

use super::{Format, OutputArg, event, print_json, say};
use crate::audit::when;
use crate::client;
use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::stream::story::Wanted;
use crate::stream::{KINDS, kind};
use http_body_util::BodyExt;
use hyper::Method;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::VecDeque;

/// Which events. All that is asked has to be so.
#[derive(Clone, Debug, clap::Args)]
pub struct ObserveArgs {
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many that fit
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    last: Option<usize>,
    /// From then on: a time (RFC 3339), or so long ago, such as 5m; of what the daemon remembers
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<Timestamp>,
    /// Until then
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<Timestamp>,
    /// Only these kinds of events (may be repeated)
    #[arg(long, visible_alias = "type", value_name = "KIND", value_delimiter = ',', value_parser = KINDS)]
    kind: Vec<String>,
    /// Only this verdict: FORWARDED, DROPPED, AUDIT
    #[arg(long, value_name = "VERDICT", ignore_case = true)]
    #[arg(value_parser = ["FORWARDED", "DROPPED", "AUDIT"])]
    verdict: Option<String>,
    /// Only what was judged for this reason, such as POLICY_DENIED
    #[arg(long, visible_alias = "drop-reason-desc", value_name = "REASON")]
    reason: Option<String>,
    /// Only what concerns this SPIFFE ID, or identities with this in theirs: an end, a finding, a record
    #[arg(long, value_name = "TEXT")]
    identity: Option<String>,
    /// Only what has this source: an address, or a part of a SPIFFE ID
    #[arg(long, value_name = "TEXT")]
    from: Option<String>,
    /// Only what has this destination
    #[arg(long, value_name = "TEXT")]
    to: Option<String>,
    /// Only this protocol, such as tcp, udp, icmpv4
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// Only this port of one end
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    #[command(flatten)]
    output: OutputArg,
}

impl ObserveArgs {
    fn wants(&self, event: &Value) -> bool {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let same = |wanted: &Option<String>, has: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(has))
        };
        let end = |wanted: &Option<String>, side: &str| {
            let [id, address] = [format!("/{side}/spiffe_id"), format!("/IP/{side}")];
            wanted.as_ref().is_none_or(|wanted| text(&address) == wanted || text(&id).contains(wanted))
        };
        let l4 = || event.get("l4").and_then(Value::as_object).into_iter().flatten();
        let is_port = |port: u16| {
            let of = ["source_port", "destination_port"];
            l4().any(|(_, fields)| of.iter().any(|field| fields[*field].as_u64() == Some(port.into())))
        };
        let is_protocol = |name: &String| l4().any(|(own, _)| own.eq_ignore_ascii_case(name));
        // The empty text is in every SPIFFE ID, and an event of nobody has none.
        let of = Wanted {
            identity: self.identity.clone().unwrap_or_default(),
            since: self.since,
            until: self.until,
        };
        of.is_in_time(event)
            && (self.identity.is_none() || of.concerns(event))
            && (self.kind.is_empty() || self.kind.iter().any(|wanted| wanted == kind(event)))
            && same(&self.verdict, text("/verdict"))
            && same(&self.reason, text("/drop_reason_desc"))
            && end(&self.from, "source")
            && end(&self.to, "destination")
            && self.protocol.as_ref().is_none_or(is_protocol)
            && self.port.is_none_or(is_port)
    }
}

/// Prints what the daemon remembers, and with `--follow` what comes.
pub async fn run(instance: &Instance, args: &ObserveArgs) -> Result<()> {
    let path = format!("/v1/observe?follow={}", args.follow);
    let mut body = client::send(instance, Method::GET, &path, &()).await?.into_body();
    let (mut rest, mut kept) = (Vec::new(), VecDeque::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| {
            Failure::new(Code::NoDaemon, format!("the daemon is gone, or lets you see no more: {e}"))
        })?;
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value =
                serde_json::from_slice(&line).map_err(|e| Failure::failed("the daemon's answer", e))?;
            if event.get("lost_events").is_none() && !args.wants(&event) {
                continue;
            }
            match args.last {
                None => show(&event, args.output.output)?,
                Some(most) => {
                    kept.push_back(event);
                    kept.drain(..kept.len().saturating_sub(most));
                }
            }
        }
    }
    kept.iter().try_for_each(|event| show(event, args.output.output))
}

fn show(event: &Value, format: Format) -> Result<()> {
    match (format, event.pointer("/lost_events/num_events_lost")) {
        (Format::Json, _) => print_json(event),
        (Format::Table, Some(lost)) => {
            say(&format!("{lost} events are not here: they came faster than they were read"))
        }
        (Format::Table, None) => say(&event::line(event)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ObserveArgs,
    }

    fn asked(words: &str) -> ObserveArgs {
        Line::try_parse_from(format!("observe {words}").split(' ')).unwrap_or_else(|e| panic!("{e}")).args
    }

    #[test]
    fn events_are_chosen_by_kind_time_verdict_reason_ends_protocol_and_port() {
        let orders = "spiffe://a.example/ns/shop/sa/orders";
        let verdict = json!({
            "event": "verdict", "time": "2026-11-01T12:00:00Z", "verdict": "DROPPED", "drop_reason_desc": "POLICY_DENIED",
            "source": {"spiffe_id": orders}, "destination": {"spiffe_id": null},
            "IP": {"source": "10.1.0.2", "destination": "10.2.0.2"}, "l4": {"TCP": {"source_port": 4000, "destination_port": 443}},
        });
        let finding =
            json!({"event": "finding", "time": "2026-11-01T12:00:01Z", "finding": {"identities": [orders]}});
        let nobody = json!({"event": "drop", "time": "2026-11-01T12:00:02Z", "verdict": "DROPPED"});
        let all = [verdict, finding, nobody];
        let chosen = |words: &str| {
            let args = asked(words);
            let kinds = all.iter().filter(|event| args.wants(event)).map(kind);
            kinds.collect::<Vec<_>>().join(" ")
        };
        for (words, wanted) in [
            ("-f", "verdict finding drop"),
            ("--kind verdict,drop", "verdict drop"),
            ("--type finding", "finding"),
            ("--verdict dropped", "verdict drop"),
            ("--verdict dropped --identity sa/orders", "verdict"),
            ("--reason policy_denied", "verdict"),
            ("--reason BLOCKLISTED", ""),
            ("--identity sa/orders", "verdict finding"),
            ("--identity spiffe://a.example/ns/shop/sa/orders", "verdict finding"),
            ("--identity spiffe://a.example/ns/shop/sa", ""),
            ("--from sa/orders", "verdict"),
            ("--from 10.1.0.2 --to 10.2.0.2", "verdict"),
            ("--to 10.1.0.2", ""),
            ("--protocol tcp --port 443", "verdict"),
            ("--protocol udp", ""),
            ("--port 4001", ""),
            ("--since 2026-11-01T12:00:01Z", "finding drop"),
            ("--until 2026-11-01T12:00:01Z", "verdict finding"),
        ] {
            assert_eq!(chosen(words), wanted, "{words}");
        }
        assert!(Line::try_parse_from(["observe", "--kind", "nonsense"]).is_err());
        assert!(Line::try_parse_from(["observe", "-f", "--last", "3"]).is_err());
    }
}
