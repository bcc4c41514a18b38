//! What one apply brings: documents, and the files that said them.

use super::said::Said;
use crate::policy::again::{Last, depends_on_now, parse_beside, parse_changed};
use crate::policy::grant::Grant;
use crate::policy::people::People;
use crate::policy::place::Mistake;
use crate::policy::{Documents, Mistakes, SourceFile};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

/// Documents that were applied together.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    /// The files, in their order; none where only what they said is known.
    pub files: Vec<SourceFile>,
    /// What they say. `for: 1h` has become a time, counted from when they were read.
    pub documents: Documents,
    /// SHA-256 of names and of the texts' own, in hexadecimal; empty where there is no file.
    pub digest: String,
    /// What is known of each file, in their order.
    pub(super) known: Vec<Arc<Known>>,
    /// Whether this process read the files: another version may have understood them otherwise.
    read_here: bool,
    /// Its row in the store, once it has one.
    pub(super) row: OnceLock<i64>,
    /// Where its workloads are, once somebody has asked.
    people: OnceLock<Arc<People>>,
}

/// What is worked out once of a file, and shared by all sets that have it.
#[derive(Debug, Default)]
pub struct Known {
    /// SHA-256 of its text, in hexadecimal.
    pub digest: String,
    /// What it says, JSON, until that has a row.
    pub(super) said: Option<String>,
    /// The row of what it says in the store, once it has one.
    pub(super) row: OnceLock<i64>,
}

impl PartialEq for PolicySet {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files && self.documents == other.documents
    }
}

impl PolicySet {
    /// Reads what files say, and the feeds that they name.
    pub fn read(files: Vec<SourceFile>, now: Timestamp) -> Result<Self, Mistakes> {
        let texts: Vec<_> = files.iter().map(|file| (file.name.as_str(), &*file.text)).collect();
        let mut documents = Documents::parse_all(&texts, now)?;
        documents.read_feeds()?;
        Ok(Self::of(files, documents, &Self::default(), (None, |_| true)))
    }

    /// The same where most files are those of another set: only what changed is parsed.
    pub fn read_beside(files: Vec<SourceFile>, now: Timestamp, last: &Self) -> Result<Self, Mistakes> {
        let beside = if last.read_here { parse_changed(&files, now, last.as_last()) } else { None };
        let Some((mut documents, new)) = beside else { return Self::read(files, now) };
        documents.read_feeds()?;
        Ok(Self::of(files, documents, last, (Some(&new), |file| depends_on_now(&file.text))))
    }

    /// Another set with these files in the place of those of their names, or beside them. Only these are read: what all others say, the
    /// feeds that they name too, stays what it is.
    pub fn with(&self, changed: &[SourceFile], now: Timestamp) -> Result<Self, Mistakes> {
        let files = self.files_with(changed)?;
        let changed: Vec<&SourceFile> = changed.iter().collect();
        let Some((mut documents, mut new)) = parse_beside(&files, &changed, now, self.as_last())? else {
            return Self::read(files, now);
        };
        if new.feeds().next().is_some() {
            new.read_feeds()?;
            for feed in documents.feeds_mut() {
                if let Some(read) = new.feeds().find(|read| read.place == feed.place) {
                    feed.entries = read.entries.clone();
                }
            }
        }
        let names: HashSet<&str> = changed.iter().map(|file| file.name.as_str()).collect();
        let set = Self::of(files, documents, self, (Some(&new), |file| names.contains(file.name.as_str())));
        Ok(Self { read_here: self.read_here, ..set })
    }

    fn files_with(&self, changed: &[SourceFile]) -> Result<Vec<SourceFile>, Mistakes> {
        let refused = |what: String, accepted: &str| {
            let accepted = accepted.to_owned();
            Err(Mistakes(vec![Mistake { place: None, what, accepted, source_line: String::new(), width: 0 }]))
        };
        if self.files.is_empty() && self.documents != Documents::default() {
            let what = "of what counts no files are kept, so none can be replaced alone".to_owned();
            return refused(what, "apply all files once, without --only");
        }
        let sorted = self.files.is_sorted_by(|a, b| a.name < b.name);
        let mut files = self.files.clone();
        let mut at: HashMap<&str, usize> =
            self.files.iter().enumerate().map(|(n, file)| (file.name.as_str(), n)).collect();
        let mut new = HashSet::new();
        for file in changed {
            if !new.insert(&file.name) {
                return refused(format!("{} is there twice", file.name), "name each file once");
            }
            match at.remove(file.name.as_str()) {
                Some(n) => files[n] = file.clone(),
                None => files.push(file.clone()),
            }
        }
        if sorted {
            // As a folder lists them.
            files.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(files)
    }

    /// Names of its files, and the SHA-256 of their texts in hexadecimal.
    pub fn files_with_digests(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().zip(&self.known).map(|(file, known)| (file.name.as_str(), known.digest.as_str()))
    }

    fn as_last(&self) -> Last<'_> {
        Last { files: &self.files, said: &self.documents, homes: &self.people().homes }
    }

    /// Where its workloads are. To work it out takes a walk through all of them.
    pub fn people(&self) -> &People {
        self.people.get_or_init(|| Arc::new(People::of(&self.documents)))
    }

    /// The same, if that was worked out already.
    pub fn known_people(&self) -> Option<&People> {
        self.people.get().map(|people| &**people)
    }

    /// Of files and what they say: `read` what those say that are not as in `last`, or of which it is true.
    fn of(
        files: Vec<SourceFile>,
        documents: Documents,
        last: &Self,
        (read, is_read): (Option<&Documents>, impl Fn(&SourceFile) -> bool),
    ) -> Self {
        let before: HashMap<&str, (&SourceFile, &Arc<Known>)> = last
            .files
            .iter()
            .zip(&last.known)
            .map(|(file, known)| (file.name.as_str(), (file, known)))
            .collect();
        let known = files.iter().map(|file| match before.get(file.name.as_str()) {
            Some((was, known)) if !is_read(file) && is_same_text(was, file) => (*known).clone(),
            _ => Arc::new(Known::of(file, read)),
        });
        let known: Vec<_> = known.collect();
        let people = OnceLock::new();
        if Arc::ptr_eq(&documents.workloads, &last.documents.workloads) {
            let _ = last.people.get().map(|same| people.set(same.clone())); // it is new, and has none
        }
        let digest = digest_of(files.iter().zip(&known).map(|(file, known)| (&*file.name, &*known.digest)));
        Self { files, documents, digest, known, read_here: true, row: OnceLock::new(), people }
    }

    /// What the store has kept.
    pub(super) fn kept(
        files: Vec<(SourceFile, Known)>,
        documents: Documents,
        digest: String,
        row: i64,
    ) -> Self {
        let (files, known) = files.into_iter().map(|(file, known)| (file, Arc::new(known))).unzip();
        Self { files, documents, digest, known, read_here: false, row: row.into(), people: OnceLock::new() }
    }

    /// The same, with the ends that its grants had in what counted before. `for: 15m` begins when the grant is first applied: a file
    /// that is applied again, or read by a daemon that starts again, neither prolongs it nor gives it anew.
    pub(super) fn with_ends_of(self: Arc<Self>, before: &Self) -> Arc<Self> {
        let known = |grant: &Grant| before.documents.grants.iter().find(|known| known.is_again(grant));
        if !self
            .documents
            .grants
            .iter()
            .any(|grant| known(grant).is_some_and(|k| k.not_after != grant.not_after))
        {
            return self;
        }
        let mut set = Self { row: OnceLock::new(), ..Self::clone(&self) };
        let mut others = HashSet::new();
        for grant in &mut set.documents.grants {
            if let Some(known) = known(grant) {
                grant.not_after = known.not_after;
                others.insert(grant.place.file.clone());
            }
        }
        // What these say is another than what was read.
        for (file, known) in set.files.iter().zip(&mut set.known) {
            if others.contains(&*file.name) {
                *known = Arc::new(Known { digest: known.digest.clone(), ..Known::default() });
            }
        }
        Arc::new(set)
    }

    /// Documents without files.
    pub fn of_documents(documents: Documents) -> Self {
        Self { documents, ..Self::default() }
    }
}

impl Known {
    fn of(file: &SourceFile, read: Option<&Documents>) -> Self {
        // Where all were read, what they say is told apart when it is saved.
        let said = read.and_then(|read| serde_json::to_string(&Said::of(read, &file.name)).ok());
        Self { digest: digest_of_text(&file.text), said, row: OnceLock::new() }
    }
}

/// Most are the very same text, and texts can be long.
fn is_same_text(one: &SourceFile, other: &SourceFile) -> bool {
    Arc::ptr_eq(&one.text, &other.text) || one.text == other.text
}

/// SHA-256 of names and texts.
pub fn digest(files: &[SourceFile]) -> String {
    let texts: Vec<_> = files.iter().map(|file| digest_of_text(&file.text)).collect();
    digest_of(files.iter().zip(&texts).map(|(file, text)| (&*file.name, &**text)))
}

fn digest_of_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// SHA-256 of names and of the digests of texts, so that a text that is known need not be gone through again.
pub(super) fn digest_of<'f>(files: impl ExactSizeIterator<Item = (&'f str, &'f str)>) -> String {
    if files.len() == 0 {
        return String::new();
    }
    let mut sha = Sha256::new();
    for (name, text) in files {
        for part in [name, text] {
            sha.update((part.len() as u64).to_be_bytes());
            sha.update(part);
        }
    }
    hex(&sha.finalize())
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.into(), text: text.into() }
    }

    #[test]
    fn a_grant_for_so_long_begins_when_it_is_first_applied_and_never_again_by_itself() {
        let read = |reason: &str, until: &str, now: &str| {
            let text = format!(
                "apiVersion: tidegate.dev/v1\nkind: Grant\nmetadata: {{name: g}}\nspec: {{from: [{{spiffeId: spiffe://td/a}}], \
                 to: [{{spiffeId: spiffe://td/b}}], ports: [tcp/1], {until}, reason: {reason}}}\n"
            );
            let set = PolicySet::read(vec![file("g.yaml", &text)], now.parse().unwrap()).unwrap();
            Arc::new(set)
        };
        let end = |set: &PolicySet| set.documents.grants[0].not_after.to_string();
        let first = read("x", "for: 15m", "2026-11-01T12:00:00Z").with_ends_of(&PolicySet::default());
        assert_eq!(end(&first), "2026-11-01T12:15:00Z");
        // Applied again a day later it is over, and stays so; the files are those that were applied.
        let again = read("x", "for: 15m", "2026-11-02T12:00:00Z").with_ends_of(&first);
        assert_eq!((end(&again), &again.digest), (end(&first), &first.digest));
        // Another reason, another length, or a time make it another grant.
        for (reason, until, wanted) in [
            ("y", "for: 15m", "2026-11-02T12:15:00Z"),
            ("x", "for: 20m", "2026-11-02T12:20:00Z"),
            ("x", "notAfter: 2026-11-03T00:00:00Z", "2026-11-03T00:00:00Z"),
        ] {
            assert_eq!(end(&read(reason, until, "2026-11-02T12:00:00Z").with_ends_of(&again)), wanted);
        }
    }

    #[test]
    fn a_digest_tells_names_from_texts_and_files_from_each_other() {
        let of = |files: &[SourceFile]| digest(files);
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[file("a", "b")]).len(), 64);
        let all = [
            of(&[file("a", "b")]),
            of(&[file("ab", "")]),
            of(&[file("a", ""), file("b", "")]),
            of(&[file("b", ""), file("a", "")]),
        ];
        for (n, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(n));
        }
        assert_eq!(of(&[file("a", "b")]), of(&[file("a", "b")]));
    }
}
