//! What holds for one interface, and what a candidate policy would change.

use super::policy::versions;
use super::reason::{Action, Reason};
use bytemuck::{Pod, Zeroable};

/// What holds for what enters by one interface instead of what holds for the gateway.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Interface {
    /// Bits of [`super::Config::flags`] that are the interface's own.
    pub mask: u32,
    /// Their values.
    pub flags: u32,
    /// What bindings know it by, 0 where none names it.
    pub number: u32,
}

impl Interface {
    /// Everything as for the gateway.
    pub const NONE: Self = Self { mask: 0, flags: 0, number: 0 };
}

/// An interface that is judged: the value of `TG_JUDGED_PORTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct JudgedPort {
    /// Its hardware address: what is sent to another one is not the gateway's to route.
    pub mac: [u8; 6],
    /// Padding.
    pub _pad: [u8; 2],
}
const _: () = assert!(size_of::<JudgedPort>() == 8);

versions! {
    /// Two versions of an [`Interface`].
    InterfaceVersions of Interface, size 32
}

/// What two epochs say of one flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct ShadowKey {
    /// The rule that decides now, 0 for none.
    pub old_rule: u32,
    /// The rule that would decide, 0 for none.
    pub new_rule: u32,
    /// The [`Action`] now; 0 in [`ShadowKey::SAME`].
    pub old_action: u8,
    /// The [`Reason`] now.
    pub old_reason: u8,
    /// The action that would be.
    pub new_action: u8,
    /// Its reason.
    pub new_reason: u8,
}

impl ShadowKey {
    /// Counts flows of which both say the same.
    pub const SAME: Self =
        Self { old_rule: 0, new_rule: 0, old_action: 0, old_reason: 0, new_action: 0, new_reason: 0 };

    /// The actions and reasons: now, and as they would be.
    pub fn verdicts(&self) -> [(Action, Reason); 2] {
        [(self.old_action, self.old_reason), (self.new_action, self.new_reason)]
            .map(|(action, reason)| (Action::from_u8(action), Reason::from_u8(reason)))
    }
}
