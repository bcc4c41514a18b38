//! A connection: who it is, from where, and what comes of it.

use super::rules::{self, Given, Refused, Rules};
use crate::bindings::{Claim, Slot};
use crate::daemon::Shared;
use crate::daemon::bind::Withdraw;
use crate::daemon::inlet::{Knocked, What};
use crate::daemon::quiet::Quiet;
use crate::enroll::protocol::{self, AskLease, Enrolled, Withdrawn};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::Prefix;
use crate::policy::scope::Scope;
use crate::policy::spiffe::SpiffeId;
use crate::svid::tls::server_config;
use crate::svid::{Live, Peer, Refusal};
use crate::view::flow::Moment;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

const MAX_REQUEST: usize = 4 << 10;

pub struct Door {
    acceptor: TlsAcceptor,
    live: Live,
    rules: Rules,
    shared: Arc<Shared>,
    /// Refusals; all are counted.
    told: Quiet,
}

/// Who is at the door, as the connection proves it.
struct Caller {
    peer: Peer,
    certificate: CertificateDer<'static>,
    address: IpAddr,
}

impl Door {
    pub fn new(rules: Rules, shared: Arc<Shared>) -> Result<Self> {
        let none = || Failure::new(Code::Usage, "the gateway has no source of an SVID");
        let live = shared.svid.clone().ok_or_else(none)?;
        let config = server_config(&live).map_err(|e| Failure::failed("TLS", e))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, live, rules, shared, told: Quiet::default() })
    }

    /// Whether somebody at this address may enrol.
    pub fn is_for(&self, address: IpAddr) -> bool {
        self.rules.is_from(address)
    }

    /// Serves one request.
    pub async fn open(self: &Arc<Self>, stream: TcpStream, address: IpAddr) {
        let tls = match self.acceptor.accept(stream).await {
            Ok(tls) => tls,
            Err(e) => {
                let why = Refusal::of_handshake(&e).map_or_else(|| e.to_string(), Refusal::to_string);
                return self.refuse(Refused::Certificate, None, address, &why);
            }
        };
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        // Once more for what a handshake does not hand on: who it is, until when.
        let caller = match (chain.first().cloned(), self.live.verify_again(chain)) {
            (Some(certificate), Ok(peer)) => Arc::new(Caller { peer, certificate, address }),
            (_, refused) => {
                let why = refused.err().map(|refusal| refusal.to_string()).unwrap_or_default();
                return self.refuse(Refused::Certificate, None, address, &why);
            }
        };
        let service = service_fn(|request| {
            let (door, caller) = (self.clone(), caller.clone());
            async move { Ok::<_, Infallible>(door.answer(request, caller).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.keep_alive(false).max_buf_size(16 << 10);
        if let Err(e) = http.serve_connection(TokioIo::new(tls), service).await {
            tracing::debug!("enrolment of {address}: {e}");
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        caller: Arc<Caller>,
    ) -> Response<Full<Bytes>> {
        let is_post = request.method() == Method::POST;
        match request.uri().path() {
            protocol::ENROLL if is_post => {
                let body = Limited::new(request.into_body(), MAX_REQUEST).collect().await;
                let ask = match body.map(|body| serde_json::from_slice(&body.to_bytes())) {
                    Ok(Ok(ask)) => ask,
                    _ => return self.refused(&caller, Refused::Request, "not a request for a lease".into()),
                };
                self.in_time(caller, move |door, caller| door.enroll(caller, ask)).await
            }
            protocol::WITHDRAW if is_post => self.in_time(caller, |door, caller| door.withdraw(caller)).await,
            _ => self.refused(&caller, Refused::Request, "enrolment is all that is served here".into()),
        }
    }

    /// A commit is no work for the thread that serves the others.
    async fn in_time<T: Serialize + Send + 'static>(
        self: Arc<Self>,
        caller: Arc<Caller>,
        work: impl FnOnce(&Self, &Caller) -> Result<T, (Refused, String)> + Send + 'static,
    ) -> Response<Full<Bytes>> {
        let (door, asking) = (self.clone(), caller.clone());
        match tokio::task::spawn_blocking(move || work(&door, &asking)).await {
            Ok(Ok(done)) => respond(StatusCode::OK, &done),
            Ok(Err((why, message))) => self.refused(&caller, why, message),
            Err(e) => self.refused(&caller, Refused::Failed, e.to_string()),
        }
    }

    fn enroll(&self, caller: &Caller, ask: AskLease) -> Result<Enrolled, (Refused, String)> {
        self.check(caller)?;
        let Caller { peer, certificate, address } = caller;
        let failed = |e: Failure| (Refused::Failed, e.message);
        let source = rules::source(&peer.id).map_err(failed)?;
        let mut not_after = self.rules.end(peer, ask.lease_seconds, Timestamp::now());
        let claim = rules::claim(peer, certificate, *address, not_after);
        let there = self.shared.with_state(|state| state.bindings.get(&source, &claim.slot()).cloned());
        let holds = |there: &Claim| there.lease.is_some_and(|lease| lease.not_after > Timestamp::now());
        let given = if there.as_ref().is_some_and(holds) { Given::Renewed } else { Given::Granted };
        match there.filter(|there| self.rules.is_good(there, not_after)).and_then(|there| there.lease) {
            Some(lease) => not_after = lease.not_after,
            None => {
                self.shared.bind(&source, vec![claim]).map_err(failed)?;
            }
        }
        self.shared.enrolments.grant(given);
        let details = json!({"outcome": given.name(), "not_after": not_after});
        let lease = self.lease(&peer.id, *address);
        self.tell((Some(&peer.id), lease), *address, "FORWARDED", details);
        Ok(Enrolled { address: *address, spiffe_id: peer.id.clone(), not_after })
    }

    fn withdraw(&self, caller: &Caller) -> Result<Withdrawn, (Refused, String)> {
        let Caller { peer, address, .. } = caller;
        let failed = |e: Failure| (Refused::Failed, e.message);
        let source = rules::source(&peer.id).map_err(failed)?;
        // The one that is given back.
        let lease = self.lease(&peer.id, *address);
        let slot = Slot { address: Prefix::host((*address).into()), scope: Scope::default() };
        self.shared.withdraw(&source, Withdraw::Slots(vec![slot])).map_err(failed)?;
        self.shared.enrolments.withdraw();
        self.tell((Some(&peer.id), lease), *address, "FORWARDED", json!({"outcome": "withdrawn"}));
        Ok(Withdrawn { address: *address })
    }

    fn check(&self, caller: &Caller) -> Result<(), (Refused, String)> {
        let gateway = self.live.material().map(|material| material.id().clone());
        let gateway = gateway.ok_or_else(|| (Refused::Failed, "the gateway has no SVID".to_owned()))?;
        self.rules.check(&caller.peer.id, caller.address, &gateway)?;
        self.shared.revoked(&caller.peer.id).map_or(Ok(()), |why| Err((Refused::Revoked, why)))
    }

    fn refused(&self, caller: &Caller, why: Refused, message: String) -> Response<Full<Bytes>> {
        self.refuse(why, Some(&caller.peer.id), caller.address, &message);
        let (status, code) = match why {
            Refused::Request => (StatusCode::BAD_REQUEST, Code::Usage),
            Refused::Failed => (StatusCode::INTERNAL_SERVER_ERROR, Code::Failure),
            _ => (StatusCode::FORBIDDEN, Code::NotPermitted),
        };
        respond(status, &Failure::new(code, message))
    }

    /// Counts it, and tells of it unless it was told of many just now.
    pub fn refuse(&self, why: Refused, id: Option<&SpiffeId>, address: IpAddr, detail: &str) {
        self.shared.enrolments.refuse(why);
        // What the gateway could not do, and who was slow, is no sign of anything. Of who has proven who he is the loop hears also
        // while others knock by the thousand.
        let is_sign = !matches!(why, Refused::Failed | Refused::Slow);
        if is_sign && id.is_some() {
            self.compare(why, id, address, detail);
        }
        if !self.told.may_tell() {
            return;
        }
        if is_sign && id.is_none() {
            self.compare(why, None, address, detail);
        }
        let who = id.map_or("somebody", SpiffeId::as_str);
        tracing::warn!("enrolment of {who} from {address} is refused, {}: {detail}", why.name());
        let lease = id.and_then(|id| self.lease(id, address));
        let details = json!({"outcome": "refused", "reason": why.name(), "detail": detail});
        self.tell((id, lease), address, "DROPPED", details);
    }

    /// Has the loop look at a refusal. Whose address it is where nobody proved anything is looked up here and nowhere later.
    fn compare(&self, why: Refused, proven: Option<&SpiffeId>, address: IpAddr, detail: &str) {
        let address = address.into();
        let id = proven.cloned().or_else(|| self.shared.who_is_at(address));
        let (is_proven, detail) = (proven.is_some(), detail.into());
        self.shared.hub.compare(What::Refused(Knocked { id, is_proven, address, why, detail }));
    }

    /// The lease that somebody has on an address now, as an event tells it.
    fn lease(&self, id: &SpiffeId, address: IpAddr) -> Option<Value> {
        self.shared.lease_at(id, address.into(), &Moment::now())
    }

    fn tell(
        &self,
        (id, lease): (Option<&SpiffeId>, Option<Value>),
        address: IpAddr,
        verdict: &str,
        what: Value,
    ) {
        self.shared.hub.send(json!({
            "time": Timestamp::now(), "event": "enrolment", "verdict": verdict,
            "IP": {"source": address}, "source": {"spiffe_id": id, "lease": lease}, "enrolment": what,
        }));
    }
}

fn respond(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let json = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
