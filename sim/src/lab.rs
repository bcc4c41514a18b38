//! A topology brought up: namespaces, links, addresses, one child a workload.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::ca::Authority;
use crate::node::protocol::Command;
use crate::registry::{LinkName, Receipt, Record};
use crate::topology::Plan;
use crate::topology::plan::{Kind, Outcome};
use crate::worker::Worker;
use crate::{net, ns};

/// All that a run has made; gone when this is dropped, at the latest.
pub struct Lab {
    /// What to remove.
    pub record: RefCell<Record>,
    /// By index of the node.
    pub workers: BTreeMap<usize, Worker>,
    /// Issues the SVIDs.
    pub authority: Authority,
    removed: bool,
}

impl Lab {
    /// An empty one.
    pub fn new() -> Result<Self> {
        Ok(Self {
            record: RefCell::new(Record::new()?),
            workers: BTreeMap::new(),
            authority: Authority::new()?,
            removed: false,
        })
    }

    /// Name of the run.
    pub fn run(&self) -> String {
        self.record.borrow().run.clone()
    }

    /// The namespace of a node.
    pub fn namespace(&self, node: &str) -> String {
        format!("{}-{node}", self.run())
    }

    /// Namespaces, links, addresses and routes.
    pub fn build_network(&mut self, plan: &Plan) -> Result<()> {
        let namespaces = plan.nodes.iter().map(|n| self.namespace(&n.name)).collect();
        let links = plan
            .links
            .iter()
            .map(|link| LinkName {
                namespace: self.namespace(&plan.nodes[link.ends[0].0].name),
                name: link.ends[0].1.clone(),
            })
            .collect();
        // Before anything is made, so that nothing can be forgotten.
        let mut record = self.record.borrow_mut();
        record.namespaces = namespaces;
        record.links = links;
        record.save()?;
        drop(record);
        for node in &plan.nodes {
            let namespace = self.namespace(&node.name);
            ns::create(&namespace)?;
            ns::within(&namespace, || net::prepare(node.kind))
                .with_context(|| format!("node {}", node.name))?;
        }
        for link in &plan.links {
            let [(a, here), (b, there)] = &link.ends;
            let other = ns::path(&self.namespace(&plan.nodes[*b].name));
            ns::within(&self.namespace(&plan.nodes[*a].name), || net::veth(here, there, &other))
                .with_context(|| {
                    format!("link {}:{here} - {}:{there}", plan.nodes[*a].name, plan.nodes[*b].name)
                })?;
        }
        // Bridges first: an interface whose other end is down has no carrier yet.
        let (bridges, others): (Vec<_>, Vec<_>) = plan.nodes.iter().partition(|n| n.kind == Kind::Bridge);
        for node in bridges.into_iter().chain(others) {
            ns::within(&self.namespace(&node.name), || net::configure(node))
                .with_context(|| format!("node {}", node.name))?;
        }
        Ok(())
    }

    /// A child for each workload, and what it serves.
    pub async fn start_workloads(&mut self, plan: &Plan) -> Result<()> {
        for (index, node) in plan.nodes.iter().enumerate().filter(|(_, n)| n.kind == Kind::Workload) {
            let namespace = self.namespace(&node.name);
            let worker = Worker::start(&node.name, &namespace, &mut self.record.borrow_mut())?;
            self.workers.insert(index, worker);
            self.serve(plan, index).await?;
        }
        Ok(())
    }

    /// Has a workload serve its ports.
    pub async fn serve(&self, plan: &Plan, index: usize) -> Result<()> {
        let node = &plan.nodes[index];
        for &listener in &node.listen {
            let svid = node.svid.as_ref().map(|s| self.authority.issue(s)).transpose()?;
            self.ask(plan, index, Command::Listen { listener, svid }).await?;
        }
        Ok(())
    }

    /// Has a workload serve nothing any more, as while it restarts.
    pub async fn stop_serving(&self, plan: &Plan, index: usize) -> Result<()> {
        self.ask(plan, index, Command::StopServing).await
    }

    /// Has each handshake of TLS with a workload wait from now on.
    pub async fn slow_down(&self, plan: &Plan, index: usize, delay: Duration) -> Result<()> {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.ask(plan, index, Command::SlowDown { delay_ms }).await
    }

    async fn ask(&self, plan: &Plan, index: usize, command: Command) -> Result<()> {
        let name = &plan.nodes[index].name;
        let worker = self.workers.get(&index).with_context(|| format!("node {name} has no process"))?;
        let done = worker.ask(command).await;
        if done.outcome != Outcome::Ok {
            bail!("node {name}: {}", done.detail.unwrap_or_default());
        }
        Ok(())
    }

    /// Removes everything, and says what was there.
    pub fn remove(mut self) -> Receipt {
        self.removed = true;
        self.record.borrow().remove_all()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.removed {
            for left in self.record.borrow().remove_all().left {
                eprintln!("left behind: {left}; `tidegate-sim clean` tries again");
            }
        }
    }
}
