//! A Workload API on a real Unix socket.

use super::*;
use crate::svid::{Reason, SourceState, workload_api};
use authority::agent::{Agent, Given};
use spiffe::transport::Endpoint;
use std::path::PathBuf;

struct Socket(tempfile::TempDir);

impl Socket {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("agent.sock")
    }

    /// A gateway that asks here.
    fn follower(&self) -> Live {
        let live = Live::new("agent");
        let endpoint = Endpoint::parse(&format!("unix://{}", self.path().display())).unwrap();
        tokio::spawn(workload_api::follow(endpoint, live.clone()));
        live
    }
}

fn given(authority: &Authority, id: &str) -> Given {
    Given::default().svid(id, &authority.issue(leaf(id)).unwrap(), authority.root())
}

fn judged(live: &Live, authority: &Authority, id: &str) -> Result<(), Reason> {
    let chain: Vec<_> = authority.issue(leaf(id)).unwrap().chain.into_iter().map(Into::into).collect();
    live.verify_again(&chain).map(drop).map_err(|refusal| refusal.reason)
}

#[tokio::test]
async fn an_svid_comes_and_is_rotated_without_asking() {
    let (socket, authority) = (Socket::new(), Authority::new("acme").unwrap());
    let agent = Agent::serve(&socket.path(), Some(given(&authority, GATEWAY))).unwrap();
    let live = socket.follower();
    until(&live, |s| s.state == SourceState::Current).await;
    let first = live.material().unwrap();
    assert_eq!((first.id().as_str(), live.status().updates), (GATEWAY, 1));
    assert_eq!(judged(&live, &authority, ORDERS), Ok(()));

    let mut changes = live.changes();
    agent.give(given(&authority, GATEWAY));
    changes.changed().await.unwrap();
    let next = live.material().unwrap();
    assert_eq!(next.id().as_str(), GATEWAY);
    assert_ne!(next.key().cert, first.key().cert);
    assert_eq!((live.status().updates, live.status().failures), (2, 0));
}

#[tokio::test]
async fn federated_trust_domains_come_and_go() {
    let (socket, acme, partner) =
        (Socket::new(), Authority::new("acme").unwrap(), Authority::new("partner").unwrap());
    let theirs = "spiffe://partner.example/billing";
    let agent = Agent::serve(&socket.path(), Some(given(&acme, GATEWAY))).unwrap();
    let live = socket.follower();
    until(&live, |s| s.updates == 1).await;
    assert_eq!(judged(&live, &partner, theirs), Err(Reason::UnknownTrustDomain));

    agent.give(given(&acme, GATEWAY).federated("partner.example", partner.root()));
    until(&live, |s| s.updates == 2).await;
    assert_eq!(judged(&live, &partner, theirs), Ok(()));
    assert_eq!(judged(&live, &partner, ORDERS), Err(Reason::UntrustedChain));
    let domains: Vec<_> = ["acme.example", "partner.example"].map(|d| d.parse().unwrap()).into();
    assert_eq!(live.status().trust_domains, domains);

    agent.give(given(&acme, GATEWAY));
    until(&live, |s| s.updates == 3).await;
    assert_eq!(judged(&live, &partner, theirs), Err(Reason::AuthorityRemoved));
}

#[tokio::test]
async fn an_agent_that_is_away_leaves_the_last_in_use_and_is_found_again() {
    let (socket, authority) = (Socket::new(), Authority::new("acme").unwrap());
    let live = socket.follower();
    until(&live, |s| s.failures > 0).await;
    assert_eq!(live.status().state, SourceState::Waiting);
    assert_eq!(judged(&live, &authority, ORDERS), Err(Reason::NoTrustBundles));

    let agent = Agent::serve(&socket.path(), Some(given(&authority, GATEWAY))).unwrap();
    until(&live, |s| s.state == SourceState::Current).await;
    drop(agent);
    until(&live, |s| s.state == SourceState::Stale).await;
    assert!(live.status().error.is_some());
    assert_eq!(live.status().spiffe_id.unwrap().as_str(), GATEWAY);
    assert_eq!(judged(&live, &authority, ORDERS), Ok(()));

    let moved = "spiffe://acme.example/moved";
    let _agent = Agent::serve(&socket.path(), Some(given(&authority, moved))).unwrap();
    until(&live, |s| s.state == SourceState::Current).await;
    let status = live.status();
    assert_eq!((status.spiffe_id.unwrap().as_str(), status.error, status.updates), (moved, None, 2));
}

#[tokio::test]
async fn who_has_no_identity_yet_gets_it_when_it_is_registered() {
    let (socket, authority) = (Socket::new(), Authority::new("acme").unwrap());
    let agent = Agent::serve(&socket.path(), None).unwrap();
    let live = socket.follower();
    let why = "the agent has no identity for this process: register it (`spire-server entry create`)";
    until(&live, |s| s.error.as_deref() == Some(why)).await;
    agent.give(given(&authority, GATEWAY));
    until(&live, |s| s.state == SourceState::Current).await;
}

#[tokio::test]
async fn what_an_agent_says_wrongly_leaves_the_last_in_use() {
    let (socket, authority) = (Socket::new(), Authority::new("acme").unwrap());
    let agent = Agent::serve(&socket.path(), Some(given(&authority, GATEWAY))).unwrap();
    let live = socket.follower();
    until(&live, |s| s.state == SourceState::Current).await;
    let (one, mut other) = (authority.issue(leaf(GATEWAY)).unwrap(), authority.issue(leaf(GATEWAY)).unwrap());
    other.key = one.key;
    agent.give(Given::default().svid(GATEWAY, &other, authority.root()));
    until(&live, |s| s.error.as_ref().is_some_and(|e| e.contains("not the one of its certificate"))).await;
    assert_eq!((live.status().state, live.status().updates), (SourceState::Stale, 1));
    agent.give(given(&authority, GATEWAY));
    until(&live, |s| s.updates == 2).await;
    assert_eq!(live.status().state, SourceState::Current);
}
