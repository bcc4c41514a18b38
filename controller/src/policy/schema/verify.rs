//! Whether documents are as the JSON Schemas say: `policy check` asks them beside the decoder, so that what editors and other tools are
//! shown can never drift from what is accepted.

use super::super::fields::Context;
use super::super::place::Mistake;
use super::super::yaml::{self, Node, Value};
use super::{KINDS, of};
use jiff::Timestamp;
use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{ValidationError, Validator};
use serde_json::{Map, Number, Value as Json};
use std::collections::HashMap;

/// The schemas of all kinds, ready to be asked.
pub struct Schemas {
    of_kind: HashMap<&'static str, Validator>,
}

impl Schemas {
    /// All that are generated.
    ///
    /// # Errors
    /// Where one of them is no JSON Schema of draft 2020-12; a test holds that all are.
    pub fn generated() -> Result<Self, String> {
        let ready = |kind: &&'static str| {
            let schema = of(kind).ok_or_else(|| format!("the kind {kind} has no schema"))?.to_value();
            let ready = jsonschema::draft202012::options().build(&schema);
            Ok((*kind, ready.map_err(|error| format!("the schema of {kind}: {error}"))?))
        };
        Ok(Self { of_kind: KINDS.iter().map(ready).collect::<Result<_, String>>()? })
    }

    /// What is not as they say in files (name, text), beside the mistakes that the decoder found: where it found one in a document, its
    /// word is the better one and stands alone.
    pub fn mistakes(&self, files: &[(&str, &str)], decoded: &[Mistake]) -> Vec<Mistake> {
        let mut found = Vec::new();
        for (name, text) in files {
            let lines: Vec<u32> = decoded
                .iter()
                .filter_map(|mistake| mistake.place.as_ref())
                .filter_map(|place| (&*place.file == *name).then_some(place.line))
                .collect();
            let mut cx = Context::new(name, text, Timestamp::UNIX_EPOCH, &mut found);
            // What is not YAML the decoder says.
            let _ = yaml::read(text, 1, &mut |node| {
                let own = node.line..=last_line(&node);
                if !lines.iter().any(|line| own.contains(line)) {
                    self.document(&mut cx, &node);
                }
            });
        }
        found
    }

    fn document(&self, cx: &mut Context<'_>, node: &Node) {
        let Some((kind, schema)) = kind(node).and_then(|kind| self.of_kind.get_key_value(kind)) else {
            return;
        };
        for error in schema.iter_errors(&json(node)) {
            let error = innermost(&error);
            let at = wrong_at(node, error);
            let what = format!("`{}` is not as the schema of a {kind} says: {}", way(error), error.masked());
            cx.mistake(at, what, format!("`tidegate policy schema {kind}` prints the schema"));
        }
    }
}

fn kind(node: &Node) -> Option<&str> {
    match &field(node, "kind")?.1.value {
        Value::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n (Node, Node)> {
    let Value::Map(pairs) = &node.value else { return None };
    pairs.iter().find(|(key, _)| matches!(&key.value, Value::Scalar { text, .. } if text == name))
}

/// Of a value that fits none of several schemas, such as that of a field or null: what one of them says of a part of it.
fn innermost<'e, 'v: 'e>(error: &'e ValidationError<'v>) -> &'e ValidationError<'v> {
    let (ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context }) =
        error.kind()
    else {
        return error;
    };
    let depth = |error: &ValidationError<'_>| error.instance_path().segments().count();
    let is_deeper = |inner: &&ValidationError<'_>| depth(inner) > depth(error);
    let deepest = context.iter().flatten().map(innermost).filter(is_deeper).max_by_key(|e| depth(e));
    deepest.unwrap_or(error)
}

/// `spec.rules.0.action`; `.` for the document itself.
fn way(error: &ValidationError<'_>) -> String {
    let way: Vec<String> = error.instance_path().segments().map(|segment| segment.to_string()).collect();
    if way.is_empty() { ".".to_owned() } else { way.join(".") }
}

/// The node that an error is about: of a field too many its name.
fn wrong_at<'n>(document: &'n Node, error: &ValidationError<'_>) -> &'n Node {
    let node = behind(document, error.instance_path());
    let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() else { return node };
    let extra = unexpected.first().and_then(|name| field(node, name));
    extra.map_or(node, |(key, _)| key)
}

fn behind<'n>(mut node: &'n Node, way: &Location) -> &'n Node {
    for segment in way {
        let next = match (&segment, &node.value) {
            (LocationSegment::Index(n), Value::List(items)) => items.get(*n),
            (LocationSegment::Property(name), _) => field(node, name).map(|(_, value)| value),
            _ => None,
        };
        let Some(next) = next else { break };
        node = next;
    }
    node
}

fn last_line(node: &Node) -> u32 {
    let within = match &node.value {
        Value::Scalar { .. } => None,
        Value::List(items) => items.iter().map(last_line).max(),
        Value::Map(pairs) => pairs.iter().map(|(key, value)| key.line.max(last_line(value))).max(),
    };
    within.unwrap_or(node.line).max(node.line)
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Scalar { text, plain: true } => scalar(text),
        Value::Scalar { text, .. } => Json::String(text.clone()),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(pairs) => Json::Object(pairs.iter().filter_map(pair).collect::<Map<_, _>>()),
    }
}

fn pair((key, value): &(Node, Node)) -> Option<(String, Json)> {
    let Value::Scalar { text, .. } = &key.value else { return None };
    Some((text.clone(), json(value)))
}

/// What is not quoted, by YAML's core schema (YAML 1.2.2, section 10.3.2). What JSON has no number for stays a text.
fn scalar(text: &str) -> Json {
    let begins_as_number =
        text.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let based = |prefix, base| text.strip_prefix(prefix).and_then(|n| u64::from_str_radix(n, base).ok());
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        "true" | "True" | "TRUE" => return Json::Bool(true),
        "false" | "False" | "FALSE" => return Json::Bool(false),
        _ if !begins_as_number => return Json::String(text.to_owned()),
        _ => {}
    }
    let whole = based("0x", 16).or_else(|| based("0o", 8)).or_else(|| text.parse().ok());
    let number = whole
        .map(Number::from)
        .or_else(|| text.parse::<i64>().ok().map(Number::from))
        .or_else(|| text.parse().ok().and_then(Number::from_f64));
    number.map_or_else(|| Json::String(text.to_owned()), Json::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_what_the_core_schema_says() {
        for (text, is) in [
            ("~", "null"),
            ("true", "true"),
            ("yes", "\"yes\""),
            ("08", "8"),
            ("+12", "12"),
            ("-3", "-3"),
            ("0x1f", "31"),
            ("0o17", "15"),
            ("1.50", "1.5"),
            ("1e3", "1000.0"),
            (".5", "0.5"),
            (".inf", "\".inf\""),
            ("inf", "\"inf\""),
            ("10.0.0.1", "\"10.0.0.1\""),
            ("12:30", "\"12:30\""),
            ("2027-01-01", "\"2027-01-01\""),
        ] {
            assert_eq!(scalar(text).to_string(), is, "{text}");
        }
    }
}
