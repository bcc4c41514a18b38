//! From the file as written to a plan; the first mistake ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_saphyr::{Location, Spanned};

use super::Mistake;
use super::plan::{Document, GatewayOptions, Interface, Link, Listener, Node, Plan, Protocol, Route, Svid};
use super::schema::{self, Kind};
use super::values::{Prefix, is_spiffe_id, parse_signed_ms};

mod expectations;
mod traffic;

type Checked<T> = Result<T, Mistake>;

fn mistake<T>(at: Location, message: impl Into<String>) -> Checked<T> {
    Err(Mistake::new(at, message))
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Checks a file; `folder` is where it lies.
pub fn check(raw: schema::File, folder: &Path) -> Checked<Plan> {
    if !is_name(&raw.name.value, 40) {
        return mistake(raw.name.referenced, name_rule("name of a lab", &raw.name.value, 40));
    }
    let mut nodes = nodes(&raw.topology)?;
    let links = links(&raw.topology, &mut nodes)?;
    network(&raw.network, &raw.topology, &mut nodes)?;
    default_routes(&mut nodes);
    let documents = documents(raw.identities.iter().chain(&raw.policies), folder)?;
    workloads(&raw.workloads, &documents, &mut nodes)?;
    let stages = traffic::stages(&raw.traffic, &nodes)?;
    let expect = expectations::of_story(&raw.expect, &nodes)?;
    let gateways = nodes.iter().filter(|n| n.kind == Kind::Gateway).count();
    if gateways > 1 {
        return mistake(raw.name.referenced, format!("{gateways} nodes of kind gateway; one is accepted"));
    }
    if gateways == 0 && !expect.all.is_empty() {
        return mistake(
            raw.name.referenced,
            "`expect` asks what the gateway saw, and no node is of kind gateway; give one that kind",
        );
    }
    Ok(Plan {
        name: raw.name.value,
        description: raw.description,
        nodes,
        links,
        documents,
        gateway: GatewayOptions {
            mode: raw.gateway.mode,
            xdp_mode: raw.gateway.xdp_mode,
            failsafe: raw.gateway.failsafe,
            svid: raw.gateway.svid.map(|raw| svid(&raw.value, None, raw.referenced)).transpose()?,
            options: [raw.gateway.options, pace(raw.clock.as_ref())?].concat(),
        },
        traffic: stages,
        expect,
    })
}

const FASTEST: u16 = 3600;

/// The option that has time pass faster for what the daemon compares.
fn pace(clock: Option<&schema::Clock>) -> Checked<Vec<String>> {
    match clock.map(|clock| &clock.pace) {
        None => Ok(Vec::new()),
        Some(pace) if (1..=FASTEST).contains(&pace.value) => {
            Ok(vec!["--compare-pace".into(), pace.value.to_string()])
        }
        Some(pace) => mistake(pace.referenced, format!("pace is {}; accepted is 1 to {FASTEST}", pace.value)),
    }
}

fn is_name(text: &str, most: usize) -> bool {
    !text.is_empty()
        && text.len() <= most
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

fn name_rule(what: &str, text: &str, most: usize) -> String {
    format!("`{text}` is no {what}: accepted are a-z, 0-9, - and _, at most {most}, a letter or digit first")
}

fn nodes(topology: &schema::Topology) -> Checked<Vec<Node>> {
    topology
        .nodes
        .iter()
        .map(|(name, node)| {
            if !is_name(name, 32) {
                return mistake(node.referenced, name_rule("name of a node", name, 32));
            }
            Ok(Node {
                name: name.clone(),
                kind: node.value.kind,
                interfaces: Vec::new(),
                routes: Vec::new(),
                masquerade: None,
                svid: None,
                listen: Vec::new(),
            })
        })
        .collect()
}

fn node_index(nodes: &[Node], name: &str, at: Location) -> Checked<usize> {
    match nodes.iter().position(|n| n.name == name) {
        Some(i) => Ok(i),
        None => mistake(
            at,
            format!("no node is named `{name}`; there are {}", list(nodes.iter().map(|n| n.name.as_str()))),
        ),
    }
}

fn links(topology: &schema::Topology, nodes: &mut [Node]) -> Checked<Vec<Link>> {
    let mut links = Vec::new();
    for link in &topology.links {
        let [a, b] = link.value.endpoints.as_slice() else {
            return mistake(
                link.referenced,
                format!(
                    "a link has two endpoints, this one has {}: write [\"gw:eth1\", \"orders:eth1\"]",
                    link.value.endpoints.len()
                ),
            );
        };
        let ends = [endpoint(a, nodes)?, endpoint(b, nodes)?];
        links.push(Link { ends });
    }
    Ok(links)
}

fn endpoint(text: &Spanned<String>, nodes: &mut [Node]) -> Checked<(usize, String)> {
    let at = text.referenced;
    let Some((node, interface)) = text.value.split_once(':') else {
        return mistake(
            at,
            format!("`{}` is no endpoint: accepted is NODE:INTERFACE, as gw:eth1", text.value),
        );
    };
    let index = node_index(nodes, node, at)?;
    // IFNAMSIZ is 16 with the final zero.
    if !is_name(interface, 15) || interface == "lo" {
        return mistake(at, name_rule("name of an interface", interface, 15));
    }
    let node = &mut nodes[index];
    if node.interfaces.iter().any(|i| i.name == interface) {
        return mistake(at, format!("`{}` is in two links; an interface has one", text.value));
    }
    node.interfaces.push(Interface { name: interface.into(), addresses: Vec::new() });
    Ok((index, interface.into()))
}

fn network(
    raw: &BTreeMap<String, Spanned<schema::Network>>,
    topology: &schema::Topology,
    nodes: &mut [Node],
) -> Checked<()> {
    let mut taken = BTreeSet::new();
    // In the order of the file, so that of two mistakes the later place is named.
    let mut in_order: Vec<_> = raw.iter().collect();
    in_order.sort_by_key(|(_, network)| (network.referenced.line(), network.referenced.column()));
    for (name, network) in in_order {
        let index = node_index(nodes, name, network.referenced)?;
        for (interface, addresses) in &network.value.addresses {
            let at = addresses.first().map_or(network.referenced, |a| a.referenced);
            let known = list(nodes[index].interfaces.iter().map(|i| i.name.as_str()));
            let Some(slot) = nodes[index].interfaces.iter_mut().find(|i| &i.name == interface) else {
                return mistake(
                    at,
                    format!("node `{name}` has no interface `{interface}`; its links give it {known}"),
                );
            };
            for text in addresses {
                let Some(prefix) = Prefix::parse(&text.value) else {
                    return mistake(
                        text.referenced,
                        format!(
                            "`{}` is no address: accepted is ADDRESS/PREFIX, as 10.1.0.2/24 or fd00:1::2/64",
                            text.value
                        ),
                    );
                };
                if !taken.insert(prefix.address) {
                    return mistake(text.referenced, format!("{} is given twice", prefix.address));
                }
                slot.addresses.push(prefix);
            }
        }
        if let Some(out) = &network.value.masquerade {
            let is_its = nodes[index].interfaces.iter().any(|interface| interface.name == out.value);
            if nodes[index].kind != Kind::Router || !is_its {
                return mistake(out.referenced, "masquerade: names an interface of a node of kind router");
            }
            nodes[index].masquerade = Some(out.value.clone());
        }
        for route in &network.value.routes {
            let route = self::route(&route.value)?;
            nodes[index].routes.push(route);
        }
        if nodes[index].kind == Kind::Bridge {
            return mistake(network.referenced, format!("node `{name}` is a bridge, which has no addresses"));
        }
    }
    let bare = |n: &&Node| n.kind != Kind::Bridge && n.addresses().next().is_none();
    if let Some(node) = nodes.iter().find(|n| bare(n)) {
        let at = topology.nodes.get(&node.name).map_or(Location::UNKNOWN, |n| n.referenced);
        return mistake(
            at,
            format!(
                "node `{0}` has no address: give it one under network.{0}.addresses.INTERFACE (its interfaces: {1})",
                node.name,
                list(node.interfaces.iter().map(|i| i.name.as_str()))
            ),
        );
    }
    Ok(())
}

fn route(raw: &schema::Route) -> Checked<Route> {
    let Ok(via) = raw.via.value.parse() else {
        return mistake(
            raw.via.referenced,
            format!("`{}` is no address of a next hop, as 10.1.0.1", raw.via.value),
        );
    };
    if raw.to.value == "default" {
        return Ok(default_route(via, Some(via)));
    }
    match Prefix::parse(&raw.to.value) {
        Some(to) if to.address.is_ipv4() == via.is_ipv4() => Ok(Route { to, via: Some(via) }),
        Some(_) => mistake(raw.via.referenced, "the next hop is of another address family than the route"),
        None => mistake(
            raw.to.referenced,
            format!("`{}` is no route: accepted is ADDRESS/PREFIX or default", raw.to.value),
        ),
    }
}

fn default_route(family: std::net::IpAddr, via: Option<std::net::IpAddr>) -> Route {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let address: IpAddr =
        if family.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Route { to: Prefix { address, length: 0 }, via }
}

/// Workloads reach the rest through the gateway or router in their network; blackholes reach nothing.
fn default_routes(nodes: &mut [Node]) {
    let forwarding: Vec<Prefix> = nodes
        .iter()
        .filter(|n| matches!(n.kind, Kind::Gateway | Kind::Router))
        .flat_map(|n| n.interfaces.iter().flat_map(|i| i.addresses.clone()))
        .collect();
    for node in nodes.iter_mut().filter(|n| matches!(n.kind, Kind::Workload | Kind::Blackhole)) {
        let own: Vec<Prefix> = node.interfaces.iter().flat_map(|i| i.addresses.clone()).collect();
        for prefix in own {
            let has = |r: &Route| r.to.length == 0 && r.to.address.is_ipv4() == prefix.address.is_ipv4();
            if node.routes.iter().any(has) {
                continue;
            }
            if node.kind == Kind::Blackhole {
                node.routes.push(default_route(prefix.address, None));
            } else if let Some(next) = forwarding.iter().find(|f| f.same_network(&prefix)) {
                node.routes.push(default_route(prefix.address, Some(next.address)));
            }
        }
    }
}

fn documents<'a>(
    raw: impl Iterator<Item = &'a Spanned<serde_json::Value>>,
    folder: &Path,
) -> Checked<Vec<Document>> {
    raw.map(|document| match &document.value {
        serde_json::Value::String(path) => {
            let path = folder.join(path);
            if path.exists() {
                Ok(Document::File(path))
            } else {
                mistake(document.referenced, format!("{} is not there", path.display()))
            }
        }
        serde_json::Value::Object(map) if map.contains_key("kind") => {
            Ok(Document::Inline(document.value.clone()))
        }
        _ => mistake(
            document.referenced,
            "accepted are a Tidegate document (apiVersion, kind, metadata, spec) or the path of a file",
        ),
    })
    .collect()
}

fn workloads(
    raw: &BTreeMap<String, Spanned<schema::Workload>>,
    documents: &[Document],
    nodes: &mut [Node],
) -> Checked<()> {
    for node in nodes.iter_mut() {
        node.svid = bound_id(documents, &node.name).map(svid_of);
    }
    for (name, workload) in raw {
        let index = node_index(nodes, name, workload.referenced)?;
        if nodes[index].kind != Kind::Workload {
            return mistake(workload.referenced, format!("node `{name}` is not of kind workload"));
        }
        if let Some(raw) = &workload.value.svid {
            nodes[index].svid = Some(svid(raw, nodes[index].svid.as_ref(), workload.referenced)?);
        }
        for text in &workload.value.listen {
            let Some(listener) = listener(&text.value) else {
                return mistake(
                    text.referenced,
                    format!(
                        "`{}` is no listener: accepted are mtls/PORT, tcp/PORT and udp/PORT, as mtls/8443",
                        text.value
                    ),
                );
            };
            if listener.protocol == Protocol::Mtls && nodes[index].svid.is_none() {
                return mistake(text.referenced, needs_svid(name));
            }
            nodes[index].listen.push(listener);
        }
    }
    Ok(())
}

fn needs_svid(name: &str) -> String {
    format!(
        "node `{name}` has no SPIFFE ID: name an identity document `{name}`, or set workloads.{name}.svid.spiffeId"
    )
}

fn listener(text: &str) -> Option<Listener> {
    let (protocol, port) = text.split_once('/')?;
    let protocol = match protocol {
        "mtls" => Protocol::Mtls,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some(Listener { protocol, port: port.parse().ok().filter(|p| *p != 0)? })
}

/// The SPIFFE ID that an inline `Workload` document binds to a name.
fn bound_id(documents: &[Document], name: &str) -> Option<String> {
    documents.iter().find_map(|document| {
        let Document::Inline(value) = document else { return None };
        let named = value.get("kind")? == "Workload" && value.pointer("/metadata/name")? == name;
        named.then(|| value.pointer("/spec/spiffeId")?.as_str().map(Into::into)).flatten()
    })
}

fn svid_of(spiffe_id: String) -> Svid {
    Svid { spiffe_id, not_before_ms: -300_000, not_after_ms: 3_600_000 }
}

/// A certificate as written, on top of what the node has.
fn svid(raw: &schema::Svid, base: Option<&Svid>, at: Location) -> Checked<Svid> {
    let mut svid = match (&raw.spiffe_id, base) {
        (Some(id), _) if is_spiffe_id(&id.value) => svid_of(id.value.clone()),
        (Some(id), _) => {
            return mistake(
                id.referenced,
                format!("`{}` is no SPIFFE ID: accepted is spiffe://trust.domain/path", id.value),
            );
        }
        (None, Some(base)) => base.clone(),
        (None, None) => return mistake(at, "svid needs a spiffeId: the node has none"),
    };
    let time = |text: &Spanned<String>| {
        parse_signed_ms(&text.value).map_or_else(
            || {
                mistake(
                    text.referenced,
                    format!("`{}` is no time from now: accepted is 1h, 30m, -10s ...", text.value),
                )
            },
            Ok,
        )
    };
    if let Some(text) = &raw.not_after {
        svid.not_after_ms = time(text)?;
        svid.not_before_ms = svid.not_before_ms.min(svid.not_after_ms - 3_600_000);
    }
    if let Some(text) = &raw.not_before {
        svid.not_before_ms = time(text)?;
    }
    if svid.not_before_ms >= svid.not_after_ms {
        return mistake(at, "svid: notBefore is not before notAfter");
    }
    Ok(svid)
}
