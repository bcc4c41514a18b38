//! A page of documentation, taken apart into what can be checked.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown file.
#[derive(Debug, Default)]
pub struct Page {
    /// Relative to the workspace.
    pub path: PathBuf,
    /// Targets of links, with their lines.
    pub links: Vec<(usize, String)>,
    /// Inline code, with its lines.
    pub spans: Vec<(usize, String)>,
    /// Command lines of fenced blocks that are marked as shell, with their lines; continued lines are joined.
    pub commands: Vec<(usize, String)>,
    /// Fenced blocks of YAML that are policy files, with the lines they begin at.
    pub policies: Vec<(usize, String)>,
}

const POLICY_FILE: &str = "apiVersion: tidegate.dev/";

impl Page {
    /// The pages at the top and under docs/.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let mut pages = Vec::new();
        for folder in ["", "docs", "docs/adr"] {
            let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
            for entry in entries {
                let path = entry.context("reading the folder of the docs")?.path();
                if path.extension().is_some_and(|extension| extension == "md") {
                    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                    let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
                    pages.push(Self::parse(relative, &text));
                }
            }
        }
        pages.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(pages)
    }

    fn parse(path: PathBuf, text: &str) -> Self {
        let mut page = Self { path, ..Self::default() };
        // The language of the fenced block that we are in.
        let mut fence: Option<String> = None;
        let mut joined = String::new();
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                fence = if fence.is_some() { None } else { Some(language.trim().to_owned()) };
                continue;
            }
            match fence.as_deref() {
                Some("sh" | "console") => {
                    if let Some(head) = line.strip_suffix('\\') {
                        joined.push_str(head);
                        continue;
                    }
                    joined.push_str(line);
                    page.commands.push((number, std::mem::take(&mut joined)));
                }
                Some("yaml") => {
                    if line.starts_with(POLICY_FILE) {
                        page.policies.push((number, String::new()));
                    }
                    if let Some((_, text)) = page.policies.last_mut() {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
                Some(_) => {}
                None => page.read_prose(number, line),
            }
        }
        page
    }

    fn read_prose(&mut self, number: usize, line: &str) {
        // Odd parts lie between backticks.
        for (index, part) in line.split('`').enumerate() {
            if index % 2 == 1 {
                self.spans.push((number, part.to_owned()));
            }
        }
        for rest in line.split("](").skip(1) {
            if let Some((target, _)) = rest.split_once(')') {
                self.links.push((number, target.to_owned()));
            }
        }
    }

    /// Where something is, for messages.
    pub fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_apart() {
        let text = "See [the path](docs/packet-path.md) and `xdp/src/main.rs`.\n```sh\ntidegate block add \\\n  \
                    10.0.0.0/8\n```\n```text\ntidegate no command\n```\n\
                    ```yaml\napiVersion: tidegate.dev/v1\nkind: Policy\n```\n";
        let page = Page::parse("README.md".into(), text);
        assert_eq!(page.links, [(1, "docs/packet-path.md".to_owned())]);
        assert_eq!(page.spans, [(1, "xdp/src/main.rs".to_owned())]);
        assert_eq!(page.policies, [(10, "apiVersion: tidegate.dev/v1\nkind: Policy\n".to_owned())]);
        assert_eq!(page.commands, [(4, "tidegate block add   10.0.0.0/8".to_owned())]);
    }
}
