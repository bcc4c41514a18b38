//! Where one instance keeps its things.

use crate::exit_code::{Code, Failure, Result};
use crate::remote::Remote;
use std::path::PathBuf;

/// Options that every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Instance {
    /// Name of the instance; several can run side by side
    #[arg(long, global = true, env = "TIDEGATE_NAME", default_value = "default", hide_env = true)]
    pub name: String,
    /// The bpffs under which maps and links are pinned
    #[arg(long, global = true, env = "TIDEGATE_BPFFS", value_name = "DIR", default_value = "/sys/fs/bpf")]
    #[arg(hide_env = true)]
    pub bpffs: PathBuf,
    /// Folder of the control socket
    #[arg(
        long,
        global = true,
        env = "TIDEGATE_RUN_DIR",
        value_name = "DIR",
        default_value = "/run/tidegate"
    )]
    #[arg(hide_env = true)]
    pub run_dir: PathBuf,
    /// Folder of the saved state
    #[arg(long, global = true, env = "TIDEGATE_STATE_DIR", value_name = "DIR", hide_env = true)]
    #[arg(default_value = "/var/lib/tidegate")]
    pub state_dir: PathBuf,
    /// The daemon of another host, which is asked instead.
    #[arg(skip)]
    pub remote: Option<Remote>,
}

impl Instance {
    /// Refuses names that are no file names; bpffs allows no dots.
    pub fn check(&self) -> Result<()> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(fits) {
            let message = format!("--name {}: up to 64 letters, digits, - and _ are accepted", self.name);
            return Err(Failure::new(Code::Usage, message));
        }
        Ok(())
    }

    /// Where maps and links are pinned.
    pub fn pin_dir(&self) -> PathBuf {
        self.bpffs.join("tidegate").join(&self.name)
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join(format!("{}.sock", self.name))
    }

    /// Locked while a daemon runs.
    pub fn lock(&self) -> PathBuf {
        self.run_dir.join(format!("{}.lock", self.name))
    }

    /// The findings of the governance loop.
    pub fn findings_file(&self) -> PathBuf {
        self.state_dir.join(&self.name).join("findings.db")
    }

    /// Containments that wait for people.
    pub fn approvals_file(&self) -> PathBuf {
        self.state_dir.join(&self.name).join("approvals.db")
    }

    /// Files of events.
    pub fn events_dir(&self) -> PathBuf {
        self.state_dir.join(&self.name).join("events")
    }

    /// What intents are learned from.
    pub fn observed_file(&self) -> PathBuf {
        self.state_dir.join(&self.name).join("observed.db")
    }

    /// The saved state.
    pub fn state_file(&self) -> PathBuf {
        self.state_dir.join(&self.name).join("state.db")
    }

    /// The key that signs checkpoints of the audit record.
    pub fn audit_key(&self) -> PathBuf {
        self.state_dir.join(&self.name).join("audit.key")
    }
}
