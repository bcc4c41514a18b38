//! How answers that are JSON or a table, as is asked for, are described in the OpenAPI document.

use aide::openapi::{MediaType, Response, SchemaObject, StatusCode};
use schemars::{Schema, json_schema};

/// JSON of this media type and schema, or text for people.
pub fn or_text(kind: &str, json: Schema, description: &str) -> Response {
    let of = |json_schema| MediaType {
        schema: Some(SchemaObject { json_schema, external_docs: None, example: None }),
        ..MediaType::default()
    };
    let text = ("text/plain".to_owned(), of(json_schema!({"type": "string"})));
    let content = [(kind.to_owned(), of(json)), text].into_iter().collect();
    Response { description: description.to_owned(), content, ..Response::default() }
}

/// The answer to what went well.
pub fn ok(response: Option<Response>) -> Vec<(Option<StatusCode>, Response)> {
    response.map(|response| (Some(StatusCode::Code(200)), response)).into_iter().collect()
}
