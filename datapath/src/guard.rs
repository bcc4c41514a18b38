//! What blocklists and quarantines say: of a prefix, or of the guard list that a prefix or an identity names.
//!
//! A list holds what concerns only some services or peers, or an identity. What no entry concerns names no list, and no
//! list costs nothing.

use crate::abi::{Action, Block, GuardKey, PolicyKey, Reason};
use crate::policy::{Judgement, Moment};
use crate::tables::Rules;

/// What policy names of a connection: its protocol, and the port that is listened on or the type of ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// IP protocol number.
    pub proto: u8,
    /// Port.
    pub port: u16,
}

/// The lists and classes of the identities of both ends, the originator's first.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// Their guard lists, 0 for none.
    pub guards: [u32; 2],
    /// Their classes.
    pub classes: [u32; 2],
}

/// The number of the entry in force that blocks this service of whom a list is of, 0 for none.
#[inline(always)]
pub fn blocked<R: Rules>(rules: &R, list: u32, service: Service, moment: &Moment, j: &mut Judgement) -> u32 {
    said(rules, &GuardKey::block(list, service.proto, service.port), moment, j)
}

/// Whether a block or a quarantine speaks of the identity of an end.
#[inline(always)]
pub fn is_listed<R: Rules>(
    rules: &R,
    listed: &Listed,
    service: Service,
    moment: &Moment,
    j: &mut Judgement,
) -> bool {
    let Service { proto, port } = service;
    for end in 0..2 {
        let list = listed.guards[end];
        if list != 0 {
            let rule = said(rules, &GuardKey::block(list, proto, port), moment, j);
            if rule != 0 {
                j.decided(Action::Dropped, Reason::Blocklisted, rule);
                return true;
            }
        }
    }
    for end in 0..2 {
        let list = listed.guards[end];
        if list != 0 {
            let peer = listed.classes[1 - end];
            let rule = said(rules, &GuardKey::quarantine(list, peer, proto, port), moment, j);
            if rule != 0 {
                j.decided(Action::Dropped, Reason::Quarantined, rule);
                return true;
            }
        }
    }
    false
}

/// The number of the entry in force that a list has for `key`, 0 for none.
#[inline(always)]
fn said<R: Rules>(rules: &R, key: &PolicyKey, moment: &Moment, j: &mut Judgement) -> u32 {
    match rules.guard(key) {
        Some(versions) => in_force(versions.at(moment.epoch), moment, j),
        None => 0,
    }
}

/// The number of a block unless it is over; the judgement holds no longer than it does.
#[inline(always)]
fn in_force(block: &Block, moment: &Moment, j: &mut Judgement) -> u32 {
    if block.rule == 0 || moment.now_ns >= block.not_after_ns {
        return 0;
    }
    j.until(block.not_after_ns);
    block.rule
}
