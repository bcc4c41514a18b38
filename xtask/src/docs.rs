//! `cargo xtask docs`: what the documentation says is true.

use crate::options::Options;
use crate::{setup, sh};
use anyhow::{Context, Result, bail};
use std::fs;

const DROPS: &str = "docs/drops.md";

/// Generates docs/drops.md, or compares it; then checks the rest.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    sh::step(DROPS, || drops(options.check))?;
    sh::step("rustdoc, warnings denied", || {
        sh::run(sh::cargo().args(["doc", "--locked", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    })
}

/// The table of reasons, from the code.
fn drops(check: bool) -> Result<()> {
    let path = sh::root().join(DROPS);
    let written = fs::read_to_string(&path).unwrap_or_default();
    let table =
        sh::read(sh::cargo().args(["run", "--quiet", "--locked", "--package", "tidegate-datapath"]).args([
            "--features",
            "host",
            "--example",
            "drops_table",
        ]))?;
    if table == written {
        return Ok(());
    }
    if check {
        bail!("{DROPS} is not what datapath/src/abi/reason.rs says: run `cargo xtask docs` and commit it");
    }
    fs::write(&path, table).with_context(|| format!("cannot write {DROPS}"))
}
