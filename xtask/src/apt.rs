//! Debian packages.

use crate::sh;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const POLICY_RC_D: &str = "/usr/sbin/policy-rc.d";

/// Which of the packages are not installed.
pub fn missing<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let Ok(output) =
        sh::command("dpkg-query").args(["-W", "-f", "${Package} ${db:Status-Status}\n"]).args(names).output()
    else {
        return names.to_vec();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let installed: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    names.iter().copied().filter(|name| !installed.contains(name)).collect()
}

/// Installs packages. The lists are updated only where they do not know a package or point to one that is gone.
pub fn install(names: &[&str]) -> Result<()> {
    if !without_candidate(names).is_empty() {
        update();
    }
    let unknown = without_candidate(names);
    if !unknown.is_empty() {
        bail!("apt has no package {} (its sources: /etc/apt/sources.list*)", unknown.join(", "));
    }
    let services = NoServices::begin()?;
    let mut result = try_install(names);
    if result.is_err() {
        eprintln!("    apt-get failed; updating its lists and trying once more");
        update();
        result = try_install(names);
    }
    drop(services);
    result
}

/// Answers debconf's question before it is asked.
pub fn preseed(selection: &str) {
    let child = sh::command("debconf-set-selections").stdin(Stdio::piped()).spawn();
    if let Ok(mut child) = child {
        if let Some(stdin) = child.stdin.as_mut() {
            // Without the answer the question keeps its default, which is the same.
            let _ = writeln!(stdin, "{selection}");
        }
        let _ = child.wait();
    }
}

fn without_candidate<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let policy = sh::read(sh::command("apt-cache").env("LC_ALL", "C").arg("policy").args(names));
    let known = candidates(&policy.unwrap_or_default());
    names.iter().copied().filter(|name| !known.contains(*name)).collect()
}

/// The packages in what `apt-cache policy` prints that can be installed.
fn candidates(policy: &str) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    let mut package = "";
    for line in policy.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            package = name;
        } else if let Some(version) = line.trim_start().strip_prefix("Candidate: ")
            && version != "(none)"
        {
            known.insert(package.to_owned());
        }
    }
    known
}

/// Updates apt's lists. One source of a third party that fails is no reason to stop: what counts is whether the
/// packages are known afterwards.
fn update() {
    eprintln!("    apt-get update: the package lists are missing or old");
    if let Err(why) = filtered(apt_get().arg("update"), |_| false) {
        eprintln!("    apt-get update: {why:#}; going on with the lists that it has");
    }
}

fn try_install(names: &[&str]) -> Result<()> {
    let mut command = apt_get();
    command
        .args(["install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"])
        .args(names);
    filtered(&mut command, |line| match line.strip_prefix("Setting up ") {
        // Of what the packages depend on, in turn, apt tells more than anybody wants to read.
        Some(package) => names.contains(&package.split([' ', ':']).next().unwrap_or_default()),
        None => line.starts_with("Need to get ") || line.starts_with("Fetched "),
    })
}

fn apt_get() -> Command {
    let mut command = sh::command("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C").args(["-o", "Dpkg::Use-Pty=0"]);
    command
}

/// Runs apt-get, shows the lines that tell how far it is, and all of them if it fails.
fn filtered(command: &mut Command, shown: impl Fn(&str) -> bool) -> Result<()> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", sh::show(command)))?;
    let mut log = String::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("reading what apt-get prints")?;
            if shown(&line) {
                eprintln!("    {:>4.0} s  {}", start.elapsed().as_secs_f32(), line.trim_end_matches(" ..."));
            }
            log.push_str(&line);
            log.push('\n');
        }
    }
    let status = child.wait().context("waiting for apt-get")?;
    if !status.success() {
        eprint!("{log}");
        bail!("`{}` failed ({status})", sh::show(command));
    }
    Ok(())
}

/// While this lives, packages that are installed start no service (Debian Policy, section 9.3.3.1).
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        // A container image or the administrator may have one: theirs stays as it is.
        if Path::new(POLICY_RC_D).exists() {
            return Ok(Self { ours: false });
        }
        let write = || {
            fs::write(
                POLICY_RC_D,
                "#!/bin/sh\n# Made by `cargo xtask setup`, removed when it ends.\nexit 101\n",
            )?;
            fs::set_permissions(POLICY_RC_D, fs::Permissions::from_mode(0o755))
        };
        write().with_context(|| format!("cannot write {POLICY_RC_D}, which keeps services from starting"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(why) = fs::remove_file(POLICY_RC_D)
        {
            eprintln!(
                "    cannot remove {POLICY_RC_D} ({why}): remove it, or no package starts its services"
            );
        }
    }
}

/// Keeps a service from starting with the machine. For packages of which only a tool is wanted.
pub fn disable_service(name: &str) {
    // It takes away systemd's links as well, also where no systemd runs. A failure leaves the package as it came.
    let _ = sh::command("update-rc.d")
        .args([name, "disable"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_candidate_is_not_known() {
        let policy = "tshark:\n  Installed: (none)\n  Candidate: 4.0.17-0\n  Version table:\n\
                      gone:\n  Installed: 1.0\n  Candidate: (none)\n";
        assert_eq!(candidates(policy), BTreeSet::from(["tshark".to_owned()]));
    }

    #[test]
    fn what_apt_does_not_list_is_not_known() {
        assert!(candidates("").is_empty());
    }
}
