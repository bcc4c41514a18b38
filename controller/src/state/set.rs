//! What one apply brings: documents, and the files that said them.

use crate::policy::grant::Grant;
use crate::policy::{Documents, Mistakes, SourceFile, parse_changed};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};

/// Documents that were applied together.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    /// The files, in their order; none where only what they said is known.
    pub files: Vec<SourceFile>,
    /// What they say. `for: 1h` has become a time, counted from when they were read.
    pub documents: Documents,
    /// SHA-256 of names and texts, in hexadecimal; empty where there is no file.
    pub digest: String,
    /// Whether this process read the files: another version may have understood them otherwise.
    read_here: bool,
    /// Its row in the store, once it has one.
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
        let mut set = Self::without_feeds(files, now)?;
        set.documents.read_feeds()?;
        Ok(set)
    }

    /// The same where most files are those of another set: only what changed is parsed.
    pub fn read_beside(files: Vec<SourceFile>, now: Timestamp, last: &Self) -> Result<Self, Mistakes> {
        let said = (&last.files[..], &last.documents);
        let documents = if last.read_here { parse_changed(&files, now, said) } else { None };
        let Some(mut documents) = documents else { return Self::read(files, now) };
        documents.read_feeds()?;
        Ok(Self::of(files, documents))
    }

    fn of(files: Vec<SourceFile>, documents: Documents) -> Self {
        let digest = digest(&files);
        Self { files, documents, digest, read_here: true, row: OnceLock::new() }
    }

    /// What the store has kept.
    pub(super) fn kept(files: Vec<SourceFile>, documents: Documents, digest: String, row: i64) -> Self {
        Self { files, documents, digest, read_here: false, row: row.into() }
    }

    fn without_feeds(files: Vec<SourceFile>, now: Timestamp) -> Result<Self, Mistakes> {
        let texts: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.text.as_str())).collect();
        let documents = Documents::parse_all(&texts, now)?;
        Ok(Self::of(files, documents))
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
        let mut documents = self.documents.clone();
        for grant in &mut documents.grants {
            if let Some(known) = known(grant) {
                grant.not_after = known.not_after;
            }
        }
        Arc::new(Self {
            documents,
            files: self.files.clone(),
            digest: self.digest.clone(),
            read_here: self.read_here,
            row: OnceLock::new(),
        })
    }

    /// Documents without files.
    pub fn of_documents(documents: Documents) -> Self {
        Self { documents, ..Self::default() }
    }
}

/// SHA-256 of names and texts.
pub fn digest(files: &[SourceFile]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let mut sha = Sha256::new();
    for file in files {
        for part in [&file.name, &file.text] {
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
