//! Who answers a command: this host, or the daemon, which may be another host's.
//!
//! No command is left to a general case: one that would go by this host's files although another's daemon was named tells of the
//! wrong gateway, and one that would act on this host's maps acts on the wrong one.

use super::Command;
use crate::exit_code::{Code, Failure, Result};
use crate::guard;
use crate::instance::Instance;
use crate::view::{Format, OutputArg};

/// Where the answer comes from.
enum Answered {
    /// From this host's files and maps, or from no gateway at all. It means nothing for another.
    Here,
    /// From the daemon, which the command asks itself.
    ByDaemon,
    /// From this host's files and maps, or the same from the daemon, at this path and in this form.
    Shown(String, Format),
}

fn shown(path: &str, output: &OutputArg) -> Answered {
    Answered::Shown(path.to_owned(), output.output)
}

impl Command {
    fn answered(&self) -> Answered {
        match self {
            Self::Status(output) => shown("/v1/status", output),
            Self::Flows(output) => shown("/v1/flows", output),
            Self::Drops(output) => shown("/v1/drops", output),
            Self::Why { args, output } => match args.path() {
                Some(path) => shown(&path, output),
                None => Answered::Here,
            },
            Self::Story(args) => shown(&args.path(), &args.output),
            Self::Identity(command) => match command.shown_at() {
                Some(output) => shown("/v1/identities", output),
                None => Answered::ByDaemon,
            },
            Self::Block(guard::BlockCommand::List(args)) => shown(&args.path(), &args.output),
            Self::Quarantine(guard::QuarantineCommand::List(output)) => shown("/v1/quarantines", output),
            Self::Grant(args) => match args.shown_at() {
                Some((path, output)) => shown(&path, output),
                None => Answered::ByDaemon,
            },
            Self::Policy(command) => match command.shown_at() {
                Some((path, output)) => shown(&path, output),
                None if command.is_local() => Answered::Here,
                None => Answered::ByDaemon,
            },
            Self::Block(guard::BlockCommand::Add { .. } | guard::BlockCommand::Del(_))
            | Self::Quarantine(guard::QuarantineCommand::Add { .. } | guard::QuarantineCommand::Del { .. })
            | Self::Attach { .. }
            | Self::Detach { all: false, .. }
            | Self::Findings(_)
            | Self::Intent(_)
            | Self::Approvals(_)
            | Self::Governance(_)
            | Self::Observe(_) => Answered::ByDaemon,
            Self::Run(_)
            | Self::Detach { all: true, .. }
            | Self::Doctor(_)
            | Self::Enroll(_)
            | Self::Audit(_)
            | Self::Replay(_)
            | Self::Openapi
            | Self::Completions { .. }
            | Self::Man { .. } => Answered::Here,
        }
    }

    /// The path at which the daemon shows what the command shows: for another host, and for users that cannot read maps and
    /// state themselves. What is done on this host alone fails for another.
    pub(super) fn shown_by_daemon(&self, instance: &Instance) -> Result<Option<(String, Format)>> {
        let is_remote = instance.remote.is_some();
        match self.answered() {
            Answered::Here if is_remote => {
                let failure = Failure::new(Code::Usage, "this command is for this host alone");
                Err(failure.hint("run it on the gateway, without --server"))
            }
            Answered::Shown(path, format) if is_remote || !rustix::process::geteuid().is_root() => {
                Ok(Some((path, format)))
            }
            Answered::Here | Answered::ByDaemon | Answered::Shown(..) => Ok(None),
        }
    }
}
