//! What the gateway has seen, read from `tidegate flows`, `drops` and `observe`.

use std::net::IpAddr;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::gateway::Gateway;
use crate::governed::Governed;

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// Address.
    pub address: IpAddr,
    /// Port; the type of an ICMP message; 0 where the protocol has neither.
    pub port: u16,
    /// If it is bound to one.
    pub spiffe_id: Option<String>,
}

/// A flow record.
#[derive(Clone, Debug, Serialize)]
pub struct Flow {
    /// Who started it.
    pub source: End,
    /// Who answers.
    pub destination: End,
    /// TCP, UDP, ICMPv4 ...
    pub protocol: String,
    /// FORWARDED, DROPPED, AUDIT.
    pub verdict: String,
    /// Metric label.
    pub reason: String,
    /// `POLICY/RULE`.
    pub rule: Option<String>,
    /// Zeek's word.
    pub conn_state: Option<String>,
    /// How far TLS came.
    pub tls: Option<String>,
    /// The version, as far as the wire shows.
    pub tls_version: Option<String>,
    /// The alert that ended it, where it was readable.
    pub tls_alert: Option<String>,
    /// Whether what is said of TLS is inferred.
    pub tls_inferred: bool,
    /// Packets both ways.
    pub packets: u64,
    /// Bytes both ways.
    pub bytes: u64,
    /// SYN to ACK.
    pub tcp_handshake_ns: Option<u64>,
    /// ClientHello to the proof of keys.
    pub tls_handshake_ns: Option<u64>,
}

/// Packets dropped for one reason between two ends.
#[derive(Clone, Debug, Serialize)]
pub struct Drop {
    /// Metric label.
    pub reason: String,
    /// `POLICY/RULE`.
    pub rule: Option<String>,
    /// Who started it, if known.
    pub source: Option<End>,
    /// To whom.
    pub destination: Option<End>,
    /// TCP, UDP ...
    pub protocol: String,
    /// How many.
    pub packets: u64,
}

/// All of it, at one time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// Flow records.
    pub flows: Vec<Flow>,
    /// Drops.
    pub drops: Vec<Drop>,
    /// What the governance loop did.
    pub governed: Governed,
}

impl Flow {
    /// Whether it is neighbour discovery (RFC 4861), which every network is full of.
    pub fn is_infrastructure(&self) -> bool {
        let discovery = |end: &End| (133..=137).contains(&end.port);
        self.reason == "INFRASTRUCTURE"
            || (self.protocol == "ICMPv6" && (discovery(&self.source) || discovery(&self.destination)))
    }
}

impl Seen {
    /// Asks the gateway.
    pub async fn ask(gateway: &Gateway) -> Result<Self> {
        let flows = gateway.ask(&["flows"]).await?;
        let drops = gateway.ask(&["drops"]).await?;
        Ok(Self {
            flows: flows.iter().filter_map(flow).collect(),
            drops: drops.iter().filter_map(dropped).collect(),
            governed: Governed::default(),
        })
    }
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().filter(|s| !s.is_empty()).map(Into::into)
}

fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer)?.as_u64()
}

/// Hubble's layout: `IP.source`, `l4.TCP.source_port`, `source.spiffe_id`.
fn end(value: &Value, side: &str) -> Option<End> {
    let address = text(value, &format!("/IP/{side}"))?.parse().ok()?;
    let l4 = value.get("l4").and_then(|l4| l4.as_object()?.values().next());
    let port = l4
        .and_then(|l4| l4.get(format!("{side}_port")).or_else(|| l4.get("type"))?.as_u64())
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(0);
    Some(End { address, port, spiffe_id: text(value, &format!("/{side}/spiffe_id")) })
}

fn protocol(value: &Value) -> String {
    value.get("l4").and_then(|l4| l4.as_object()?.keys().next().cloned()).unwrap_or_default()
}

fn flow(value: &Value) -> Option<Flow> {
    Some(Flow {
        source: end(value, "source")?,
        destination: end(value, "destination")?,
        protocol: protocol(value),
        verdict: text(value, "/verdict")?,
        reason: text(value, "/drop_reason_desc").unwrap_or_default(),
        rule: text(value, "/rule"),
        conn_state: text(value, "/conn_state"),
        tls: text(value, "/tls"),
        tls_version: text(value, "/tls_version"),
        tls_alert: text(value, "/tls_alert"),
        tls_inferred: value.get("tls_inferred").and_then(Value::as_bool).unwrap_or(false),
        packets: number(value, "/packets").unwrap_or(0),
        bytes: number(value, "/bytes").unwrap_or(0),
        tcp_handshake_ns: number(value, "/tcp_handshake_ns"),
        tls_handshake_ns: number(value, "/tls_handshake_ns"),
    })
}

fn dropped(value: &Value) -> Option<Drop> {
    Some(Drop {
        reason: text(value, "/reason")?,
        rule: text(value, "/rule"),
        source: end(value, "source"),
        destination: end(value, "destination"),
        protocol: protocol(value),
        packets: number(value, "/packets")?,
    })
}
