//! `hours` of an Intent: when connections are expected, by the clock on the wall of a zone.

use crate::policy::fields::{Context, Fields};
use crate::policy::yaml::Node;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// When connections are expected: in any of these spans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    /// Whose clock it is.
    pub zone: Zone,
    /// In the order of the file.
    pub open: Vec<Span>,
}

/// A time zone of the IANA database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(TimeZone);

/// A part of some days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// On which days it begins.
    pub days: Days,
    /// From then on.
    pub from: Minute,
    /// Before then; on the next day where that is not later.
    pub to: Minute,
}

/// Days of the week, a bit each; Monday is the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Days(u8);

/// Minutes since midnight; 24:00 is the end of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Minute(u16);

const FIELDS: [&str; 2] = ["zone", "open"];
const EXAMPLE: &str =
    "for example `hours: {zone: Europe/Berlin, open: [{days: [mon-fri], from: \"06:00\", to: \"22:00\"}]}`";
const ZONE: &str = "accepted: a zone of the IANA database, such as UTC, Europe/Berlin, America/New_York";
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u16 = 24 * 60;

/// Reads `hours`.
pub(in crate::policy) fn decode(cx: &mut Context<'_>, node: &Node) -> Option<Hours> {
    let fields = Fields::of(cx, node, "`hours`", &FIELDS)?;
    let zone = fields
        .required(cx, "zone", "hours are of a place: for example `zone: Europe/Berlin`")
        .and_then(|node| cx.parsed::<Zone>(node, "`zone`", ZONE));
    let spans = fields.required(cx, "open", EXAMPLE)?;
    let mut open = Vec::new();
    for item in cx.items(spans, "`open`", EXAMPLE) {
        open.extend(span(cx, item));
    }
    Some(Hours { zone: zone?, open })
}

fn span(cx: &mut Context<'_>, node: &Node) -> Option<Span> {
    let fields = Fields::of(cx, node, "an item of `open`", &["days", "from", "to"])?;
    let days = match fields.optional("days") {
        None => Days::ALL,
        Some(list) => {
            let mut days = Days(0);
            for item in cx.items(list, "`days`", Days::ACCEPTED) {
                days.0 |= cx.parsed::<Days>(item, "a day", Days::ACCEPTED)?.0;
            }
            days
        }
    };
    let time = |cx: &mut Context<'_>, name: &str| {
        let node = fields.required(cx, name, EXAMPLE)?;
        cx.parsed::<Minute>(node, "a time", "accepted: \"00:00\" to \"24:00\"")
    };
    let (from, to) = (time(cx, "from"), time(cx, "to"));
    Some(Span { days, from: from?, to: to? })
}

impl Hours {
    /// Whether a moment is in one of the spans.
    pub fn contain(&self, at: Timestamp) -> bool {
        let (day, minute) = self.zone.wall(at);
        self.open.iter().any(|span| span.contains(day, minute))
    }

    /// The first moment after this at which [`Self::contain`] says otherwise; nothing where it never does.
    pub fn next_change(&self, at: Timestamp) -> Option<Timestamp> {
        let now = self.contain(at);
        let mut edges = self.edges(at);
        edges.sort_unstable();
        edges.into_iter().find(|edge| *edge > at && self.contain(*edge) != now)
    }

    /// Every moment of the week to come at which it may change: ends of spans, and times at which the clock on the wall is set.
    fn edges(&self, at: Timestamp) -> Vec<Timestamp> {
        let zone = &self.zone.0;
        let week = SignedDuration::from_hours(10 * 24);
        let set = zone.following(at).map(|transition| transition.timestamp());
        let mut edges: Vec<Timestamp> = set.take_while(|set| set.duration_since(at) < week).collect();
        let mut day = zone.to_datetime(at).date();
        for _ in 0..9 {
            let Ok(next) = day.tomorrow() else { break };
            for Minute(minute) in self.open.iter().flat_map(|span| [span.from, span.to]) {
                let (day, minute) = if minute == DAY { (next, 0) } else { (day, minute) };
                let (hour, minute) = (minute / 60, minute % 60);
                let wall = zone.to_ambiguous_timestamp(day.at(hour as i8, minute as i8, 0, 0));
                edges.extend([wall.earlier(), wall.later()].into_iter().flatten());
            }
            day = next;
        }
        edges
    }

    /// `Sun 03:12 (Europe/Berlin)`
    pub fn told(&self, at: Timestamp) -> String {
        let (day, minute) = self.zone.wall(at);
        format!("{} {minute} ({})", NAMES[usize::from(day)], self.zone)
    }
}

impl Span {
    /// Whether it holds the minute of a day, 0 for Monday.
    fn contains(&self, day: u8, minute: Minute) -> bool {
        if self.from < self.to {
            return self.days.has(day) && (self.from..self.to).contains(&minute);
        }
        // Over midnight: it belongs to the day on which it begins.
        let before = (day + 6) % 7;
        self.days.has(day) && minute >= self.from || self.days.has(before) && minute < self.to
    }
}

impl Zone {
    /// The day of the week, 0 for Monday, and the minute.
    fn wall(&self, at: Timestamp) -> (u8, Minute) {
        let wall = self.0.to_datetime(at);
        let time: Time = wall.time();
        let minute = u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs());
        (Weekday::to_monday_zero_offset(wall.weekday()).unsigned_abs(), Minute(minute))
    }
}

impl Days {
    const ALL: Self = Self(0x7f);
    const ACCEPTED: &'static str =
        "accepted: `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`, or from one to another: `mon-fri`";

    fn has(self, day: u8) -> bool {
        self.0 & (1 << day) != 0
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        TimeZone::get(text).map(Self).map_err(|_| format!("`{text}` is no time zone"))
    }
}

impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let day = |name: &str| {
            NAMES.iter().position(|n| *n == name).ok_or_else(|| format!("`{text}` is no day of the week"))
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (day(first)?, day(last)?);
        // From Saturday to Monday is three days.
        let many = (last + 7 - first) % 7;
        Ok(Self((0..=many).fold(0, |all, n| all | 1 << ((first + n) % 7))))
    }
}

impl FromStr for Minute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no time of day");
        let number = |part: &str| {
            (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<u16>().ok())?
        };
        let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
        let (hour, minute) = (number(hour).ok_or_else(wrong)?, number(minute).ok_or_else(wrong)?);
        let minutes = hour * 60 + minute;
        if minute > 59 || minutes > DAY { Err(wrong()) } else { Ok(Self(minutes)) }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spans: Vec<_> = self.open.iter().map(Span::to_string).collect();
        write!(f, "{} ({})", spans.join(" or "), self.zone)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-{}", self.days, self.from, self.to)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("daily");
        }
        let names: Vec<_> = (0..7).filter(|day| self.has(*day)).map(|day| NAMES[usize::from(day)]).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(days: &[&str], from: &str, to: &str, zone: &str) -> Hours {
        let days = days.iter().fold(0, |all, day| all | day.parse::<Days>().expect("days").0);
        let span =
            Span { days: Days(days), from: from.parse().expect("a time"), to: to.parse().expect("a time") };
        Hours { zone: zone.parse().expect("a zone"), open: vec![span] }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn hours_are_those_of_the_zone_in_summer_and_in_winter() {
        let office = hours(&["mon-fri"], "08:00", "18:00", "Europe/Berlin");
        // Friday; Berlin is two hours ahead in July, and one in January.
        assert!(office.contain(at("2026-07-03T06:00:00Z")) && !office.contain(at("2026-07-03T05:59:59Z")));
        assert!(!office.contain(at("2026-01-09T06:59:59Z")) && office.contain(at("2026-01-09T07:00:00Z")));
        assert!(office.contain(at("2026-01-09T16:59:59Z")) && !office.contain(at("2026-01-09T17:00:00Z")));
        assert!(!office.contain(at("2026-01-10T10:00:00Z")), "it is Saturday");
        assert_eq!(office.told(at("2026-01-10T10:05:00Z")), "sat 11:05 (Europe/Berlin)");
        assert_eq!(office.to_string(), "mon,tue,wed,thu,fri 08:00-18:00 (Europe/Berlin)");
    }

    #[test]
    fn a_span_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = hours(&["fri"], "22:00", "02:00", "UTC");
        assert!(night.contain(at("2026-01-09T23:00:00Z")) && night.contain(at("2026-01-10T01:59:00Z")));
        assert!(!night.contain(at("2026-01-10T02:00:00Z")) && !night.contain(at("2026-01-09T01:00:00Z")));
        let all = hours(&["sat-mon"], "00:00", "24:00", "UTC");
        assert!(all.contain(at("2026-01-11T23:59:59Z")) && !all.contain(at("2026-01-13T00:00:00Z")));
        assert_eq!(all.to_string(), "mon,sat,sun 00:00-24:00 (UTC)");
    }

    #[test]
    fn what_is_no_time_or_day_is_refused() {
        for wrong in ["24:01", "6:00", "06:60", "+6:00", "0600", ""] {
            assert!(wrong.parse::<Minute>().is_err(), "{wrong}");
        }
        for wrong in ["monday", "mon-", "MON", ""] {
            assert!(wrong.parse::<Days>().is_err(), "{wrong}");
        }
        assert!("Berlin".parse::<Zone>().is_err());
    }

    #[test]
    fn the_next_change_is_right_also_where_the_clock_on_the_wall_is_set() {
        let office = hours(&["mon-fri"], "08:00", "18:00", "Europe/Berlin");
        let next = |hours: &Hours, from: &str| hours.next_change(at(from)).map(|end| end.to_string());
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(next(&office, "2026-01-09T08:30:10Z"), is("2026-01-09T17:00:00Z"));
        assert_eq!(next(&office, "2026-01-09T17:00:00Z"), is("2026-01-12T07:00:00Z"), "after the weekend");
        let night = hours(&["mon-sun"], "22:00", "02:30", "Europe/Berlin");
        // On the last Sunday of March it goes from 2:00 to 3:00, at 1:00 UTC.
        assert_eq!(next(&night, "2026-03-29T00:10:00Z"), is("2026-03-29T01:00:00Z"));
        // On that of October 2:30 comes twice, and so do the hours.
        assert_eq!(next(&night, "2026-10-24T23:00:00Z"), is("2026-10-25T00:30:00Z"));
        assert_eq!(next(&night, "2026-10-25T00:30:00Z"), is("2026-10-25T01:00:00Z"));
        assert_eq!(next(&night, "2026-10-25T01:00:00Z"), is("2026-10-25T01:30:00Z"));
        assert_eq!(next(&hours(&["mon-sun"], "00:00", "24:00", "UTC"), "2026-01-09T08:30:10Z"), None);
    }
}
