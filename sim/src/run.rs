//! `tidegate-sim run`.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::gateway::Gateway;
use crate::lab::Lab;
use crate::report::{self, Report, Style};
use crate::topology::{self, Plan};
use crate::traffic;
use crate::{Colour, Output, RunOptions, capture, exit_code, expect, registry};

/// Says so if this is not root.
pub fn is_root(command: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!(
            "tidegate-sim {command} makes network namespaces, which needs root: run it again with sudo"
        );
    }
    root
}

/// Runs a topology and returns the exit status.
pub fn run(options: &RunOptions) -> u8 {
    let plan = match topology::load(&options.file) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("{error}");
            return exit_code::BAD_FILE;
        }
    };
    if !is_root("run") {
        return exit_code::NOT_PERMITTED;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return exit_code::FAILED;
        }
    };
    // One thread: children end with the thread that starts them.
    match LocalSet::new().block_on(&runtime, supervised(options, &plan)) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("{error:#}");
            exit_code::FAILED
        }
    }
}

async fn supervised(options: &RunOptions, plan: &Plan) -> Result<u8> {
    for (run, receipt) in registry::sweep()?.removed {
        eprintln!("an earlier run was killed; {run}: {}", report::receipt(&receipt));
    }
    let style = Style::new(options.color, std::io::stdout().is_terminal());
    let mut report = Report::new(plan);
    let mut lab = Lab::new()?;
    report.run = lab.run();
    let mut gateway = None;
    let ended = tokio::select! {
        biased;
        name = stopped() => Err(name?),
        result = play(options, plan, &mut lab, &mut gateway, &mut report, &style) => Ok(result),
    };
    if let Some(gateway) = gateway {
        report.daemon_log = gateway.log();
        gateway.stop().await;
    }
    report.receipt = lab.remove();
    match ended {
        Err(name) => {
            eprintln!("stopped by {name}; {}", report::receipt(&report.receipt));
            Ok(exit_code::INTERRUPTED)
        }
        Ok(result) => {
            report.error = result.err().map(|error| format!("{error:#}"));
            report.finish();
            match options.output {
                Output::Table => print!("{}", report.table(&style)),
                Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
            }
            Ok(if report.passed { exit_code::OK } else { exit_code::FAILED })
        }
    }
}

/// Everything between an empty lab and the last expectation.
async fn play(
    options: &RunOptions,
    plan: &Plan,
    lab: &mut Lab,
    gateway: &mut Option<Gateway>,
    report: &mut Report,
    style: &Style,
) -> Result<()> {
    lab.build_network(plan)?;
    lab.start_workloads(plan).await?;
    let recorders = match &options.pcap {
        Some(folder) => capture::start(plan, lab, folder).await?,
        None => Vec::new(),
    };
    *gateway = Gateway::start(plan, lab, options.tidegate.as_deref()).await?;
    let live = options.output == Output::Table;
    if live {
        print!("{}", report.head(style));
    }
    let tell = |result: &traffic::StepResult| {
        if live {
            print!("{}", report::step_line(result, style));
        }
    };
    traffic::run(plan, lab, gateway.as_ref(), options.keep_going, &mut report.steps, tell).await;
    if let Some(gateway) = gateway {
        (report.seen, report.expectations) = expect::check(&plan.expect, gateway).await?;
    }
    if !recorders.is_empty() {
        // The last packets are still on their way to the files.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Waits for a signal that ends the run.
async fn stopped() -> Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}

impl Style {
    fn new(colour: Colour, terminal: bool) -> Self {
        let on = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && std::env::var_os("NO_COLOR").is_none(),
        };
        if on { Self::coloured() } else { Self::plain() }
    }
}
