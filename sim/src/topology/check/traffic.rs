//! Steps and expectations.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use datapath::abi::Reason;
use serde_saphyr::{Location, Spanned};

use super::{Checked, list, mistake, needs_svid, node_index, svid};
use crate::topology::plan::{Act, Expectation, Expectations, Node, Party, Stage, Step, What};
use crate::topology::schema::{self, Family, Kind, Outcome, StepKind};
use crate::topology::values::{is_spiffe_id, parse_duration};

/// TLS alerts by their IANA names, as far as certificates and versions can cause them.
const ALERTS: &[&str] = &[
    "access_denied",
    "bad_certificate",
    "certificate_expired",
    "certificate_required",
    "certificate_revoked",
    "certificate_unknown",
    "decrypt_error",
    "handshake_failure",
    "protocol_version",
    "unknown_ca",
    "unsupported_certificate",
];

const MOST_BYTES: u64 = 64 << 20;
const MOST_DATAGRAM: u64 = 60_000;

pub fn stages(raw: &[Spanned<schema::Step>], nodes: &[Node]) -> Checked<Vec<Stage>> {
    let mut stages = Vec::new();
    for step in raw {
        let (at, raw) = (step.referenced, &step.value);
        if raw.kind != StepKind::Parallel && !raw.steps.is_empty() {
            return mistake(at, "only a step of kind parallel has steps of its own");
        }
        match raw.kind {
            StepKind::Pause => stages.push(Stage::Pause(pause(raw, at)?)),
            StepKind::Parallel => stages.push(Stage::Steps(parallel(raw, at, nodes)?)),
            _ => stages.extend(acts(raw, at, nodes)?.into_iter().map(|a| Stage::Steps(vec![a]))),
        }
    }
    Ok(stages)
}

fn pause(raw: &schema::Step, at: Location) -> Checked<Duration> {
    match &raw.duration {
        Some(text) => duration(text),
        None => mistake(at, "a pause says how long: for: 2s"),
    }
}

fn acts(raw: &schema::Step, at: Location, nodes: &[Node]) -> Checked<Vec<Act>> {
    if raw.kind != StepKind::Daemon {
        if raw.daemon.is_some() {
            return mistake(at, "do: belongs to steps of kind daemon");
        }
        return Ok(exchanges(raw, at, nodes)?.into_iter().map(|s| Act::Exchange(Box::new(s))).collect());
    }
    let Some(act) = raw.daemon else {
        return mistake(at, "a step of kind daemon says what happens: do: kill, do: stop or do: start");
    };
    if raw.from.is_some() || raw.to.is_some() {
        return mistake(at, "a step of kind daemon has no from: and to:");
    }
    if !nodes.iter().any(|n| n.kind == Kind::Gateway) {
        return mistake(at, "there is no daemon: no node is of kind gateway");
    }
    Ok(vec![Act::Daemon(act, after(raw)?)])
}

fn after(raw: &schema::Step) -> Checked<Duration> {
    raw.after.as_ref().map_or(Ok(Duration::ZERO), duration)
}

fn parallel(raw: &schema::Step, at: Location, nodes: &[Node]) -> Checked<Vec<Act>> {
    if raw.steps.is_empty() {
        return mistake(at, "a step of kind parallel has steps: what runs at once");
    }
    let mut steps = Vec::new();
    for step in &raw.steps {
        if matches!(step.value.kind, StepKind::Parallel | StepKind::Pause) {
            return mistake(step.referenced, "parallel holds mtls, tcp, udp, ping and daemon only");
        }
        steps.extend(acts(&step.value, step.referenced, nodes)?);
    }
    Ok(steps)
}

fn duration(text: &Spanned<String>) -> Checked<Duration> {
    parse_duration(&text.value).map_or_else(
        || {
            mistake(
                text.referenced,
                format!("`{}` is no duration: accepted is 500ms, 2s, 1m ...", text.value),
            )
        },
        Ok,
    )
}

/// A step as written stands for one exchange a family and count.
fn exchanges(raw: &schema::Step, at: Location, nodes: &[Node]) -> Checked<Vec<Step>> {
    let (Some(from), Some(to)) = (&raw.from, &raw.to) else {
        return mistake(at, format!("a step of kind {} has from: and to:", raw.kind.name()));
    };
    let index = node_index(nodes, &from.value, from.referenced)?;
    let node = &nodes[index];
    if node.kind != Kind::Workload {
        return mistake(
            from.referenced,
            format!("node `{}` is not of kind workload, so it cannot send", node.name),
        );
    }
    if raw.kind != StepKind::Mtls {
        let tls_only = raw.tls.is_some() || raw.svid.is_some() || raw.peer.is_some() || raw.alert.is_some();
        if tls_only {
            return mistake(at, "tls, svid, peer and alert belong to steps of kind mtls");
        }
    }
    if raw.duration.is_some() && raw.kind != StepKind::Mtls {
        return mistake(at, "for: belongs to steps of kind pause and mtls");
    }
    let mut steps = Vec::new();
    for target in targets(to, raw.family, raw.kind, node, nodes)? {
        let step = exchange(raw, at, index, target, nodes)?;
        let count = raw.count.as_ref().map_or(1, |c| c.value);
        if count == 0 || count > 10_000 {
            return mistake(at, format!("count is {count}; accepted is 1 to 10000"));
        }
        steps.extend(std::iter::repeat_n(step, count as usize));
    }
    Ok(steps)
}

fn exchange(
    raw: &schema::Step,
    at: Location,
    from: usize,
    (to_name, to): (String, SocketAddr),
    nodes: &[Node],
) -> Checked<Step> {
    let node = &nodes[from];
    let default_bytes = if raw.kind == StepKind::Mtls { 1024 } else { 56 };
    let bytes = raw.bytes.as_ref().map_or(default_bytes, |b| b.value);
    let most = if matches!(raw.kind, StepKind::Udp | StepKind::Ping) { MOST_DATAGRAM } else { MOST_BYTES };
    if bytes > most {
        return mistake(at, format!("bytes is {bytes}; a {} step sends at most {most}", raw.kind.name()));
    }
    let mut client = node.svid.clone();
    if raw.kind == StepKind::Mtls {
        if let Some(raw) = &raw.svid {
            client = Some(svid(raw, client.as_ref(), at)?);
        }
        if client.is_none() {
            return mistake(at, needs_svid(&node.name));
        }
    }
    let peer = match &raw.peer {
        Some(id) if !is_spiffe_id(&id.value) => {
            return mistake(id.referenced, format!("`{}` is no SPIFFE ID", id.value));
        }
        Some(id) => Some(id.value.clone()),
        None => nodes
            .iter()
            .find(|n| n.addresses().any(|a| a == to.ip()))
            .and_then(|n| n.svid.as_ref())
            .map(|s| s.spiffe_id.clone()),
    };
    if let Some(alert) = raw.alert.as_deref().filter(|a| !ALERTS.contains(a)) {
        return mistake(at, format!("`{alert}` is no alert; accepted are {}", ALERTS.join(", ")));
    }
    let name = raw.name.clone().unwrap_or_else(|| format!("{} -> {to_name}", node.name));
    Ok(Step {
        name,
        kind: raw.kind,
        from,
        to_name,
        to,
        bytes,
        tls: raw.tls.unwrap_or_default(),
        svid: client,
        peer,
        timeout: raw.timeout.as_ref().map_or(Ok(Duration::from_secs(2)), duration)?,
        lasting: raw.duration.as_ref().map_or(Ok(Duration::ZERO), duration)?,
        after: after(raw)?,
        expect: raw.expect.unwrap_or(Outcome::Ok),
        alert: raw.alert.clone(),
    })
}

/// `NODE:PORT`, `NODE`, `10.0.0.1:80`, `[fd00::1]:80` or an address alone.
fn split_target(text: &str) -> Option<(&str, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:")?;
        return Some((host, Some(port.parse().ok()?)));
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host, Some(port.parse().ok().filter(|p| *p != 0)?))),
        None => Some((text, None)),
    }
}

fn targets(
    to: &Spanned<String>,
    family: Option<Family>,
    kind: StepKind,
    from: &Node,
    nodes: &[Node],
) -> Checked<Vec<(String, SocketAddr)>> {
    let at = to.referenced;
    let wants_port = kind != StepKind::Ping;
    let (host, port) = match split_target(&to.value) {
        Some((host, port)) if port.is_some() == wants_port => (host, port.unwrap_or(0)),
        _ if wants_port => {
            return mistake(
                at,
                format!("`{}`: accepted is NODE:PORT or ADDRESS:PORT, as payments:8443", to.value),
            );
        }
        _ => {
            return mistake(at, format!("`{}`: a ping goes to a NODE or an address, without port", to.value));
        }
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        if family.is_some() {
            return mistake(at, "an address has a family of its own: leave out family");
        }
        return Ok(vec![(to.value.clone(), SocketAddr::new(address, port))]);
    }
    let node = &nodes[node_index(nodes, host, at)?];
    let families: &[bool] = match family.unwrap_or(Family::Ipv4) {
        Family::Ipv4 => &[false],
        Family::Ipv6 => &[true],
        Family::Both => &[false, true],
    };
    let mut found = Vec::new();
    for &ipv6 in families {
        let version = if ipv6 { "IPv6" } else { "IPv4" };
        for end in [from, node] {
            if end.address(ipv6).is_none() {
                return mistake(at, format!("node `{}` has no {version} address", end.name));
            }
        }
        if let Some(address) = node.address(ipv6) {
            found.push((to.value.clone(), SocketAddr::new(address, port)));
        }
    }
    Ok(found)
}

pub fn expectations(raw: &schema::Expect, nodes: &[Node]) -> Checked<Expectations> {
    let within = raw.within.as_ref().map_or(Ok(Duration::from_secs(10)), duration)?;
    let mut all = Vec::new();
    let end = |e: &Option<Spanned<String>>| e.as_ref().map(|e| party(e, nodes)).transpose();
    for e in &raw.drops {
        let DropExpect { reason, rule, from, to, min, max } = e.value.clone();
        let dropping = Reason::ALL.iter().filter(|r| !r.passes()).map(|r| r.name());
        if !dropping.clone().any(|r| r == reason.value) {
            let known = list(dropping);
            return mistake(
                reason.referenced,
                format!("`{}` is no reason for a drop; accepted are {known}", reason.value),
            );
        }
        let what = What::Drop { reason: reason.value, rule };
        all.push(counted(what, end(&from)?, end(&to)?, min, max, e.referenced)?);
    }
    for e in &raw.flows {
        let FlowExpect { from, to, verdict, conn_state, tls, min, max } = e.value.clone();
        let what = What::Flow { verdict, conn_state, tls };
        all.push(counted(what, end(&from)?, end(&to)?, min, max, e.referenced)?);
    }
    for e in &raw.handshakes {
        let HandshakeExpect { from, to, kind, outcome, min, max } = e.value.clone();
        let what = What::Handshake { kind, outcome };
        all.push(counted(what, end(&from)?, end(&to)?, min, max, e.referenced)?);
    }
    Ok(Expectations { within, all })
}

use schema::{DropExpect, FlowExpect, HandshakeExpect};

fn counted(
    what: What,
    from: Option<Party>,
    to: Option<Party>,
    min: Option<u64>,
    max: Option<u64>,
    at: Location,
) -> Checked<Expectation> {
    let min = min.unwrap_or(u64::from(max.is_none()));
    match max {
        Some(max) if max < min => mistake(at, format!("max {max} is below min {min}")),
        _ => Ok(Expectation { what, from, to, min, max }),
    }
}

fn party(text: &Spanned<String>, nodes: &[Node]) -> Checked<Party> {
    let at = text.referenced;
    let Some((host, port)) = split_target(&text.value) else {
        return mistake(
            at,
            format!("`{}`: accepted is a NODE or an address, with :PORT or without", text.value),
        );
    };
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => nodes[node_index(nodes, host, at)?].addresses().collect(),
    };
    Ok(Party { name: text.value.clone(), addresses, port })
}
