//! What an intent says of programs: paths of what is executed.

use crate::policy::fields::Context;
use crate::policy::yaml::{Node, Value};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A path, or with `/*` at its end all below a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePattern(String);

const ACCEPTED: &str = "accepted: a path as the program is executed by, such as /usr/bin/orders, or `/opt/orders/*` for all below it; 127 bytes \
                        at most";
/// What the kernel tells of a path, without the zero behind it.
const LONGEST: usize = 127;
/// What the kernel keeps of the name of a process (TASK_COMM_LEN), without the zero behind it.
const NAME: usize = 15;

pub(super) fn decode(cx: &mut Context<'_>, node: &Node) -> Vec<FilePattern> {
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for item in cx.items(node, "`processes`", ACCEPTED) {
        all.extend(cx.parsed::<FilePattern>(item, "`processes`", ACCEPTED));
    }
    all
}

/// `/usr/bin/a or /opt/b/*`, `nothing`
pub fn list(files: &[FilePattern]) -> String {
    let files: Vec<_> = files.iter().map(|file| file.0.as_str()).collect();
    if files.is_empty() { "nothing".to_owned() } else { files.join(" or ") }
}

impl FilePattern {
    /// Whether it is the path of a program.
    pub fn matches(&self, path: &str) -> bool {
        match self.0.strip_suffix('*') {
            // What goes up again may end anywhere.
            Some(folder) => path.starts_with(folder) && path.len() > folder.len() && !path.contains("/../"),
            None => path == self.0,
        }
    }

    /// Whether a process of that name can be of it: the kernel keeps the first bytes of the file's. Of a folder it can be any.
    pub fn may_be_named(&self, name: &str) -> bool {
        let file = self.0.rsplit('/').next().unwrap_or_default();
        file == "*" || file.get(..file.len().min(NAME)) == Some(name)
    }
}

impl FromStr for FilePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_suffix("/*").unwrap_or(text);
        let is_path = path.starts_with('/') && !path.ends_with('/') && !path.contains('*');
        if !is_path || text.len() > LONGEST || text.chars().any(char::is_control) {
            return Err(format!("`{text}` is no path of a program"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for FilePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<FilePattern> for String {
    fn from(pattern: FilePattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> FilePattern {
        text.parse().expect("a path")
    }

    #[test]
    fn a_path_is_that_file_and_a_folder_all_below_it() {
        assert!(file("/usr/bin/orders").matches("/usr/bin/orders"));
        assert!(!file("/usr/bin/orders").matches("/usr/bin/orders2"));
        assert!(file("/opt/orders/*").matches("/opt/orders/bin/run"));
        for other in ["/opt/orders", "/opt/orders/", "/opt/other", "/opt/orders/../../bin/sh"] {
            assert!(!file("/opt/orders/*").matches(other), "{other}");
        }
    }

    #[test]
    fn the_name_of_a_process_is_the_beginning_of_its_files_name() {
        assert!(file("/usr/bin/orders").may_be_named("orders"));
        assert!(!file("/usr/bin/orders").may_be_named("order"));
        assert!(file("/usr/bin/a-very-long-name-of-a-program").may_be_named("a-very-long-nam"));
        assert!(file("/opt/orders/*").may_be_named("java"));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in ["", "orders", "/", "/opt/*/bin", "/opt/", "/a\n", &format!("/{}", "a".repeat(127))] {
            assert!(wrong.parse::<FilePattern>().is_err(), "{wrong}");
        }
    }
}
