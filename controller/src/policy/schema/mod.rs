//! JSON Schema of the files, for editors, other tools and `policy check`. What they accept is a little less strict than the decoder,
//! which also looks across documents; tests hold the fields, those that have to be there and the words to the decoder's, and that nothing
//! is refused which the decoder accepts.
//!
//! The decoder reads trees that know their lines, not these types: they are here for their shape alone.
#![allow(dead_code)]

mod contain;
mod gateway;
mod intent;
mod policy;
mod verify;
mod words;
mod workload;

pub(super) use verify::Schemas;

use contain::{BlocklistSpec, GrantSpec, LimitSpec, QuarantineSpec};
use gateway::GatewaySpec;
use intent::IntentSpec;
use policy::PolicySpec;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use words::Name;
use workload::WorkloadSpec;

/// The one version of the files.
#[derive(JsonSchema)]
enum ApiVersion {
    #[schemars(rename = "tidegate.dev/v1")]
    V1,
}

/// What verdicts, metrics and other documents call it by.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Metadata {
    name: Name,
}

macro_rules! documents {
    ($($kind:ident $document:ident $word:ident $spec:ident;)*) => {
        $(
            #[derive(JsonSchema)]
            enum $word {
                $kind,
            }

            #[derive(JsonSchema)]
            #[schemars(rename_all = "camelCase", deny_unknown_fields)]
            struct $document {
                api_version: ApiVersion,
                kind: $word,
                metadata: Metadata,
                spec: $spec,
            }
        )*

        /// A document of a policy file.
        #[derive(JsonSchema)]
        #[schemars(untagged)]
        enum AnyDocument {
            $($kind($document),)*
        }

        /// The kinds of documents.
        pub const KINDS: &[&str] = &[$(stringify!($kind)),*];

        /// The schema of one kind; nothing where there is no such kind.
        pub fn of(kind: &str) -> Option<Schema> {
            match kind {
                $(stringify!($kind) => Some(SchemaGenerator::default().into_root_schema_for::<$document>()),)*
                _ => None,
            }
        }
    };
}

documents! {
    Workload WorkloadDocument WorkloadKind WorkloadSpec;
    Policy PolicyDocument PolicyKind PolicySpec;
    Blocklist BlocklistDocument BlocklistKind BlocklistSpec;
    Quarantine QuarantineDocument QuarantineKind QuarantineSpec;
    Grant GrantDocument GrantKind GrantSpec;
    Limit LimitDocument LimitKind LimitSpec;
    Gateway GatewayDocument GatewayKind GatewaySpec;
    Intent IntentDocument IntentKind IntentSpec;
}

/// The schema of a document of any kind.
pub fn all() -> Schema {
    SchemaGenerator::default().into_root_schema_for::<AnyDocument>()
}
