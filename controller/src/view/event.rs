//! Events of the ring buffer in Hubble's field names.

use super::flow::{Moment, alert_name, ends_json};
use super::table;
use crate::audit::told;
use crate::bindings::SourceName;
use crate::governance::{Evidence, Finding, Request, Role};
use crate::hello::{ClientHello, Found};
use crate::names::{Names, verdict};
use crate::policy::ports::protocol_name;
use crate::policy::spiffe::SpiffeId;
use datapath::abi::{
    Action, ClosedEvent, Did, Event, EventKind, HandshakeKind, HandshakeOutcome, HelloSegment, HostEvent,
    Reason, Side,
};
use datapath::track::{conn_state, history};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// An event as JSON; `None` for one of another version.
pub fn json(bytes: &[u8], names: &Names, now: &Moment, hello: Option<&ClientHello>) -> Option<Value> {
    let mut object = match bytemuck::try_pod_read_unaligned::<ClosedEvent>(bytes) {
        Ok(closed) => closed_json(&closed, names, now),
        Err(_) => {
            let event = bytemuck::try_pod_read_unaligned::<Event>(bytes).ok()?;
            event.kind()?;
            head(&event, names, now)
        }
    };
    if let Some(hello) = hello {
        add_hello(&mut object, hello);
    }
    Some(Value::Object(object))
}

/// A ClientHello that was read, as an event.
pub fn hello_json(found: &Found, names: &Names, now: &Moment) -> Value {
    let mut object = piece_json(&found.segment, "client_hello", names, now);
    add_hello(&mut object, &found.hello);
    Value::Object(object)
}

/// A query for a name, as an event. Hubble has it in `l7.dns`.
pub fn query_json(piece: &HelloSegment, name: &str, names: &Names, now: &Moment) -> Value {
    let mut object = piece_json(piece, "dns_query", names, now);
    object.insert("l7".into(), json!({"type": "REQUEST", "dns": {"query": name}}));
    Value::Object(object)
}

/// What a local workload did, as an event.
pub fn host_json(
    event: &HostEvent,
    did: Did,
    (id, cgroup): (&SpiffeId, &str),
    name: &str,
    now: &Moment,
) -> Value {
    let mut object = json!({
        "time": now.wall(event.time_ns), "verdict": Action::Forwarded.name(), "source": {"spiffe_id": id},
    });
    match did {
        Did::Exec => {
            object["event"] = json!("process");
            object["process"] = json!({"pid": event.pid, "cgroup": cgroup, "path": name});
        }
        Did::Connect => {
            object["event"] = json!("socket");
            object["process"] = json!({"pid": event.pid, "cgroup": cgroup, "name": name});
            object["IP"] = json!({"destination": event.deed.addr.to_ip()});
            let protocol = protocol_name(event.deed.proto).to_uppercase();
            object["l4"] = json!({protocol: {"destination_port": event.deed.port}});
        }
    }
    object
}

fn piece_json(segment: &HelloSegment, event: &str, names: &Names, now: &Moment) -> Map<String, Value> {
    let originator = if segment.originator == 0 { Side::A } else { Side::B };
    let mut object = ends_json(&segment.key, originator, segment.identity, names);
    object.insert("time".into(), json!(now.wall(segment.time_ns)));
    object.insert("event".into(), json!(event));
    object.insert("verdict".into(), json!(Action::Forwarded.name()));
    object.insert("is_reply".into(), json!(false));
    let interface = loader::netdev::name(segment.ifindex);
    object.insert("interface".into(), json!({"index": segment.ifindex, "name": interface}));
    object
}

/// What became of what a source of bindings said, as an event.
pub fn source_json(source: &SourceName, outcome: &str, text: &str) -> Value {
    let time = jiff::Timestamp::now().to_string();
    json!({"time": time, "event": "identity_source", "source_name": source, "outcome": outcome, "message": text})
}

/// A finding, as an event: with the ends of what it was found in last, as that was judged. `lease` says which lease an identity had then.
pub fn finding_json(finding: &Finding, lease: impl Fn(&Evidence, &SpiffeId, IpAddr) -> Value) -> Value {
    let mut told = json!({
        "time": finding.last_seen.to_string(), "event": "finding", "finding": finding,
        "decision": finding.decided(), "outcome": finding.state.name(finding.last_seen),
    });
    let Some(last) = finding.evidence.back() else { return told };
    let [own, peer] = match finding.key.role {
        Role::Client => ["source", "destination"],
        Role::Server => ["destination", "source"],
    };
    told[own] = json!({"spiffe_id": last.identity, "lease": lease(last, &last.identity, last.address)});
    told["IP"][own] = json!(last.address);
    if last.peer_address != last.address {
        let lease = last.peer.as_ref().map(|peer| lease(last, peer, last.peer_address));
        told[peer] = json!({"spiffe_id": last.peer, "lease": lease});
        told["IP"][peer] = json!(last.peer_address);
    }
    told["actor"] = told["source"]["spiffe_id"].clone();
    let judged = [("verdict", json!(last.verdict)), ("drop_reason_desc", json!(last.reason))];
    let by = [("rule", json!(last.rule)), ("epoch", json!(last.epoch))];
    judged.into_iter().chain(by).for_each(|(field, value)| told[field] = value);
    told
}

/// A record of what was done, as an event.
pub fn record_json(record: &str) -> Option<Value> {
    let record: Value = serde_json::from_str(record).ok()?;
    let (what, who) = (&record["what"], &record["by"]["who"]);
    let mut told = json!({"time": record["at"], "event": "record", "actor": who});
    for field in ["decision", "outcome"] {
        what.get(field).into_iter().for_each(|value| told[field] = value.clone());
    }
    // Whoever agreed last has it done.
    let is_agreed = record["kind"] == "approval" && what["decision"] == "approved";
    let is_done =
        record["by"]["how"].as_str().is_some_and(|how| how.starts_with("approval ")) && who != "the daemon";
    if is_agreed || is_done {
        told["approvers"] = json!([who]);
    }
    told["record"] = record;
    Some(told)
}

/// A containment that waits for people, or waited, as an event.
pub fn approval_json(request: &Request) -> Value {
    let time = jiff::Timestamp::now().to_string();
    let approval = json!(request);
    let approvers: Vec<_> = request.agreed.iter().map(|agreed| &agreed.by).collect();
    let mut told = json!({
        "time": time, "event": "approval", "actor": request.asked_by, "decision": request.doing(),
        "outcome": approval["state"], "approvers": approvers, "source": {"spiffe_id": request.identity},
    });
    if let Some(access) = &request.access {
        told["destination"] = json!({"spiffe_id": access.to});
    }
    told["approval"] = approval;
    told
}

/// Adds the fields of a ClientHello.
pub fn add_hello(object: &mut Map<String, Value>, hello: &ClientHello) {
    if let Ok(Value::Object(fields)) = serde_json::to_value(hello) {
        object.extend(fields);
    }
}

fn head(event: &Event, names: &Names, now: &Moment) -> Map<String, Value> {
    let originator = if event.originator == 0 { Side::A } else { Side::B };
    let [a, b] = event.identity;
    let identities = if originator == Side::A { [a, b] } else { [b, a] };
    let mut object = match event.key.family {
        0 => Map::new(),
        _ => ends_json(&event.key, originator, identities, names),
    };
    let reason = Reason::from_u8(event.reason);
    let kind = match event.kind() {
        Some(EventKind::Drop) => "drop",
        Some(EventKind::Handshake) => "handshake",
        Some(EventKind::Closed) => "closed",
        _ => "verdict",
    };
    object.insert("time".into(), json!(now.wall(event.time_ns)));
    object.insert("event".into(), json!(kind));
    object.insert("verdict".into(), json!(verdict(event.action)));
    object.insert("drop_reason_desc".into(), json!(reason.name()));
    if !reason.passes() {
        object.insert("drop_reason".into(), json!(reason.code()));
    }
    object.insert("rule".into(), json!(names.rule(event.rule)));
    object.insert("traffic_direction".into(), json!(event.direction().name()));
    object.insert("is_reply".into(), json!(event.from_b != event.originator));
    let interface = loader::netdev::name(event.ifindex);
    object.insert("interface".into(), json!({"index": event.ifindex, "name": interface}));
    object.insert("epoch".into(), json!(event.epoch));
    object.insert("revision".into(), json!(names.revision(event.epoch)));
    object.insert("frame_bytes".into(), json!(event.frame_bytes));
    if event.kind() == Some(EventKind::Handshake) {
        object.insert("handshake".into(), handshake(event));
    }
    object
}

fn handshake(event: &Event) -> Value {
    json!({
        "kind": HandshakeKind::from_u8(event.handshake).map(HandshakeKind::name),
        "outcome": HandshakeOutcome::from_u8(event.outcome).map(HandshakeOutcome::name),
        "duration_ns": event.duration_ns,
        "inferred": event.inferred != 0,
        "alert": (event.alert_level != 0).then(|| alert_name(event.alert_description)),
    })
}

/// The head of a connection that is over, with what its packets were last judged by, as it was counted. Where that is not known any more,
/// they were let pass: nobody else has a connection.
pub fn judged(closed: &ClosedEvent) -> Event {
    let ClosedEvent { event, flow, .. } = *closed;
    // It is no reply to anything: who opened it is told first.
    let event = Event { from_b: event.originator, ..event };
    match flow.action {
        0 => Event { action: Action::Forwarded as u8, reason: Reason::Forwarded as u8, ..event },
        action => Event { action, reason: flow.reason, rule: flow.rule, epoch: flow.epoch, ..event },
    }
}

fn closed_json(closed: &ClosedEvent, names: &Names, now: &Moment) -> Map<String, Value> {
    let mut object = head(&judged(closed), names, now);
    let connection = &closed.connection;
    object.insert("conn_state".into(), json!(conn_state(connection, closed.event.key.proto)));
    object.insert("history".into(), json!(history(connection)));
    object.insert("tls".into(), json!(connection.tls_state().name()));
    object.insert("packets".into(), json!(closed.flow.packets.iter().sum::<u64>()));
    object.insert("bytes".into(), json!(closed.flow.bytes.iter().sum::<u64>()));
    let (orig, resp) = (connection.originator_side(), connection.originator_side().other());
    for (name, side) in [("orig", orig), ("resp", resp)] {
        object.insert(format!("{name}_pkts"), json!(closed.flow.packets[side.index()]));
        object.insert(format!("{name}_ip_bytes"), json!(closed.flow.bytes[side.index()]));
    }
    let last_ns = closed.flow.last_ns.max(connection.last_ns);
    object.insert("duration_ns".into(), json!(last_ns.saturating_sub(connection.opened_ns)));
    object
}

/// An event of `/v1/observe` as a line for people.
pub fn line(event: &Value) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let time = text("/time").and_then(|t| t.get(11..23)).unwrap_or("-");
    if text("/event") == Some("enrolment") {
        return enrolment(event, time);
    }
    if text("/event") == Some("identity_source") {
        let [source, outcome, message] =
            ["/source_name", "/outcome", "/message"].map(|p| text(p).unwrap_or("-"));
        return format!("{time}  identities of source {source} {outcome}: {message}");
    }
    if text("/event") == Some("finding") {
        let id = event.pointer("/finding/id").and_then(Value::as_u64).unwrap_or(0);
        let [decision, why] = ["/finding/decision", "/finding/why"].map(|p| text(p).unwrap_or("-"));
        return format!("{time}  finding {id} ({decision}): {why}");
    }
    if let Some(request) = event.get("approval") {
        let [state, id, why] =
            ["state", "identity", "why"].map(|field| request[field].as_str().unwrap_or("-"));
        let what = match request.pointer("/access/to").and_then(Value::as_str) {
            Some(to) => format!("access of {id} to {to}"),
            None => format!("containing {id}"),
        };
        return format!("{time}  approval {} of {what} ({state}): {why}", request["id"]);
    }
    if let Some(process) = event.get("process") {
        let id = text("/source/spiffe_id").unwrap_or("-");
        let by = |field: &str| process.get(field).and_then(Value::as_str).unwrap_or("-");
        return match text("/event") {
            Some("socket") => {
                let l4 =
                    event.get("l4").and_then(|l4| l4.as_object()?.keys().next().cloned()).unwrap_or_default();
                format!("{time}  {id}: {} connects to {}  {l4}", by("name"), end(event, "destination"))
            }
            _ => format!("{time}  {id} executes {}", by("path")),
        };
    }
    if let Some(record) = event.get("record") {
        let done = serde_json::from_value(record.clone()).map(|record| told(&record, None));
        return format!("{time}  record {}, {}", record["seq"], done.as_deref().unwrap_or("-"));
    }
    let ends = match event.pointer("/IP/source") {
        Some(_) => format!("{} -> {}", end(event, "source"), end(event, "destination")),
        None => "(no IP)".into(),
    };
    let l4 = event.get("l4").and_then(|l4| l4.as_object()?.keys().next().cloned()).unwrap_or_default();
    let mut line = format!(
        "{time}  {:<9}  {:<7}  {ends}  {l4}  {}",
        text("/verdict").unwrap_or("-"),
        text("/traffic_direction").unwrap_or("-"),
        text("/rule").or(text("/drop_reason_desc")).unwrap_or("-"),
    );
    if let Some(outcome) = text("/handshake/outcome") {
        let took = event.pointer("/handshake/duration_ns").and_then(Value::as_u64).unwrap_or(0);
        let kind = text("/handshake/kind").unwrap_or("-");
        line.push_str(&format!("  {kind} handshake {outcome} in {}", table::duration(took)));
    }
    if text("/event") == Some("client_hello") {
        let partial = event.get("tls_hello_partial") == Some(&Value::Bool(true));
        let note = if partial { " (partial)" } else { "" };
        let (sni, ja4) = (text("/tls_sni").unwrap_or("-"), text("/tls_ja4").unwrap_or("-"));
        line.push_str(&format!("  ClientHello for {sni}, JA4 {ja4}{note}"));
    }
    if let Some(name) = text("/l7/dns/query") {
        line.push_str(&format!("  asks for {}", if name.is_empty() { "." } else { name }));
    }
    if let Some(state) = text("/conn_state") {
        line.push_str(&format!("  closed {state}"));
    }
    line
}

fn enrolment(event: &Value, time: &str) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let verdict = text("/verdict").unwrap_or("-");
    let outcome = text("/enrolment/outcome").unwrap_or("-");
    let mut line = format!("{time}  {verdict:<9}  {}  enrolment {outcome}", end(event, "source"));
    if let Some(end) = text("/enrolment/not_after") {
        line.push_str(&format!(" until {end}"));
    }
    if let (Some(reason), Some(detail)) = (text("/enrolment/reason"), text("/enrolment/detail")) {
        line.push_str(&format!(", {reason}: {detail}"));
    }
    line
}

fn end(event: &Value, side: &str) -> String {
    let address = event.pointer(&format!("/IP/{side}")).and_then(Value::as_str).unwrap_or("-");
    let l4 = event.get("l4").and_then(|l4| l4.as_object()?.values().next());
    let port = l4.and_then(|l4| l4.get(format!("{side}_port"))?.as_u64());
    let socket = match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    };
    match event.pointer(&format!("/{side}/spiffe_id")).and_then(Value::as_str) {
        Some(id) => format!("{id} ({socket})"),
        None => socket,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[test]
    fn a_decision_tells_actor_decision_outcome_and_approvers_in_the_same_places() {
        let record = |kind: &str, who: &str, how: &str, what: Value| {
            let record = json!({"at": "2026-11-01T12:00:00Z", "kind": kind, "by": {"who": who, "how": how}, "what": what});
            let told = record_json(&record.to_string()).expect("an event");
            assert_eq!(told["record"], record);
            ["actor", "decision", "outcome", "approvers"].map(|field| told[field].clone())
        };
        let agreed = record("approval", "ann", "approvals approve", json!({"decision": "approved"}));
        assert_eq!(agreed, [json!("ann"), json!("approved"), Value::Null, json!(["ann"])]);
        let done = record("commit", "ann", "approval 3", json!({"revision": 2}));
        assert_eq!(done, [json!("ann"), Value::Null, Value::Null, json!(["ann"])]);
        let lapsed = record("commit", "the daemon", "approval 3", json!({"revision": 2}));
        assert_eq!(lapsed[3], Value::Null, "nobody approved of it");
        let outcome = record("outcome", "the daemon", "commit", json!({"outcome": "committed"}));
        assert_eq!(outcome, [json!("the daemon"), Value::Null, json!("committed"), Value::Null]);
    }

    #[test]
    fn a_connection_that_is_over_says_what_it_was_last_judged_by() {
        let mut closed = ClosedEvent::zeroed();
        (closed.event.kind, closed.event.originator, closed.event.rule) = (EventKind::Closed as u8, 1, 7);
        let told = |closed: &ClosedEvent| {
            let told = closed_json(closed, &Names::default(), &Moment::now());
            ["verdict", "drop_reason_desc", "epoch", "is_reply"].map(|field| told[field].clone())
        };
        let passed = [json!("FORWARDED"), json!("FORWARDED"), json!(0), json!(false)];
        assert_eq!(told(&closed), passed, "nobody has counted its packets");
        assert_eq!(judged(&closed).rule, 7);
        (closed.flow.action, closed.flow.reason) = (Action::Dropped as u8, Reason::Quarantined as u8);
        (closed.flow.epoch, closed.flow.rule) = (4, 9);
        assert_eq!(told(&closed), [json!("DROPPED"), json!("QUARANTINED"), json!(4), json!(false)]);
        assert_eq!(judged(&closed).rule, 9);
    }
}
