//! Runs the command in this process.

use serde_json::Value;
use std::io::Write;
use tidegate::daemon::inspect::Inspect;
use tidegate::replay::output::Format;
use tidegate::replay::session::Reading;
use tidegate::replay::{EngineChoice, Mode, ReplayArgs, ReplayError, run_to};

pub struct Run {
    pub packets: bool,
    pub reading: Reading,
    pub engine: EngineChoice,
    pub mode: Mode,
    pub output: Format,
    pub policy: Option<&'static str>,
    pub inspect: &'static [Inspect],
}

/// Every kind of tunnel that can be looked into.
pub const TUNNELS: &[Inspect] = &[Inspect::Vxlan, Inspect::Geneve, Inspect::Gre, Inspect::Ipip];

/// Connections, native engine, JSON.
pub const HOST: Run = Run {
    packets: false,
    reading: Reading { verify_checksums: false, reassemble: false, header_lengths: false },
    engine: EngineChoice::Host,
    mode: Mode::Enforce,
    output: Format::Json,
    policy: None,
    inspect: &[],
};

impl Run {
    pub const fn packets(self) -> Self {
        Self { packets: true, ..self }
    }

    /// By what tunnels carry.
    pub const fn inspecting(self) -> Self {
        Self { inspect: TUNNELS, ..self }
    }

    pub const fn checked(self) -> Self {
        Self { reading: Reading { verify_checksums: true, ..self.reading }, ..self }
    }

    /// Fragments and lengths as Zeek takes them.
    pub const fn like_zeek(self) -> Self {
        Self { reading: Reading { reassemble: true, header_lengths: true, ..self.reading }, ..self }
    }

    /// What is printed, and the error that ended it.
    pub fn text(&self, capture: &[u8]) -> (String, Option<ReplayError>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(capture).unwrap();
        self.text_of(file.path())
    }

    pub fn text_of(&self, path: &std::path::Path) -> (String, Option<ReplayError>) {
        let policy = self.policy.map(|policy| {
            let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
            file.write_all(policy.as_bytes()).unwrap();
            file
        });
        let args = ReplayArgs {
            file: path.into(),
            policy: policy.iter().map(|file| file.path().into()).collect(),
            packets: self.packets,
            reading: self.reading,
            engine: Some(self.engine),
            mode: self.mode,
            output: self.output,
            inspect: self.inspect.to_vec(),
        };
        let mut out = Vec::new();
        let error = run_to(&args, &mut out).err();
        (String::from_utf8(out).unwrap(), error)
    }

    /// The records of a capture in which nothing is wrong.
    pub fn records(&self, capture: &[u8]) -> Vec<Value> {
        let (text, error) = self.text(capture);
        assert!(error.is_none(), "{error:?}");
        parse(&text)
    }
}

pub fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A connection in a line: `tcp 10.0.0.1:40000>10.0.0.2:443 SF ShADadFf 5/4 240/200 - FORWARDED`.
pub fn summary(record: &Value) -> String {
    let text = |field: &str| match &record[field] {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    let reason = match record["reason"].as_str() {
        Some("FORWARDED") => String::new(),
        _ => format!(" {}", text("reason")),
    };
    format!(
        "{} {}:{}>{}:{} {} {} {}/{} {}/{} {} {}{reason}",
        text("proto"),
        text("orig_h"),
        text("orig_p"),
        text("resp_h"),
        text("resp_p"),
        text("conn_state"),
        text("history"),
        text("orig_pkts"),
        text("resp_pkts"),
        text("orig_ip_bytes"),
        text("resp_ip_bytes"),
        text("tls"),
        text("verdict"),
    )
}
