//! Reading the files and directories that the user names.

use super::decode::decode_all;
use super::document::Documents;
use super::place::{Mistake, Mistakes};
use jiff::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};

/// See [`Documents::load`].
pub fn load(paths: &[impl AsRef<Path>], now: Timestamp) -> Result<Documents, Mistakes> {
    let mut mistakes = Vec::new();
    let mut texts: Vec<(String, String)> = Vec::new();
    let paths: Vec<PathBuf> = paths.iter().flat_map(|path| files(path.as_ref(), &mut mistakes)).collect();
    for path in paths {
        let name = path.display().to_string();
        if texts.iter().any(|(seen, _)| *seen == name) {
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(text) => texts.push((name, text)),
            Err(error) => mistakes.push(unplaced(format!("cannot read {name}: {error}"), "")),
        }
    }
    let files: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let documents = decode_all(&files, now, &mut mistakes);
    if mistakes.is_empty() { Ok(documents) } else { Err(Mistakes(mistakes)) }
}

/// The file itself, or the YAML files of a directory in order of name.
fn files(path: &Path, mistakes: &mut Vec<Mistake>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            mistakes.push(unplaced(format!("cannot read {}: {error}", path.display()), ""));
            return Vec::new();
        }
    };
    let yaml = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "yml") && p.is_file();
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(yaml).collect();
    files.sort();
    if files.is_empty() {
        let what = format!("no *.yaml or *.yml file in {}", path.display());
        mistakes.push(unplaced(what, "name a file, or a directory that has some"));
    }
    files
}

fn unplaced(what: String, accepted: &str) -> Mistake {
    Mistake { place: None, what, accepted: accepted.to_owned(), source_line: String::new(), width: 1 }
}
