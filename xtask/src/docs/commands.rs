//! Commands that the documentation shows are understood by the programs it shows.

use super::page::Page;
use crate::options::Options;
use crate::sh;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// What is not understood, with its place.
pub fn wrong(pages: &[Page], binaries: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for page in pages {
        let spans = page.spans.iter().filter(|(_, span)| Shown::parse(span).is_some());
        for (line, command) in page.commands.iter().chain(spans) {
            if let Some(shown) = Shown::parse(command)
                && let Err(why) = shown.understood(binaries)
            {
                wrong.push(format!("{}: `{}`: {why}", page.at(*line), command.trim()));
            }
        }
    }
    wrong
}

/// Policy files that `tidegate policy check` does not take, with their places.
pub fn wrong_policies(pages: &[Page], binaries: &Path) -> Result<Vec<String>> {
    let file = sh::target_dir().join("docs-policy.yaml");
    let mut wrong = Vec::new();
    for page in pages {
        for (line, text) in &page.policies {
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            let tidegate = binaries.join("tidegate");
            let mut check = sh::command(&tidegate.to_string_lossy());
            let output =
                check.args(["policy", "check"]).arg(&file).output().context("cannot start tidegate")?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                wrong.push(format!("{}: the policy file is refused: {}", page.at(*line), said.trim()));
            }
        }
    }
    Ok(wrong)
}

/// A command of ours.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Xtask(Vec<String>),
    /// A binary and its arguments.
    Binary(&'static str, Vec<String>),
}

impl Shown {
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim().strip_prefix("$ ").unwrap_or(line.trim());
        let line = line.strip_prefix("# ").unwrap_or(line);
        let mut words = words(line);
        if words.first().is_some_and(|word| word == "sudo") {
            words.remove(0);
        }
        let plain = words.iter().position(|word| ["|", ">", "&&", "&", "#", ";"].contains(&word.as_str()));
        words.truncate(plain.unwrap_or(words.len()));
        // Synopses say with capitals and brackets what may stand there.
        if words.iter().any(|word| word.contains("...") || word.starts_with('[')) {
            return None;
        }
        match words.first()?.rsplit('/').next()? {
            "cargo" if words.get(1).is_some_and(|word| word == "xtask") => {
                Some(Self::Xtask(words.split_off(2)))
            }
            "tidegate" => Some(Self::Binary("tidegate", words.split_off(1))),
            "tidegate-sim" => Some(Self::Binary("tidegate-sim", words.split_off(1))),
            _ => None,
        }
    }

    fn understood(&self, binaries: &Path) -> Result<(), String> {
        match self {
            Self::Xtask(words) => Options::parse(words).map(|_| ()),
            Self::Binary(name, words) => {
                // clap reads from left to right and stops at --help: what stands before it has to be right.
                let binary = binaries.join(name);
                let output = sh::command(&binary.to_string_lossy())
                    .args(words)
                    .arg("--help")
                    .output()
                    .map_err(|why| format!("cannot start {}: {why}", binary.display()))?;
                if output.status.success() {
                    return Ok(());
                }
                let stderr = String::from_utf8_lossy(&output.stderr);
                Err(stderr.lines().find(|line| !line.is_empty()).unwrap_or("refused").to_owned())
            }
        }
    }
}

/// Splits as a shell does, as far as documentation needs it.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn commands_are_recognised_behind_prompts_and_before_pipes() {
        let expected = Shown::Binary("tidegate", strings(&["flows", "-o", "json"]));
        assert_eq!(Shown::parse("$ sudo ./target/release/tidegate flows -o json | jq ."), Some(expected));
        assert_eq!(Shown::parse("cargo xtask test"), Some(Shown::Xtask(strings(&["test"]))));
        assert_eq!(Shown::parse("ip link show"), None);
        assert_eq!(Shown::parse("tidegate attach IF..."), None);
    }

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(words("a --reason 'port scan' \"\""), strings(&["a", "--reason", "port scan", ""]));
    }

    #[test]
    fn an_xtask_command_that_is_none_is_found() {
        let page = Page {
            path: "README.md".into(),
            commands: vec![(7, "cargo xtask tset".into())],
            ..Page::default()
        };
        assert_eq!(
            wrong(&[page], Path::new("/nowhere")),
            ["README.md:7: `cargo xtask tset`: there is no task 'tset'"]
        );
    }
}
