//! Bits of a packet's mark that tell netfilter and routing who sent it: a word of the configuration map, which outlives the
//! daemon (docs/adr/0023-marks.md).

use super::forward::Forward;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::numbering::Numbering;
use loader::Maps;
use std::fmt;
use std::str::FromStr;

/// Bits next to each other, or none: then nothing is marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask(u32);

impl Mask {
    /// What the maps say.
    pub fn of(config: &datapath::abi::Config) -> Self {
        Self(config.mark_mask)
    }

    /// Whether packets are marked.
    pub fn is_on(self) -> bool {
        self.0 != 0
    }

    /// The largest number that it has room for.
    fn room(self) -> u32 {
        self.0.checked_shr(self.0.trailing_zeros()).unwrap_or(0)
    }

    /// Refuses numbers that it has no room for: they would look like nobody's.
    pub fn check(self, numbering: &Numbering) -> Result<()> {
        let largest = numbering.identities().max_by_key(|(number, _)| *number);
        let Some((number, id)) = largest.filter(|(number, _)| self.is_on() && *number > self.room()) else {
            return Ok(());
        };
        let message = format!(
            "{id} would be identity {number}, and the mark {self} has room for numbers up to {}; start the daemon with a wider \
             --mark, or with --mark none",
            self.room()
        );
        Err(Failure::new(Code::Conflict, message))
    }

    /// Refuses that beside who forwards.
    pub fn check_forward(self, forward: Option<Forward>) -> Result<()> {
        if self.is_on() && forward == Some(Forward::Xdp) {
            let message = "a frame that XDP forwards has no mark: use --forward linux, or --mark none";
            return Err(Failure::new(Code::Usage, message));
        }
        Ok(())
    }
}

impl FromStr for Mask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(0));
        }
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => text.parse(),
        };
        let mask = parsed.map_err(|_| "write a mask such as 0xffff0000, or `none`".to_owned())?;
        // Adding the lowest bit carries through bits that are next to each other.
        let carried = mask.wrapping_add(mask & mask.wrapping_neg());
        if mask == 0 || carried & mask != 0 {
            return Err("the bits of the mask have to be next to each other, and there has to be one".into());
        }
        Ok(Self(mask))
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_on() { write!(f, "{:#010x}", self.0) } else { f.write_str("none") }
    }
}

/// Sets which bits; without a word they stay as they were.
pub(super) fn set(maps: &Maps, mask: Option<Mask>) -> Result<()> {
    let Some(mask) = mask else { return Ok(()) };
    maps.config.update(|config| config.mark_mask = mask.0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_bits_next_to_each_other_and_has_room_for_numbers() {
        let room = |text: &str| text.parse::<Mask>().map(|mask| (mask.to_string(), mask.room()));
        assert_eq!(room("0xff00"), Ok(("0x0000ff00".into(), 255)));
        assert_eq!(room("0xffffffff"), Ok(("0xffffffff".into(), u32::MAX)));
        assert_eq!(room("0x80000000"), Ok(("0x80000000".into(), 1)));
        assert_eq!(room("7"), Ok(("0x00000007".into(), 7)));
        assert_eq!(room("none"), Ok(("none".into(), 0)));
        for wrong in ["0", "0xf0f", "0x80000001", "5"] {
            assert!(room(wrong).expect_err(wrong).contains("next to each other"), "{wrong}");
        }
        for wrong in ["", "0x", "ff00", "0x1ffffffff", "-1"] {
            assert!(room(wrong).expect_err(wrong).contains("such as 0xffff0000"), "{wrong}");
        }
    }

    #[test]
    fn a_number_without_room_is_refused_by_its_name() {
        let mut numbering = Numbering::default();
        for n in 1..=4 {
            numbering.identity(&format!("spiffe://td/{n}").parse().expect("an ID"));
        }
        assert_eq!("0x7".parse::<Mask>().map(|mask| mask.check(&numbering).is_ok()), Ok(true));
        assert!(Mask(0).check(&numbering).is_ok());
        let refused = Mask(0x30).check(&numbering).expect_err("3 is the largest");
        assert_eq!(refused.code, Code::Conflict);
        assert!(
            refused.message.starts_with(
                "spiffe://td/4 would be identity 4, and the mark 0x00000030 has room for numbers up to 3;"
            ),
            "{refused}"
        );
    }
}
