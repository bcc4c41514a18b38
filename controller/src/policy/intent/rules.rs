//! `rules` of an Intent: what else is a finding, as its owner says in CEL (<https://cel.dev>).
//!
//! What an expression can cost is bounded when it is read: its length, its parts, and that nothing walks a list inside of a walk.

use super::Sensitivity;
use super::facts::{Facts, NAMES};
use crate::policy::fields::{Context, Fields};
use crate::policy::place::{Place, one_of};
use crate::policy::yaml::{Node, Value as Yaml};
use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::{Program, Value};
use serde::{Deserialize, Serialize};

/// Rules of an intent.
const MOST_RULES: usize = 32;
/// Bytes of an expression.
const MOST_BYTES: usize = 512;
/// Its parts: names, values, operators, calls.
const MOST_PARTS: usize = 128;
/// Brackets inside of brackets: the parser descends into each.
const MOST_BRACKETS: usize = 16;

/// What is a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Unique in its intent.
    pub name: String,
    /// When it is.
    pub when: Condition,
    /// How much harm it can do; the intent's sensitivity without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Sensitivity>,
    /// What it means, for who looks at it.
    pub message: String,
    /// Where it begins.
    pub place: Place,
}

/// An expression in CEL that says yes or no of any event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition(String);

/// What is wrong with an expression, and in which of its characters, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    what: String,
    accepted: String,
    at: usize,
}

const EXAMPLE: &str =
    "for example `{name: plain-http, when: 'role == \"client\" && port == 80', message: HTTP without TLS}`";
const FIELDS: [&str; 4] = ["name", "when", "severity", "message"];
const MESSAGE_BYTES: usize = 256;

/// Reads `rules`.
pub(super) fn decode(cx: &mut Context<'_>, node: &Node) -> Vec<Rule> {
    let items = cx.items(node, "`rules`", EXAMPLE);
    let mut rules: Vec<Rule> = Vec::new();
    if items.len() > MOST_RULES {
        cx.mistake(
            node,
            format!("{} rules are too many", items.len()),
            format!("accepted: {MOST_RULES} at most"),
        );
    }
    for item in items {
        let Some(rule) = rule(cx, item) else { continue };
        if let Some(first) = rules.iter().find(|other| other.name == rule.name) {
            let what = format!("two rules of this intent are named `{}`", rule.name);
            cx.mistake(item, what, format!("the first is at {}", first.place));
        }
        rules.push(rule);
    }
    rules
}

fn rule(cx: &mut Context<'_>, node: &Node) -> Option<Rule> {
    let fields = Fields::of(cx, node, "a rule of an Intent", &FIELDS)?;
    let name = fields.required(cx, "name", "findings show it").and_then(|node| cx.name(node, "`name`"));
    let when = fields.required(cx, "when", EXAMPLE).and_then(|node| condition(cx, node));
    let levels = [("low", Sensitivity::Low), ("medium", Sensitivity::Medium), ("high", Sensitivity::High)];
    let severity = fields.optional("severity").map(|node| cx.word(node, "severity", &levels));
    let message = fields.required(cx, "message", "who looks at the finding reads it").and_then(|node| {
        let text = cx.text(node, "`message`")?;
        if text.len() > MESSAGE_BYTES || text.chars().any(char::is_control) {
            cx.mistake(
                node,
                "`message` is no line of text",
                format!("accepted: {MESSAGE_BYTES} bytes at most"),
            );
            return None;
        }
        Some(text.to_owned())
    });
    let severity = match severity {
        Some(word) => Some(word?),
        None => None,
    };
    Some(Rule { name: name?, when: when?, severity, message: message?, place: cx.place(node) })
}

/// A mistake in an expression points into it, where it stands on one line.
fn condition(cx: &mut Context<'_>, node: &Node) -> Option<Condition> {
    let text = cx.text(node, "`when`")?;
    match check(text) {
        Ok(()) => Some(Condition(text.to_owned())),
        Err(Wrong { what, accepted, at }) => {
            let is_quoted = matches!(&node.value, Yaml::Scalar { plain: false, .. });
            let place = cx.place(node);
            if text.contains('\n') || node.width < text.chars().count() {
                cx.mistake(node, what, accepted);
            } else {
                let column = place.column + at as u32 + u32::from(is_quoted);
                cx.mistake_at(Place { column, ..place }, 1, what, accepted);
            }
            None
        }
    }
}

fn check(text: &str) -> Result<(), Wrong> {
    let wrong = |what: String, accepted: &str, at| Err(Wrong { what, accepted: accepted.to_owned(), at });
    if text.len() > MOST_BYTES {
        return wrong(format!("the expression has {} bytes", text.len()), "accepted: 512 at most", 0);
    }
    if let Some(at) = too_deep(text) {
        return wrong("brackets stand in brackets too deep".into(), "accepted: 16 of them", at);
    }
    let program = Program::compile(text).map_err(|errors| {
        let first = errors.errors.first();
        let at = first.and_then(|e| usize::try_from(e.pos.1 - 1).ok()).unwrap_or(0);
        let what = first.map_or_else(|| errors.to_string(), |e| e.msg.clone());
        Wrong {
            what: format!("this is not CEL: {what}"),
            accepted: "https://cel.dev tells the language".into(),
            at,
        }
    })?;
    let mut parts = Parts::default();
    parts.walk(program.expression(), false).or_else(|why| wrong(why.into(), "", 0))?;
    let references = program.references();
    let mut unknown: Vec<&str> = references.variables();
    unknown.retain(|name| !NAMES.contains(name) && !name.starts_with('@') && !parts.bound.contains(name));
    unknown.sort_unstable();
    if let Some(name) = unknown.first() {
        let at = text.find(name).map_or(0, |bytes| text[..bytes].chars().count());
        return wrong(format!("an event has no `{name}`"), &one_of(name, &NAMES), at);
    }
    for facts in samples() {
        match program.execute(&facts.context()) {
            Ok(Value::Bool(_)) => {}
            Ok(_) => return wrong("the expression says neither yes nor no".into(), EXAMPLE, 0),
            Err(e) => return wrong(format!("the expression fails: {e}"), "", 0),
        }
    }
    Ok(())
}

fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.chars().enumerate() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MOST_BRACKETS {
            return Some(at);
        }
    }
    None
}

/// What an expression is made of.
#[derive(Default)]
struct Parts<'e> {
    many: usize,
    /// Names that macros give their values: `p` of `alpn.exists(p, p == "h2")`.
    bound: Vec<&'e str>,
}

impl<'e> Parts<'e> {
    /// Counts them, and refuses what could cost more than they do.
    fn walk(&mut self, expr: &'e IdedExpr, in_walk: bool) -> Result<(), &'static str> {
        self.many += 1;
        if self.many > MOST_PARTS {
            return Err("the expression has too many parts");
        }
        match &expr.expr {
            Expr::Call(call) => self.all(call.target.as_deref().into_iter().chain(&call.args), in_walk),
            Expr::Comprehension(_) if in_walk => Err("a list is walked inside of a walk"),
            Expr::Comprehension(walked) => {
                self.bound.push(&walked.iter_var);
                self.bound.extend(walked.iter_var2.as_deref());
                self.all([&walked.iter_range, &walked.accu_init, &walked.result], in_walk)?;
                self.all([&walked.loop_cond, &walked.loop_step], true)
            }
            Expr::List(list) => self.all(&list.elements, in_walk),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => self.all([&entry.key, &entry.value], in_walk),
                EntryExpr::StructField(field) => self.walk(&field.value, in_walk),
            }),
            Expr::Select(select) => self.walk(&select.operand, in_walk),
            Expr::Struct(_) => Err("an expression makes no structures"),
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Ok(()),
        }
    }

    fn all(
        &mut self,
        exprs: impl IntoIterator<Item = &'e IdedExpr>,
        in_walk: bool,
    ) -> Result<(), &'static str> {
        exprs.into_iter().try_for_each(|expr| self.walk(expr, in_walk))
    }
}

/// An event of each kind: what fails on one of them is a mistake.
fn samples() -> [Facts; 7] {
    let verdict = Facts {
        event: "verdict",
        role: "client",
        identity: "spiffe://acme.example/ns/shop/sa/orders".into(),
        address: "10.1.0.2".into(),
        peer: "spiffe://acme.example/ns/shop/sa/payments".into(),
        peer_address: "10.2.0.2".into(),
        proto: "tcp".into(),
        port: 443,
        verdict: "FORWARDED",
        reason: "FORWARDED",
        rule: "shop/pay".into(),
        ..Facts::default()
    };
    let hello = Facts {
        event: "client_hello",
        sni: "payments.shop.example".into(),
        alpn: vec!["h2".into()],
        ja4: "t13d1516h2_8daaf6152771_e5627efa2ab1".into(),
        ..verdict.clone()
    };
    let handshake =
        Facts { event: "handshake", role: "server", handshake: "tls", outcome: "alert", ..verdict.clone() };
    let query = Facts { event: "dns_query", query: "payments.shop.example".into(), ..verdict.clone() };
    let alone = Facts {
        peer: String::new(),
        peer_address: String::new(),
        proto: String::new(),
        port: 0,
        rule: String::new(),
        ..verdict.clone()
    };
    let process =
        Facts { event: "process", reason: "EXEC", process: "/usr/bin/orders".into(), ..alone.clone() };
    let socket = Facts { event: "socket", reason: "CONNECT", process: "orders".into(), ..verdict.clone() };
    let enrolment =
        Facts { event: "enrolment", verdict: "DROPPED", reason: "address", outcome: "refused", ..alone };
    [verdict, hello, handshake, query, process, socket, enrolment]
}

impl Condition {
    /// What evaluates it.
    pub fn program(&self) -> Option<Program> {
        Program::compile(&self.0).ok()
    }
}

impl TryFrom<String> for Condition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        check(&text).map_err(|wrong| wrong.what)?;
        Ok(Self(text))
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(text: &str) -> String {
        check(text).expect_err(text).what
    }

    #[test]
    fn what_says_yes_or_no_of_every_event_is_accepted() {
        for text in [
            "true",
            "role == 'client' && port == 80",
            "event == 'client_hello' && !sni.endsWith('.shop.example')",
            "event == 'dns_query' && query.endsWith('.example')",
            "alpn.exists(p, p.startsWith('acme'))",
            "size(alpn) > 2 || 'h3' in alpn",
            "handshake == 'tls' && outcome in ['alert', 'aborted']",
            "ech ? verdict != 'FORWARDED' : ja4 == ''",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_where() {
        assert!(what("port ==").starts_with("this is not CEL: "), "{}", what("port =="));
        assert_eq!(what("port"), "the expression says neither yes nor no");
        assert!(what("size(port) > 1").starts_with("the expression fails: "));
        let unknown = check("port == 80 && snii == 'a'").expect_err("unknown");
        assert_eq!((unknown.what.as_str(), unknown.at), ("an event has no `snii`", 14));
        assert!(unknown.accepted.ends_with("did you mean `sni`?"), "{}", unknown.accepted);
    }

    #[test]
    fn what_could_cost_much_is_refused_before_it_does() {
        let nested = "alpn.exists(a, alpn.exists(b, a == b))";
        assert_eq!(what(nested), "a list is walked inside of a walk");
        assert_eq!(what(&format!("port in [{}1]", "1,".repeat(200))), "the expression has too many parts");
        assert_eq!(what(&format!("'{}' == sni", "a".repeat(600))), "the expression has 609 bytes");
        assert_eq!(what(&"(".repeat(17)), "brackets stand in brackets too deep");
        // Whatever is read, a thread's stack holds it.
        for nasty in ["!", "-", "1+", "a.", "a?", "a?b:", "[", "{", "!(", "a&&", "a==", "'"] {
            for many in [10, 100, 500] {
                let text = nasty.repeat(many);
                for end in ["", "a", "true"] {
                    let _ = check(&format!("{text}{end}"));
                }
            }
        }
    }
}
