//! What is compiled, as tables of the native engine: replays on the host and explanations judge by the same code as
//! the kernel's programs.

use super::compile::Compiled;
use super::gateway::configure;
use super::prefix::Prefix;
use super::trie::{PolicyPrefix, lookup};
use datapath::abi::{
    Addr, Binding, BindingVersions, Block, BlockVersions, Config, Decision, DecisionVersions, GuardKey,
    LimitVersions, PolicyKey, RuleVersions,
};
use datapath::host::HostRules;

/// Everything, in every epoch alike.
pub fn host_rules(compiled: &Compiled) -> HostRules {
    let mut rules = with_default(compiled);
    for (prefix, binding) in &compiled.bindings {
        rules.bindings.insert(prefix.addr().octets(), prefix.bits(), binding_versions(*binding));
    }
    for (prefix, binding) in &compiled.scoped {
        rules.scoped.insert(bytemuck::cast(prefix.key), prefix.bits, binding_versions(*binding));
    }
    for (prefix, block) in &compiled.blocklist {
        rules.blocklist.insert(prefix.addr().octets(), prefix.bits(), block_versions(*block));
    }
    for (prefix, block) in &compiled.guards {
        rules.guards.insert(prefix.key.bytes, prefix.bits, block_versions(*block));
    }
    for (prefix, decision) in &compiled.policy {
        rules.policy.insert(prefix.key.bytes, prefix.bits, decision_versions(*decision));
    }
    rules
}

/// What one connection looks up, and nothing else.
pub(super) fn rules_of_flow(compiled: &Compiled, src: Addr, dst: Addr, proto: u8, port: u16) -> HostRules {
    let asks = |addr| {
        lookup(&compiled.bindings, &Prefix::host(addr)).is_some_and(|(_, b)| b.on_expiry & Binding::ASKS != 0)
    };
    if asks(src) || asks(dst) {
        return host_rules(compiled); // where an end is, or its port, says who it is
    }
    let mut rules = with_default(compiled);
    let mut lists = Vec::new();
    let classes = [src, dst].map(|addr| {
        let prefix = Prefix::host(addr);
        let binding = lookup(&compiled.bindings, &prefix).map_or(Binding::NONE, |(_, binding)| *binding);
        let block = lookup(&compiled.blocklist, &prefix).map_or(Block::NONE, |(_, block)| *block);
        rules.bindings.insert(addr.octets(), 128, binding_versions(binding));
        rules.blocklist.insert(addr.octets(), 128, block_versions(block));
        lists.extend([binding.guards, block.guards]);
        binding.class
    });
    for list in lists.into_iter().filter(|list| *list != 0) {
        let peers = classes.map(|peer| GuardKey::quarantine(list, peer, proto, port));
        for key in peers.into_iter().chain([GuardKey::block(list, proto, port)]) {
            let full = PolicyPrefix::new(key, PolicyKey::FULL_BITS);
            let block = lookup(&compiled.guards, &full).map_or(Block::NONE, |(_, block)| *block);
            rules.guards.insert(key.bytes, PolicyKey::FULL_BITS, block_versions(block));
        }
    }
    let key = PolicyKey::new(classes[0], classes[1], proto, port);
    let full = PolicyPrefix::new(key, PolicyKey::FULL_BITS);
    let decision = lookup(&compiled.policy, &full).map_or(Decision::NONE, |(_, decision)| *decision);
    rules.policy.insert(key.bytes, PolicyKey::FULL_BITS, decision_versions(decision));
    rules
}

fn with_default(compiled: &Compiled) -> HostRules {
    let mut rules = HostRules::default();
    configure(compiled.gateway.as_ref(), &mut rules.config);
    for (number, settings) in &compiled.settings {
        rules.rules.insert(*number, RuleVersions { since: 0, _pad: 0, old: *settings, new: *settings });
    }
    for (identity, limit) in &compiled.limits {
        rules.limits.insert(*identity, LimitVersions { since: 0, _pad: 0, old: *limit, new: *limit });
    }
    if compiled.default_allow {
        rules.config.flags |= Config::DEFAULT_ALLOW;
    } else {
        rules.config.flags &= !Config::DEFAULT_ALLOW;
    }
    rules
}

fn binding_versions(value: Binding) -> BindingVersions {
    BindingVersions { since: 0, _pad: 0, old: value, new: value }
}

fn block_versions(value: Block) -> BlockVersions {
    BlockVersions { since: 0, _pad: 0, old: value, new: value }
}

fn decision_versions(value: Decision) -> DecisionVersions {
    DecisionVersions { since: 0, _pad: 0, old: value, new: value }
}
