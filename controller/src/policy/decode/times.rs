//! Lengths of time and ends.

use super::super::fields::{Context, Fields};
use super::super::time::parse_duration;
use super::super::yaml::Node;
use jiff::Timestamp;

const DURATION_EXAMPLE: &str = "accepted: whole numbers of s, m, h, d, such as 90s, 10m, 1h30m, 7d";

/// A length of time, in seconds.
pub(in super::super) fn duration(cx: &mut Context<'_>, node: &Node, noun: &str) -> Option<u64> {
    let text = cx.text(node, noun)?;
    let seconds = parse_duration(text).and_then(|duration| u64::try_from(duration.as_secs()).ok());
    if seconds.is_none() {
        cx.mistake(node, format!("`{text}` is not a duration"), DURATION_EXAMPLE);
    }
    seconds
}

/// The end that `for` or `notAfter` names.
pub(in super::super) fn end(cx: &mut Context<'_>, fields: &Fields<'_>) -> Option<Timestamp> {
    match (fields.optional("notAfter"), fields.optional("for")) {
        (Some(_), Some(node)) => {
            cx.mistake(node, "`for` and `notAfter` both say when it ends", "keep one of them");
            None
        }
        (Some(node), None) => {
            let text = cx.text(node, "`notAfter`")?;
            let time = text.parse().ok();
            if time.is_none() {
                let example = "accepted: RFC 3339 with a zone, such as 2027-01-01T00:00:00Z";
                cx.mistake(node, format!("`{text}` is not a time"), example);
            }
            time
        }
        (None, Some(node)) => {
            let text = cx.text(node, "`for`")?;
            let time = parse_duration(text).and_then(|d| cx.now.checked_add(d).ok());
            if time.is_none() {
                cx.mistake(node, format!("`{text}` is not a duration"), DURATION_EXAMPLE);
            }
            time
        }
        (None, None) => None,
    }
}
