//! Steps.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_saphyr::{Location, Spanned};

use super::expectations::expectations;
use super::{Checked, mistake, needs_svid, node_index, svid};
use crate::topology::plan::{Act, CommandLine, CommandPlace, Hello, Node, ServerAct, Stage, Step, Wait};
use crate::topology::schema::{self, Family, Kind, Outcome, ProcessAct, StepKind};
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
        if !matches!(raw.kind, StepKind::Parallel | StepKind::Sequence) && !raw.steps.is_empty() {
            return mistake(at, "only steps of kind parallel and sequence have steps of their own");
        }
        match raw.kind {
            StepKind::Pause => stages.push(Stage::Pause(pause(raw, at)?)),
            StepKind::Sequence => stages.extend(sequence(raw, at, nodes)?),
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
    belongs(raw, at)?;
    let on_gateway = matches!(raw.kind, StepKind::Daemon | StepKind::Tidegate | StepKind::Wait);
    if on_gateway && (raw.from.is_some() || raw.to.is_some()) {
        return mistake(at, format!("a step of kind {} has no from: and to:", raw.kind.name()));
    }
    if (on_gateway || raw.kind == StepKind::Enroll) && !nodes.iter().any(|n| n.kind == Kind::Gateway) {
        return mistake(at, "there is no daemon: no node is of kind gateway");
    }
    Ok(match raw.kind {
        StepKind::Daemon => {
            let Some(act) = raw.act.filter(|act| *act != ProcessAct::Slow) else {
                return mistake(
                    at,
                    "a step of kind daemon says what happens: do: kill, do: stop or do: start",
                );
            };
            vec![Act::Daemon(act, after(raw)?)]
        }
        StepKind::Server => vec![server(raw, at, nodes)?],
        StepKind::Tidegate if raw.run.is_empty() => {
            return mistake(at, "a step of kind tidegate says what is typed: run: [quarantine, list]");
        }
        StepKind::Tidegate => vec![command(raw, CommandPlace::Gateway(raw.run.clone()), raw.run.join(" "))?],
        StepKind::Enroll => vec![enroll(raw, at, nodes)?],
        StepKind::Wait => {
            let Some(until) = &raw.until else {
                return mistake(
                    at,
                    "a step of kind wait says for what: until: {within: 5s, findings: [...]}",
                );
            };
            let name = raw.name.clone().unwrap_or_else(|| "wait".into());
            vec![Act::Wait(Box::new(Wait { name, until: expectations(until, nodes)? }))]
        }
        _ => exchanges(raw, at, nodes)?.into_iter().map(|s| Act::Exchange(Box::new(s))).collect(),
    })
}

/// What only one kind of step has.
fn belongs(raw: &schema::Step, at: Location) -> Checked<()> {
    let commands = matches!(raw.kind, StepKind::Tidegate | StepKind::Enroll);
    let on_gateway = commands || matches!(raw.kind, StepKind::Daemon | StepKind::Server | StepKind::Wait);
    let only = [
        (
            raw.act.is_some(),
            matches!(raw.kind, StepKind::Daemon | StepKind::Server),
            "do: belongs to steps of kind daemon and server",
        ),
        (!raw.run.is_empty(), raw.kind == StepKind::Tidegate, "run: belongs to steps of kind tidegate"),
        (raw.says.is_some(), commands, "says: belongs to steps of kind tidegate and enroll"),
        (
            raw.expect == Some(Outcome::Error),
            false,
            "expect: accepted are ok, handshake_failed, timeout, refused, unreachable, any",
        ),
        (
            raw.sni.is_some() || !raw.alpn.is_empty() || raw.ech,
            raw.kind == StepKind::Hello,
            "sni, alpn and ech belong to steps of kind hello",
        ),
        (raw.until.is_some(), raw.kind == StepKind::Wait, "until: belongs to steps of kind wait"),
        (
            raw.timeout.is_some(),
            !on_gateway,
            "timeout: belongs to steps that send; a step of kind wait says until: {within: 5s, ...}",
        ),
    ];
    match only.into_iter().find(|(is_there, may, _)| *is_there && !may) {
        Some((.., message)) => mistake(at, message),
        None => Ok(()),
    }
}

fn server(raw: &schema::Step, at: Location, nodes: &[Node]) -> Checked<Act> {
    let slow = || raw.duration.as_ref().map(duration).transpose();
    let act = match (raw.act, slow()?) {
        (Some(ProcessAct::Stop), None) => Some(ServerAct::Stop),
        (Some(ProcessAct::Start), None) => Some(ServerAct::Start),
        (Some(ProcessAct::Slow), Some(slow)) => Some(ServerAct::Slow(slow)),
        _ => None,
    };
    let (Some(from), None, Some(act)) = (&raw.from, &raw.to, act) else {
        return mistake(
            at,
            "a step of kind server says whose, and what: from: NODE, do: stop, do: start, or do: slow with for: 300ms",
        );
    };
    let index = node_index(nodes, &from.value, from.referenced)?;
    if nodes[index].listen.is_empty() {
        return mistake(from.referenced, format!("node `{}` serves nothing", nodes[index].name));
    }
    Ok(Act::Server(index, act, after(raw)?))
}

fn command(raw: &schema::Step, place: CommandPlace, typed: String) -> Checked<Act> {
    Ok(Act::Command(Box::new(CommandLine {
        name: raw.name.clone().unwrap_or(typed),
        place,
        after: after(raw)?,
        expect: raw.expect.unwrap_or(Outcome::Ok),
        says: raw.says.clone(),
    })))
}

fn enroll(raw: &schema::Step, at: Location, nodes: &[Node]) -> Checked<Act> {
    let (Some(from), None) = (&raw.from, &raw.to) else {
        return mistake(at, "a step of kind enroll has from:, and no to:");
    };
    let index = node_index(nodes, &from.value, from.referenced)?;
    let own = nodes[index].svid.clone();
    let shown = match &raw.svid {
        Some(raw) => Some(svid(raw, own.as_ref(), at)?),
        None => own,
    };
    let Some(shown) = shown else { return mistake(at, needs_svid(&nodes[index].name)) };
    let typed = format!("enroll as {}", shown.spiffe_id);
    command(raw, CommandPlace::Enroll(index, shown), typed)
}

const MOST_TIMES: u32 = 1000;

/// Its steps so often, each time with its number in the place of `{n}`.
fn sequence(raw: &schema::Step, at: Location, nodes: &[Node]) -> Checked<Vec<Stage>> {
    if raw.steps.is_empty() {
        return mistake(at, "a step of kind sequence has steps: what runs one after another");
    }
    let count = raw.count.as_ref().map_or(1, |c| c.value);
    if count == 0 || count > MOST_TIMES {
        return mistake(at, format!("count is {count}; accepted is 1 to {MOST_TIMES}"));
    }
    let mut all = Vec::new();
    for n in 1..=count {
        let mut steps = raw.steps.clone();
        steps.iter_mut().for_each(|step| step.value.number(n));
        all.extend(stages(&steps, nodes)?);
    }
    Ok(all)
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
        if matches!(step.value.kind, StepKind::Parallel | StepKind::Sequence | StepKind::Pause) {
            return mistake(step.referenced, "parallel holds no steps of kind parallel, sequence and pause");
        }
        steps.extend(acts(&step.value, step.referenced, nodes)?);
    }
    Ok(steps)
}

pub(super) fn duration(text: &Spanned<String>) -> Checked<Duration> {
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
    let query = query(raw, at)?;
    let hello = hello(raw)?;
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
        query,
        hello,
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

/// What a step of kind hello says.
fn hello(raw: &schema::Step) -> Checked<Hello> {
    let fits = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.is_ascii();
    if let Some(name) = raw.sni.as_ref().filter(|name| !fits(&name.value, 253)) {
        return mistake(name.referenced, format!("`{}` is no name", name.value));
    }
    let alpn = raw.alpn.iter().filter(|protocol| fits(protocol, 255)).take(16).cloned().collect();
    Ok(Hello { sni: raw.sni.as_ref().map(|name| name.value.clone()), alpn, ech: raw.ech })
}

/// The name that a step of kind dns asks for.
fn query(raw: &schema::Step, at: Location) -> Checked<String> {
    let label = |label: &str| (1..=63).contains(&label.len()) && label.is_ascii();
    match (&raw.query, raw.kind) {
        (Some(name), StepKind::Dns) if name.value.len() <= 253 && name.value.split('.').all(label) => {
            Ok(name.value.clone())
        }
        (Some(name), StepKind::Dns) => mistake(name.referenced, format!("`{}` is no name", name.value)),
        (None, StepKind::Dns) => mistake(at, "a step of kind dns says for what: query: api.example"),
        (Some(name), _) => mistake(name.referenced, "query: belongs to steps of kind dns"),
        (None, _) => Ok(String::new()),
    }
}

/// `NODE:PORT`, `NODE`, `10.0.0.1:80`, `[fd00::1]:80` or an address alone.
pub(super) fn split_target(text: &str) -> Option<(&str, Option<u16>)> {
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
