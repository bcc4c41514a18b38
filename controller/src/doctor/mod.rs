//! `tidegate doctor`: what this host can do, and what to do about what it cannot. It changes nothing: what is loaded to
//! find out is gone at once, and nothing is attached to any interface.

mod host;
mod interface;
mod kernel;

use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::view::{Format, OutputArg, print_json, say};
use serde::Serialize;

/// What `tidegate doctor` is asked.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Interfaces that Tidegate is to be attached to [default: all, and none of them has to be fit]
    #[arg(value_name = "IF")]
    interfaces: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Tidegate runs, with less.
    Warn,
    /// Tidegate does not run without it.
    Missing,
}

/// One check: what was looked at, what was found, what to do.
#[derive(Clone, Debug, Serialize)]
struct Check {
    /// `kernel`, `host`, or an interface.
    part: String,
    check: String,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_do: Option<String>,
}

/// Checks of one part.
struct Part {
    name: String,
    checks: Vec<Check>,
}

impl Part {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), checks: Vec::new() }
    }

    fn note(&mut self, state: State, check: &str, found: impl Into<String>, to_do: Option<String>) {
        let (part, check, found) = (self.name.clone(), check.to_owned(), found.into());
        self.checks.push(Check { part, check, state, found, to_do });
    }

    fn ok(&mut self, check: &str, found: impl Into<String>) {
        self.note(State::Ok, check, found, None);
    }

    fn warn(&mut self, check: &str, found: impl Into<String>, to_do: impl Into<String>) {
        self.note(State::Warn, check, found, Some(to_do.into()));
    }

    fn missing(&mut self, check: &str, found: impl Into<String>, to_do: impl Into<String>) {
        self.note(State::Missing, check, found, Some(to_do.into()));
    }
}

/// Looks, prints, and fails where Tidegate cannot run.
pub fn run(instance: &Instance, args: &DoctorArgs) -> Result<()> {
    for interface in &args.interfaces {
        loader::netdev::index(interface)?;
    }
    let asked = !args.interfaces.is_empty();
    let interfaces = if asked { args.interfaces.clone() } else { loader::netdev::names() };
    let ours = loader::pinned_ports(&instance.pin_dir()).unwrap_or_default();
    let mut parts = vec![kernel::checks(instance), host::checks(instance)];
    let wanted = interfaces.iter().filter(|name| asked || *name != "lo");
    parts.extend(wanted.map(|name| interface::checks(name, &ours, asked)));
    let can_run = !parts.iter().flat_map(|part| &part.checks).any(|check| check.state == State::Missing);
    match args.output.output {
        Format::Json => {
            let checks: Vec<_> = parts.iter().flat_map(|part| &part.checks).collect();
            print_json(&serde_json::json!({"can_run": can_run, "checks": checks}))?;
        }
        Format::Table => parts.iter().try_for_each(print)?,
    }
    if can_run {
        return Ok(());
    }
    Err(Failure::new(Code::Failure, "Tidegate cannot run here: see the lines that say `missing`"))
}

fn print(part: &Part) -> Result<()> {
    say(&part.name)?;
    for check in &part.checks {
        let state = match check.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Missing => "missing",
        };
        say(&format!("  {state:<8} {:<20} {}", check.check, check.found))?;
        if let Some(to_do) = &check.to_do {
            say(&format!("{:31} to do: {to_do}", ""))?;
        }
    }
    Ok(())
}
