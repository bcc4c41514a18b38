//! What a command would print, as a page: the daemon answers with it.

use crate::exit_code::{Code, Failure, Result};
use std::cell::RefCell;

/// Bytes of a page.
const MOST: usize = 32 << 20;

thread_local! {
    /// The page that is collected on this thread, if one is.
    static PAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs what prints by [`super::say`] and returns what it would have printed.
pub fn collect(print: impl FnOnce() -> Result<()>) -> Result<String> {
    PAGE.set(Some(String::new()));
    let done = print();
    let page = PAGE.take().unwrap_or_default();
    done.map(|()| page)
}

/// Adds a line to the page, if one is collected.
pub(super) fn has_taken(line: &str) -> Result<bool> {
    PAGE.with_borrow_mut(|page| {
        let Some(page) = page else { return Ok(false) };
        if page.len() + line.len() > MOST {
            let message = format!("that is more than {} MiB", MOST >> 20);
            return Err(
                Failure::new(Code::Busy, message).hint("run the command on the gateway itself, as root")
            );
        }
        page.push_str(line);
        page.push('\n');
        Ok(true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_was_said_and_ends_with_its_command() {
        let page = collect(|| super::super::say("one").and_then(|()| super::super::say("two")));
        assert_eq!(page.expect("a page"), "one\ntwo\n");
        let failed = collect(|| super::super::say("one").and_then(|()| Err(Failure::new(Code::Usage, "no"))));
        assert_eq!(failed.expect_err("a failure").code, Code::Usage);
        assert!(!has_taken("three").expect("nothing is collected"));
    }

    #[test]
    fn a_page_that_is_too_long_is_a_failure() {
        let line = "x".repeat(MOST / 2);
        let failed = collect(|| (0..3).try_for_each(|_| super::super::say(&line)));
        assert_eq!(failed.expect_err("too long").code, Code::Busy);
    }
}
