//! `cargo xtask docs`: what the documentation says is true.

mod commands;
mod page;
mod paths;

use crate::options::Options;
use crate::{build, setup, sh};
use anyhow::{Context, Result, bail};
use page::Page;
use std::fs;
use std::path::Path;

const DROPS: &str = "docs/drops.md";
const SCHEMA: &str = "docs/policy.schema.json";
const OPENAPI: &str = "docs/openapi.json";

/// Generates docs/drops.md, docs/policy.schema.json and docs/openapi.json, or compares them; then checks the rest.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    sh::step(DROPS, || drops(options.check))?;
    let binaries = build::with_tests()?;
    sh::step(SCHEMA, || {
        printed(SCHEMA, &["policy", "schema"], "controller/src/policy/schema.rs", options.check, &binaries)
    })?;
    sh::step(OPENAPI, || {
        printed(OPENAPI, &["openapi"], "controller/src/daemon/api/routes.rs", options.check, &binaries)
    })?;
    let pages = Page::all(&sh::root())?;
    sh::step(&format!("links, paths, commands and policy files in {} pages", pages.len()), || {
        let mut wrong = paths::wrong(&pages, &sh::root());
        wrong.extend(commands::wrong(&pages, &binaries));
        wrong.extend(commands::wrong_policies(&pages, &binaries)?);
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("the documentation is wrong:\n  {}", wrong.join("\n  "))
    })?;
    sh::step("rustdoc, warnings denied", || {
        // Links to private items are for those who read the source.
        sh::run(
            sh::cargo()
                .args(["doc", "--locked", "--no-deps"])
                .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"),
        )
    })
}

/// What a command of `tidegate` prints, from the code.
fn printed(file: &str, command: &[&str], source: &str, check: bool, binaries: &Path) -> Result<()> {
    let path = sh::root().join(file);
    let written = fs::read_to_string(&path).unwrap_or_default();
    let tidegate = binaries.join("tidegate");
    let text = sh::read(sh::command(&tidegate.to_string_lossy()).args(command))?;
    if text == written {
        return Ok(());
    }
    if check {
        bail!("{file} is not what {source} says: run `cargo xtask docs` and commit it");
    }
    fs::write(&path, text).with_context(|| format!("cannot write {file}"))
}

/// The table of reasons, from the code.
fn drops(check: bool) -> Result<()> {
    let path = sh::root().join(DROPS);
    let written = fs::read_to_string(&path).unwrap_or_default();
    let example = ["--package", "tidegate-datapath", "--features", "host", "--example", "drops_table"];
    let table = sh::read(sh::cargo().args(["run", "--quiet", "--locked"]).args(example))?;
    if table == written {
        return Ok(());
    }
    if check {
        bail!("{DROPS} is not what datapath/src/abi/reason.rs says: run `cargo xtask docs` and commit it");
    }
    fs::write(&path, table).with_context(|| format!("cannot write {DROPS}"))
}
