//! An agent that serves the SPIFFE Workload API on a Unix socket, for tests: it gives out what it is told to.
//!
//! The service and its messages are those of the standard's `workload.proto`, as far as X.509-SVIDs go.

use crate::Svid;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};

#[derive(Clone, PartialEq, prost::Message)]
struct X509SvidRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    hint: String,
}

/// What a workload is given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    response: X509SvidResponse,
}

impl Given {
    /// An SVID, and the bundle of its trust domain (DER, one certificate after another).
    pub fn svid(mut self, spiffe_id: &str, svid: &Svid, bundle: &[u8]) -> Self {
        self.response.svids.push(X509Svid {
            spiffe_id: spiffe_id.to_owned(),
            x509_svid: svid.chain_der(),
            x509_svid_key: svid.key.clone(),
            bundle: bundle.to_vec(),
            hint: String::new(),
        });
        self
    }

    /// The bundle of another trust domain.
    pub fn federated(mut self, trust_domain: &str, bundle: &[u8]) -> Self {
        self.response.federated_bundles.insert(format!("spiffe://{trust_domain}"), bundle.to_vec());
        self
    }
}

/// The agent, until it is dropped: then its connections break off, as if it had been killed.
pub struct Agent {
    given: watch::Sender<Option<Given>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    socket: PathBuf,
}

impl Agent {
    /// Serves on a socket, in a thread of its own. Nothing given: no identity for anybody.
    pub fn serve(socket: &Path, given: Option<Given>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _runtime = runtime.enter();
            UnixListener::bind(socket)?
        };
        let (given, told) = watch::channel(given);
        let (stop, stopped) = oneshot::channel();
        let incoming = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let serve = async move {
            let mut server = tonic::transport::Server::builder();
            let serving = server.add_service(WorkloadApi(told)).serve_with_incoming(incoming.boxed());
            tokio::select! {
                _ = serving => {}
                _ = stopped => {}
            }
        };
        let thread = std::thread::spawn(move || runtime.block_on(serve));
        Ok(Self { given, stop: Some(stop), thread: Some(thread), socket: socket.to_owned() })
    }

    /// Something else from now on, told to whoever listens.
    pub fn give(&self, given: Given) {
        self.given.send_replace(Some(given));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        drop(std::fs::remove_file(&self.socket));
    }
}

#[derive(Clone)]
struct WorkloadApi(watch::Receiver<Option<Given>>);

impl NamedService for WorkloadApi {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl Service<http::Request<Body>> for WorkloadApi {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let given = self.0.clone();
        Box::pin(async move {
            // SPIFFE Workload Endpoint, section 6: what keeps a browser from being talked into asking.
            if request.headers().get("workload.spiffe.io").is_none_or(|value| value != "true") {
                return Ok(Status::invalid_argument("security header missing from request").into_http());
            }
            if request.uri().path() != "/SpiffeWorkloadAPI/FetchX509SVID" {
                return Ok(Status::unimplemented("").into_http());
            }
            let codec = tonic_prost::ProstCodec::<X509SvidResponse, X509SvidRequest>::default();
            Ok(Grpc::new(codec).server_streaming(FetchX509Svid(given), request).await)
        })
    }
}

struct FetchX509Svid(watch::Receiver<Option<Given>>);

impl ServerStreamingService<X509SvidRequest> for FetchX509Svid {
    type Response = X509SvidResponse;
    type ResponseStream = BoxStream<'static, Result<X509SvidResponse, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<X509SvidRequest>) -> Self::Future {
        let mut given = self.0.clone();
        given.mark_changed();
        Box::pin(async move {
            if given.borrow().is_none() {
                return Err(Status::permission_denied("no identity issued"));
            }
            let updates = stream::unfold(given, |mut given| async {
                given.changed().await.ok()?;
                let response = given.borrow_and_update().clone()?.response;
                Some((Ok(response), given))
            });
            Ok(Response::new(updates.boxed()))
        })
    }
}
