use super::args::{Form, Sink};
use super::{Delivery, Kinds};
use crate::stream::{Files, Log, Pen};
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Router, extract::State};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::tempdir;
use tokio::net::TcpListener;

/// A receiver over real HTTP: what came, and what it answers next (then 200).
#[derive(Clone, Default)]
struct Receiver {
    came: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    async fn serve(&self) -> String {
        let take = |State(receiver): State<Self>, headers: HeaderMap, body: Bytes| async move {
            receiver.came.lock().unwrap().push((headers, body));
            StatusCode::from_u16(receiver.answers.lock().unwrap().pop_front().unwrap_or(200)).unwrap()
        };
        let router = Router::new().fallback(post(take)).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/hook")
    }

    /// Numbers of the events of each request.
    fn numbers(&self) -> Vec<Vec<u64>> {
        let came = self.came.lock().unwrap();
        let of = |(_, body): &(HeaderMap, Bytes)| {
            let body: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(body["gateway"], "gw");
            body["events"].as_array().unwrap().iter().map(|event| event["id"].as_u64().unwrap()).collect()
        };
        came.iter().map(of).collect()
    }
}

struct Stream {
    pen: Pen,
    delivery: Delivery,
    written: tokio::sync::watch::Receiver<u64>,
}

fn stream(folder: &Path, form: Form, url: &str, kinds: &str, token: Option<&Path>) -> Stream {
    let files = Files::new(folder);
    let (pen, log) = Log::open(files.clone(), 1 << 20).unwrap();
    let written = log.written();
    std::thread::spawn(move || log.run());
    let kinds: Kinds = kinds.parse().unwrap();
    let sink = Sink { form, url: url.parse().unwrap(), token: token.map(Path::to_path_buf), kinds };
    let now = files.last().unwrap();
    let delivery = Delivery::open(sink, &files, "gw", now).unwrap();
    Stream { pen, delivery, written }
}

async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to that");
}

#[tokio::test]
async fn what_a_receiver_did_not_take_is_sent_again_in_order_also_after_a_restart() {
    let folder = tempdir().unwrap();
    let receiver = Receiver::default();
    receiver.answers.lock().unwrap().extend([503, 429]);
    let url = receiver.serve().await;
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let Stream { pen, delivery, written } =
        stream(folder.path(), Form::Webhook, &url, "finding", Some(&token));
    pen.write(json!({"event": "finding"}));
    pen.write(json!({"event": "verdict"}));
    pen.finish();
    let counts = delivery.counts.clone();
    let task = tokio::spawn(delivery.run(written));
    until(|| counts.last.load(Relaxed) == 2).await;
    assert_eq!((counts.delivered.load(Relaxed), counts.retries.load(Relaxed)), (1, 2));
    task.abort();
    // What comes while nobody delivers is delivered by the next; of another kind nothing is.
    for event in ["finding", "verdict", "finding"] {
        pen.write(json!({ "event": event }));
    }
    pen.finish();
    drop(pen);
    let Stream { pen, delivery, written } =
        stream(folder.path(), Form::Webhook, &url, "finding", Some(&token));
    let counts = delivery.counts.clone();
    tokio::spawn(delivery.run(written));
    until(|| counts.last.load(Relaxed) == 5).await;
    pen.write(json!({"event": "finding"}));
    until(|| counts.last.load(Relaxed) == 6).await;
    assert_eq!(receiver.numbers(), [vec![1], vec![1], vec![1], vec![3, 5], vec![6]]);
    assert_eq!((counts.delivered.load(Relaxed), counts.lost.load(Relaxed)), (3, 0));
    for (headers, _) in receiver.came.lock().unwrap().iter() {
        assert_eq!(headers["authorization"], "Bearer s3cret");
        assert_eq!(headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn events_that_a_receiver_refuses_hold_the_next_ones_up_no_longer() {
    let folder = tempdir().unwrap();
    let receiver = Receiver::default();
    receiver.answers.lock().unwrap().extend([400]);
    let url = receiver.serve().await;
    let Stream { pen, delivery, written } = stream(folder.path(), Form::Webhook, &url, "all", None);
    let counts = delivery.counts.clone();
    tokio::spawn(delivery.run(written));
    pen.write(json!({"event": "finding"}));
    until(|| counts.last.load(Relaxed) == 1).await;
    pen.write(json!({"event": "finding"}));
    until(|| counts.last.load(Relaxed) == 2).await;
    assert_eq!(receiver.numbers(), [[1], [2]]);
    assert_eq!((counts.delivered.load(Relaxed), counts.refused.load(Relaxed)), (1, 1));
}

#[tokio::test]
async fn a_receiver_that_was_away_too_long_is_told_how_many_are_lost() {
    let folder = tempdir().unwrap();
    let receiver = Receiver::default();
    let url = receiver.serve().await;
    let Stream { pen, delivery, written } = stream(folder.path(), Form::Webhook, &url, "finding", None);
    for n in 0..3000 {
        pen.write(json!({"event": "finding", "text": "x".repeat(1000)}));
        if n % 500 == 0 {
            pen.finish();
        }
    }
    pen.finish();
    let oldest = Files::new(folder.path()).list().unwrap()[0].first;
    assert!(oldest > 1000, "{oldest}");
    let counts = delivery.counts.clone();
    tokio::spawn(delivery.run(written));
    until(|| counts.last.load(Relaxed) == 3000).await;
    assert_eq!(counts.lost.load(Relaxed), oldest - 1);
    assert_eq!(receiver.numbers().concat(), (oldest..=3000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_collector_gets_logs_in_its_own_form() {
    let folder = tempdir().unwrap();
    let receiver = Receiver::default();
    let url = receiver.serve().await;
    let Stream { pen, delivery, written } = stream(folder.path(), Form::Otlp, &url, "all", None);
    let counts = delivery.counts.clone();
    tokio::spawn(delivery.run(written));
    pen.write(json!({"event": "finding", "time": "2026-11-01T12:00:00Z", "finding": {"id": 3}}));
    until(|| counts.last.load(Relaxed) == 1).await;
    let came = receiver.came.lock().unwrap();
    let (headers, body) = &came[0];
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let export = ExportLogsServiceRequest::decode(body.clone()).unwrap();
    let logs = &export.resource_logs[0];
    let names: Vec<_> = logs.resource.iter().flat_map(|r| &r.attributes).map(|a| a.key.as_str()).collect();
    assert_eq!(names, ["service.name", "service.version", "service.instance.id"]);
    let record = &logs.scope_logs[0].log_records[0];
    assert_eq!((record.event_name.as_str(), record.severity_text.as_str()), ("tidegate.finding", "WARN"));
    assert_eq!(record.time_unix_nano, 1_793_534_400_000_000_000);
}
