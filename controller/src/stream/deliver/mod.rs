//! Sends events to receivers elsewhere: at least once, in their order, also after a restart.

mod args;
mod otlp;
#[cfg(test)]
mod tests;
mod webhook;

pub use args::{DeliverArgs, Kinds, Sink};

use super::follow::Batch;
use super::{Cursor, Files, Follow, kind};
use crate::exit_code::{Failure, Result};
use reqwest::{Client, Response, StatusCode, header};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;

/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first wait after a failure; each is twice the one before, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What became of the events of one receiver.
#[derive(Debug, Default)]
pub struct Counts {
    /// Events that the receiver took.
    pub delivered: AtomicU64,
    /// Events that it refused, and that are not sent again.
    pub refused: AtomicU64,
    /// Events that were in no file any more when their turn came.
    pub lost: AtomicU64,
    /// Attempts that failed and were made again.
    pub retries: AtomicU64,
    /// The number of the last event that is done with.
    pub last: AtomicU64,
}

/// One receiver.
pub struct Delivery {
    sink: Sink,
    client: Client,
    follow: Follow,
    cursor: Cursor,
    gateway: String,
    /// What became of its events.
    pub counts: Arc<Counts>,
}

/// What a receiver made of a request.
#[derive(Debug, PartialEq)]
enum Answer {
    Taken,
    /// It will not take these, however often they are sent.
    Refused(String),
    /// Try again, after the time that it asks for.
    Later(String, Option<Duration>),
}

impl Delivery {
    /// Goes on where the daemon before came to; a new receiver gets what comes from now on.
    pub fn open(sink: Sink, files: &Files, gateway: &str, now: u64) -> Result<Self> {
        let mut cursor = Cursor::open(files.folder(), sink.name(), || Ok(now))?;
        if cursor.last() > now {
            // The files are younger than the cursor: somebody removed them, or the power went.
            cursor.advance(now)?;
        }
        let counts = Arc::new(Counts::default());
        counts.last.store(cursor.last(), Relaxed);
        let follow = Follow::after(files.clone(), cursor.last());
        let client = client()?;
        Ok(Self { sink, client, follow, cursor, gateway: gateway.to_owned(), counts })
    }

    /// The receiver's name in metrics.
    pub fn name(&self) -> &'static str {
        self.sink.name()
    }

    /// Delivers until the files are written no more.
    pub async fn run(mut self, mut written: watch::Receiver<u64>) {
        loop {
            match self.follow.batch() {
                Ok(batch) if batch.events.is_empty() => {
                    if written.changed().await.is_err() {
                        return;
                    }
                }
                Ok(batch) => self.deliver(batch).await,
                Err(e) => {
                    tracing::error!("{}: {e}", self.name());
                    tokio::time::sleep(LONGEST_WAIT).await;
                }
            }
        }
    }

    async fn deliver(&mut self, batch: Batch) {
        let Some(last) = batch.events.last().map(super::files::number) else { return };
        self.counts.lost.fetch_add(batch.missing, Relaxed);
        let mut events = batch.events;
        events.retain(|event| self.sink.kinds.want(kind(event)));
        if !events.is_empty() {
            self.send(&events).await;
        }
        self.counts.last.store(last, Relaxed);
        // What was sent and is not noted is sent again after a restart: receivers know events by their numbers.
        if let Err(e) = self.cursor.advance(last) {
            tracing::error!("{}: {e}", self.name());
        }
    }

    async fn send(&self, events: &[Value]) {
        let mut wait = FIRST_WAIT;
        let count = events.len() as u64;
        loop {
            let (why, asked) = match self.attempt(events).await {
                Answer::Taken => {
                    self.counts.delivered.fetch_add(count, Relaxed);
                    return;
                }
                Answer::Refused(why) => {
                    self.counts.refused.fetch_add(count, Relaxed);
                    return tracing::error!("{}: {count} events are refused: {why}", self.name());
                }
                Answer::Later(why, asked) => (why, asked),
            };
            self.counts.retries.fetch_add(1, Relaxed);
            let wait_now = asked.map_or(wait, |asked| asked.min(LONGEST_WAIT));
            tracing::warn!("{}: {why}; it is tried again in {} s", self.name(), wait_now.as_secs_f32());
            tokio::time::sleep(wait_now).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn attempt(&self, events: &[Value]) -> Answer {
        let request = match &self.sink.form {
            args::Form::Webhook => webhook::request(&self.client, &self.sink.url, &self.gateway, events),
            args::Form::Otlp => otlp::request(&self.client, &self.sink.url, &self.gateway, events),
        };
        // Read each time: a token that is renewed in its file counts from then on.
        let request = match self.sink.token.as_deref().map(read_token).transpose() {
            Ok(Some(token)) => request.bearer_auth(token),
            Ok(None) => request,
            Err(e) => return Answer::Later(e.to_string(), None),
        };
        match request.timeout(PATIENCE).send().await {
            Ok(response) => answer(&response),
            Err(e) => Answer::Later(causes(&e), None),
        }
    }
}

/// What a status says: that nothing will come of it is said by the statuses that are about the events themselves.
fn answer(response: &Response) -> Answer {
    let status = response.status();
    let text = format!("it answered {status}");
    match status {
        status if status.is_success() => Answer::Taken,
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Answer::Refused(text),
        _ => {
            let after = response.headers().get(header::RETRY_AFTER);
            let seconds = after.and_then(|after| after.to_str().ok()?.parse().ok());
            Answer::Later(text, seconds.map(Duration::from_secs))
        }
    }
}

fn read_token(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path);
    text.map(|text| text.trim().to_owned()).map_err(|e| Failure::io(format!("read {}", path.display()), &e))
}

/// An error with what it came of: reqwest keeps that to itself.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Believes the authorities that this host believes, as curl does (`SSL_CERT_FILE` names others).
fn client() -> Result<Client> {
    let failed = |e: &dyn std::fmt::Display| Failure::failed("make the client of --webhook and --otlp", e);
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder =
        Client::builder().tls_backend_preconfigured(config).redirect(reqwest::redirect::Policy::none());
    builder
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| failed(&causes(&e)))
}
