//! The parent's side of a node's child process.

use std::cell::RefCell;
use std::collections::HashMap;
use std::process::Stdio;
use std::rc::Rc;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command as Process};
use tokio::sync::{Mutex, oneshot};

use crate::node::protocol::{Command, Done, Message, Request, Served};
use crate::ns;
use crate::registry::Record;

#[derive(Default)]
struct Inbox {
    waiting: HashMap<u64, oneshot::Sender<Done>>,
    served: Vec<Served>,
    ended: Option<String>,
    next: u64,
}

/// A child that serves and sends inside a namespace.
pub struct Worker {
    node: String,
    stdin: Mutex<ChildStdin>,
    inbox: Rc<RefCell<Inbox>>,
}

/// The command that starts this same program in a hidden role inside a namespace.
pub fn own_command(role: &str, namespace: &str) -> Result<Process> {
    let mut command = Process::new(std::env::current_exe().context("cannot find this program")?);
    command
        .arg(role)
        .arg("--netns")
        .arg(ns::path(namespace))
        .arg("--parent")
        .arg(std::process::id().to_string())
        // A Ctrl-C is for the simulator, which then ends its children in order.
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

impl Worker {
    /// Starts one. To be called on the thread that lives longest: the child ends with the thread that started it.
    pub fn start(node: &str, namespace: &str, record: &mut Record) -> Result<Self> {
        let mut child = own_command("node", namespace)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the process of node {node}"))?;
        let pid = child.id().with_context(|| format!("the process of node {node} ended at once"))?;
        record.add_process(pid, node)?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let inbox = Rc::<RefCell<Inbox>>::default();
        tokio::task::spawn_local(read(node.to_string(), child, stdout, inbox.clone()));
        Ok(Self { node: node.into(), stdin: Mutex::new(stdin), inbox })
    }

    /// Asks for one thing and waits until it is done.
    pub async fn ask(&self, command: Command) -> Done {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut inbox = self.inbox.borrow_mut();
            if let Some(why) = &inbox.ended {
                return Done::error(why.clone());
            }
            inbox.next += 1;
            let id = inbox.next;
            inbox.waiting.insert(id, sender);
            id
        };
        if let Err(error) = self.send(&Request { id, command }).await
            && !is_broken_pipe(&error)
        {
            self.inbox.borrow_mut().waiting.remove(&id);
            return Done::error(format!("the process of node {} takes no requests: {error:#}", self.node));
        }
        receiver
            .await
            .unwrap_or_else(|_| Done::error(format!("the process of node {} did not answer", self.node)))
    }

    async fn send(&self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stdin.lock().await.write_all(&line).await?;
        Ok(())
    }

    /// How its servers saw their clients, so far.
    pub fn served(&self) -> Vec<Served> {
        self.inbox.borrow().served.clone()
    }
}

/// Whether the process has ended: how, its reader says to all who wait.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn read(
    node: String,
    mut child: Child,
    stdout: tokio::process::ChildStdout,
    inbox: Rc<RefCell<Inbox>>,
) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Message::Done { id, done }) => {
                if let Some(sender) = inbox.borrow_mut().waiting.remove(&id) {
                    drop(sender.send(done));
                }
            }
            Ok(Message::Served(served)) => inbox.borrow_mut().served.push(served),
            // Who waits for the answer would wait for ever.
            Err(error) => {
                eprintln!("node {node} said what nobody understands: {error}");
                drop(child.start_kill());
                break;
            }
        }
    }
    let how = child.wait().await.map_or_else(|e| e.to_string(), |status| status.to_string());
    let why = format!("the process of node {node} ended: {how}");
    let mut inbox = inbox.borrow_mut();
    for (_, sender) in inbox.waiting.drain() {
        drop(sender.send(Done::error(why.clone())));
    }
    inbox.ended = Some(why);
}
