//! A collector of OpenTelemetry logs, over real HTTP in the gateway's namespace: what it gets while it, or the daemon, comes and goes.

use crate::lab::{Lab, METRICS, POLICY, until};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const ADDRESS: &str = "127.0.0.1:4318";

/// What the collector got, and whether it takes more: what outlives it.
#[derive(Clone, Default)]
struct Got {
    requests: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
    is_full: Arc<AtomicBool>,
}

/// A collector that runs. When it is dropped its connections are closed, as when a process ends.
struct Collector(Option<tokio::runtime::Runtime>);

impl Collector {
    fn start(lab: &Lab, got: &Got) -> Self {
        let listener = lab.in_gateway_thread(|| std::net::TcpListener::bind(ADDRESS).expect("a free port"));
        listener.set_nonblocking(true).expect("a listener");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let router = Router::new().route("/v1/logs", post(export)).with_state(got.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, router).await
        });
        Self(Some(runtime))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let wait = std::time::Duration::from_secs(5);
        self.0.take().into_iter().for_each(|runtime| runtime.shutdown_timeout(wait));
    }
}

/// As OTLP/HTTP has it (OpenTelemetry Protocol 1.9, OTLP/HTTP Request and Response).
async fn export(State(got): State<Got>, headers: HeaderMap, body: Bytes) -> Response {
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/x-protobuf") {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    if got.is_full.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response();
    }
    let Ok(request) = ExportLogsServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    got.requests.lock().expect("a lock").push(request);
    let answer = ExportLogsServiceResponse::default().encode_to_vec();
    ([(header::CONTENT_TYPE, "application/x-protobuf")], answer).into_response()
}

impl Got {
    fn records(&self) -> Vec<LogRecord> {
        let requests = self.requests.lock().expect("a lock");
        let resources = requests.iter().flat_map(|request| &request.resource_logs);
        resources.flat_map(|logs| &logs.scope_logs).flat_map(|logs| &logs.log_records).cloned().collect()
    }

    /// Numbers of the events that came, each once.
    fn numbers(&self) -> BTreeSet<u64> {
        let number = |record: &LogRecord| match attribute(record, "tidegate.event.id") {
            Some(Any::IntValue(id)) => u64::try_from(id).expect("a number"),
            other => panic!("an event with the number {other:?}"),
        };
        self.records().iter().map(number).collect()
    }
}

fn attribute(record: &LogRecord, key: &str) -> Option<Any> {
    let one = record.attributes.iter().find(|attribute| attribute.key == key)?;
    one.value.clone()?.value
}

/// What became of events, as the daemon counts it.
fn counted(lab: &Lab, what: &str) -> u64 {
    let metrics = lab.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_else(|| panic!("{what}"));
    line.trim().parse().expect("a number")
}

fn outcome(lab: &Lab, outcome: &str) -> u64 {
    counted(lab, &format!("tidegate_event_delivery_total{{outcome=\"{outcome}\",receiver=\"otlp\"}}"))
}

/// Verdicts that stand in the files of events.
fn written_verdicts(lab: &Lab) -> usize {
    let files = std::fs::read_dir(lab.state_dir().join(lab.name()).join("events")).expect("files");
    let lines = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    lines.map(|text| text.matches("\"event\":\"verdict\"").count()).sum()
}

/// A datagram that no rule allows, of a flow of its own.
fn denied(n: u16) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 2], 64);
    let mut packet = Vec::new();
    builder.udp(1024 + n, 5000).write(&mut packet, b"x").expect("a packet");
    packet
}

#[test]
#[ignore = "needs root"]
fn a_collector_that_restarts_or_is_full_gets_every_event_and_so_it_does_from_the_next_daemon() {
    let (lab, got) = (Lab::new(), Got::default());
    let file = lab.file("shop.yaml", POLICY);
    let url = format!("http://{ADDRESS}");
    let first = ["-i", "eth1", "-i", "eth2", "-p", &file, "--metrics", METRICS, "--otlp", &url];
    let again = ["--metrics", METRICS, "--otlp", &url];
    let mut collector = Some(Collector::start(&lab, &got));
    let mut daemon = lab.run(&first);
    let _server = lab.serve(8443);
    let opens = || assert!(lab.connects(8443));
    let opened = || {
        let records = got.records();
        let verdicts = records.iter().filter(|record| record.event_name == "tidegate.verdict");
        let of = |key: &str| verdicts.clone().filter_map(|record| attribute(record, key)).collect::<Vec<_>>();
        (of("tidegate.source.spiffe_id"), of("tidegate.rule"))
    };
    opens();
    until(|| !opened().0.is_empty());
    let (source, rule) = opened();
    assert_eq!(source[0], Any::StringValue("spiffe://acme.example/ns/shop/sa/orders".into()));
    assert_eq!(rule[0], Any::StringValue("shop/pay".into()));
    let name = |request: &ExportLogsServiceRequest| {
        let resource = request.resource_logs[0].resource.clone().expect("a resource");
        resource.attributes.into_iter().find(|attribute| attribute.key == "service.instance.id")
    };
    let instance = name(&got.requests.lock().unwrap()[0]).and_then(|attribute| attribute.value?.value);
    assert_eq!(instance, Some(Any::StringValue(lab.name().into())));

    // It is away, and comes back: what was told meanwhile comes then.
    let before = got.numbers().len();
    drop(collector.take());
    (0..3).for_each(|_| opens());
    until(|| counted(&lab, "tidegate_event_delivery_retries_total{receiver=\"otlp\"}") > 0);
    assert!(counted(&lab, "tidegate_event_delivery_waiting{receiver=\"otlp\"}") > 0);
    assert_eq!(got.numbers().len(), before);
    collector = Some(Collector::start(&lab, &got));
    until(|| counted(&lab, "tidegate_event_delivery_waiting{receiver=\"otlp\"}") == 0);

    // It takes nothing for a while, and the daemon dies meanwhile: the next one goes on where that was.
    got.is_full.store(true, Ordering::Relaxed);
    let retries = counted(&lab, "tidegate_event_delivery_retries_total{receiver=\"otlp\"}");
    (0..3).for_each(|_| opens());
    until(|| counted(&lab, "tidegate_event_delivery_retries_total{receiver=\"otlp\"}") > retries);
    // What was not written down yet when it dies is gone, as ever.
    until(|| written_verdicts(&lab) >= 7);
    daemon.kill_nine();
    got.is_full.store(false, Ordering::Relaxed);
    let _daemon = lab.run(&again);
    opens();
    let written = || {
        let events = lab.json(&["observe"]);
        events.last().and_then(|event| event["id"].as_u64()).expect("events")
    };
    until(|| got.numbers().last().is_some_and(|last| *last >= written()));
    let all = got.numbers();
    let (least, most) = (*all.first().unwrap(), *all.last().unwrap());
    let missing: Vec<_> = (least..=most).filter(|number| !all.contains(number)).collect();
    assert_eq!(missing, [0; 0], "of {least} to {most}");
    assert_eq!(least, 1, "the first of all");
    let verdicts = opened().0.len();
    assert!(verdicts >= 8, "eight connections, {verdicts} verdicts");
    assert_eq!((outcome(&lab, "lost"), outcome(&lab, "refused")), (0, 0));
    drop(collector);
}

#[test]
#[ignore = "needs root"]
fn what_a_collector_that_was_away_too_long_does_not_get_is_counted() {
    let (lab, got) = (Lab::new(), Got::default());
    let url = format!("http://{ADDRESS}");
    let file = lab.file("shop.yaml", POLICY);
    let mut args = vec!["-i", "eth1", "-i", "eth2", "-p", &file, "--metrics", METRICS, "--otlp", &url];
    // A file holds a part of a MiB, and the oldest go first.
    args.extend(["--event-log", "1", "--event-limit", "0"]);
    let _daemon = lab.run(&args);
    // Each is judged by itself, and denied: about a kilobyte of JSON.
    lab.send_raw("left", (0..4000).map(denied));
    until(|| counted(&lab, "tidegate_event_delivery_waiting{receiver=\"otlp\"}") > 2000);
    let _collector = Collector::start(&lab, &got);
    until(|| counted(&lab, "tidegate_event_delivery_waiting{receiver=\"otlp\"}") == 0);
    let (lost, delivered) = (outcome(&lab, "lost"), outcome(&lab, "delivered"));
    assert!(lost > 0 && outcome(&lab, "refused") == 0, "{lost} are lost");
    let all = got.numbers();
    assert_eq!(all.len() as u64, delivered);
    assert_eq!(lost + delivered, *all.last().unwrap(), "each was delivered, or is counted as lost");
}
