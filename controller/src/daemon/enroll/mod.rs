//! `tidegate run --enroll ADDR:PORT`: workloads that prove their SVIDs get leases on the addresses they come from.
//!
//! A door of its own, not one of the API: workloads are to reach it, and need no role.

mod args;
mod door;
mod rules;

pub use args::EnrolArgs;
pub use rules::{Counts, Refused};

use super::Shared;
use super::api::{Room, Waiting};
use crate::exit_code::{Failure, Result};
use door::Door;
use rules::Rules;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Connections at a time, until they are answered, from where workloads enrol.
const ROOM: Room = Room { most: 512, most_of_one: 16 };
/// From elsewhere. Nobody enrols from there; but who comes from there with an SVID may have stolen it, and that is to be known.
const ELSEWHERE: Room = Room { most: 64, most_of_one: 4 };
/// For all of a connection, from the first byte of the handshake to the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the port. Within a runtime.
pub fn bind(addr: SocketAddr) -> Result<TcpListener> {
    let bind = || {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|e| Failure::io(format!("--enroll {addr}"), &e))
}

/// Serves it.
pub async fn serve(listener: TcpListener, rules: Rules, shared: Arc<Shared>) {
    let door = match Door::new(rules, shared) {
        Ok(door) => Arc::new(door),
        Err(e) => return tracing::error!("enrolment is not served: {e}"),
    };
    let (waiting, elsewhere) = (Waiting::new(ROOM), Waiting::new(ELSEWHERE));
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let address = from.ip().to_canonical();
                let waiting = if door.is_for(address) { &waiting } else { &elsewhere };
                // Here and not in the task: who came later gives way later.
                let (waits, given_up) = waiting.enter(address);
                let door = door.clone();
                tokio::spawn(async move {
                    let late = tokio::select! {
                        opened = timeout(PATIENCE, door.open(stream, address)) => opened.is_err(),
                        () = given_up => true,
                    };
                    if late {
                        door.refuse(Refused::Slow, None, address, "it did not go on");
                    }
                    drop(waits);
                });
            }
            // Out of descriptors, most likely: others have to be closed first.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
