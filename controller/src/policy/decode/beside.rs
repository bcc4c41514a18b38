//! Reading much: parts of long files, on as many threads as there are processors.
//!
//! A part ends where a document does: at a line that begins with `---`, which no document can hold (YAML 1.2.2, section 9.1.2). Where a
//! part has a mistake, or two of them cannot stand beside each other, all is read anew, one after the other: one reading says what is wrong.

use super::super::across::Across;
use super::super::document::Documents;
use super::super::fields::Context;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Less than this is read sooner than threads are started.
const MUCH_BYTES: usize = 1 << 20;
/// Parts are about so long: many enough that no thread waits long for the last of them.
const PART_BYTES: usize = 256 << 10;

/// What no document has in it, and ends the one before.
const MARK: &str = "\n---";

/// A part of a file.
struct Part<'f> {
    name: &'f str,
    text: &'f str,
    /// The line with which it begins, from 1.
    first: u32,
}

/// Reads files that are long, where more than one processor is there. Nothing where they are not, or where something may be wrong.
pub(super) fn read(files: &[(&str, &str)], now: Timestamp) -> Option<Documents> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let much = files.iter().map(|(_, text)| text.len()).sum::<usize>() >= MUCH_BYTES;
    if much && threads > 1 { read_with(files, now, (threads, PART_BYTES)) } else { None }
}

fn read_with(files: &[(&str, &str)], now: Timestamp, (threads, bytes): (usize, usize)) -> Option<Documents> {
    let parts: Vec<Part<'_>> = files.iter().flat_map(|(name, text)| parts(name, text, bytes)).collect();
    // The longest first: a document is one part, however long, and nobody is to wait for it alone at the end.
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|n| Reverse(parts[*n].text.len()));
    let (next, is_wrong) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = Work { parts: &parts, order: &order, now, next, is_wrong };
    let read: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work.read())).collect();
        let own = work.read();
        [Some(own)].into_iter().chain(others.into_iter().map(|other| other.join().ok())).collect()
    });
    let read: Option<Vec<_>> = read.into_iter().collect();
    if work.is_wrong.into_inner() {
        return None;
    }
    let (read, across): (Vec<_>, Vec<_>) = read?.into_iter().unzip();
    let mut read: Vec<(usize, Documents)> = read.into_iter().flatten().collect();
    let gateways = read.iter().filter(|(_, documents)| documents.gateway.is_some()).count();
    let (documents, is_right) = thread::scope(|scope| {
        // To let go of the tables takes as long as to make them.
        let is_right = scope.spawn(|| stand_beside(across));
        read.sort_by_key(|(n, _)| *n);
        let mut documents = Documents::default();
        read.into_iter().for_each(|(_, part)| documents.append(part));
        (documents, is_right.join().unwrap_or(false))
    });
    (is_right && gateways <= 1).then_some(documents)
}

/// Whether nothing that stands in one meets what stands in another.
fn stand_beside(across: Vec<Across>) -> bool {
    let mut across = across.into_iter();
    across.next().is_none_or(|mut all| across.all(|other| all.take_in(other)))
}

/// What threads share.
struct Work<'f> {
    parts: &'f [Part<'f>],
    /// In which they are read.
    order: &'f [usize],
    now: Timestamp,
    next: AtomicUsize,
    is_wrong: AtomicBool,
}

impl Work<'_> {
    /// Reads parts until none is left: their numbers and what they say, and what may stand but once in all of them.
    fn read(&self) -> (Vec<(usize, Documents)>, Across) {
        let (mut read, mut across) = (Vec::new(), Across::default());
        while !self.is_wrong.load(Ordering::Relaxed) {
            let Some(n) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            let Part { name, text, first } = &self.parts[*n];
            let (mut documents, mut mistakes) = (Documents::default(), Vec::new());
            let mut cx = Context::new(name, text, self.now, &mut mistakes);
            super::part(&mut cx, (text, *first), &mut documents, &mut across);
            if !mistakes.is_empty() {
                self.is_wrong.store(true, Ordering::Relaxed);
            }
            read.push((*n, documents));
        }
        (read, across)
    }
}

/// A file in parts of whole documents, of `bytes` or a bit more.
fn parts<'f>(name: &'f str, text: &'f str, bytes: usize) -> Vec<Part<'f>> {
    let mut parts = Vec::new();
    let (mut rest, mut first) = (text, 1);
    // A carriage return alone ends a line too; counting them is not worth the while.
    let is_counted = !text.contains('\r');
    while let Some(end) = end_of_part(rest, bytes).filter(|_| is_counted) {
        let (text, behind) = rest.split_at(end);
        parts.push(Part { name, text, first });
        first += text.bytes().filter(|byte| *byte == b'\n').count() as u32;
        rest = behind;
    }
    parts.push(Part { name, text: rest, first });
    parts
}

/// Where the first document begins behind so many bytes.
fn end_of_part(text: &str, bytes: usize) -> Option<usize> {
    let mut from = text.ceil_char_boundary(bytes);
    loop {
        let at = from + text.get(from..)?.find(MARK)?;
        let behind = text[at + MARK.len()..].bytes().next();
        if matches!(behind, None | Some(b' ' | b'\t' | b'\n')) {
            return Some(at + 1);
        }
        from = at + MARK.len();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::place::Mistake;
    use super::super::one_by_one;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    /// Lines that make documents, halves of documents, and what can look like the mark between them.
    const LINES: [&str; 24] = [
        "---",
        "---",
        "--- # comment",
        "---x",
        " ---",
        "...",
        "%YAML 1.2",
        "apiVersion: tidegate.dev/v1",
        "kind: Workload",
        "kind: Gateway",
        "metadata: {name: a}",
        "metadata: {name: b}",
        "spec: {spiffeId: spiffe://td/a, addresses: [10.0.0.1]}",
        "spec: {spiffeId: spiffe://td/b, addresses: [10.0.0.2, 10.0.0.1], lease: {for: 1h}}",
        "spec: {midstream: deny}",
        "spec: |",
        "  ---",
        "spec: \"",
        "\"",
        "spec: {",
        "}",
        "# ---",
        "",
        "é: \u{feff}",
    ];

    fn document() -> impl Strategy<Value = String> {
        let name = || select(&["a", "b", "c", "d", "e", "f"][..]);
        let head = "---\napiVersion: tidegate.dev/v1\n";
        prop_oneof![
            (name(), 0..9u8).prop_map(move |(name, at)| format!(
                "{head}kind: Workload\nmetadata: {{name: {name}}}\nspec: {{spiffeId: spiffe://td/{name}, addresses: [10.0.0.{at}]}}\n"
            )),
            name().prop_map(move |name| format!(
                "{head}kind: Policy\nmetadata: {{name: {name}}}\nspec:\n  rules:\n    - {{name: r, action: allow, from: [{{any: true}}], to: [{{any: true}}]}}\n"
            )),
            Just(format!("{head}kind: Gateway\nmetadata: {{name: g}}\nspec: {{midstream: deny}}\n")),
        ]
    }

    fn text() -> impl Strategy<Value = String> {
        let lines = vec(select(&LINES[..]), 0..14).prop_map(|lines| lines.join("\n"));
        let some = vec(prop_oneof![8 => document(), 1 => lines], 0..6);
        some.prop_map(|documents| documents.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parts_come_to_what_the_whole_comes_to_or_to_nothing(
            texts in vec(text(), 1..3),
            bytes in 1..200usize,
            threads in 1..4usize,
        ) {
            let names = ["1.yaml", "2.yaml"];
            let files: Vec<(&str, &str)> = names.into_iter().zip(texts.iter().map(String::as_str)).collect();
            let now: Timestamp = "2027-01-01T00:00:00Z".parse().expect("a time");
            let mut mistakes: Vec<Mistake> = Vec::new();
            let whole = one_by_one(&files, now, &mut mistakes);
            let found = read_with(&files, now, (threads, bytes));
            prop_assert_eq!(found.is_some(), mistakes.is_empty(), "{:?} {:?}", texts, mistakes);
            if let Some(found) = found {
                prop_assert_eq!(found, whole);
            }
        }
    }

    #[test]
    fn a_file_is_cut_where_documents_begin_and_nowhere_else() {
        let text = "a: |\n  ---\n---x: 1\n--- # b\nb: é\n---\nc: 1";
        let cut = |bytes| parts("f", text, bytes).iter().map(|p| (p.first, p.text)).collect::<Vec<_>>();
        assert_eq!(cut(1), [(1, "a: |\n  ---\n---x: 1\n"), (4, "--- # b\nb: é\n"), (6, "---\nc: 1")]);
        assert_eq!(cut(30), [(1, "a: |\n  ---\n---x: 1\n--- # b\nb: é\n"), (6, "---\nc: 1")]);
        assert_eq!(cut(1000), [(1, text)]);
        let returns = text.replace('\n', "\r\n");
        assert_eq!(parts("f", &returns, 1).len(), 1);
    }
}
