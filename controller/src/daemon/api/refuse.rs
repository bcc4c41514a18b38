//! What is not as it should be is answered by one form of failure, whichever layer finds it.

use crate::exit_code::{Code, Failure, Result};
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described, StatusCode as Status};
use aide::{OperationInput, OperationOutput};
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

impl OperationOutput for Failure {
    type Inner = Self;

    fn operation_response(context: &mut GenContext, operation: &mut Operation) -> Option<Described> {
        Json::<Self>::operation_response(context, operation)
    }

    fn inferred_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<Status>, Described)> {
        let with_body = [400, 403, 404, 408, 409, 413, 415, 422, 500, 503];
        let statuses =
            if operation.request_body.is_some() { &with_body[..] } else { &[400, 403, 404, 409, 500, 503] };
        let mut all = Vec::new();
        for status in statuses {
            if let Some(mut response) = Self::operation_response(context, operation) {
                let status = *status;
                response.description = reason(status).to_owned();
                all.push((Some(Status::Code(status)), response));
            }
        }
        all
    }
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

/// How long a body may take to arrive where the route does not say otherwise.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the body of this route's requests may take to arrive.
#[derive(Clone, Copy, Debug)]
pub struct Patience(pub Duration);

/// A body of JSON that is what the route takes, no field more.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let patience = request.extensions().get::<Patience>().map_or(PATIENCE, |patience| patience.0);
        let read = Json::<Object<T>>::from_request(request, state);
        match tokio::time::timeout(patience, read).await {
            Ok(Ok(Json(Object(value)))) => Ok(Self(value)),
            Ok(Err(rejection)) => Err(wrong_body(&rejection)),
            Err(_) => Err(Failure::new(
                Code::Timeout,
                format!("the body did not arrive within {} s", patience.as_secs()),
            )),
        }
    }
}

impl<T: JsonSchema> OperationInput for Body<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        Json::<T>::operation_input(context, operation);
    }
}

/// An object of JSON. serde also takes an array for a struct, of its fields in their order: no API means that.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(OfMap(PhantomData))
    }
}

/// For a field that is an object.
pub fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| value)
}

/// For a field that is a list of objects.
pub fn objects<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let all = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(all.into_iter().map(|Object(value)| value).collect())
}

fn wrong_body(rejection: &JsonRejection) -> Failure {
    let code = match rejection.status().as_u16() {
        413 => Code::TooLarge,
        415 => Code::UnsupportedMediaType,
        422 => Code::Unprocessable,
        _ => Code::Usage,
    };
    let failure = Failure::new(code, rejection.body_text());
    match code {
        Code::UnsupportedMediaType => failure.hint("send JSON with `content-type: application/json`"),
        Code::Unprocessable => failure.hint("what a route takes is at /v1/openapi.json"),
        _ => failure,
    }
}

/// Parameters of the query that are what the route takes, none more.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(value)| Self(value))
            .map_err(|e: QueryRejection| Failure::new(Code::Usage, e.body_text()))
    }
}

impl<T: JsonSchema> OperationInput for Params<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        Query::<T>::operation_input(context, operation);
    }
}

/// No route has this path.
pub async fn no_route() -> Failure {
    Failure::new(Code::NotFound, "no route has this path").hint("the routes are at /v1/openapi.json")
}

/// The route has other methods.
pub async fn no_method() -> Failure {
    Failure::new(Code::MethodNotAllowed, "this path has no such method")
        .hint("the header `allow` names those it has")
}
