//! The live maps, asked with the programs' own code.

use crate::exit_code::Result;
use crate::policy::explain::{Flow, Origin, ends};
use datapath::abi::{
    Addr, Binding, BindingVersions, BlockVersions, Config, DecisionVersions, FailsafeKey, GuardKey,
    InterfaceVersions, LimitVersions, PolicyKey, RuleVersions, ScopedKey, Side,
};
use datapath::guard::Service;
use datapath::limits;
use datapath::policy::{Ends, Judgement, Moment, decide};
use datapath::scope;
use datapath::tables::Rules;
use loader::Maps;

/// What the maps say of a connection that is opened now.
pub fn judge(maps: &Maps, flow: &Flow, from: Origin) -> Result<Judgement> {
    let config = maps.config.get()?;
    let moment = Moment { segment: from.segment, ..Moment::at(&config, loader::boot_ns()) };
    let ends = ends(flow, from);
    let rules = Fetched::new(maps, (&ends, flow.port), config, &moment)?;
    let mut judged = decide(&rules, &moment, &ends);
    limits::timed(&rules, &moment, &mut judged);
    Ok(judged)
}

/// What the maps answer for one question, so that the programs' own code can be asked.
struct Fetched {
    config: Config,
    bindings: [(Addr, Option<BindingVersions>); 2],
    scoped: Vec<(ScopedKey, BindingVersions)>,
    blocks: [(Addr, Option<BlockVersions>); 2],
    guards: Vec<(PolicyKey, BlockVersions)>,
    decision: Option<DecisionVersions>,
    /// The numbers of the limits of the rule that this names.
    rule: Option<RuleVersions>,
    failsafe: bool,
}

impl Fetched {
    /// Policy names a service's `port`; of ICMP, the type, which stands in the originator's place.
    fn new(maps: &Maps, (asked, port): (&Ends<'_>, u16), config: Config, moment: &Moment) -> Result<Self> {
        let both = [*asked.orig, *asked.resp];
        let services = [asked.orig_port, asked.resp_port].map(|port| scope::service(asked.proto, port));
        let [from, to] = both.map(|addr| maps.bindings.longest(&addr, 128));
        let [block_from, block_to] = both.map(|addr| maps.blocklist.longest(&addr, 128));
        let mut fetched = Self {
            config,
            bindings: [(both[0], from?), (both[1], to?)],
            scoped: Vec::new(),
            blocks: [(both[0], block_from?), (both[1], block_to?)],
            guards: Vec::new(),
            decision: None,
            rule: None,
            failsafe: false,
        };
        for (addr, service) in both.into_iter().zip(services) {
            for segment in scope::segments(moment.segment) {
                let key = ScopedKey::new(segment, &addr, service);
                fetched.scoped.extend(maps.scoped.longest(&key, ScopedKey::FULL_BITS)?.map(|v| (key, v)));
            }
        }
        let ends = [(0, Side::A), (1, Side::B)].map(|(n, side)| {
            let (addr, versions) = &fetched.bindings[n];
            let wide = versions.map_or(Binding::NONE, |v| *v.at(config.epoch));
            let asks = u32::from(wide.on_expiry & Binding::ASKS) | scope::is_here(moment, side);
            fetched.narrowed(addr, moment, asks, services[n]).map_or(wide, |v| *v.at(config.epoch))
        });
        let lists = fetched.blocks.iter().filter_map(|(_, v)| Some(v.as_ref()?.at(config.epoch).guards));
        let lists: Vec<u32> = ends.iter().map(|end| end.guards).chain(lists).collect();
        for list in lists.into_iter().filter(|list| *list != 0) {
            let peers = ends.map(|peer| GuardKey::quarantine(list, peer.class, asked.proto, port));
            for key in peers.into_iter().chain([GuardKey::block(list, asked.proto, port)]) {
                let found = maps.guards.longest(&key, PolicyKey::FULL_BITS)?;
                fetched.guards.extend(found.map(|versions| (key, versions)));
            }
        }
        let key = PolicyKey::new(ends[0].class, ends[1].class, asked.proto, port);
        fetched.decision = maps.policy.longest(&key, PolicyKey::FULL_BITS)?;
        if let Some(decision) = &fetched.decision {
            fetched.rule = maps.rules.longest(&decision.at(config.epoch).rule, u32::BITS)?;
        }
        let failsafe = FailsafeKey::new(both[1], asked.proto, asked.resp_port);
        fetched.failsafe = maps.failsafe.get(&failsafe)?.is_some();
        Ok(fetched)
    }
}

impl Rules for Fetched {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn coarse_ns(&self, _config: &Config) -> u64 {
        loader::boot_ns()
    }

    fn now_ns(&self, _config: &Config) -> u64 {
        loader::boot_ns()
    }

    fn binding(&self, addr: &Addr) -> Option<&BindingVersions> {
        self.bindings.iter().find(|(a, _)| a == addr)?.1.as_ref()
    }

    fn scoped(&self, segment: u32, addr: &Addr, service: u32) -> Option<&BindingVersions> {
        let key = ScopedKey::new(segment, addr, service);
        self.scoped.iter().find(|(k, _)| *k == key).map(|(_, versions)| versions)
    }

    fn block(&self, addr: &Addr) -> Option<&BlockVersions> {
        self.blocks.iter().find(|(a, _)| a == addr)?.1.as_ref()
    }

    fn guard(&self, key: &PolicyKey) -> Option<&BlockVersions> {
        self.guards.iter().find(|(k, _)| k == key).map(|(_, versions)| versions)
    }

    fn decision(&self, _key: &PolicyKey) -> Option<&DecisionVersions> {
        self.decision.as_ref()
    }

    fn interface(&self, _ifindex: u32) -> Option<&InterfaceVersions> {
        None // the question names none
    }

    fn rule(&self, _number: u32) -> Option<&RuleVersions> {
        self.rule.as_ref() // of the one that decides: when it ends; all else is for connections that run
    }

    fn limit(&self, _identity: u32) -> Option<&LimitVersions> {
        None // as above
    }

    fn is_failsafe(&self, addr: &Addr, _service: Service) -> bool {
        self.failsafe && *addr == self.bindings[1].0
    }
}
