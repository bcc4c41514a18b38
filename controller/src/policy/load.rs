//! Reading the files and directories that the user names.

use super::decode::decode_all;
use super::document::Documents;
use super::place::{Mistake, Mistakes};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SourceFile {
    /// Its name, as the user wrote it or as a folder lists it.
    pub name: String,
    /// What stands in it.
    #[schemars(with = "String")]
    pub text: Arc<str>,
}

/// The files of these paths: files themselves, or the YAML files of folders.
pub fn read_files(paths: &[impl AsRef<Path>]) -> Result<Vec<SourceFile>, Mistakes> {
    let (files, mistakes) = read_what_is_there(paths);
    if mistakes.is_empty() { Ok(files) } else { Err(Mistakes(mistakes)) }
}

/// See [`Documents::load`].
pub fn load(paths: &[impl AsRef<Path>], now: Timestamp) -> Result<Documents, Mistakes> {
    let (files, mut mistakes) = read_what_is_there(paths);
    let files: Vec<_> = files.iter().map(|file| (file.name.as_str(), &*file.text)).collect();
    let documents = decode_all(&files, now, &mut mistakes);
    if mistakes.is_empty() { Ok(documents) } else { Err(Mistakes(mistakes)) }
}

/// The files of these paths, and what cannot be read of them.
pub(super) fn read_what_is_there(paths: &[impl AsRef<Path>]) -> (Vec<SourceFile>, Vec<Mistake>) {
    let (mut read, mut mistakes): (Vec<SourceFile>, _) = (Vec::new(), Vec::new());
    let paths: Vec<PathBuf> = paths.iter().flat_map(|path| files(path.as_ref(), &mut mistakes)).collect();
    for path in paths {
        let name = path.display().to_string();
        if read.iter().any(|seen| seen.name == name) {
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(text) => read.push(SourceFile { name, text: text.into() }),
            Err(error) => mistakes.push(Mistake::unplaced(format!("cannot read {name}: {error}"), "")),
        }
    }
    (read, mistakes)
}

/// The file itself, or the YAML files of a directory in order of name.
fn files(path: &Path, mistakes: &mut Vec<Mistake>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            mistakes.push(Mistake::unplaced(format!("cannot read {}: {error}", path.display()), ""));
            return Vec::new();
        }
    };
    let yaml = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "yml") && p.is_file();
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(yaml).collect();
    files.sort();
    if files.is_empty() {
        let what = format!("no *.yaml or *.yml file in {}", path.display());
        mistakes.push(Mistake::unplaced(what, "name a file, or a directory that has some"));
    }
    files
}
