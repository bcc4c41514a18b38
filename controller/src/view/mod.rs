//! What the CLI shows, read from the pinned maps and the saved state: no daemon is needed.

pub mod blocks;
pub mod drops;
pub mod event;
pub mod flow;
pub mod grants;
pub mod lists;
pub mod observe;
mod page;
pub mod past;
pub mod shadow;
pub mod standing;
pub mod status;
pub mod story;
pub mod table;
pub mod why;

pub use page::collect;

use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::names::Names;
use crate::privileges;
use crate::state::{InKernel, State};
use loader::Maps;

/// The form of an output.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// The option for it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputArg {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

/// What is there to be shown.
pub struct View {
    /// The pinned maps.
    pub maps: Maps,
    /// The saved state.
    pub state: State,
    /// Names of numbers.
    pub names: Names,
}

impl View {
    /// Opens the pinned maps of an instance.
    pub fn open(instance: &Instance) -> Result<Self> {
        privileges::need("reading the pinned maps")?;
        let maps = Maps::open(&instance.pin_dir()).map_err(|e| match e {
            loader::Error::NotPinned { pin_dir } => Failure::new(
                Code::NoDaemon,
                format!(
                    "nothing is attached under {}: start `tidegate run`, or see --name",
                    pin_dir.display()
                ),
            ),
            e => e.into(),
        })?;
        let kernel = InKernel::of(&maps.config.get()?);
        let state = State::load(&instance.state_file(), Some(&kernel))?;
        let names = Names::of(&state);
        Ok(Self { maps, state, names })
    }
}

/// A value as it stands in a query.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(byte);
    let one = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// Prints JSON, one line.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Failure::failed("encode JSON", e))?;
    say(&text)
}

/// Prints a line, or adds it to the page that is collected; a reader that has gone ends the command quietly.
pub fn say(line: &str) -> Result<()> {
    use std::io::Write;
    if page::has_taken(line)? {
        return Ok(());
    }
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Failure::io("write to stdout", &e)),
        Ok(()) => Ok(()),
    }
}
