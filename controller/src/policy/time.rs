//! Leases: from what a file says to the kernel's boot clock.

use datapath::abi::NEVER;
use jiff::{SignedDuration, Timestamp};

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Wall-clock time.
    pub wall_now: Timestamp,
    /// `CLOCK_BOOTTIME` at the same moment.
    pub boot_now_ns: u64,
}

impl Clock {
    /// Wall-clock time of boot, ns since 1970.
    pub(super) fn wall_of_boot_ns(&self) -> i128 {
        self.wall_now.as_nanosecond() - i128::from(self.boot_now_ns)
    }
}

/// The boot-clock time of a wall-clock one, given the wall-clock time of boot. What was over before boot is 0.
pub(super) fn boot_time_ns(at: Timestamp, wall_of_boot_ns: i128) -> u64 {
    u64::try_from((at.as_nanosecond() - wall_of_boot_ns).max(0)).unwrap_or(NEVER - 1).min(NEVER - 1)
}

/// Reads `90s`, `10m`, `1h30m`, `7d`; nothing where it is none of these.
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let mut seconds: i64 = 0;
    let mut number = String::new();
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        let part = number.parse::<i64>().ok()?.checked_mul(unit)?;
        seconds = seconds.checked_add(part)?;
        number.clear();
    }
    (number.is_empty() && seconds > 0).then(|| SignedDuration::from_secs(seconds))
}

/// A duration for people: its two largest units.
pub fn duration_text(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m{s:02}s"),
        (0, ..) => format!("{h}h{m:02}m"),
        _ => format!("{d}d{h:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_units() {
        let seconds = |text| parse_duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("7d"), Some(604_800));
        for wrong in ["", "10", "0s", "1.5h", "h", "-1h", "1w", "99999999999999999d"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration_text(59), "59s");
        assert_eq!(duration_text(61), "1m01s");
        assert_eq!(duration_text(3660), "1h01m");
        assert_eq!(duration_text(90_000), "1d01h");
    }

    #[test]
    fn wall_times_become_boot_times() {
        let clock =
            Clock { wall_now: "2026-01-01T00:00:10Z".parse().expect("time"), boot_now_ns: 4_000_000_000 };
        let boot = |text: &str| boot_time_ns(text.parse().expect("time"), clock.wall_of_boot_ns());
        assert_eq!(boot("2026-01-01T00:00:20Z"), 14_000_000_000);
        assert_eq!(boot("2025-01-01T00:00:20Z"), 0);
        assert_eq!(boot("9000-01-01T00:00:00Z"), NEVER - 1);
    }
}
