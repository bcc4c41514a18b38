//! The command line.

mod answered;

use crate::audit;
use crate::change;
use crate::client;
use crate::daemon::{self, AttachRequest, AttachedPort, CommittedRevision, DetachRequest, RunArgs};
use crate::doctor;
use crate::exit_code::{Code, Failure, Result};
use crate::governance;
use crate::grant;
use crate::guard;
use crate::instance::Instance;
use crate::privileges;
use crate::remote::RemoteArgs;
use crate::view::{self, Format, OutputArg, View, print_json, say};
use clap::{CommandFactory, Parser, Subcommand};
use hyper::Method;

/// Identity-aware XDP and TC data plane for gateways
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  tidegate doctor                                           can it run here?
  tidegate policy check policies/                           is what stands there right?
  tidegate run -i eth1 -i eth2 --policy policies/ --mode monitor
  tidegate drops                                            what would have been dropped, and why
  tidegate why 10.1.0.2 10.2.0.2 443/tcp                    which rule decides
  tidegate detach --all                                     take everything off again

Exit codes: 0 ok, 1 failure, 2 wrong command line or file, 3 no daemon or nothing attached, 4 already running,
5 not permitted.")]
pub struct Cli {
    #[command(flatten)]
    instance: Instance,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: load, attach, serve
    #[command(after_help = "\
Examples:
  tidegate run -i eth1 -i eth2 --policy /etc/tidegate --mode monitor
  tidegate run -i eth1 --failsafe tcp/22 --metrics 127.0.0.1:9464
The programs stay attached and go on enforcing when the daemon ends; `tidegate detach --all` takes them off.")]
    Run(Box<RunArgs>),
    /// Attach to interfaces, by the daemon that runs
    #[command(
        after_help = "Examples:\n  tidegate attach eth1 eth2\n  tidegate attach eth1 --ingress libxdp --xdp-prio 20    beside xdp-filter, after it"
    )]
    Attach {
        /// Interfaces
        #[arg(required = true, value_name = "IF")]
        interfaces: Vec<String>,
        /// Where what comes in is judged [default: as it is, or as the daemon was told last]
        #[arg(long, value_enum, value_name = "WHERE")]
        ingress: Option<daemon::ingress::IngressArg>,
        #[command(flatten)]
        how: daemon::ingress::How,
        /// How TC programs are attached
        #[arg(long, value_enum, default_value_t)]
        tc_mode: daemon::TcModeArg,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Take the programs off interfaces, with or without a daemon
    #[command(
        after_help = "Examples:\n  tidegate detach eth2\n  tidegate detach --all    the way out: links, maps and pins go"
    )]
    Detach {
        /// Interfaces
        #[arg(value_name = "IF", required_unless_present = "all", conflicts_with = "all")]
        interfaces: Vec<String>,
        /// Every interface, and all maps
        #[arg(long)]
        all: bool,
    },
    /// What is attached where, and how full the tables are
    Status(OutputArg),
    /// What this host's kernel and interfaces can do, and what to do about what is missing
    #[command(after_help = "\
Examples:
  tidegate doctor                  exit code 0 if Tidegate can run here
  tidegate doctor eth1 eth2        and if it can be attached to these
  tidegate doctor -o json | jq '.checks[] | select(.state != \"ok\")'
It changes nothing, and attaches nothing to any interface.")]
    Doctor(doctor::DoctorArgs),
    /// On a workload's host: prove its SVID to gateways, and keep the lease on its address that this gives
    #[command(after_help = "\
Examples:
  tidegate enroll --gateway gw.acme.example:8446 --workload-api unix:///run/spire/agent.sock
  tidegate enroll --gateway 10.1.0.1:8446 --gateway '[fd00:1::1]:8446' --svid-cert svid.pem --svid-key key.pem \\
      --trust-bundle acme.example=bundle.pem --once
It stays, and renews when the SVID rotates and when two thirds of the lease are over. SIGTERM gives the address back.")]
    Enroll(crate::enroll::EnrollArgs),
    /// Check, apply, compare and show policies, and go back to an older one
    #[command(subcommand)]
    Policy(change::PolicyCommand),
    /// Workloads and their SPIFFE IDs
    #[command(subcommand)]
    Identity(crate::identity::IdentityCommand),
    /// Block addresses, identities and services
    #[command(subcommand)]
    Block(guard::BlockCommand),
    /// Cut identities off
    #[command(subcommand)]
    Quarantine(guard::QuarantineCommand),
    /// Give an identity access to another for a while: it ends by itself, live connections too
    #[command(after_help = "\
Examples:
  tidegate grant spiffe://acme.example/people/ada spiffe://acme.example/ns/shop/sa/db tcp/5432 --for 15m --reason 'incident 4711'
  tidegate grant list                              who has what now
  tidegate grant list --at 2026-11-01T12:00:00Z    who had what then
  tidegate grant revoke g12")]
    Grant(grant::GrantArgs),
    /// What departs from what identities are for
    #[command(subcommand)]
    Findings(governance::cli::FindingsCommand),
    /// What identities are for, from what they were seen to do
    #[command(subcommand)]
    Intent(governance::learn::IntentCommand),
    /// Containments that wait for people
    #[command(subcommand)]
    Approvals(governance::approvals_cli::ApprovalsCommand),
    /// The loop that compares, decides and contains
    #[command(subcommand)]
    Governance(governance::cli::GovernanceCommand),
    /// What was done to this gateway, by whom, and whether the record of it is whole
    #[command(subcommand)]
    Audit(audit::cli::AuditCommand),
    /// Connections: who talks to whom, and what became of it
    #[command(
        after_help = "Examples:\n  tidegate flows\n  tidegate flows -o json | jq 'select(.tls == \"alert\")'"
    )]
    Flows(OutputArg),
    /// What was dropped, or would have been, and why
    Drops(OutputArg),
    /// Verdicts, handshakes and closed connections as they happen
    #[command(after_help = "\
Examples:
  tidegate observe                       what the daemon remembers
  tidegate observe -f --verdict DROPPED  what is dropped, as it happens
  tidegate observe -f --identity orders -o json")]
    Observe(view::observe::ObserveArgs),
    /// What would become of a connection: which rule decides, or which one nearly did
    #[command(after_help = "\
Examples:
  tidegate why 10.1.0.2 10.2.0.2 443/tcp
  tidegate why orders payments 8443
  tidegate why spiffe://acme.example/ns/shop/sa/orders 10.2.0.2 icmp
  tidegate why 10.0.0.5 10.2.0.2 443 --vlan 10 --interface eth1 --source-port 30500
  tidegate why orders payments 8443 --policy policies/    by these files alone: no gateway is asked
  tidegate why --event 1042              why that was judged as it was, by what counted then
`tidegate observe -o json` shows the numbers of events.")]
    Why {
        #[command(flatten)]
        args: view::why::WhyArgs,
        #[command(flatten)]
        output: OutputArg,
    },
    /// What happened to an identity, in its order: enrolled, bound, connected, denied, found, contained
    #[command(after_help = "\
Examples:
  tidegate story spiffe://acme.example/ns/shop/sa/orders
  tidegate story orders --since 24h      every identity with this in its SPIFFE ID
  tidegate story orders --since 2026-11-01T12:00:00Z --until 2026-11-01T13:00:00Z -o json
What repeats is told once, with how often. It goes as far back as events are kept (`tidegate run --event-log`).")]
    Story(view::story::StoryArgs),
    /// Show what the packet path makes of a capture: its connections, or frame by frame
    Replay(crate::replay::ReplayArgs),
    /// Print the OpenAPI document of the daemon's API
    #[command(after_help = "Example:\n  tidegate openapi > openapi.json")]
    Openapi,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  tidegate completions bash > /etc/bash_completion.d/tidegate")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder
    #[command(after_help = "Example:\n  tidegate man /usr/local/share/man/man1")]
    Man {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: std::path::PathBuf,
    },
}

pub(crate) fn duration(text: &str) -> Result<jiff::SignedDuration, String> {
    crate::policy::time::parse_duration(text).ok_or_else(|| "write 90s, 10m, 1h30m or 7d".into())
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<()> {
    let Cli { mut instance, remote, command } = cli;
    instance.remote = remote.remote();
    instance.check()?;
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    if let Some((path, format)) = command.shown_by_daemon(&instance)? {
        return block_on(client::show(&instance, &path, format));
    }
    match command {
        Command::Run(args) => daemon::run(&instance, &args),
        Command::Attach { interfaces, ingress, how, tc_mode, output } => {
            let daemon::ingress::How { xdp_mode, turn: daemon::ingress::Turn { xdp_prio, xdp_chain } } = how;
            let request = AttachRequest { interfaces, ingress, xdp_mode, xdp_prio, xdp_chain, tc_mode };
            attach(&instance, &request, output.output)
        }
        Command::Detach { interfaces, all } => detach(&instance, interfaces, all),
        Command::Status(output) => {
            let view = View::open(&instance)?;
            view::status::print(&instance, &view, daemon(&instance)?.as_ref(), output.output)
        }
        Command::Enroll(args) => crate::enroll::run(&args),
        Command::Doctor(args) => doctor::run(&instance, &args),
        Command::Policy(command) => change::run(&instance, command),
        Command::Identity(command) => crate::identity::run(&instance, command),
        Command::Block(command) => guard::block(&instance, command),
        Command::Quarantine(command) => guard::quarantine(&instance, command),
        Command::Grant(args) => grant::run(&instance, args),
        Command::Findings(command) => governance::cli::findings(&instance, command),
        Command::Intent(command) => governance::learn::run(&instance, command),
        Command::Approvals(command) => governance::approvals_cli::run(&instance, command),
        Command::Governance(command) => governance::cli::governance(&instance, command),
        Command::Audit(command) => audit::cli::run(&instance, command),
        Command::Flows(output) => {
            view::flow::print(&View::open(&instance)?, read_hellos(&instance)?, output.output)
        }
        Command::Drops(output) => view::drops::print(&View::open(&instance)?, output.output),
        Command::Observe(args) => block_on(view::observe::run(&instance, &args)),
        Command::Why { args, output } => view::why::run(&instance, &args, output.output),
        Command::Story(args) => view::story::print(&instance, &args.wanted(), args.output.output),
        Command::Replay(args) => Ok(crate::replay::run(args)?),
        Command::Openapi => {
            let text = serde_json::to_string_pretty(daemon::openapi());
            say(&text.map_err(|e| Failure::failed("encode JSON", e))?)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { folder } => clap_mangen::generate_to(Cli::command(), &folder)
            .map_err(|e| Failure::io(format!("write into {}", folder.display()), &e)),
    }
}

pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure::io("start the runtime", &e))?.block_on(work)
}

/// What the daemon says of itself, where one runs.
fn daemon(instance: &Instance) -> Result<Option<view::status::Daemon>> {
    match block_on(client::call(instance, Method::GET, "/v1/svid", &())) {
        Ok(svid) => Ok(Some(view::status::Daemon { svid })),
        Err(e) if e.code == Code::NoDaemon => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether a daemon of this host answers. Of one of another host that does not answer nothing is known: that is a failure, and
/// never a reason to do here what was meant for there.
fn daemon_runs(instance: &Instance) -> Result<bool> {
    match block_on(client::send(instance, Method::GET, "/v1/ping", &())) {
        Ok(_) => Ok(true),
        Err(e) if e.code == Code::NoDaemon && instance.remote.is_none() => Ok(false),
        Err(e) => Err(e),
    }
}

fn attach(instance: &Instance, request: &AttachRequest, format: Format) -> Result<()> {
    let ports: Vec<AttachedPort> = block_on(client::call(instance, Method::POST, "/v1/attach", request))?;
    if format == Format::Json {
        return print_json(&ports);
    }
    for port in ports {
        let AttachedPort { interface, ingress, ingress_mode, tc_mode, .. } = &port;
        say(&format!("{interface}: ingress {ingress} ({ingress_mode}), egress {tc_mode}"))?;
        if let Some(why) = port.native_refused {
            say(&format!("  the driver refused: {why}"))?;
        }
    }
    Ok(())
}

fn detach(instance: &Instance, interfaces: Vec<String>, all: bool) -> Result<()> {
    if instance.remote.is_none() {
        privileges::need("detaching")?;
    }
    let running = daemon_runs(instance)?;
    if all {
        if running {
            let message =
                "a daemon runs and would go on without maps: stop it first, then `tidegate detach --all`";
            return Err(Failure::new(Code::AlreadyRunning, message));
        }
        if !instance.pin_dir().exists() {
            let message = format!("nothing is attached under {}", instance.pin_dir().display());
            return Err(Failure::new(Code::NoDaemon, message));
        }
        let names = loader::detach_all(&instance.pin_dir())?;
        audit::cli::record_detached(instance, &names, true);
        return say(&format!("detached {}; maps and pins are gone", list(&names)));
    }
    if running {
        let request = DetachRequest { interfaces: interfaces.clone() };
        block_on(client::call::<()>(instance, Method::POST, "/v1/detach", &request))?;
    } else {
        daemon::detach_each(&instance.pin_dir(), &interfaces)?;
        audit::cli::record_detached(instance, &interfaces, false);
    }
    say(&format!("detached {}", list(&interfaces)))
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no interface".into() } else { names.join(", ") }
}

/// Says that a revision is what it is now.
pub(crate) fn print_committed(done: CommittedRevision, format: Format, what: &str) -> Result<()> {
    match format {
        Format::Json => print_json(&done),
        Format::Table => say(&format!("revision {} {what}", done.revision)),
    }
}

/// The ClientHellos that the daemon has read; none without a daemon.
fn read_hellos(instance: &Instance) -> Result<view::flow::ReadHellos> {
    match block_on(client::call(instance, Method::GET, "/v1/hellos", &())) {
        Err(e) if e.code == Code::NoDaemon => Ok(Vec::new()),
        answer => answer,
    }
}
