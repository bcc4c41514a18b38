//! Options of `tidegate run` that hold until they are given again, also after the host was started anew.

use super::args::{Mode, RunArgs};
use super::{failsafe, forward, ingress, inspect, mark};
use crate::exit_code::Result;
use crate::state::{Author, Store};
use datapath::abi::Config;
use loader::Maps;

const FAILSAFE: &str = "failsafe";
const FORWARD: &str = "forward";
const INGRESS: &str = "ingress";
const INSPECT: &str = "inspect";
const MARK: &str = "mark";
const MODE: &str = "mode";
const XDP_CHAIN: &str = "xdp_chain";
const XDP_PRIO: &str = "xdp_prio";

/// The options.
#[derive(Debug)]
pub struct Settings {
    /// Services of the gateway itself that no policy cuts.
    pub failsafe: Vec<(u8, u16)>,
    /// Who forwards what passes; as the maps say where it was never given.
    pub forward: Option<forward::Forward>,
    /// Where what comes in by a new interface is judged.
    pub ingress: Option<ingress::IngressArg>,
    /// How a new interface is shared with other XDP programs.
    pub turn: ingress::Turn,
    /// Tunnels that are looked into; as the maps say where it was never given.
    inspect: Vec<inspect::Inspect>,
    /// Which bits of its mark say who sent a packet; as the maps say where it was never given.
    pub mark: Option<mark::Mask>,
    /// Whether what is denied is dropped; as the maps say where it was never given.
    mode: Option<Mode>,
}

impl Settings {
    /// As they were saved.
    pub fn load(store: &Store) -> Result<Self> {
        let words = |name| -> Result<Vec<String>> {
            let text = store.setting(name)?.unwrap_or_default();
            Ok(text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect())
        };
        let failsafe = words(FAILSAFE)?.iter().map(|text| failsafe::parse(text)).collect::<Result<_>>()?;
        let inspect = words(INSPECT)?;
        let (mode, forward, ingress) = (words(MODE)?, words(FORWARD)?, words(INGRESS)?);
        let mark = words(MARK)?;
        let (prio, chain) = (words(XDP_PRIO)?, words(XDP_CHAIN)?);
        let turn = ingress::Turn {
            xdp_prio: prio.first().and_then(|word| word.parse().ok()),
            xdp_chain: chain.first().and_then(|word| clap::ValueEnum::from_str(word, false).ok()),
        };
        Ok(Self {
            failsafe,
            forward: forward.first().and_then(|word| clap::ValueEnum::from_str(word, false).ok()),
            ingress: ingress.first().and_then(|word| clap::ValueEnum::from_str(word, false).ok()),
            turn,
            inspect: inspect.iter().filter_map(|word| clap::ValueEnum::from_str(word, false).ok()).collect(),
            mark: mark.first().and_then(|word| word.parse().ok()),
            mode: mode.first().and_then(|word| clap::ValueEnum::from_str(word, false).ok()),
        })
    }

    /// With those that are given now.
    pub fn with(self, args: &RunArgs, failsafe: Option<Vec<(u8, u16)>>) -> Self {
        Self {
            failsafe: failsafe.unwrap_or(self.failsafe),
            forward: args.forward.or(self.forward),
            ingress: args.ingress.or(self.ingress),
            turn: args.how.turn.or(self.turn),
            inspect: if args.inspect.is_empty() { self.inspect } else { args.inspect.clone() },
            mark: args.mark.or(self.mark),
            mode: args.mode.or(self.mode),
        }
    }

    /// Tells the kernel which tunnels. A commit has to follow: records of tunnels hold for an epoch.
    pub fn write_tunnels(&self, maps: &Maps) -> Result<()> {
        inspect::set(maps, &self.inspect)
    }

    /// Tells the kernel who forwards.
    pub fn write_forward(&self, maps: &Maps) -> Result<()> {
        forward::set(maps, self.forward)
    }

    /// Ends forwarding by XDP, where that is what is asked for.
    pub fn end_forward(&self, maps: &Maps) -> Result<()> {
        forward::set(maps, self.forward.filter(|who| *who == forward::Forward::Linux))
    }

    /// Tells the kernel how packets are marked.
    pub fn write_mark(&self, maps: &Maps) -> Result<()> {
        mark::set(maps, self.mark)
    }

    /// Ends marking, where that is what is asked for.
    pub fn end_mark(&self, maps: &Maps) -> Result<()> {
        mark::set(maps, self.mark.filter(|mask| !mask.is_on()))
    }

    /// Tells the kernel the mode, which is to enforce where nobody ever said otherwise.
    pub fn write_mode(&self, maps: &Maps, reused: bool) -> Result<()> {
        let enforce = match self.mode {
            Some(mode) => mode == Mode::Enforce,
            None if reused => return Ok(()),
            None => true,
        };
        maps.config.update(|config| {
            config.flags &= !Config::ENFORCE;
            if enforce {
                config.flags |= Config::ENFORCE;
            }
        })?;
        Ok(())
    }

    /// By their names, as they are saved and recorded.
    fn words(&self) -> [(&'static str, Option<String>); 8] {
        let failsafe: Vec<_> = self.failsafe.iter().map(|service| failsafe::text(*service)).collect();
        let inspect: Vec<_> = self.inspect.iter().map(|kind| inspect::word(*kind)).collect();
        let mode = self.mode.map(|mode| if mode == Mode::Enforce { "enforce" } else { "monitor" });
        [
            (FAILSAFE, Some(failsafe.join(",")).filter(|text| !text.is_empty())),
            (FORWARD, self.forward.map(|who| who.name().to_owned())),
            (INGRESS, self.ingress.map(|place| place.name().to_owned())),
            (INSPECT, Some(inspect.join(",")).filter(|text| !text.is_empty())),
            (MARK, self.mark.map(|mask| mask.to_string())),
            (MODE, mode.map(str::to_owned)),
            (XDP_CHAIN, self.turn.xdp_chain.map(|chain| chain.name().to_owned())),
            (XDP_PRIO, self.turn.xdp_prio.map(|prio| prio.to_string())),
        ]
    }

    /// For the audit record.
    pub fn told(&self) -> serde_json::Value {
        let given =
            self.words().into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
        serde_json::Value::Object(given.collect())
    }

    /// Saves them.
    pub fn save(&self, store: &mut Store) -> Result<()> {
        store.set(&self.words(), &Author::daemon("run"))
    }
}
