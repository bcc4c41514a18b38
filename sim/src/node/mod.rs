//! The child process of a workload: it serves and sends inside its namespace, told what to do on stdin.

pub mod hello;
pub mod mtls;
pub mod ping;
pub mod plain;
pub mod protocol;
mod spiffe;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::ns;
use crate::topology::plan::Protocol;
use protocol::{Action, Command, Done, Message, Request};

/// Where a child reports.
pub type Reports = UnboundedSender<Message>;

/// What is served.
type Servers = Arc<Mutex<Vec<AbortHandle>>>;

/// Ends with its parent, and enters a namespace. To be called before any thread starts.
pub fn enter(netns: &Path, parent: i32) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    // The parent may have ended before that took effect.
    anyhow::ensure!(nix::unistd::getppid().as_raw() == parent, "the simulator that started this is gone");
    ns::enter(netns)
}

/// Reads requests until stdin ends.
pub fn run(netns: &Path, parent: i32) -> Result<()> {
    enter(netns, parent)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve())
}

async fn serve() -> Result<()> {
    let (reports, mut outbox) = unbounded_channel::<Message>();
    let writer = tokio::spawn(async move {
        let mut stdout = tokio::io::stdout();
        while let Some(message) = outbox.recv().await {
            let Ok(mut line) = serde_json::to_vec(&message) else { continue };
            line.push(b'\n');
            if stdout.write_all(&line).await.and(stdout.flush().await).is_err() {
                break;
            }
        }
    });
    let servers = Servers::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Request = serde_json::from_str(&line).context("a request that is none")?;
        let (reports, servers) = (reports.clone(), servers.clone());
        tokio::spawn(async move {
            let id = request.id;
            // A panic in one exchange is that exchange's failure.
            let done = tokio::spawn(answer(request.command, reports.clone(), servers))
                .await
                .unwrap_or_else(|error| Done::error(format!("it panicked: {error}")));
            drop(reports.send(Message::Done { id, done }));
        });
    }
    drop(reports);
    writer.abort();
    Ok(())
}

async fn answer(command: Command, reports: Reports, servers: Servers) -> Done {
    match command {
        Command::Listen { listener, svid } => {
            let started = match (listener.protocol, svid) {
                (Protocol::Mtls, Some(svid)) => mtls::listen(listener.port, &svid, reports).await,
                (Protocol::Mtls, None) => Err(anyhow::anyhow!("an mtls listener needs an SVID")),
                (Protocol::Tcp, _) => plain::listen_tcp(listener.port).await,
                (Protocol::Udp, _) => plain::listen_udp(listener.port).await,
            };
            let keep = |server| {
                servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
                Done::begin().ok()
            };
            started.map_or_else(|error| Done::error(format!("{error:#}")), keep)
        }
        Command::StopServing => {
            let servers = std::mem::take(&mut *servers.lock().unwrap_or_else(PoisonError::into_inner));
            servers.iter().for_each(AbortHandle::abort);
            Done::begin().ok()
        }
        Command::SlowDown { delay_ms } => {
            mtls::DELAY_MS.store(delay_ms, Ordering::Relaxed);
            Done::begin().ok()
        }
        Command::Exchange { action, to, bytes, timeout_ms } => {
            let timeout = std::time::Duration::from_millis(timeout_ms);
            match action {
                Action::Mtls { tls, svid, peer, lasting_ms } => {
                    let lasting = std::time::Duration::from_millis(lasting_ms);
                    let svid = &svid;
                    mtls::exchange(mtls::Exchange { to, bytes, tls, svid, peer, patience: timeout, lasting })
                        .await
                }
                Action::Tcp => plain::tcp(to, bytes, timeout).await,
                Action::Udp => {
                    let payload = vec![b'~'; usize::try_from(bytes).unwrap_or(usize::MAX)];
                    plain::udp(to, &payload, timeout).await
                }
                Action::Hello { hello } => hello::send(to, &hello, timeout).await,
                Action::Dns { query } => plain::udp(to, &plain::question(&query), timeout).await,
                Action::Ping => ping::ping(to.ip(), bytes, timeout).await,
            }
        }
    }
}
