//! YAML as a tree in which every node knows its place.
//!
//! Anchors, aliases and tags are refused: policy files need none, and an alias can be a bomb.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::fmt;

/// Deeper nesting than any policy file has.
const MAX_DEPTH: usize = 32;

/// A node of the tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// Line from 1.
    pub line: u32,
    /// Column from 1, in characters.
    pub column: u32,
    /// Characters of a scalar in the file, 1 for the rest.
    pub width: usize,
    /// What it holds.
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Value {
    /// A scalar as it is written; `plain` where it is not quoted.
    Scalar {
        /// Its text.
        text: String,
        /// Not quoted.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Whether it is an unquoted null or nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// What it is, for messages.
    pub fn noun(&self) -> &'static str {
        match self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// A file that is not YAML, or YAML that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line from 1.
    pub line: u32,
    /// Column from 1.
    pub column: u32,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)
    }
}

/// Reads a file, or a part of one that begins with its `first` line, and hands out each document as soon as it is whole: those before the
/// first error too.
pub fn read(text: &str, first: u32, take: &mut dyn FnMut(Node)) -> Result<(), SyntaxError> {
    let mut builder = Builder { first: first.saturating_sub(1), open: Vec::new() };
    for item in Parser::new_from_str(text) {
        let (event, span) = item.map_err(|error| SyntaxError {
            line: builder.first + error.marker().line() as u32,
            column: error.marker().col() as u32 + 1,
            what: format!("this is not YAML: {}", error.info()),
        })?;
        builder.event(event, span)?.into_iter().for_each(&mut *take);
    }
    Ok(())
}

struct Builder {
    /// Lines before the text.
    first: u32,
    open: Vec<Open>,
}

/// A collection whose end was not seen yet; a mapping may hold a key that waits for its value.
struct Open {
    node: Node,
    key: Option<Node>,
}

impl Builder {
    /// Returns the document that ends with it.
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, SyntaxError> {
        let line = self.first + span.start.line() as u32;
        let at = |value, width| Node { line, column: span.start.col() as u32 + 1, width, value };
        let refuse = |what: &str| {
            Err(SyntaxError { line, column: span.start.col() as u32 + 1, what: what.to_owned() })
        };
        match event {
            Event::Alias(_) => refuse("aliases (`*name`) are not accepted: write the value out"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                refuse("anchors (`&name`) are not accepted: write the value out where it is needed")
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => refuse("tags (`!name`) are not accepted"),
            Event::Scalar(text, style, ..) => {
                let width = span.end.index().saturating_sub(span.start.index()).max(1);
                let plain = style == ScalarStyle::Plain;
                self.put(at(Value::Scalar { text: text.into_owned(), plain }, width))
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if self.open.len() >= MAX_DEPTH => {
                refuse("nested too deep")
            }
            Event::SequenceStart(..) => {
                self.open.push(Open { node: at(Value::List(Vec::new()), 1), key: None });
                Ok(None)
            }
            Event::MappingStart(..) => {
                self.open.push(Open { node: at(Value::Map(Vec::new()), 1), key: None });
                Ok(None)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(done) => self.put(done.node),
                None => refuse("this ends what never began"),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(None),
        }
    }

    fn put(&mut self, node: Node) -> Result<Option<Node>, SyntaxError> {
        let Some(parent) = self.open.last_mut() else { return Ok(Some(node)) };
        match &mut parent.node.value {
            Value::List(items) => push(items, node),
            Value::Map(pairs) => match parent.key.take() {
                Some(key) => push(pairs, (key, node)),
                None if matches!(node.value, Value::Scalar { .. }) => parent.key = Some(node),
                None => {
                    let what = format!("{} cannot be the name of a field", node.noun());
                    return Err(SyntaxError { line: node.line, column: node.column, what });
                }
            },
            // Only collections are ever opened.
            Value::Scalar { .. } => {}
        }
        Ok(None)
    }
}

/// Most collections have one item, and the tree of a long document is much memory: room is made for one, and then for more.
fn push<T>(items: &mut Vec<T>, item: T) {
    if items.is_empty() {
        items.reserve_exact(1);
    }
    items.push(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> (Vec<Node>, Option<SyntaxError>) {
        let mut documents = Vec::new();
        let read = read(text, 1, &mut |node| documents.push(node));
        (documents, read.err())
    }

    fn error(text: &str) -> String {
        all(text).1.map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn nodes_know_their_places() {
        let (documents, error) = all("a: 1\n---\nb:\n  - \"x y\"\n");
        assert_eq!(error, None);
        assert_eq!(documents.len(), 2);
        let Value::Map(pairs) = &documents[1].value else { panic!("{documents:?}") };
        let (key, value) = &pairs[0];
        assert_eq!((key.line, key.column, key.width), (3, 1, 1));
        let Value::List(items) = &value.value else { panic!("{value:?}") };
        assert_eq!((items[0].line, items[0].column, items[0].width), (4, 5, 5));
    }

    #[test]
    fn what_can_be_a_bomb_is_refused() {
        assert!(error("a: &x 1").starts_with("1:4: anchors"), "{}", error("a: &x 1"));
        assert!(error("a: !!str 1").contains("tags"), "{}", error("a: !!str 1"));
        assert!(
            error(&"[".repeat(10_000)).contains("nested too deep")
                || error(&"[".repeat(10_000)).contains("not YAML")
        );
    }

    #[test]
    fn documents_before_an_error_come_back() {
        let (documents, error) = all("a: 1\n---\nb: [1,\n");
        assert_eq!(documents.len(), 1);
        assert!(error.is_some());
    }
}
