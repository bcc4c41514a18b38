//! Workloads of this host: what is executed in their cgroups and whereto they connect, read from programs of their own.

use super::inlet::{Called, Local, What};
use super::{Shared, lock};
use crate::bindings::Change;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::spiffe::SpiffeId;
use crate::state::State;
use crate::view::event;
use crate::view::flow::Moment;
use datapath::abi::{Addr, Binding, Did, HostEvent};
use loader::host::{HostCounts, HostWatch, cgroup_root};
use loader::maps::Events;
use rustix::event::{PollFd, PollFlags};
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

/// `--local-workload`: a cgroup, and who runs in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalWorkload {
    /// As it is written: a path, or one below where cgroups are mounted.
    cgroup: PathBuf,
    id: SpiffeId,
}

impl FromStr for LocalWorkload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A SPIFFE ID has no `=`, a path may.
        let (cgroup, id) = text
            .rsplit_once('=')
            .ok_or("write CGROUP=SPIFFE-ID, as system.slice/orders.service=spiffe://...")?;
        if cgroup.is_empty() {
            return Err("the cgroup is empty".into());
        }
        let id = id.parse::<SpiffeId>().map_err(|e| e.to_string())?;
        Ok(Self { cgroup: cgroup.into(), id })
    }
}

/// What is watched.
pub struct Host {
    watch: Mutex<HostWatch>,
    /// By the id of its cgroup, which cgroup that is as it was named, and who runs there.
    who: HashMap<u64, (String, SpiffeId)>,
    /// Where they are, by what was committed last. Whoever tells of what they do waits for no commit.
    at: Mutex<HashMap<SpiffeId, Addr>>,
}

impl Host {
    /// Watches the cgroups; nothing where there is none to watch.
    pub(super) fn start(workloads: &[LocalWorkload]) -> Result<Option<(Self, Events)>> {
        if workloads.is_empty() {
            return Ok(None);
        }
        let failed = |e: loader::Error| Failure::new(Code::Failure, format!("--local-workload: {e}"));
        let root = cgroup_root().ok_or_else(|| {
            Failure::new(Code::Failure, "--local-workload: no cgroups of version 2 are mounted")
        })?;
        let mut watch = HostWatch::load().map_err(failed)?;
        let mut who = HashMap::new();
        for LocalWorkload { cgroup, id } in workloads {
            // An absolute path stays what it is.
            let own = (cgroup.display().to_string(), id.clone());
            who.insert(watch.watch(&root.join(cgroup)).map_err(failed)?, own);
        }
        let events = watch.events().map_err(failed)?;
        Ok(Some((Self { watch: Mutex::new(watch), who, at: Mutex::default() }, events)))
    }

    /// Has everything told again that is done from now on.
    pub(super) fn forget(&self) {
        lock(&self.watch).forget();
    }

    /// What was counted.
    pub fn counts(&self) -> loader::Result<HostCounts> {
        lock(&self.watch).counts()
    }

    /// Notes where the workloads are.
    pub(super) fn settle(&self, state: &State) {
        let at = |id: &SpiffeId| Some((id.clone(), address_of(state, id)?));
        *lock(&self.at) = self.who.values().filter_map(|(_, id)| at(id)).collect();
    }

    /// Whether one of the workloads may be elsewhere after these changes.
    pub(super) fn is_about(&self, changes: &[Change]) -> bool {
        let at = lock(&self.at);
        changes.iter().any(|change| match change {
            Change::Set(claim) => self.who.values().any(|(_, id)| *id == claim.spiffe_id),
            Change::Withdraw(slot) => at.values().any(|address| *address == slot.address.addr()),
        })
    }
}

/// An address of an identity, by leases first.
fn address_of(state: &State, id: &SpiffeId) -> Option<Addr> {
    let leased = state.bindings.of_identity(id).next();
    let written = state.documents().workloads.iter().find(|workload| workload.spiffe_id == *id);
    let prefix = leased.map(|claim| claim.address);
    let prefix = prefix.or_else(|| written.and_then(|workload| workload.addresses.first().copied()));
    prefix.map(|prefix| prefix.addr())
}

impl Shared {
    /// Takes what a local workload did. Who it was, and with whom it did it, is looked up here and nowhere later.
    fn take_deed(&self, host: &Host, bytes: &[u8]) {
        let Ok(event) = bytemuck::try_pod_read_unaligned::<HostEvent>(bytes) else { return };
        let (Some((cgroup, id)), Some(did)) = (host.who.get(&event.deed.cgroup), event.deed.did()) else {
            return;
        };
        // What is no text is shown as such, whatever terminal it ends on.
        let name: String = String::from_utf8_lossy(event.deed.name()).chars().map(printable).collect();
        let now = Moment::now();
        let mut told = event::host_json(&event, did, (id, cgroup), &name, &now);
        let address = lock(&host.at).get(id).copied();
        if let Some(address) = address {
            told["IP"]["source"] = json!(address.to_ip());
            told["source"]["lease"] = self.lease_at(id, address, &now).unwrap_or(json!({"ambiguous": true}));
        }
        let local =
            Local { id: id.clone(), address: address.unwrap_or(Addr::v4([127, 0, 0, 1])), pid: event.pid };
        let what = match did {
            Did::Exec => What::Exec(local, name.as_str().into()),
            Did::Connect => {
                let (address, proto, port) = (event.deed.addr, event.deed.proto, event.deed.port);
                let there = self.binding_at(address).unwrap_or(Binding::NONE);
                told["destination"] = self.end_json(&there, &now);
                What::Connect(
                    local,
                    name.as_str().into(),
                    Called { identity: there.identity, address, proto, port },
                )
            }
        };
        self.hub.compare(what);
        self.hub.send(told);
    }
}

fn printable(c: char) -> char {
    if c.is_control() { '?' } else { c }
}

/// Reads what is told, for ever, on a thread of its own.
pub(super) fn read(shared: &Arc<Shared>, mut events: Events) {
    let Some(host) = &shared.host else { return };
    loop {
        let mut ready = [PollFd::new(&events, PollFlags::IN)];
        match rustix::event::poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return tracing::error!("what local workloads do is not read any more: {e}"),
        }
        events.drain(|bytes| shared.take_deed(host, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_workload_is_a_cgroup_and_a_spiffe_id() {
        let read = |text: &str| text.parse::<LocalWorkload>();
        let orders = read("system.slice/a=b.service=spiffe://acme.example/orders").expect("both");
        assert_eq!(orders.cgroup, PathBuf::from("system.slice/a=b.service"));
        assert_eq!(orders.id.as_str(), "spiffe://acme.example/orders");
        for wrong in ["system.slice", "=spiffe://acme.example/orders", "a=orders"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
