//! Events as logs of OpenTelemetry: OTLP/HTTP with binary protobuf (OTLP specification 1.9).

use crate::stream::kind;
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use reqwest::{Client, RequestBuilder, Url, header};
use serde_json::Value;

/// The request for a batch.
pub(super) fn request(client: &Client, url: &Url, gateway: &str, events: &[Value]) -> RequestBuilder {
    let body = export(gateway, events).encode_to_vec();
    client.post(url.clone()).header(header::CONTENT_TYPE, "application/x-protobuf").body(body)
}

fn export(gateway: &str, events: &[Value]) -> ExportLogsServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let resource = Resource {
        attributes: vec![
            text("service.name", "tidegate"),
            text("service.version", version),
            text("service.instance.id", gateway),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "tidegate".into(),
        version: version.into(),
        ..InstrumentationScope::default()
    };
    let scope_logs = ScopeLogs {
        scope: Some(scope),
        log_records: events.iter().map(record).collect(),
        ..ScopeLogs::default()
    };
    let resource_logs =
        ResourceLogs { resource: Some(resource), scope_logs: vec![scope_logs], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }
}

/// The whole event is the body; what people filter by is an attribute too.
fn record(event: &Value) -> LogRecord {
    let time = event.get("time").and_then(|time| time.as_str()?.parse::<Timestamp>().ok());
    let time_unix_nano = time.and_then(|time| u64::try_from(time.as_nanosecond()).ok()).unwrap_or_default();
    let (severity_number, severity_text) = severity(event);
    let observed = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default();
    LogRecord {
        time_unix_nano,
        observed_time_unix_nano: observed,
        severity_number: severity_number.into(),
        severity_text: severity_text.into(),
        event_name: format!("tidegate.{}", kind(event)),
        body: Some(any(event)),
        attributes: attributes(event),
        ..LogRecord::default()
    }
}

const ATTRIBUTES: [(&str, &str); 15] = [
    ("tidegate.event.id", "/id"),
    ("tidegate.verdict", "/verdict"),
    ("tidegate.drop_reason", "/drop_reason_desc"),
    ("tidegate.rule", "/rule"),
    ("tidegate.source.spiffe_id", "/source/spiffe_id"),
    ("tidegate.destination.spiffe_id", "/destination/spiffe_id"),
    // By the semantic conventions of OpenTelemetry.
    ("source.address", "/IP/source"),
    ("destination.address", "/IP/destination"),
    ("tidegate.finding.id", "/finding/id"),
    ("tidegate.source.lease.not_after", "/source/lease/not_after"),
    ("tidegate.destination.lease.not_after", "/destination/lease/not_after"),
    ("tidegate.actor", "/actor"),
    ("tidegate.decision", "/decision"),
    ("tidegate.outcome", "/outcome"),
    ("tidegate.approvers", "/approvers"),
];

fn attributes(event: &Value) -> Vec<KeyValue> {
    let there = |(key, pointer): &(&str, &str)| {
        let value = event.pointer(pointer).filter(|value| !value.is_null())?;
        Some(KeyValue { key: (*key).to_owned(), value: Some(any(value)), ..KeyValue::default() })
    };
    ATTRIBUTES.iter().filter_map(there).collect()
}

/// What is dropped, or somebody has to look at, is a warning.
fn severity(event: &Value) -> (SeverityNumber, &'static str) {
    let dropped = event.get("verdict").and_then(Value::as_str) == Some("DROPPED");
    match dropped || matches!(kind(event), "finding" | "approval") {
        true => (SeverityNumber::Warn, "WARN"),
        false => (SeverityNumber::Info, "INFO"),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(any(&value.into())), ..KeyValue::default() }
}

/// JSON in OpenTelemetry's form of it.
fn any(value: &Value) -> AnyValue {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
    let value = match value {
        Value::Null => None,
        Value::Bool(is) => Some(Any::BoolValue(*is)),
        Value::Number(number) => Some(match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Any::IntValue(int),
            (None, float) => Any::DoubleValue(float.unwrap_or_default()),
        }),
        Value::String(text) => Some(Any::StringValue(text.clone())),
        Value::Array(items) => Some(Any::ArrayValue(ArrayValue { values: items.iter().map(any).collect() })),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| KeyValue {
                key: key.clone(),
                value: Some(any(value)),
                ..KeyValue::default()
            };
            Some(Any::KvlistValue(KeyValueList { values: fields.iter().map(field).collect() }))
        }
    };
    AnyValue { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_a_log_record_with_all_that_it_says() {
        let event = json!({
            "id": 7, "time": "2026-11-01T12:00:00.5Z", "event": "verdict", "verdict": "DROPPED", "rule": null,
            "source": {"spiffe_id": "spiffe://a.example/x"}, "ports": [1, 2.5, true],
        });
        let record = record(&event);
        assert_eq!(record.time_unix_nano, 1_793_534_400_500_000_000);
        assert_eq!((record.severity_text.as_str(), record.event_name.as_str()), ("WARN", "tidegate.verdict"));
        let names: Vec<_> = record.attributes.iter().map(|a| a.key.as_str()).collect();
        assert_eq!(names, ["tidegate.event.id", "tidegate.verdict", "tidegate.source.spiffe_id"]);
        assert_eq!(record.body, Some(any(&event)));
        let Some(AnyValue { value: Some(Any::KvlistValue(fields)) }) = record.body else { panic!("a list") };
        let of =
            |key: &str| fields.values.iter().find(|field| field.key == key).and_then(|f| f.value.clone());
        assert_eq!(of("id"), Some(AnyValue { value: Some(Any::IntValue(7)) }));
        assert_eq!(of("rule"), Some(AnyValue { value: None }));
        let Some(AnyValue { value: Some(Any::ArrayValue(ports)) }) = of("ports") else { panic!("an array") };
        assert_eq!(ports.values[1].value, Some(Any::DoubleValue(2.5)));
        assert_eq!(ports.values[2].value, Some(Any::BoolValue(true)));
    }
}
