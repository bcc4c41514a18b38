//! Random policies, as the files that people write.

use crate::rng::Rng;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which side of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Behind the first link.
    Left,
    /// Behind the second.
    Right,
}

/// An address: few of them, so that prefixes nest and rules meet.
pub fn address(rng: &mut Rng, side: Side, v6: bool) -> IpAddr {
    let (x, y) = (rng.below(4), rng.below(16));
    let net = if side == Side::Left { 0 } else { 1 };
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0xfd64 + net, 0, 0, 0, 0, 0, x as u16, y as u16))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 64 + net as u8, x as u8, y as u8))
    }
}

/// A prefix of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    /// Its first address.
    pub addr: IpAddr,
    /// Its length.
    pub bits: u8,
}

impl Net {
    /// One around a random address.
    pub fn random(rng: &mut Rng) -> Self {
        let side = rng.pick(&[Side::Left, Side::Right]);
        let v6 = rng.percent(40);
        let length = rng.pick(&[32u8, 32, 32, 31, 30, 29, 28, 26, 24, 24, 22, 16, 8]);
        match address(rng, side, v6) {
            IpAddr::V4(addr) => {
                let mask = u32::MAX << (32 - u32::from(length));
                Self { addr: Ipv4Addr::from_bits(addr.to_bits() & mask).into(), bits: length }
            }
            IpAddr::V6(addr) => {
                let bits = 96 + length;
                let mask = u128::MAX << (128 - u32::from(bits));
                Self { addr: Ipv6Addr::from_bits(addr.to_bits() & mask).into(), bits }
            }
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.bits)
    }
}

/// A workload.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Trust domain.
    pub domain: &'static str,
    /// Namespace in its SPIFFE ID.
    pub namespace: &'static str,
    /// Value of the label `app`.
    pub app: &'static str,
    /// Its addresses.
    pub nets: Vec<Net>,
}

impl Workload {
    fn spiffe_id(&self, n: usize) -> String {
        format!("spiffe://{}/ns/{}/sa/w{n}", self.domain, self.namespace)
    }
}

/// What a rule selects.
#[derive(Clone, Debug)]
pub enum Selector {
    /// One workload, by its number.
    Workload(usize),
    /// A namespace of a trust domain, by pattern.
    Pattern(&'static str, &'static str),
    /// A trust domain.
    Domain(&'static str),
    /// A label.
    App(&'static str),
    /// Addresses.
    Cidr(Net),
    /// Everything.
    Any,
}

/// Protocol and ports of a rule.
#[derive(Clone, Copy, Debug)]
pub enum Ports {
    /// All.
    Any,
    /// A protocol without ports, or all of its ports.
    Protocol(&'static str),
    /// A range of ports; of `icmp` and `icmpv6`, of types.
    Range(&'static str, u16, u16),
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Drop.
    Deny,
    /// Have the next tier decide.
    Pass,
    /// Let pass.
    Allow,
}

/// An end of a rule: what one of these selects and none of those that take away. Where all of them take away, everything else.
#[derive(Clone, Debug)]
pub struct End {
    /// Those that add.
    pub any: Vec<Selector>,
    /// Those that take away.
    pub not: Vec<Selector>,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it decides.
    pub action: Action,
    /// A deny that only audits.
    pub audit: bool,
    /// Who opens.
    pub from: End,
    /// Who answers.
    pub to: End,
    /// To what.
    pub ports: Vec<Ports>,
}

/// The rules of one document.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Lower ones first.
    pub tier: u32,
    /// Inside a tier, lower ones first, those without one last.
    pub priority: Option<u32>,
    /// In the order of the file.
    pub rules: Vec<Rule>,
}

/// A whole policy.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Workloads; their number plus one stands for them in nftables.
    pub workloads: Vec<Workload>,
    /// Documents with rules, in the order of the file.
    pub documents: Vec<Rules>,
    /// Blocked prefixes.
    pub blocked: Vec<Net>,
}

const DOMAINS: [&str; 2] = ["acme.example", "globex.example"];
const NAMESPACES: [&str; 3] = ["shop", "lab", "ops"];
const APPS: [&str; 3] = ["orders", "payments", "reports"];
/// Ports that rules name and packets go to.
pub const PORTS: [u16; 9] = [22, 53, 80, 443, 5000, 5004, 5010, 8080, 40_000];

impl Policy {
    /// A random one. One in twelve has no rules at all: then everything passes that is not blocked.
    pub fn random(rng: &mut Rng) -> Self {
        let mut taken = BTreeSet::new();
        let workloads: Vec<Workload> = (0..2 + rng.below(10))
            .map(|_| workload(rng, &mut taken))
            .filter(|w| !w.nets.is_empty())
            .collect();
        let mut policy = Self { workloads, ..Self::default() };
        if !rng.percent(8) {
            for _ in 0..1 + rng.below(4) {
                let rules = (0..1 + rng.below(6)).map(|_| rule(rng, policy.workloads.len())).collect();
                let tier = rng.pick(&[10, 100, 100, 200]);
                let priority = rng.pick(&[None, None, Some(0), Some(1), Some(1000)]);
                policy.documents.push(Rules { tier, priority, rules });
            }
        }
        let blocked: BTreeSet<Net> = (0..rng.below(3)).map(|_| Net::random(rng)).collect();
        policy.blocked = blocked.into_iter().filter(|net| net.bits % 96 >= 26 || net.bits == 128).collect();
        policy
    }

    /// Which workloads a selector selects; `None` for selectors by address.
    pub fn selected(&self, selector: &Selector) -> Option<Vec<usize>> {
        let by = |fits: &dyn Fn(&Workload) -> bool| {
            Some((0..self.workloads.len()).filter(|n| fits(&self.workloads[*n])).collect())
        };
        match selector {
            Selector::Workload(n) => Some(vec![*n]),
            Selector::Pattern(domain, namespace) => by(&|w| w.domain == *domain && w.namespace == *namespace),
            Selector::Domain(domain) => by(&|w| w.domain == *domain),
            Selector::App(app) => by(&|w| w.app == *app),
            Selector::Cidr(_) | Selector::Any => None,
        }
    }

    /// The files.
    pub fn to_yaml(&self) -> String {
        let head = |kind: &str, name: String| {
            format!("---\napiVersion: tidegate.dev/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n")
        };
        let mut text = String::new();
        for (n, w) in self.workloads.iter().enumerate() {
            let nets: Vec<String> = w.nets.iter().map(|net| format!("\"{net}\"")).collect();
            text += &head("Workload", format!("w{n}"));
            text += &format!("  spiffeId: {}\n  addresses: [{}]\n", w.spiffe_id(n), nets.join(", "));
            text += &format!("  labels: {{app: {}}}\n", w.app);
        }
        for (n, Rules { tier, priority, rules }) in self.documents.iter().enumerate() {
            text += &head("Policy", format!("p{n}"));
            text += &format!("  tier: {tier}\n");
            text += &priority.map(|priority| format!("  priority: {priority}\n")).unwrap_or_default();
            text += "  rules:\n";
            for (k, rule) in rules.iter().enumerate() {
                let action = match rule.action {
                    Action::Deny => "deny",
                    Action::Pass => "pass",
                    Action::Allow => "allow",
                };
                let mode = if rule.audit { "audit" } else { "enforce" };
                text += &format!("    - name: r{k}\n      action: {action}\n      mode: {mode}\n");
                text += &format!("      from: [{}]\n", self.list(&rule.from));
                text += &format!("      to: [{}]\n", self.list(&rule.to));
                let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
                text += &format!("      ports: [{}]\n", ports.join(", "));
            }
        }
        if !self.blocked.is_empty() {
            text += &head("Blocklist", "b".into());
            text += "  entries:\n";
            for net in &self.blocked {
                text += &format!("    - {{cidr: \"{net}\", reason: random}}\n");
            }
        }
        text
    }

    fn list(&self, end: &End) -> String {
        let one = |selector: &Selector| match selector {
            Selector::Workload(n) => format!("{{spiffeId: {}}}", self.workloads[*n].spiffe_id(*n)),
            Selector::Pattern(domain, namespace) => {
                format!("{{spiffePath: \"spiffe://{domain}/ns/{namespace}/*\"}}")
            }
            Selector::Domain(domain) => format!("{{trustDomain: {domain}}}"),
            Selector::App(app) => format!("{{labels: {{app: {app}}}}}"),
            Selector::Cidr(net) => format!("{{cidr: \"{net}\"}}"),
            Selector::Any => "{any: true}".into(),
        };
        let not = end.not.iter().map(|selector| format!("{{not: {}}}", one(selector)));
        end.any.iter().map(one).chain(not).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => write!(f, "any"),
            Self::Protocol(name) => write!(f, "{name}"),
            Self::Range(name, first, last) if first == last => write!(f, "{name}/{first}"),
            Self::Range(name, first, last) => write!(f, "{name}/{first}-{last}"),
        }
    }
}

fn workload(rng: &mut Rng, taken: &mut BTreeSet<Net>) -> Workload {
    let wanted = 1 + rng.below(3);
    let nets: Vec<Net> = (0..wanted).map(|_| Net::random(rng)).filter(|net| taken.insert(*net)).collect();
    Workload { domain: rng.pick(&DOMAINS), namespace: rng.pick(&NAMESPACES), app: rng.pick(&APPS), nets }
}

fn rule(rng: &mut Rng, workloads: usize) -> Rule {
    let action = match rng.below(20) {
        0..12 => Action::Allow,
        12..17 => Action::Deny,
        _ => Action::Pass,
    };
    Rule {
        action,
        audit: action == Action::Deny && rng.percent(15),
        from: end(rng, workloads),
        to: end(rng, workloads),
        ports: (0..1 + rng.below(2)).map(|_| ports(rng)).collect(),
    }
}

fn end(rng: &mut Rng, workloads: usize) -> End {
    let any: Vec<Selector> = (0..1 + rng.below(2)).map(|_| selector(rng, workloads)).collect();
    if !rng.percent(25) {
        return End { any, not: Vec::new() };
    }
    let taken = (0..1 + rng.below(2)).map(|_| selector(rng, workloads));
    // Everything is not taken away: that left nothing.
    let not: Vec<Selector> = taken.filter(|selector| !matches!(selector, Selector::Any)).collect();
    let any = if !not.is_empty() && rng.percent(30) { Vec::new() } else { any };
    End { any, not }
}

fn selector(rng: &mut Rng, workloads: usize) -> Selector {
    match rng.below(10) {
        0..3 if workloads > 0 => Selector::Workload(rng.below(workloads as u64) as usize),
        3 if workloads > 0 => Selector::Pattern(rng.pick(&DOMAINS), rng.pick(&NAMESPACES)),
        4 if workloads > 0 => Selector::Domain(rng.pick(&DOMAINS)),
        5 | 6 if workloads > 0 => Selector::App(rng.pick(&APPS)),
        8 | 9 => Selector::Any,
        _ => Selector::Cidr(Net::random(rng)),
    }
}

/// ICMP as a whole, or types around those of echo requests and replies.
fn types(rng: &mut Rng) -> Ports {
    let (protocol, request) = rng.pick(&[("icmp", 8), ("icmpv6", 128)]);
    let first = rng.pick(&[0, request, request + 1, request - 5]);
    match rng.below(3) {
        0 => Ports::Protocol(protocol),
        1 => Ports::Range(protocol, first, first),
        _ => Ports::Range(protocol, first, first + rng.below(8) as u16),
    }
}

fn ports(rng: &mut Rng) -> Ports {
    match rng.below(10) {
        0 => Ports::Any,
        1 => Ports::Protocol(rng.pick(&["tcp", "udp"])),
        2 => types(rng),
        3..6 => {
            let protocol = rng.pick(&["tcp", "udp"]);
            let (a, b) = (rng.pick(&PORTS), rng.pick(&PORTS));
            Ports::Range(protocol, a.min(b), a.max(b).saturating_add(rng.below(3) as u16))
        }
        _ => {
            let port = rng.pick(&PORTS);
            Ports::Range(rng.pick(&["tcp", "udp"]), port, port)
        }
    }
}
