//! Times in seconds, exact: a float keeps no nanoseconds of an epoch time.

use serde::{Serialize, Serializer, ser::Error};
use std::fmt;

/// Nanoseconds that are written as decimal seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ns) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        match f.precision() {
            Some(digits @ 0..9) => {
                let digits = digits.max(1);
                write!(f, "{seconds}.{:0digits$}", ns / 10u64.pow(9 - digits as u32))
            }
            _ => write!(f, "{seconds}.{ns:09}"),
        }
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = serde_json::value::RawValue::from_string(self.to_string()).map_err(S::Error::custom)?;
        number.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nanosecond_is_kept() {
        assert_eq!(
            serde_json::to_string(&Seconds(1_575_842_394_599_412_001)).unwrap(),
            "1575842394.599412001"
        );
        assert_eq!(serde_json::to_string(&Seconds(0)).unwrap(), "0.000000000");
        assert_eq!(format!("{:.6}", Seconds(2_000_001_999)), "2.000001");
    }
}
