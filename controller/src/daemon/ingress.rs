//! Where what comes in is judged: by interface, kept by what is pinned, and for new ones by what was said last.

use super::args::XdpModeArg;
use super::forward::Forward;
use super::mark::Mask;
use crate::exit_code::{Code, Failure, Result};
use loader::{Ingress, JudgedAt, PinnedPort, Share, XdpModeChoice};

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
    /// By XDP, among other programs in libxdp's dispatcher (xdp-filter, xdp-loader)
    Libxdp,
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
            Self::Libxdp => "libxdp",
            Self::Tc => "tc",
            Self::Auto => "auto",
        }
    }
}

/// What goes on to the next program of the dispatcher. xdp-loader's chain call actions are all of XDP's; a program after Tidegate's
/// that may pass what it dropped is not among these.
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
pub enum Chain {
    /// What Tidegate passes
    Pass,
    /// Nothing: Tidegate's verdict is the last
    None,
}

/// How XDP runs, where it does.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct How {
    /// Where the XDP program runs
    #[arg(long, value_enum, default_value_t)]
    pub xdp_mode: XdpModeArg,
    /// Its turn among others.
    #[command(flatten)]
    pub turn: Turn,
}

/// The turn among other programs of libxdp's dispatcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Turn {
    /// With `--ingress libxdp`, the run priority: programs with lower ones see packets first [default: as it is, at first as last time,
    /// or 50]
    #[arg(long, value_name = "N")]
    pub xdp_prio: Option<u32>,
    /// With `--ingress libxdp`, what goes on to the program after Tidegate's [default: as it is, at first as last time, or pass]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub xdp_chain: Option<Chain>,
}

impl Chain {
    /// The word of the option.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::None => "none",
        }
    }
}

impl Turn {
    /// What it does not say is as `other` has it.
    pub(super) fn or(self, other: Self) -> Self {
        Self { xdp_prio: self.xdp_prio.or(other.xdp_prio), xdp_chain: self.xdp_chain.or(other.xdp_chain) }
    }

    /// Of an interface that is to be shared and is not yet: what was not said is as last time.
    pub(super) fn of_new(self, place: Ingress, there: Option<JudgedAt>) -> Ingress {
        match (place, there) {
            (Ingress::Libxdp(share), there) if !matches!(there, Some(JudgedAt::Libxdp(_))) => {
                Ingress::Libxdp(Share {
                    run_prio: share.run_prio.or(self.xdp_prio),
                    passes_on: share.passes_on.or(self.passes_on()),
                    ..share
                })
            }
            (place, _) => place,
        }
    }

    fn passes_on(self) -> Option<bool> {
        self.xdp_chain.map(|chain| chain == Chain::Pass)
    }
}

impl How {
    fn share(self) -> Share {
        let Self { xdp_mode, turn } = self;
        Share { mode: xdp_mode.into(), run_prio: turn.xdp_prio, passes_on: turn.passes_on() }
    }

    fn is_shared(self) -> bool {
        self.turn != Turn::default()
    }
}

/// What is asked of one interface: now, by what is there, or by what was said last.
pub(super) fn place(
    asked: Option<IngressArg>,
    how: How,
    there: Option<JudgedAt>,
    last: Option<IngressArg>,
) -> Result<Ingress> {
    let as_asked = XdpModeChoice::from(how.xdp_mode);
    let usage = |message: &str| Err(Failure::new(Code::Usage, message));
    let stays_shared =
        matches!((there, last), (Some(JudgedAt::Libxdp(_)), _) | (None, Some(IngressArg::Libxdp)));
    match asked {
        Some(IngressArg::Libxdp) => Ok(Ingress::Libxdp(how.share())),
        Some(other) if how.is_shared() => usage(&format!(
            "--xdp-prio and --xdp-chain are for --ingress libxdp: leave them or --ingress {} out",
            other.name()
        )),
        Some(IngressArg::Tc) if how.xdp_mode != XdpModeArg::Auto => {
            usage("--xdp-mode says how XDP runs, and with --ingress tc it does not: leave one of them out")
        }
        Some(IngressArg::Tc) => Ok(Ingress::Tc),
        Some(IngressArg::Xdp) => Ok(as_asked.into()),
        Some(IngressArg::Auto) if how.xdp_mode == XdpModeArg::Auto => Ok(Ingress::Auto),
        None if stays_shared || how.is_shared() => Ok(Ingress::Libxdp(how.share())),
        // A mode of XDP is XDP.
        _ if how.xdp_mode != XdpModeArg::Auto => Ok(as_asked.into()),
        _ => Ok(match (there, last) {
            (Some(JudgedAt::Tc(_)), _) | (None, Some(IngressArg::Tc)) => Ingress::Tc,
            (None, Some(IngressArg::Auto)) => Ingress::Auto,
            (Some(JudgedAt::Xdp(_) | JudgedAt::Libxdp(_)), _) | (None, _) => as_asked.into(),
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
        Ingress::Xdp(_) | Ingress::Libxdp(_) => Ok(place),
    }
}

/// A frame has no mark where XDP judges it: TC is chosen where there is a choice, and XDP refused before anything is touched.
pub(super) fn beside_marks(interface: &str, place: Ingress, mark: Option<Mask>) -> Result<Ingress> {
    match place {
        _ if !mark.is_some_and(Mask::is_on) => Ok(place),
        Ingress::Auto | Ingress::Tc => Ok(Ingress::Tc),
        Ingress::Xdp(_) | Ingress::Libxdp(_) => {
            Err(loader::Error::MarkNeedsTc { interface: interface.into() }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loader::XdpMode;

    const SHARED: Option<JudgedAt> = Some(JudgedAt::Libxdp(XdpMode::Native));

    #[test]
    fn an_interface_that_is_shared_stays_so_and_takes_a_priority_without_being_told_where() {
        let how = How::default();
        let shared = |ingress| matches!(ingress, Ok(Ingress::Libxdp(_)));
        assert!(shared(place(None, how, SHARED, Some(IngressArg::Tc))));
        assert!(shared(place(None, how, None, Some(IngressArg::Libxdp))));
        assert!(!shared(place(Some(IngressArg::Tc), how, SHARED, None)));
        let generic =
            place(None, How { xdp_mode: XdpModeArg::Generic, ..how }, SHARED, None).expect("a place");
        assert_eq!(generic, Ingress::Libxdp(Share { mode: XdpModeChoice::Generic, ..Share::default() }));
        let turn = Turn { xdp_prio: Some(5), xdp_chain: Some(Chain::None) };
        let first = How { turn, ..how };
        let share = Share { run_prio: Some(5), passes_on: Some(false), ..Share::default() };
        assert_eq!(place(None, first, None, None).expect("a place"), Ingress::Libxdp(share));
    }

    #[test]
    fn an_interface_that_is_new_has_the_turn_of_last_time_unless_it_is_told_another() {
        let last = Turn { xdp_prio: Some(5), xdp_chain: Some(Chain::None) };
        let shared = |run_prio, passes_on| Ingress::Libxdp(Share { run_prio, passes_on, ..Share::default() });
        assert_eq!(last.of_new(shared(None, None), None), shared(Some(5), Some(false)));
        assert_eq!(last.of_new(shared(Some(7), None), None), shared(Some(7), Some(false)));
        assert_eq!(last.of_new(shared(None, None), SHARED), shared(None, None), "it stays as it is");
        assert_eq!(last.of_new(Ingress::Tc, None), Ingress::Tc);
        let now = Turn { xdp_prio: Some(9), xdp_chain: None };
        assert_eq!(now.or(last), Turn { xdp_prio: Some(9), xdp_chain: Some(Chain::None) });
    }

    #[test]
    fn a_priority_is_refused_where_nothing_is_shared() {
        let turn = Turn { xdp_prio: Some(5), xdp_chain: None };
        let how = How { turn, ..How::default() };
        for other in [IngressArg::Xdp, IngressArg::Tc, IngressArg::Auto] {
            let refused = place(Some(other), how, None, None).expect_err("refused");
            let wanted = format!(
                "--xdp-prio and --xdp-chain are for --ingress libxdp: leave them or --ingress {} out",
                other.name()
            );
            assert_eq!((refused.code, refused.to_string()), (Code::Usage, wanted));
        }
    }
}
