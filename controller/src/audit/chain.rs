//! Holding records against each other: whether any was changed, removed, moved, or cut off at the end.

use super::record::{Head, Record, hash};
use super::{PublicKey, signed};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;

/// Findings that are told one by one.
const TOLD: usize = 20;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The record.
    pub seq: u64,
    /// What is wrong with it.
    pub what: String,
}

/// What became of holding them against each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Whether nothing was found.
    pub ok: bool,
    /// Records.
    pub records: u64,
    /// When the first of them was made.
    pub from: Option<Timestamp>,
    /// When the last was.
    pub to: Option<Timestamp>,
    /// The last record.
    pub head: Head,
    /// Checkpoints whose signature is right.
    pub checkpoints: u64,
    /// The last record that one of them signs.
    pub signed_to: u64,
    /// The public keys that signed, in hexadecimal.
    pub keys: BTreeSet<String>,
    /// What is wrong; the first of it.
    pub findings: Vec<Finding>,
    /// How much more is.
    pub more_findings: u64,
}

/// Takes record after record.
#[derive(Debug, Default)]
pub struct Chain {
    summary: Summary,
    /// Keys by which checkpoints may be signed; any where it is empty.
    trusted: Vec<PublicKey>,
    /// The hash of a record that has to be there.
    wanted: Option<String>,
    has_wanted: bool,
}

impl Chain {
    /// Checkpoints have to be signed by one of these keys, if there are any, and the record with the `wanted` hash has to be
    /// there.
    pub fn new(trusted: Vec<PublicKey>, wanted: Option<String>) -> Self {
        Self { trusted, wanted, ..Self::default() }
    }

    /// The number of the record that was taken last.
    pub fn last(&self) -> u64 {
        self.summary.head.seq
    }

    fn find(&mut self, seq: u64, what: impl Into<String>) {
        if self.summary.findings.len() < TOLD {
            self.summary.findings.push(Finding { seq, what: what.into() });
        } else {
            self.summary.more_findings += 1;
        }
    }

    /// Somebody has been told of records up to that one: they have to be there.
    pub fn was_told(&mut self, told: u64) {
        let last = self.last();
        if told > last {
            self.find(last, cut_off(told, last));
        }
    }

    /// Takes what should be a record and is not.
    pub fn take_unreadable(&mut self, why: &str) {
        let seq = self.summary.head.seq + 1;
        self.find(seq, format!("what stands at the place of record {seq} cannot be read: {why}"));
    }

    /// Takes the next record: its text and the hash that stands beside it.
    pub fn take(&mut self, text: &str, said: &str) {
        let found = hash(text);
        let last = self.summary.head.clone();
        let record = match Record::read(text) {
            Ok(record) => record,
            Err(why) => return self.take_unreadable(&why),
        };
        let seq = record.seq;
        if found != said {
            self.find(
                seq,
                format!("record {seq} was changed: its hash is {said}, that of what it says is {found}"),
            );
        }
        if seq > last.seq + 1 {
            let missing = if seq == last.seq + 2 {
                format!("record {} is", seq - 1)
            } else {
                format!("records {} to {} are", last.seq + 1, seq - 1)
            };
            self.find(seq, format!("{missing} missing before record {seq}"));
        } else if seq <= last.seq {
            self.find(
                seq,
                format!("record {seq} comes again, or at another place, after record {}", last.seq),
            );
        } else if record.prev != last.hash {
            let what = if last.seq == 0 {
                format!("record {seq} is not the first: something was before it")
            } else {
                format!("record {seq} does not follow this record {}: one of the two was replaced", last.seq)
            };
            self.find(seq, what);
        }
        if record.kind == "checkpoint" {
            self.take_checkpoint(&record, &last);
        }
        // What the daemon found that went on with a record that was cut.
        let told = record.what.get("told_of").and_then(serde_json::Value::as_u64);
        if let Some(told) = told.filter(|_| record.kind == "start") {
            self.find(seq, cut_off(told, last.seq));
        }
        self.has_wanted |= self.wanted.as_deref() == Some(said);
        self.summary.records += 1;
        self.summary.from.get_or_insert(record.at);
        self.summary.to = Some(record.at);
        // By what it says of itself: what follows one that was changed is told only if something is wrong with that too.
        self.summary.head = Head { seq, hash: said.to_owned() };
    }

    fn take_checkpoint(&mut self, record: &Record, last: &Head) {
        let text = |name: &str| record.what.get(name).and_then(serde_json::Value::as_str).unwrap_or("");
        let of = Head { seq: record.what["seq"].as_u64().unwrap_or(0), hash: text("hash").into() };
        let seq = record.seq;
        if of != *last {
            return self.find(seq, format!("checkpoint {seq} signs another record than the one before it"));
        }
        let Some(key) = PublicKey::parse(text("key")) else {
            return self.find(seq, format!("checkpoint {seq} names no key"));
        };
        if !key.has_signed(signed(&of).as_bytes(), text("signature")) {
            return self.find(seq, format!("the signature of checkpoint {seq} is wrong"));
        }
        if !self.trusted.is_empty() && !self.trusted.contains(&key) {
            return self.find(seq, format!("checkpoint {seq} is signed by another key: {}", key.hex()));
        }
        self.summary.keys.insert(key.hex());
        self.summary.checkpoints += 1;
        self.summary.signed_to = of.seq;
    }

    /// What was found, once all records were taken.
    pub fn end(mut self) -> Summary {
        let Head { seq, .. } = self.summary.head;
        if let Some(wanted) = self.wanted.take().filter(|_| !self.has_wanted) {
            let what = format!(
                "no record has the hash {wanted}: those after record {seq} were cut off, or it was replaced"
            );
            self.find(seq, what);
        }
        if !self.trusted.is_empty() && self.summary.checkpoints == 0 && seq > 0 {
            self.find(seq, "no checkpoint is signed by the key that was given");
        }
        self.summary.ok = self.summary.findings.is_empty();
        self.summary
    }
}

fn cut_off(told: u64, last: u64) -> String {
    format!("the event stream had told of records up to {told}: those after record {last} were cut off")
}
