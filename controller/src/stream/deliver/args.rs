//! Which receivers there are.

use crate::exit_code::{Code, Failure, Result};
use crate::stream::KINDS;
use reqwest::Url;
use std::path::PathBuf;
use std::str::FromStr;

/// Options of `tidegate run` for receivers.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Events")]
pub struct DeliverArgs {
    /// Keep events in files of the state folder, so much of them; 0 for none
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub event_log: u64,
    /// POST events to this URL as JSON, again and again until it takes them
    #[arg(long, value_name = "URL", value_parser = url)]
    webhook: Option<Url>,
    /// The file of the bearer token for it
    #[arg(long, value_name = "FILE", requires = "webhook")]
    webhook_token: Option<PathBuf>,
    /// The kinds of events for it: `all`, or some of verdict, drop, handshake, closed, client_hello, dns_query,
    /// process, socket, finding, approval, record, enrolment, identity_source
    #[arg(
        long,
        value_name = "KINDS",
        requires = "webhook",
        default_value = "finding,approval,record,enrolment,identity_source"
    )]
    webhook_events: Kinds,
    /// Send events as logs to this OpenTelemetry collector (OTLP/HTTP, such as http://127.0.0.1:4318)
    #[arg(long, value_name = "URL", value_parser = url)]
    otlp: Option<Url>,
    /// The file of the bearer token for it
    #[arg(long, value_name = "FILE", requires = "otlp")]
    otlp_token: Option<PathBuf>,
    /// The kinds of events for it
    #[arg(long, value_name = "KINDS", requires = "otlp", default_value = "all")]
    otlp_events: Kinds,
}

fn url(text: &str) -> Result<Url, String> {
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err("write http://HOST:PORT/PATH or https://HOST/PATH".into()),
    }
}

/// How a receiver wants events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Webhook,
    Otlp,
}

/// A receiver.
#[derive(Clone, Debug)]
pub struct Sink {
    pub(super) form: Form,
    pub(super) url: Url,
    pub(super) token: Option<PathBuf>,
    pub(super) kinds: Kinds,
}

impl Sink {
    /// Its name in metrics, and of its cursor.
    pub fn name(&self) -> &'static str {
        match self.form {
            Form::Webhook => "webhook",
            Form::Otlp => "otlp",
        }
    }
}

impl DeliverArgs {
    /// The receivers that are asked for.
    pub fn sinks(&self) -> Result<Vec<Sink>> {
        let webhook = self.webhook.as_ref().map(|url| Sink {
            form: Form::Webhook,
            url: url.clone(),
            token: self.webhook_token.clone(),
            kinds: self.webhook_events.clone(),
        });
        let otlp = self.otlp.as_ref().map(|url| Sink {
            form: Form::Otlp,
            url: logs(url),
            token: self.otlp_token.clone(),
            kinds: self.otlp_events.clone(),
        });
        let sinks: Vec<_> = webhook.into_iter().chain(otlp).collect();
        if let (0, Some(sink)) = (self.event_log, sinks.first()) {
            let message = format!("--{} delivers what is in files: --event-log must not be 0", sink.name());
            return Err(Failure::new(Code::Usage, message));
        }
        for path in sinks.iter().filter_map(|sink| sink.token.as_deref()) {
            super::read_token(path)?;
        }
        Ok(sinks)
    }
}

/// As OTEL_EXPORTER_OTLP_ENDPOINT is read (OTLP specification 1.9, "OTLP/HTTP Request"): the path of logs follows that of the URL.
fn logs(base: &Url) -> Url {
    let mut url = base.clone();
    let path = base.path().trim_end_matches('/');
    if !path.ends_with("/v1/logs") {
        url.set_path(&format!("{path}/v1/logs"));
    }
    url
}

/// Kinds of events; all where none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(Vec<String>);

impl Kinds {
    /// Whether these are wanted.
    pub fn want(&self, kind: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|wanted| wanted == kind)
    }
}

impl FromStr for Kinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self(Vec::new()));
        }
        let kinds = text.split(',').map(str::trim);
        if let Some(wrong) = kinds.clone().find(|kind| !KINDS.contains(kind)) {
            return Err(format!(
                "no events are of the kind `{wrong}`: write all, or some of {}",
                KINDS.join(", ")
            ));
        }
        Ok(Self(kinds.map(str::to_owned).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_with_or_without_the_path_of_logs() {
        for (base, logs_at) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/logs"),
            ("https://otel.example/tenant/", "https://otel.example/tenant/v1/logs"),
            ("https://otel.example/v1/logs", "https://otel.example/v1/logs"),
        ] {
            assert_eq!(logs(&url(base).unwrap()).as_str(), logs_at);
        }
        for wrong in ["127.0.0.1:4318", "unix:///x", "ftp://x/"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn kinds_are_those_that_there_are() {
        let some: Kinds = "finding, record".parse().unwrap();
        assert!(some.want("finding") && some.want("record") && !some.want("verdict"));
        assert!("all".parse::<Kinds>().unwrap().want("verdict"));
        let error = "findings".parse::<Kinds>().unwrap_err();
        assert!(
            error.starts_with("no events are of the kind `findings`: write all, or some of verdict,"),
            "{error}"
        );
    }
}
