//! Events as JSON: `{"gateway": "default", "events": [...]}`.

use reqwest::{Client, RequestBuilder, Url, header};
use serde_json::{Value, json};

/// The request for a batch.
pub(super) fn request(client: &Client, url: &Url, gateway: &str, events: &[Value]) -> RequestBuilder {
    let body = json!({"gateway": gateway, "events": events}).to_string();
    client.post(url.clone()).header(header::CONTENT_TYPE, "application/json").body(body)
}
