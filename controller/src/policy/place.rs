//! Where something stands in a file, and mistakes that point there.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A place in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One mistake: where it is, what is wrong and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// Where; `None` where no line can be named (a file that cannot be read).
    pub place: Option<Place>,
    /// What is wrong.
    pub what: String,
    /// What is accepted or what to do, empty where `what` says it all.
    pub accepted: String,
    /// The line of the file.
    pub source_line: String,
    /// How many characters the caret underlines; 0 where the line is not shown.
    pub width: usize,
}

impl Mistake {
    /// One that stands in no file.
    pub fn unplaced(what: String, accepted: &str) -> Self {
        Self { place: None, what, accepted: accepted.to_owned(), source_line: String::new(), width: 1 }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.place else {
            write!(f, "error: {}", self.what)?;
            return if self.accepted.is_empty() { Ok(()) } else { write!(f, "\n  = {}", self.accepted) };
        };
        write!(f, "{place}: error: {}", self.what)?;
        // Of what is not to be shown, the place is told alone.
        if self.width > 0 {
            excerpt(f, place, &self.source_line, self.width)?;
        }
        if !self.accepted.is_empty() {
            write!(f, "\n  = {}", self.accepted)?;
        }
        Ok(())
    }
}

/// Shows the line with a caret below the place, as compilers do.
fn excerpt(f: &mut fmt::Formatter<'_>, place: &Place, line: &str, width: usize) -> fmt::Result {
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    // Tabs stay tabs below themselves, so that the caret lines up however wide they are.
    let indent: String =
        line.chars().take(place.column as usize - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let room = line.chars().count().saturating_sub(place.column as usize - 1).max(1);
    write!(f, "\n{margin} |\n{number} | {line}\n{margin} | {indent}{}", "^".repeat(width.clamp(1, room)))
}

/// Every mistake of a set of files. Where there is one, nothing of the set is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.0 {
            write!(f, "{mistake}\n\n")?;
        }
        match self.0.len() {
            1 => write!(f, "1 mistake; nothing was changed"),
            n => write!(f, "{n} mistakes; nothing was changed"),
        }
    }
}

/// The nearest of some names to one that is not among them, where one is near enough to be meant.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.into_iter().map(|name| (edit_distance(wrong, name), name)).min()?;
    (near.0 <= 1 + wrong.chars().count() / 3).then_some(near.1)
}

/// `a, b, c`, and the nearest where one was probably meant.
pub fn one_of(wrong: &str, names: &[&str]) -> String {
    let list = names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    match nearest(wrong, names.iter().copied()) {
        Some(near) => format!("accepted: {list}; did you mean `{near}`?"),
        None => format!("accepted: {list}"),
    }
}

/// Levenshtein's distance, upper and lower case alike.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_the_name_that_was_meant() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(nearest("portz", ["from", "ports", "to"]), Some("ports"));
        assert_eq!(nearest("spiffeid", ["spiffeId", "spiffePath"]), Some("spiffeId"));
        assert_eq!(nearest("colour", ["from", "ports", "to"]), None);
    }
}
