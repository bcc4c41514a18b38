//! What the lines of feeds look like, and a strict reading of them: one bad line, and nothing of the file is taken.

use super::{Entry, Mistake, mistake};
use crate::policy::prefix::{Prefix, PrefixError};
use serde::{Deserialize, Serialize};

/// As many mistakes of a file as help.
const TOLD: usize = 10;

/// What the lines of a feed look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// As its first lines say.
    Auto,
    /// An address a line; comments after `#` or `;`.
    Plain,
    /// An address or a prefix a line; comments after `#` or `;`.
    Cidr,
    /// Spamhaus DROP: `PREFIX ; SBL123`, or a JSON object a line.
    SpamhausDrop,
    /// FireHOL: a header of `#` lines that counts the entries, then addresses and prefixes.
    Netset,
}

impl Format {
    /// By what files call them.
    pub const WORDS: [(&str, Self); 5] = [
        ("auto", Self::Auto),
        ("plain", Self::Plain),
        ("cidr", Self::Cidr),
        ("spamhaus-drop", Self::SpamhausDrop),
        ("netset", Self::Netset),
    ];

    /// As files call it.
    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, format)| *format == self).map_or("auto", |(name, _)| name)
    }

    /// The format named by a word.
    pub fn named(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, format)| *format)
    }

    /// What a text has, where it is for the text to say.
    fn found(self, text: &str) -> Self {
        if self != Self::Auto {
            return self;
        }
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with('{') || line.contains("; SBL") || line.starts_with("; Spamhaus") {
                return Self::SpamhausDrop;
            }
            if let Some(comment) = line.strip_prefix('#') {
                if comment.trim_end().ends_with(" ipset") && comment.contains(" hash:") {
                    return Self::Netset;
                }
            } else if !line.starts_with(';') {
                break;
            }
        }
        Self::Cidr
    }
}

/// Reads every line, or says what is wrong in which.
pub(super) fn parse(path: &str, text: &str, format: Format) -> Result<Vec<Entry>, Vec<Mistake>> {
    let format = format.found(text);
    let (mut entries, mut mistakes, mut announced) = (Vec::new(), Vec::new(), None);
    for (n, line) in text.lines().enumerate() {
        let number = u32::try_from(n + 1).unwrap_or(u32::MAX);
        match read(line.trim(), format) {
            Ok(Line::Nothing) => {}
            Ok(Line::Announces(count)) => announced = Some((number, count)),
            Ok(Line::Entry(prefix, sbl)) => entries.push(Entry { prefix, line: number, sbl }),
            Err(Wrong(what, accepted)) => mistakes.push(mistake(path, number, what, accepted)),
        }
        if mistakes.len() == TOLD {
            break;
        }
    }
    if let Some((line, count)) = announced
        && mistakes.is_empty()
        && (entries.len() as u64) < count
    {
        let what = format!("this says that there are {count} entries, and there are {}", entries.len());
        mistakes.push(mistake(path, line, what, "the file is cut short: fetch it again"));
    }
    if mistakes.is_empty() { Ok(entries) } else { Err(mistakes) }
}

/// What a line says.
enum Line {
    /// A comment, or nothing.
    Nothing,
    /// How many entries there are at least.
    Announces(u64),
    /// A prefix, and the number of its listing.
    Entry(Prefix, u32),
}

/// What is wrong in a line, and what would be accepted.
struct Wrong(String, &'static str);

fn read(line: &str, format: Format) -> Result<Line, Wrong> {
    if format == Format::SpamhausDrop && line.starts_with('{') {
        return json(line);
    }
    let (entry, comment) = match line.find(['#', ';']) {
        Some(at) => (line[..at].trim_end(), line[at + 1..].trim()),
        None => (line, ""),
    };
    if entry.is_empty() {
        return Ok(match format {
            Format::Netset => announced(comment).map_or(Line::Nothing, Line::Announces),
            _ => Line::Nothing,
        });
    }
    if format == Format::Plain && entry.contains('/') {
        return Err(Wrong("a prefix, in a feed of addresses".into(), "`format: cidr` has both"));
    }
    let sbl = match format {
        Format::SpamhausDrop if !comment.is_empty() => listing(comment)?,
        _ => 0,
    };
    Ok(Line::Entry(prefix(entry, format)?, sbl))
}

fn prefix(text: &str, format: Format) -> Result<Prefix, Wrong> {
    text.parse().map_err(|error| match error {
        PrefixError::Address(_) => {
            let accepted = match format {
                Format::Plain => "accepted: an address a line, such as 192.0.2.1, and comments after `#`",
                Format::SpamhausDrop => {
                    "accepted: `192.0.2.0/24 ; SBL123`, or {\"cidr\":\"192.0.2.0/24\",\"sblid\":\"SBL123\"}"
                }
                _ => "accepted: an address or a prefix a line, such as 192.0.2.0/24, and comments after `#`",
            };
            Wrong("this is not an address or a prefix".into(), accepted)
        }
        PrefixError::Length { max, .. } => Wrong(format!("the prefix length is not one of 0 to {max}"), ""),
        PrefixError::HostBits { .. } => Wrong(
            "there are bits set beyond the prefix length".into(),
            "write the network, or the address alone",
        ),
    })
}

/// `SBL256894`
fn listing(text: &str) -> Result<u32, Wrong> {
    let digits = text.strip_prefix("SBL").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| *number != 0);
    number.ok_or_else(|| Wrong("what stands behind the prefix is no listing".into(), "such as SBL256894"))
}

/// The count of a header: `Entries         : 4451 subnets, 611184833 unique IPs`, or only the latter. A list is never shorter than
/// that, whether ranges were counted or lines.
fn announced(comment: &str) -> Option<u64> {
    let counts = comment.strip_prefix("Entries")?.trim_start().strip_prefix(':')?;
    counts.trim().split(' ').next()?.replace(',', "").parse().ok()
}

/// A line of the JSON form. Its last line speaks of the list.
#[derive(Deserialize)]
struct Object {
    cidr: Option<Prefix>,
    sblid: Option<String>,
    r#type: Option<String>,
    records: Option<u64>,
}

fn json(line: &str) -> Result<Line, Wrong> {
    const ACCEPTED: &str =
        "accepted: {\"cidr\":\"192.0.2.0/24\",\"sblid\":\"SBL123\"} and {\"type\":\"metadata\"}";
    let wrong = || Wrong("this is no entry of Spamhaus DROP".into(), ACCEPTED);
    match serde_json::from_str(line).map_err(|_| wrong())? {
        Object { cidr: Some(prefix), sblid, r#type: None, .. } => {
            Ok(Line::Entry(prefix, sblid.map_or(Ok(0), |id| listing(&id))?))
        }
        Object { cidr: None, r#type: Some(kind), records, .. } if kind == "metadata" => {
            Ok(records.map_or(Line::Nothing, Line::Announces))
        }
        _ => Err(wrong()),
    }
}
