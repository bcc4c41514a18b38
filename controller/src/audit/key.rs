//! The key that signs checkpoints.

use crate::exit_code::{Code, Failure, Result};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Ahead of the 32 bytes of an ed25519 key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The private key.
pub struct Key(Ed25519KeyPair);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.public().hex())
    }
}

impl Key {
    /// The key of an instance: made, and readable by its owner alone, where there is none.
    pub fn of(path: &Path) -> Result<Self> {
        match Self::read(path)? {
            Some(key) => Ok(key),
            None => Self::make(path),
        }
    }

    /// The key in a file; `None` where there is no file.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::io(format!("read {}", path.display()), &e)),
        };
        let damaged = || {
            let message = format!(
                "{} holds no ed25519 key: put the right one back; moved away, it gives way to a new one, which the record tells",
                path.display()
            );
            Failure::new(Code::Failure, message)
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| damaged())?;
        Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map(|key| Some(Self(key))).map_err(|_| damaged())
    }

    fn make(path: &Path) -> Result<Self> {
        let failed = |_| Failure::new(Code::Failure, "make a key: the kernel gives no random bytes");
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(failed)?;
        let new = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(pem("PRIVATE KEY", der.as_ref()).as_bytes())?;
            file.sync_all()?;
            // In whole or not at all: half a key would keep the next daemon from starting.
            std::fs::rename(&new, path)
        };
        write().map_err(|e| Failure::io(format!("write {}", path.display()), &e))?;
        Self::read(path)?.ok_or_else(|| Failure::new(Code::Failure, format!("{} is gone", path.display())))
    }

    /// What others check signatures with.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The signature of a message, in hexadecimal.
    pub fn sign(&self, message: &[u8]) -> String {
        hex(self.0.sign(message).as_ref())
    }
}

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads PEM, as `tidegate audit key` prints it, or 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(bytes) = unhex(text.trim()) {
            return bytes.try_into().ok().map(Self);
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).ok()?;
        der.strip_prefix(&SPKI_HEAD)?.try_into().ok().map(Self)
    }

    /// In hexadecimal.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// As OpenSSL reads it.
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &[&SPKI_HEAD[..], &self.0].concat())
    }

    /// Whether it is the signature of the message by this key.
    pub fn has_signed(&self, message: &[u8], signature: &str) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        unhex(signature).is_some_and(|signature| key.verify(message, &signature).is_ok())
    }
}

/// RFC 7468; what we write fits in two lines.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let (first, rest) = text.split_at(text.len().min(64));
    let rest = if rest.is_empty() { String::new() } else { format!("{rest}\n") };
    format!("-----BEGIN {label}-----\n{first}\n{rest}-----END {label}-----\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower case alone: a second way to write the same would be a change that nobody finds.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_is_its_owners_alone_and_signs_what_its_public_key_checks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        assert!(Key::read(&path).unwrap().is_none());
        let key = Key::of(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Key::of(&path).unwrap().public(), key.public());
        let signature = key.sign(b"a message");
        let public = key.public();
        assert!(public.has_signed(b"a message", &signature));
        assert!(!public.has_signed(b"another", &signature));
        assert!(!public.has_signed(b"a message", &signature.to_uppercase()));
        assert_eq!(PublicKey::parse(&public.pem()), Some(public));
        assert_eq!(PublicKey::parse(&public.hex()), Some(public));
        assert_eq!(PublicKey::parse(&public.hex()[2..]), None);
        assert_eq!(PublicKey::parse("-----BEGIN PUBLIC KEY-----"), None);
        let other = Key::of(&folder.path().join("other.key")).unwrap();
        assert!(!other.public().has_signed(b"a message", &signature));

        std::fs::write(&path, "half a k").unwrap();
        assert!(Key::of(&path).unwrap_err().message.contains("holds no ed25519 key"));
    }
}
