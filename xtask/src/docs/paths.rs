//! Links resolve and named files exist.

use super::page::Page;
use std::path::Path;

/// What does not, with its place.
pub fn wrong(pages: &[Page], root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for page in pages {
        let folder = root.join(&page.path).parent().map(Path::to_owned).unwrap_or_default();
        for (line, target) in &page.links {
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = file.is_empty() || file.contains("://") || file.starts_with("mailto:");
            if !elsewhere && !folder.join(file).exists() {
                wrong.push(format!("{}: link to {target}, which is not there", page.at(*line)));
            }
        }
        for (line, span) in &page.spans {
            if let Some(path) = named_path(span, root)
                && !root.join(path).exists()
            {
                wrong.push(format!("{}: names {path}, which is not there", page.at(*line)));
            }
        }
    }
    wrong
}

/// The path in the workspace that inline code names, if it names one: its first part is a folder at the top.
fn named_path<'a>(span: &'a str, root: &Path) -> Option<&'a str> {
    let (first, _) = span.split_once('/')?;
    let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    // What a build leaves under target/ is not there before it.
    let ours = !first.is_empty() && first != ".." && first != "target" && root.join(first).is_dir();
    (plain && ours).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sh;

    #[test]
    fn only_paths_of_the_workspace_are_taken_for_such() {
        let root = sh::root();
        assert_eq!(named_path("xtask/src/nowhere.rs", &root), Some("xtask/src/nowhere.rs"));
        assert_eq!(named_path("tcp/443", &root), None);
        assert_eq!(named_path("/sys/fs/bpf", &root), None);
        assert_eq!(named_path("spiffe://acme.example/ns/shop", &root), None);
    }

    #[test]
    fn a_dead_link_is_found() {
        let page = Page { path: "docs/x.md".into(), links: vec![(3, "gone.md".into())], ..Page::default() };
        assert_eq!(wrong(&[page], &sh::root()), ["docs/x.md:3: link to gone.md, which is not there"]);
    }
}
