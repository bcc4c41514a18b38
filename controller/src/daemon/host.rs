//! Workloads of this host: what is executed in their cgroups and whereto they connect, read from programs of their own.

use super::inlet::What;
use super::observe::Hub;
use super::{Shared, lock};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::spiffe::SpiffeId;
use crate::view::event;
use crate::view::flow::Moment;
use datapath::abi::{Did, HostEvent};
use loader::host::{HostCounts, HostWatch, cgroup_root};
use loader::maps::Events;
use rustix::event::{PollFd, PollFlags};
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
    who: HashMap<u64, SpiffeId>,
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
            who.insert(watch.watch(&root.join(cgroup)).map_err(failed)?, id.clone());
        }
        let events = watch.events().map_err(failed)?;
        Ok(Some((Self { watch: Mutex::new(watch), who }, events)))
    }

    /// Has everything told again that is done from now on.
    pub(super) fn forget(&self) {
        lock(&self.watch).forget();
    }

    /// What was counted.
    pub fn counts(&self) -> loader::Result<HostCounts> {
        lock(&self.watch).counts()
    }

    fn take(&self, bytes: &[u8], hub: &Hub) {
        let Ok(event) = bytemuck::try_pod_read_unaligned::<HostEvent>(bytes) else { return };
        let (Some(id), Some(did)) = (self.who.get(&event.deed.cgroup), event.deed.did()) else { return };
        // What is no text is shown as such, whatever terminal it ends on.
        let name: String = String::from_utf8_lossy(event.deed.name()).chars().map(printable).collect();
        let what = match did {
            Did::Exec => What::Exec(id.clone(), name.as_str().into(), event.pid),
            Did::Connect => {
                let to = (event.deed.addr, event.deed.proto, event.deed.port);
                What::Connect(id.clone(), name.as_str().into(), event.pid, to)
            }
        };
        hub.compare(what);
        hub.send(event::host_json(&event, did, id, &name, &Moment::now()));
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
        events.drain(|bytes| host.take(bytes, &shared.hub));
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
