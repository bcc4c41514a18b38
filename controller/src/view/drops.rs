//! `tidegate drops`: what was dropped, or would have been, and why.

use super::flow::{self, Moment, end_text, ends_json, proto_name};
use super::{Format, View, print_json, say, table};
use crate::exit_code::Result;
use crate::names::verdict;
use datapath::abi::{Action, Answered, Direction, PortCounters, Reason};
use loader::Maps;
use serde_json::{Value, json};

/// Packets of one reason on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The reason.
    pub reason: Reason,
    /// The direction.
    pub direction: Direction,
    /// The interface's name, `shared` for the slot that several share.
    pub interface: String,
    /// They went on all the same (monitor mode, audited rules).
    pub audited: bool,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// All counters that are not zero.
pub fn counters(maps: &Maps) -> Result<Vec<Counter>> {
    let mut all = Vec::new();
    for port in maps.port_counters()? {
        let interface = interface(port.ifindex);
        for direction in [Direction::Ingress, Direction::Egress] {
            for (reason, audited) in Reason::ALL.iter().flat_map(|r| [(*r, false), (*r, true)]) {
                let count = port.counts[direction as usize][PortCounters::index(reason as u8, audited)];
                if count.packets > 0 {
                    let (packets, bytes) = (count.packets, count.bytes);
                    let interface = interface.clone();
                    all.push(Counter { reason, direction, interface, audited, packets, bytes });
                }
            }
        }
    }
    Ok(all)
}

/// Packets that were rejected with an answer: interface, how, how many. They are among the dropped.
pub fn answers(maps: &Maps) -> Result<Vec<(String, Answered, u64)>> {
    let mut all = Vec::new();
    for port in maps.port_counters()? {
        let counted = Answered::ALL.map(|how| (interface(port.ifindex), how, port.answers[how as usize]));
        all.extend(counted.into_iter().filter(|(.., n)| *n > 0));
    }
    Ok(all)
}

fn interface(ifindex: u32) -> String {
    match ifindex {
        0 => "shared".to_owned(),
        n => loader::netdev::name(n).unwrap_or_else(|| format!("if{n}")),
    }
}

/// Prints the drops.
pub fn print(view: &View, format: Format) -> Result<()> {
    let counters: Vec<_> =
        counters(&view.maps)?.into_iter().filter(|c| c.audited || !c.reason.passes()).collect();
    let answers = answers(&view.maps)?;
    let dropped = |row: &flow::Row| Action::from_u8(row.flow.record.action) != Action::Forwarded;
    let flows: Vec<_> = flow::rows(&view.maps)?.into_iter().filter(dropped).collect();
    if format == Format::Json {
        let flows = flows.iter().map(|row| flow_json(row, view));
        let answers = answers.iter().map(answer_json);
        return print_json(
            &flows.chain(counters.iter().map(counter_json)).chain(answers).collect::<Vec<_>>(),
        );
    }
    if counters.is_empty() && flows.is_empty() {
        return say("nothing was dropped");
    }
    let mut out = table::table(&["REASON", "VERDICT", "DIRECTION", "INTERFACE", ">PACKETS", ">BYTES"]);
    for c in &counters {
        let verdict = if c.audited { "AUDIT" } else { "DROPPED" };
        let (direction, bytes) = (c.direction.name().to_owned(), table::bytes(c.bytes));
        let row = [
            c.reason.name().into(),
            verdict.into(),
            direction,
            c.interface.clone(),
            c.packets.to_string(),
            bytes,
        ];
        out.add_row(row);
    }
    say(&table::text(&out))?;
    for (interface, how, n) in &answers {
        say(&format!("{n} of them answered on {interface}: {}", how.name()))?;
    }
    if flows.is_empty() {
        return Ok(());
    }
    let mut out =
        table::table(&["REASON", "RULE", "VERDICT", "SOURCE", "DESTINATION", "PROTO", ">PACKETS", ">LAST"]);
    let now = Moment::now();
    for row in &flows {
        let (key, record) = (&row.flow.key, &row.flow.record);
        let [source, destination] = row.identities();
        out.add_row([
            Reason::from_u8(record.reason).name().to_owned(),
            table::or_dash(view.names.rule(record.rule)),
            verdict(record.action).to_owned(),
            end_text(key.end(row.originator), source, &view.names, key.proto),
            end_text(key.end(row.originator.other()), destination, &view.names, key.proto),
            proto_name(key.proto),
            row.packets().iter().sum::<u64>().to_string(),
            format!("{} ago", table::duration(now.ago_ns(record.last_ns))),
        ]);
    }
    say(&format!("\n{}", table::text(&out)))
}

fn counter_json(c: &Counter) -> Value {
    json!({
        "reason": c.reason.name(),
        "verdict": if c.audited { "AUDIT" } else { "DROPPED" },
        "traffic_direction": c.direction.name(),
        "interface": c.interface,
        "count": {"packets": c.packets, "bytes": c.bytes},
    })
}

fn answer_json((interface, how, n): &(String, Answered, u64)) -> Value {
    json!({"answered": how.name(), "interface": interface, "count": {"packets": n}})
}

fn flow_json(row: &flow::Row, view: &View) -> Value {
    let record = &row.flow.record;
    let mut object = ends_json(&row.flow.key, row.originator, row.identities(), &view.names);
    object.insert("reason".into(), json!(Reason::from_u8(record.reason).name()));
    object.insert("rule".into(), json!(view.names.rule(record.rule)));
    object.insert("verdict".into(), json!(verdict(record.action)));
    object.insert("packets".into(), json!(row.packets().iter().sum::<u64>()));
    object.insert("bytes".into(), json!(row.bytes().iter().sum::<u64>()));
    Value::Object(object)
}
