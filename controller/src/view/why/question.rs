//! What `tidegate why` is asked.

use super::super::encoded;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::document::Workload;
use crate::policy::explain::Flow;
use crate::policy::ports::{PortMatch, has_types};
use crate::policy::{Documents, Prefix};
use datapath::abi::Addr;
use datapath::wire::proto;
use std::net::IpAddr;
use std::path::PathBuf;

/// RFC 792.
const ECHO_REQUEST: u16 = 8;
/// RFC 4443, section 4.1.
const ECHO_REQUEST_V6: u16 = 128;

/// What is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct WhyArgs {
    /// Who opens the connection: an address, a workload's name or a SPIFFE ID
    #[arg(required_unless_present = "event")]
    source: Option<String>,
    /// Who answers
    #[arg(required_unless_present = "event")]
    destination: Option<String>,
    /// Port and protocol: 443, 443/tcp, 53/udp; icmp/8, a type; icmp, an echo request
    #[arg(required_unless_present = "event")]
    port: Option<String>,
    /// The interface by which it comes in, for bindings that hold on an interface
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// The VLAN ID with which it comes in, for bindings that hold on a VLAN
    #[arg(long, value_name = "ID")]
    vlan: Option<u16>,
    /// The port it is opened from, for bindings that hold for some ports of an address
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// By this file or folder alone (may be repeated), and no gateway: what counts there, and what was bound and blocked by hand,
    /// is not looked at
    #[arg(long, value_name = "PATH")]
    policy: Vec<PathBuf>,
    /// Instead of what would become of a connection, why this event was judged as it was
    #[arg(long, value_name = "ID")]
    #[arg(conflicts_with_all = ["source", "interface", "vlan", "source_port", "policy"])]
    event: Option<u64>,
}

/// A question, of any kind.
pub(super) enum Why {
    Connection(Question),
    Files(Question, Vec<PathBuf>),
    Event(u64),
}

/// A connection that is asked about.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// An address, a workload's name or a SPIFFE ID.
    pub source: String,
    /// Likewise.
    pub destination: String,
    /// `443`, `443/tcp`, `icmp/8`, `icmp`
    pub port: String,
    /// The interface by which it comes in.
    pub interface: Option<String>,
    /// The VLAN ID with which it comes in.
    pub vlan: Option<u16>,
    /// The port it is opened from.
    pub source_port: Option<u16>,
}

impl WhyArgs {
    pub(super) fn why(&self) -> Why {
        if let Some(id) = self.event {
            return Why::Event(id);
        }
        // There without an event.
        let [source, destination, port] =
            [&self.source, &self.destination, &self.port].map(|text| text.clone().unwrap_or_default());
        let (interface, vlan, source_port) = (self.interface.clone(), self.vlan, self.source_port);
        let question = Question { source, destination, port, interface, vlan, source_port };
        if self.policy.is_empty() {
            Why::Connection(question)
        } else {
            Why::Files(question, self.policy.clone())
        }
    }

    /// Where the daemon shows it; nothing where files alone are asked.
    pub fn path(&self) -> Option<String> {
        match self.why() {
            Why::Event(id) => Some(format!("/v1/why/event?id={id}")),
            Why::Files(..) => None,
            Why::Connection(question) => Some(question.path()),
        }
    }
}

impl Question {
    fn path(&self) -> String {
        let [source, destination, port] =
            [&self.source, &self.destination, &self.port].map(|text| encoded(text));
        let interface = self.interface.as_ref().map(|name| format!("&interface={}", encoded(name)));
        let number =
            |name: &str, number: Option<u16>| number.map(|n| format!("&{name}={n}")).unwrap_or_default();
        let (vlan, source_port) = (number("vlan", self.vlan), number("source_port", self.source_port));
        let interface = interface.unwrap_or_default();
        format!("/v1/why?source={source}&destination={destination}&port={port}{interface}{vlan}{source_port}")
    }

    /// Whether it says where the source is.
    pub(super) fn is_placed(&self) -> bool {
        self.interface.is_some() || self.vlan.is_some()
    }

    /// The connection.
    pub(super) fn flow(&self, documents: &Documents) -> Result<Flow> {
        let (port, proto) = parse_port(&self.port)?;
        let (src, dst) = (address(documents, &self.source)?, address(documents, &self.destination)?);
        Ok(Flow { src, dst, proto, port })
    }

    /// The port it is opened from, 0 where it says none.
    pub(super) fn source_port(&self) -> Result<u16> {
        let Some(port) = self.source_port else { return Ok(0) };
        let (_, protocol) = parse_port(&self.port)?;
        if !matches!(protocol, proto::TCP | proto::UDP | proto::SCTP) {
            let message = format!("`{}` is opened from no port: leave `--source-port` away", self.port);
            return Err(Failure::new(Code::Usage, message));
        }
        Ok(port)
    }
}

/// Port, or type of ICMP, and protocol.
fn parse_port(text: &str) -> Result<(u16, u8)> {
    let wrong = || {
        let message = format!("`{text}` is no port: write 443, 443/tcp, 53/udp, icmp, icmp/8 or icmpv6/128");
        Failure::new(Code::Usage, message)
    };
    let (port, proto) = match text.split_once('/') {
        Some((port, proto)) if port.parse::<u16>().is_ok() => (Some(port), proto),
        Some((proto, port)) => (Some(port), proto),
        None if text.parse::<u16>().is_ok() => (Some(text), "tcp"),
        None => (None, text),
    };
    let Ok(PortMatch::Protocol { proto, .. }) = proto.parse() else { return Err(wrong()) };
    let port = match (port, proto) {
        (None, proto::ICMP) => ECHO_REQUEST,
        (None, proto::ICMPV6) => ECHO_REQUEST_V6,
        (None, _) => 0,
        (Some(port), _) => port.parse().map_err(|_| wrong())?,
    };
    if has_types(proto) && port > u16::from(u8::MAX) { Err(wrong()) } else { Ok((port, proto)) }
}

fn address(documents: &Documents, text: &str) -> Result<Addr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.into());
    }
    let named = |w: &&Workload| w.name == text || w.spiffe_id.as_str() == text;
    let workload = documents.workloads.iter().find(named);
    workload.and_then(|w| w.addresses.first()).map(Prefix::addr).ok_or_else(|| {
        Failure::new(
            Code::Usage,
            format!("`{text}` is no address, and no workload has this name or SPIFFE ID"),
        )
    })
}
