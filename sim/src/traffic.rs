//! Carries out the steps of a plan.

use futures_util::future::join_all;
use serde::Serialize;
use std::time::{Duration, Instant};

use crate::expect;
use crate::gateway::Gateway;
use crate::lab::Lab;
use crate::node::protocol::{Action, Command, Done};
use crate::topology::Plan;
use crate::topology::plan::{
    Act, CommandLine, CommandPlace, Kind, Outcome, ServerAct, Stage, Step, StepKind, Wait,
};

/// A step and how it went.
#[derive(Clone, Debug, Serialize)]
pub struct StepResult {
    /// For the report.
    pub name: String,
    /// mtls, tcp, udp or ping.
    pub kind: StepKind,
    /// Node.
    pub from: String,
    /// As written.
    pub to: String,
    /// Address and port.
    pub address: String,
    /// mtls: the version that was offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_offered: Option<crate::topology::plan::Tls>,
    /// How it had to end.
    pub expected: Outcome,
    /// Whether it did.
    pub passed: bool,
    /// The alert that had to end it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_alert: Option<String>,
    /// What the server said of the client, if it refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_says: Option<String>,
    /// How it went.
    #[serde(flatten)]
    pub done: Done,
}

/// Runs all stages, or up to the first failure. `tell` is called with each result.
pub async fn run(
    plan: &Plan,
    lab: &Lab,
    gateway: Option<&Gateway>,
    keep_going: bool,
    results: &mut Vec<StepResult>,
    tell: impl Fn(&StepResult),
) {
    for stage in &plan.traffic {
        let steps = match stage {
            Stage::Pause(duration) => {
                tokio::time::sleep(*duration).await;
                continue;
            }
            Stage::Steps(steps) => steps,
        };
        let finished = join_all(steps.iter().map(|act| run_act(plan, lab, gateway, act))).await;
        let failed = finished.iter().any(|r| !r.passed);
        finished.iter().for_each(&tell);
        results.extend(finished);
        if failed && !keep_going {
            break;
        }
    }
}

async fn run_act(plan: &Plan, lab: &Lab, gateway: Option<&Gateway>, act: &Act) -> StepResult {
    match act {
        Act::Exchange(step) => {
            tokio::time::sleep(step.after).await;
            run_step(plan, lab, step).await
        }
        Act::Daemon(act, after) => {
            tokio::time::sleep(*after).await;
            let run = Done::begin();
            let result = match gateway {
                Some(gateway) => gateway.control(lab, *act).await,
                None => Err(anyhow::anyhow!("there is no gateway")),
            };
            let done = match result {
                Ok(()) => run.ok(),
                Err(error) => run.end(Outcome::Error, format!("{error:#}")),
            };
            let name = format!("{} the daemon", act.name());
            on_gateway(plan, StepKind::Daemon, name, act.name(), Outcome::Ok, done)
        }
        Act::Server(index, act, after) => {
            tokio::time::sleep(*after).await;
            let run = Done::begin();
            let result = match act {
                ServerAct::Start => lab.serve(plan, *index).await,
                ServerAct::Stop => lab.stop_serving(plan, *index).await,
                ServerAct::Slow(delay) => lab.slow_down(plan, *index, *delay).await,
            };
            let done = match result {
                Ok(()) => run.ok(),
                Err(error) => run.end(Outcome::Error, format!("{error:#}")),
            };
            let name = format!("{} what it serves", act.name());
            let result = on_gateway(plan, StepKind::Server, name, act.name(), Outcome::Ok, done);
            StepResult { from: plan.nodes[*index].name.clone(), ..result }
        }
        Act::Command(command) => {
            tokio::time::sleep(command.after).await;
            run_command(plan, lab, gateway, command).await
        }
        Act::Wait(wait) => run_wait(plan, gateway, wait).await,
    }
}

async fn run_command(plan: &Plan, lab: &Lab, gateway: Option<&Gateway>, command: &CommandLine) -> StepResult {
    let run = Done::begin();
    let output = match (gateway, &command.place) {
        (None, _) => Err(anyhow::anyhow!("there is no gateway")),
        (Some(gateway), CommandPlace::Gateway(args)) => {
            gateway.typed(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
        }
        (Some(gateway), CommandPlace::Enroll(node, svid)) => {
            gateway.enroll(lab, &plan.nodes[*node], svid).await
        }
    };
    let done = match output {
        Err(error) => run.end(Outcome::Error, format!("{error:#}")),
        Ok(output) => {
            let said = if output.status.success() { &output.stdout } else { &output.stderr };
            let said = String::from_utf8_lossy(said).trim().to_string();
            let wanted = command.says.as_ref().filter(|wanted| !said.contains(*wanted));
            match (output.status.success(), wanted) {
                (_, Some(wanted)) => {
                    run.end(Outcome::Error, format!("it did not say `{wanted}`, but: {said}"))
                }
                (true, None) => run.ok(),
                (false, None) => run.end(Outcome::Refused, said),
            }
        }
    };
    let mut result = match &command.place {
        CommandPlace::Gateway(args) => {
            on_gateway(plan, StepKind::Tidegate, command.name.clone(), &args.join(" "), command.expect, done)
        }
        CommandPlace::Enroll(_, svid) => {
            on_gateway(plan, StepKind::Enroll, command.name.clone(), &svid.spiffe_id, command.expect, done)
        }
    };
    if let CommandPlace::Enroll(node, _) = command.place {
        result.from.clone_from(&plan.nodes[node].name);
    }
    result
}

async fn run_wait(plan: &Plan, gateway: Option<&Gateway>, wait: &Wait) -> StepResult {
    let run = Done::begin();
    let checked = match gateway {
        Some(gateway) => expect::check(&wait.until, gateway).await,
        None => Err(anyhow::anyhow!("there is no gateway")),
    };
    let done = match checked {
        Err(error) => run.end(Outcome::Error, format!("{error:#}")),
        Ok((_, checked)) => {
            let failed: Vec<_> = checked.iter().filter(|c| !c.passed).map(ToString::to_string).collect();
            if failed.is_empty() { run.ok() } else { run.end(Outcome::Timeout, failed.join("; ")) }
        }
    };
    on_gateway(plan, StepKind::Wait, wait.name.clone(), "", Outcome::Ok, done)
}

/// The result of what is no exchange.
fn on_gateway(
    plan: &Plan,
    kind: StepKind,
    name: String,
    to: &str,
    expected: Outcome,
    done: Done,
) -> StepResult {
    let gateway = plan.nodes.iter().find(|n| n.kind == Kind::Gateway);
    StepResult {
        name,
        kind,
        from: gateway.map_or_else(String::new, |n| n.name.clone()),
        to: to.into(),
        address: String::new(),
        tls_offered: None,
        expected,
        passed: expected.allows(done.outcome),
        expected_alert: None,
        server_says: None,
        done,
    }
}

async fn run_step(plan: &Plan, lab: &Lab, step: &Step) -> StepResult {
    let done = match (lab.workers.get(&step.from), action(lab, step)) {
        (Some(worker), Ok(action)) => {
            let (to, bytes, timeout_ms) = (step.to, step.bytes, milliseconds(step.timeout));
            worker.ask(Command::Exchange { action, to, bytes, timeout_ms }).await
        }
        (None, _) => Done::error("the node has no process"),
        (_, Err(error)) => Done::error(format!("{error:#}")),
    };
    let alert_fits = step.alert.is_none() || step.alert == done.alert;
    StepResult {
        name: step.name.clone(),
        kind: step.kind,
        from: plan.nodes[step.from].name.clone(),
        to: step.to_name.clone(),
        address: if step.kind == StepKind::Ping { step.to.ip().to_string() } else { step.to.to_string() },
        tls_offered: (step.kind == StepKind::Mtls).then_some(step.tls),
        expected: step.expect,
        passed: step.expect.allows(done.outcome) && alert_fits,
        expected_alert: step.alert.clone(),
        server_says: server_says(plan, lab, step, &done).await,
        done,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn action(lab: &Lab, step: &Step) -> anyhow::Result<Action> {
    Ok(match step.kind {
        StepKind::Mtls => {
            let svid = step.svid.as_ref().ok_or_else(|| anyhow::anyhow!("the client has no SVID"))?;
            Action::Mtls {
                tls: step.tls,
                svid: lab.authority.issue(svid)?,
                peer: step.peer.clone(),
                lasting_ms: milliseconds(step.lasting),
            }
        }
        StepKind::Tcp => Action::Tcp,
        StepKind::Udp => Action::Udp,
        StepKind::Hello => Action::Hello { hello: step.hello.clone() },
        StepKind::Dns => Action::Dns { query: step.query.clone() },
        StepKind::Ping => Action::Ping,
        other => anyhow::bail!("a step of kind {} is no exchange", other.name()),
    })
}

/// How long the other side's view is waited for: it comes from another process, on a busy machine after the client's.
const SERVER_SAYS: Duration = Duration::from_secs(2);

/// The other side's view of a handshake that failed.
async fn server_says(plan: &Plan, lab: &Lab, step: &Step, done: &Done) -> Option<String> {
    let local = done.local?;
    let index = plan.nodes.iter().position(|n| n.addresses().any(|a| a == step.to.ip()))?;
    let worker = lab.workers.get(&index)?;
    let deadline = Instant::now() + SERVER_SAYS;
    loop {
        let served = worker.served().into_iter().rev().find(|s| s.client == local);
        if served.is_some() || done.outcome != Outcome::HandshakeFailed || Instant::now() >= deadline {
            return served?.refused;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
