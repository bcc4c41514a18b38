//! What the expressions of an intent's rules can ask of an event.

use cel::{Context, Env};
use std::sync::{Arc, LazyLock};

/// What an event tells, seen from the identity whose intent it is. What it does not tell is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `verdict`, `client_hello`, `handshake`, `dns_query`, `process`, `socket` or `enrolment`.
    pub event: &'static str,
    /// `client` or `server`: on which side the identity stands.
    pub role: &'static str,
    /// The SPIFFE ID.
    pub identity: String,
    /// Where it is.
    pub address: String,
    /// The SPIFFE ID at the other end.
    pub peer: String,
    /// Where that is.
    pub peer_address: String,
    /// `tcp`, `udp` and so on.
    pub proto: String,
    /// Where the server answers; the type for ICMP.
    pub port: u16,
    /// `FORWARDED`, `DROPPED`, `AUDIT`.
    pub verdict: &'static str,
    /// As in docs/drops.md.
    pub reason: &'static str,
    /// The rule of the policy that decided, `POLICY/RULE`.
    pub rule: String,
    /// The name in the ClientHello.
    pub sni: String,
    /// What that offers.
    pub alpn: Vec<String>,
    /// Its fingerprint.
    pub ja4: String,
    /// Whether it carries an encrypted one, or pretends to.
    pub ech: bool,
    /// The name that is asked for.
    pub query: String,
    /// What a local workload executed, or the name of the process that connected a socket.
    pub process: String,
    /// `tcp`, `tls` or `quic`.
    pub handshake: &'static str,
    /// How it ended: `completed`, `alert` and so on; of an enrolment, `granted` or `refused`.
    pub outcome: &'static str,
}

/// The names by which expressions ask.
pub const NAMES: [&str; 20] = [
    "event",
    "role",
    "workload",
    "identity",
    "address",
    "peer",
    "peerAddress",
    "proto",
    "port",
    "verdict",
    "reason",
    "rule",
    "sni",
    "alpn",
    "ja4",
    "ech",
    "query",
    "process",
    "handshake",
    "outcome",
];

/// Protocols of a hello that expressions see: what walks them is bounded.
const MOST_PROTOCOLS: usize = 16;

static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

impl Facts {
    /// What an expression is evaluated in.
    pub fn context(&self) -> Context<'static, 'static> {
        let mut context = Context::with_env(STANDARD.clone());
        let alpn: Vec<String> = self.alpn.iter().take(MOST_PROTOCOLS).cloned().collect();
        let texts = [
            ("event", self.event),
            ("role", self.role),
            ("identity", &self.identity),
            ("address", &self.address),
            ("peer", &self.peer),
            ("peerAddress", &self.peer_address),
            ("proto", &self.proto),
            ("verdict", self.verdict),
            ("reason", self.reason),
            ("rule", &self.rule),
            ("sni", &self.sni),
            ("ja4", &self.ja4),
            ("query", &self.query),
            ("process", &self.process),
            // Rules are an intent's, which says what kind that is.
            ("workload", ""),
            ("handshake", self.handshake),
            ("outcome", self.outcome),
        ];
        for (name, text) in texts {
            context.add_variable_from_value(name, text.to_owned());
        }
        context.add_variable_from_value("port", i64::from(self.port));
        context.add_variable_from_value("ech", self.ech);
        context.add_variable_from_value("alpn", alpn);
        context
    }
}

#[cfg(test)]
mod tests {
    use super::NAMES;

    #[test]
    fn the_page_has_every_name() {
        let page = include_str!("../../../../docs/policy.md");
        let part = page.split("### Rules of an intent").nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows = part.expect("the section").lines().filter_map(|line| line.strip_prefix("| `"));
        let named: Vec<&str> = rows
            .flat_map(|row| row.split('|').next().unwrap_or_default().split('`'))
            .filter(|n| n.len() > 2)
            .collect();
        assert_eq!(named.iter().map(|n| n.trim()).collect::<Vec<_>>(), NAMES);
    }
}
