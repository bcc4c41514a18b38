//! Helpers that take a YAML node apart and note a mistake where it is not what was asked for.

use super::place::{Mistake, Place, one_of};
use super::yaml::{Node, Value};
use jiff::Timestamp;
use std::cell::OnceCell;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

/// The file that is read and the mistakes found so far.
pub struct Context<'f> {
    file: Arc<str>,
    text: &'f str,
    /// Its lines, once a mistake asks for them.
    lines: OnceCell<Vec<&'f str>>,
    mistakes: &'f mut Vec<Mistake>,
    /// When durations begin.
    pub now: Timestamp,
}

impl<'f> Context<'f> {
    /// For one file.
    pub fn new(file: &str, text: &'f str, now: Timestamp, mistakes: &'f mut Vec<Mistake>) -> Self {
        Self { file: file.into(), text, lines: OnceCell::new(), mistakes, now }
    }

    fn lines(&self) -> &[&'f str] {
        self.lines.get_or_init(|| self.text.lines().collect())
    }

    /// Where a node stands.
    pub fn place(&self, node: &Node) -> Place {
        Place { file: self.file.clone(), line: node.line, column: node.column }
    }

    /// Notes a mistake at a node.
    pub fn mistake(&mut self, node: &Node, what: impl Into<String>, accepted: impl Into<String>) {
        self.mistake_at(self.place(node), node.width, what, accepted);
    }

    /// Notes a mistake at a place of this file.
    pub fn mistake_at(
        &mut self,
        place: Place,
        width: usize,
        what: impl Into<String>,
        accepted: impl Into<String>,
    ) {
        // At the end of a file the place may be one line too far: show the last that there is.
        let line = (place.line as usize).clamp(1, self.lines().len().max(1));
        let source_line = self.lines().get(line - 1).copied().unwrap_or_default().to_owned();
        let (what, accepted) = (what.into(), accepted.into());
        self.mistakes.push(Mistake { place: Some(place), what, accepted, source_line, width });
    }

    /// Where a syntax error stands.
    pub fn place_at(&self, line: u32, column: u32) -> Place {
        let last = self.lines().len().max(1) as u32;
        if line > last {
            let end = self.lines().last().map_or(0, |l| l.chars().count()) as u32;
            return Place { file: self.file.clone(), line: last, column: end + 1 };
        }
        Place { file: self.file.clone(), line: line.max(1), column: column.max(1) }
    }

    /// The text of a scalar.
    pub fn text<'n>(&mut self, node: &'n Node, noun: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => Some(text),
            _ => {
                self.mistake(node, format!("{noun} is {}", node.noun()), "accepted: one value");
                None
            }
        }
    }

    /// A scalar that parses.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, node: &Node, noun: &str, accepted: &str) -> Option<T> {
        match self.text(node, noun)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(node, error.to_string(), accepted);
                None
            }
        }
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, node: &Node, noun: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, noun)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.mistake(node, format!("`{text}` is no {noun}"), one_of(text, &names));
        }
        found
    }

    /// The items of a list that has at least one.
    pub fn items<'n>(&mut self, node: &'n Node, noun: &str, example: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) if !items.is_empty() => items,
            Value::List(_) => {
                self.mistake(node, format!("{noun} is an empty list"), example);
                &[]
            }
            _ => {
                self.mistake(node, format!("{noun} is {}, not a list", node.noun()), example);
                &[]
            }
        }
    }

    /// A name: what can stand in file names, metric labels and `policy/rule`.
    pub fn name(&mut self, node: &Node, noun: &str) -> Option<String> {
        let text = self.text(node, noun)?;
        let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.is_empty() || text.len() > 253 || !text.chars().all(right) {
            self.mistake(
                node,
                format!("`{text}` is not a name"),
                "accepted: 1 to 253 of a-z, A-Z, 0-9, `.`, `-`, `_`",
            );
            return None;
        }
        Some(text.to_owned())
    }
}

/// A mapping whose fields are known.
pub struct Fields<'n> {
    node: &'n Node,
    noun: &'n str,
    found: Vec<(&'n str, &'n Node, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// Takes a mapping apart; fields that are not accepted, or stand twice, are mistakes.
    pub fn of(cx: &mut Context<'_>, node: &'n Node, noun: &'n str, names: &[&str]) -> Option<Self> {
        let Value::Map(pairs) = &node.value else {
            let accepted = format!("accepted: a mapping with {}", quoted(names));
            cx.mistake(node, format!("{noun} is {}, not a mapping", node.noun()), accepted);
            return None;
        };
        let mut found: Vec<(&str, &Node, &Node)> = Vec::new();
        for (key, value) in pairs {
            let Value::Scalar { text, .. } = &key.value else { continue };
            if !names.contains(&text.as_str()) {
                cx.mistake(key, format!("unknown field `{text}` in {noun}"), one_of(text, names));
            } else if let Some((_, first, _)) = found.iter().find(|(name, ..)| name == text) {
                let what = format!("field `{text}` stands twice");
                cx.mistake(key, what, format!("first at {}", cx.place(first)));
            } else {
                found.push((text, key, value));
            }
        }
        Some(Self { node, noun, found })
    }

    /// A field that has to be there.
    pub fn required(&self, cx: &mut Context<'_>, name: &str, example: &str) -> Option<&'n Node> {
        self.required_as(cx, name, || example.to_owned())
    }

    /// The same, where the example takes words to make: they are made where they are needed.
    pub fn required_as(
        &self,
        cx: &mut Context<'_>,
        name: &str,
        example: impl FnOnce() -> String,
    ) -> Option<&'n Node> {
        let found = self.optional(name);
        if found.is_none() {
            match self.found.iter().find(|(n, ..)| *n == name) {
                Some((_, key, _)) => {
                    cx.mistake(key, format!("`{name}` of {} is empty", self.noun), example());
                }
                None => cx.mistake(self.node, format!("{} has no `{name}`", self.noun), example()),
            }
        }
        found
    }

    /// A field that may be absent; null is absent.
    pub fn optional(&self, name: &str) -> Option<&'n Node> {
        self.found.iter().find(|(n, ..)| *n == name).map(|(.., value)| *value).filter(|v| !v.is_null())
    }

    /// Every field that was accepted: name, its node, its value.
    pub fn all(&self) -> &[(&'n str, &'n Node, &'n Node)] {
        &self.found
    }
}

/// `a`, `b`, `c`
pub fn quoted(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}
