//! `tidegate audit`: what was done, whether the record of it is whole, and how to keep it elsewhere.

pub use super::show::when;
use super::show::{self, ShowArgs};
use super::{Chain, Entry, Key, Kind, Line, PublicKey, Summary};
use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::state::{Author, Store, Who};
use crate::stream::{Cursor, RECORDS};
use crate::view::{Format, OutputArg, print_json, say};
use serde_json::json;
use serde_json::value::RawValue;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// `tidegate audit`.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// What was done, when, by whom, and what became of it
    #[command(after_help = "\
Examples:
  tidegate audit show --since 24h
  tidegate audit show --identity orders --until 2026-11-01T12:00:00Z    what held for orders then, and why
  tidegate audit show --kind quarantine --kind block -o json")]
    Show(ShowArgs),
    /// Find out whether any record was changed, removed, moved or cut off
    #[command(after_help = "\
Examples:
  tidegate audit verify
  tidegate audit verify --head 5d0c...    the record goes at least as far as when that head was written down
  tidegate audit verify --file audit.jsonl --key gateway.pem    an export, on another machine")]
    Verify {
        /// An export or a state.db instead of the instance's own (may be repeated: parts of one record in their order)
        #[arg(long, value_name = "PATH")]
        file: Vec<PathBuf>,
        /// The hash of a record that has to be there, as `audit head` printed it
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
        /// By whose key checkpoints have to be signed: PEM, as `audit key` printed it (may be repeated)
        #[arg(long, value_name = "PATH")]
        key: Vec<PathBuf>,
        /// Form of the output
        #[command(flatten)]
        output: OutputArg,
    },
    /// Print the records as JSON lines, which `audit verify --file` reads
    #[command(
        after_help = "Examples:\n  tidegate audit export > audit.jsonl\n  tidegate audit export --after 1200 >> audit.jsonl"
    )]
    Export {
        /// Only those after this record
        #[arg(long, value_name = "N", default_value_t = 0)]
        after: u64,
    },
    /// The number and hash of the last record: written down elsewhere, they tell later whether anything was cut off
    Head(OutputArg),
    /// The public key of the checkpoints, to be kept elsewhere
    #[command(after_help = "Example:\n  tidegate audit key > gateway.pem")]
    Key(OutputArg),
}

/// Runs the command.
pub fn run(instance: &Instance, command: AuditCommand) -> Result<()> {
    match command {
        AuditCommand::Show(args) => show::run(&open(instance)?, &args),
        AuditCommand::Verify { file, head, key, output } => {
            let trusted = key.iter().map(|path| read_key(path)).collect::<Result<Vec<_>>>()?;
            let summary = verify(instance, &file, Chain::new(trusted, head))?;
            report(&summary, output.output)
        }
        AuditCommand::Export { after } => open(instance)?.audit(after, |_, record, hash| {
            let record = RawValue::from_string(record).map_err(|e| Failure::failed("a record", e))?;
            print_json(&Line { record, hash })
        }),
        AuditCommand::Head(output) => {
            let head = open(instance)?.audit_head()?;
            match output.output {
                Format::Json => print_json(&head),
                Format::Table => say(&format!("{} {}", head.seq, head.hash)),
            }
        }
        AuditCommand::Key(output) => {
            let path = instance.audit_key();
            let key = Key::read(&path)?.ok_or_else(|| {
                let message = format!("{} is not there: the first `tidegate run` makes it", path.display());
                Failure::new(Code::NoDaemon, message)
            })?;
            match output.output {
                Format::Json => print_json(&json!({"algorithm": "ed25519", "key": key.public().hex()})),
                Format::Table => say(key.public().pem().trim_end()),
            }
        }
    }
}

fn open(instance: &Instance) -> Result<Store> {
    let path = instance.state_file();
    Store::read(&path)?.ok_or_else(|| {
        let message = format!(
            "there is no instance `{}`: {} is not there; start `tidegate run`, or see --name and --state-dir",
            instance.name,
            path.display()
        );
        Failure::new(Code::NoDaemon, message)
    })
}

fn read_key(path: &Path) -> Result<PublicKey> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Failure::io(format!("read {}", path.display()), &e))?;
    PublicKey::parse(&text).ok_or_else(|| {
        let message = format!("--key {}: no public key, as `tidegate audit key` prints it", path.display());
        Failure::new(Code::Usage, message)
    })
}

fn verify(instance: &Instance, files: &[PathBuf], mut chain: Chain) -> Result<Summary> {
    if files.is_empty() {
        // First, for a daemon may record and tell meanwhile.
        let told = Cursor::read(&instance.events_dir(), RECORDS).unwrap_or(0);
        take_store(&open(instance)?, &mut chain)?;
        chain.was_told(told);
    }
    for path in files {
        let io = |e: std::io::Error| Failure::io(format!("read {}", path.display()), &e);
        let mut file = BufReader::new(std::fs::File::open(path).map_err(io)?);
        if file.fill_buf().map_err(io)?.starts_with(b"SQLite format 3\0") {
            if let Some(store) = Store::read(path)? {
                take_store(&store, &mut chain)?;
            }
        } else {
            take_lines(file, &mut chain).map_err(io)?;
        }
    }
    Ok(chain.end())
}

fn take_store(store: &Store, chain: &mut Chain) -> Result<()> {
    store.audit(0, |seq, record, hash| {
        chain.take(&record, &hash);
        if chain.last() != seq {
            chain.take_unreadable(&format!("it stands in row {seq}"));
        }
        Ok(())
    })
}

/// Lines of an export. What is no line of one is found, too: nothing can be hidden between them.
pub(super) fn take_lines(mut file: impl BufRead, chain: &mut Chain) -> std::io::Result<()> {
    loop {
        let mut line = Vec::new();
        // A record of many changes has some hundred kilobytes.
        if (&mut file).take(16 << 20).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match read_line(&line) {
            Ok(line) => chain.take(line.record.get(), &line.hash),
            Err(why) => chain.take_unreadable(&why),
        }
    }
}

/// A line as it was written, to the byte.
fn read_line(text: &[u8]) -> Result<Line, String> {
    let text = text.strip_suffix(b"\n").ok_or("its line does not end")?;
    let line: Line = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let again = serde_json::to_vec(&line).map_err(|e| e.to_string())?;
    if again == text { Ok(line) } else { Err("it is written otherwise than `audit export` does".into()) }
}

fn report(summary: &Summary, format: Format) -> Result<()> {
    match format {
        Format::Json => print_json(summary)?,
        Format::Table => say(&summary.to_string())?,
    }
    if summary.ok {
        return Ok(());
    }
    let count = summary.findings.len() as u64 + summary.more_findings;
    Err(Failure::new(Code::Failure, format!("the audit record is not what was written: {count} findings")))
}

/// Records that somebody took the programs off without a daemon. Getting out must be possible in any case.
pub fn record_detached(instance: &Instance, interfaces: &[String], all: bool) {
    if !instance.state_file().exists() {
        return;
    }
    let who = Who::User(rustix::process::getuid().as_raw());
    let by = Author { who, how: if all { "detach --all" } else { "detach" }.into() };
    let entry = Entry::new(Kind::Detach, &by, json!({"interfaces": interfaces, "all": all}));
    if let Err(e) = Store::open(&instance.state_file()).and_then(|mut store| store.record(&entry)) {
        tracing::warn!("not in the audit record: {e}");
    }
}
