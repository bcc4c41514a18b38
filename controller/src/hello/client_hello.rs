//! What a ClientHello says (RFC 8446, section 4.1.2), parsed by tls-parser.

use super::ja4::{self, Ja4Input, Transport};
use serde::{Deserialize, Serialize};
use tls_parser::{
    SNIType, TlsClientHelloContents, TlsExtension, parse_tls_client_hello_extension,
    parse_tls_handshake_client_hello,
};

/// The fields of a record that a ClientHello fills.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ClientHello {
    /// The server's name. With ECH, the name in the outer hello.
    pub tls_sni: Option<String>,
    /// Application protocols, in the client's order.
    pub tls_alpn: Option<Vec<String>>,
    /// Versions that the client offers, in its order, without GREASE.
    pub tls_versions: Option<Vec<String>>,
    /// The JA4 fingerprint; none of a hello that is not there whole.
    pub tls_ja4: Option<String>,
    /// `outer` where the hello carries an encrypted one. A client that only pretends to (GREASE) looks the same.
    pub tls_ech: Option<String>,
    /// Whether a part of the hello is missing.
    pub tls_hello_partial: Option<bool>,
}

/// encrypted_client_hello (TLS Encrypted Client Hello, section 5).
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

impl ClientHello {
    /// From the body of the handshake message, behind its header; of a partial one as far as it goes.
    pub fn parse(body: &[u8], transport: Transport, is_whole: bool) -> Self {
        let mut hello = Self { tls_hello_partial: Some(!is_whole), ..Self::default() };
        let Ok((rest, contents)) = parse_tls_handshake_client_hello(body) else {
            hello.tls_hello_partial = Some(true);
            return hello;
        };
        // The parser takes extensions that are cut off for none.
        let cut = rest.get(2..).filter(|_| contents.ext.is_none());
        let extensions = extensions(contents.ext.or(cut).unwrap_or_default());
        let mut input = Ja4Input { transport, ..input(&contents, &extensions) };
        for (_, extension) in &extensions {
            hello.note(extension, &mut input);
        }
        if extensions.iter().any(|(kind, _)| *kind == ENCRYPTED_CLIENT_HELLO) {
            hello.tls_ech = Some("outer".to_owned());
        }
        let offered = match input.supported_versions.as_slice() {
            [] => &[input.legacy_version][..],
            versions => versions,
        };
        let known = offered.iter().filter(|version| !ja4::is_grease(**version));
        hello.tls_versions = Some(known.map(|version| version_name(*version)).collect());
        hello.tls_ja4 = is_whole.then(|| ja4::ja4(&input));
        hello
    }

    /// Of a hello in the form of SSL 2.0 (RFC 5246, section E.2), which offers a version and no more.
    pub fn of_sslv2(version: u16, is_whole: bool) -> Self {
        Self {
            tls_versions: Some(vec![version_name(version)]),
            tls_hello_partial: Some(!is_whole),
            ..Self::default()
        }
    }

    /// What it asks for, in words.
    pub fn told(&self) -> String {
        let alpn = self.tls_alpn.as_ref().map(|protocols| protocols.join(","));
        let mut told = format!("ClientHello for {}", self.tls_sni.as_deref().unwrap_or("no name"));
        for (name, said) in [("ALPN", &alpn), ("JA4", &self.tls_ja4), ("ECH", &self.tls_ech)] {
            if let Some(said) = said {
                told += &format!(", {name} {said}");
            }
        }
        told
    }

    fn note(&mut self, extension: &TlsExtension<'_>, input: &mut Ja4Input) {
        match extension {
            TlsExtension::SNI(names) => {
                let host = names.iter().find(|(kind, _)| *kind == SNIType::HostName);
                self.tls_sni = host.map(|(_, name)| printable(name));
            }
            TlsExtension::ALPN(protocols) => {
                self.tls_alpn = Some(protocols.iter().map(|name| printable(name)).collect());
                input.alpn = protocols.first().map(|name| name.to_vec());
            }
            TlsExtension::SupportedVersions(versions) => {
                input.supported_versions = versions.iter().map(|version| version.0).collect();
            }
            TlsExtension::SignatureAlgorithms(algorithms) => {
                input.signature_algorithms.clone_from(algorithms);
            }
            _ => {}
        }
    }
}

fn input(contents: &TlsClientHelloContents<'_>, extensions: &[(u16, TlsExtension<'_>)]) -> Ja4Input {
    Ja4Input {
        legacy_version: contents.version.0,
        ciphers: contents.ciphers.iter().map(|cipher| cipher.0).collect(),
        extensions: extensions.iter().map(|(kind, _)| *kind).collect(),
        ..Ja4Input::default()
    }
}

/// Every extension that is there whole, with its type. One that is malformed keeps its place.
fn extensions(mut bytes: &[u8]) -> Vec<(u16, TlsExtension<'_>)> {
    let mut found = Vec::new();
    while let [a, b, c, d, behind @ ..] = bytes {
        let (kind, length) = (u16::from_be_bytes([*a, *b]), usize::from(u16::from_be_bytes([*c, *d])));
        let Some((content, after)) = behind.split_at_checked(length) else { break };
        let whole = &bytes[..4 + length];
        let parsed = parse_tls_client_hello_extension(whole).map(|(_, extension)| extension);
        let unknown = TlsExtension::Unknown(tls_parser::TlsExtensionType(kind), content);
        found.push((kind, parsed.unwrap_or(unknown)));
        bytes = after;
    }
    found
}

/// Names come from strangers: nothing in them may steer a terminal.
fn printable(name: &[u8]) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(name).chars().map(shown).collect()
}

fn version_name(version: u16) -> String {
    match version {
        0x0304 => "1.3".to_owned(),
        0x0303 => "1.2".to_owned(),
        0x0302 => "1.1".to_owned(),
        0x0301 => "1.0".to_owned(),
        0x0300 => "SSL 3.0".to_owned(),
        0x0002 => "SSL 2.0".to_owned(),
        other => format!("{other:#06x}"),
    }
}
