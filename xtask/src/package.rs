//! `cargo xtask package`: the Debian package. What is in it stands in controller/Cargo.toml; what is not in the
//! repository, because it is made from the binary, is put into target/package first.

use crate::options::Options;
use crate::{build, setup, sh};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Version and Debian revision, where none is given.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-1");
/// Where shells look for completions, as asked of `tidegate completions SHELL`.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "tidegate"), ("zsh", "_tidegate"), ("fish", "tidegate.fish")];

/// Builds, writes the package, and prints where it is.
pub fn run(options: &Options) -> Result<()> {
    let folder = if options.debug {
        sh::target_dir().join("debug")
    } else {
        setup::run()?;
        build::release()?
    };
    if !sh::has("cargo-deb") {
        setup::install_cargo_deb()?;
    }
    let tidegate = folder.join("tidegate");
    if !tidegate.is_file() {
        bail!("{} is not there: `cargo xtask build --debug` builds it", tidegate.display());
    }
    let version = options.deb_version.as_deref().unwrap_or(VERSION);
    sh::step(&format!("package of tidegate {version}"), || {
        stage(&tidegate, version)?;
        sh::run(cargo_deb(options.debug, version).args(&options.rest))
    })
}

/// Writes what is made from the binary: manual pages, completions, and the changelog in Debian's form.
fn stage(tidegate: &Path, version: &str) -> Result<()> {
    // controller/Cargo.toml names it relative to itself.
    let folder = sh::root().join("target/package");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let man = folder.join("man");
    fs::create_dir_all(&man).with_context(|| format!("cannot make {}", man.display()))?;
    let tidegate = tidegate.to_string_lossy();
    sh::run(sh::command(&tidegate).arg("man").arg(&man))?;
    for (shell, file) in COMPLETIONS {
        write(&folder.join(file), &sh::read(sh::command(&tidegate).args(["completions", shell]))?)?;
    }
    write(&folder.join("changelog"), &changelog(version, &date()?))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Debian Policy, section 4.4. The changes themselves are upstream's.
fn changelog(version: &str, date: &str) -> String {
    format!(
        "tidegate ({version}) unstable; urgency=medium\n\n  * What changed stands in changelog.gz.\n\n \
         -- The Tidegate authors <tidegate@tidegate.dev>  {date}\n"
    )
}

/// When the last commit was made, or now, where this is no clone.
fn date() -> Result<String> {
    let commit = sh::read(sh::command("git").args(["log", "-1", "--format=%cD"]));
    let date = commit.or_else(|_| sh::read(sh::command("date").arg("--rfc-email")))?;
    Ok(date.trim().to_owned())
}

fn cargo_deb(debug: bool, version: &str) -> Command {
    let mut cargo = sh::cargo();
    cargo.args(["deb", "--package", "tidegate", "--no-build", "--locked", "--strip"]);
    cargo.args(["--deb-version", version]);
    if debug {
        // Written quickly, and with no word on that this is not what one releases.
        cargo.args(["--profile", "dev", "--fast", "--quiet"]);
    }
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_has_the_form_that_dpkg_parses() {
        let text = changelog("0.2.0-1", "Wed, 25 Nov 2026 23:20:55 +0000");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "tidegate (0.2.0-1) unstable; urgency=medium");
        assert_eq!(
            lines[4],
            " -- The Tidegate authors <tidegate@tidegate.dev>  Wed, 25 Nov 2026 23:20:55 +0000"
        );
    }
}
