//! Where what comes in is judged: by interface, kept by what is pinned, and for new ones by what was said last.

use super::args::XdpModeArg;
use super::forward::Forward;
use super::mark::Mask;
use crate::exit_code::{Code, Failure, Result};
use loader::{Ingress, JudgedAt, PinnedPort, XdpModeChoice};

/// Where what comes in is judged.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum IngressArg {
    /// By XDP
    Xdp,
    /// At TC, where segments of TCP stay as large as they came
    Tc,
    /// By XDP in the driver of a network card; at TC on virtual interfaces, where the driver has no XDP, and beside
    /// somebody else's XDP program
    Auto,
}

impl IngressArg {
    /// The word of the option.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Auto => "auto",
        }
    }
}

/// What is asked of one interface: now, by what is there, or by what was said last.
pub(super) fn place(
    asked: Option<IngressArg>,
    mode: XdpModeArg,
    there: Option<JudgedAt>,
    last: Option<IngressArg>,
) -> Result<Ingress> {
    let as_asked = XdpModeChoice::from(mode);
    match asked {
        Some(IngressArg::Tc) if mode != XdpModeArg::Auto => {
            let message =
                "--xdp-mode says how XDP runs, and with --ingress tc it does not: leave one of them out";
            Err(Failure::new(Code::Usage, message))
        }
        Some(IngressArg::Tc) => Ok(Ingress::Tc),
        Some(IngressArg::Xdp) => Ok(as_asked.into()),
        // A mode of XDP is XDP.
        _ if mode != XdpModeArg::Auto => Ok(as_asked.into()),
        Some(IngressArg::Auto) => Ok(Ingress::Auto),
        None => Ok(match (there, last) {
            (Some(JudgedAt::Tc(_)), _) | (None, Some(IngressArg::Tc)) => Ingress::Tc,
            (None, Some(IngressArg::Auto)) => Ingress::Auto,
            (Some(JudgedAt::Xdp(_)), _) | (None, _) => as_asked.into(),
        }),
    }
}

/// Where an interface is judged now.
pub(super) fn there(pinned: &[PinnedPort], interface: &str) -> Option<JudgedAt> {
    pinned.iter().find(|port| port.interface == interface).and_then(|port| port.ingress)
}

/// XDP forwards what it judged itself: it is chosen where there is a choice, and refused before anything is touched where
/// there is none.
pub(super) fn beside_forwarding(
    interface: &str,
    place: Ingress,
    forward: Option<Forward>,
) -> Result<Ingress> {
    match place {
        _ if forward != Some(Forward::Xdp) => Ok(place),
        Ingress::Auto => Ok(XdpModeChoice::Auto.into()),
        Ingress::Tc => Err(loader::Error::ForwardNeedsXdp { interface: interface.into() }.into()),
        Ingress::Xdp(_) => Ok(place),
    }
}

/// A frame has no mark where XDP judges it: TC is chosen where there is a choice, and XDP refused before anything is touched.
pub(super) fn beside_marks(interface: &str, place: Ingress, mark: Option<Mask>) -> Result<Ingress> {
    match place {
        _ if !mark.is_some_and(Mask::is_on) => Ok(place),
        Ingress::Auto | Ingress::Tc => Ok(Ingress::Tc),
        Ingress::Xdp(_) => Err(loader::Error::MarkNeedsTc { interface: interface.into() }.into()),
    }
}
