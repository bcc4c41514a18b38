//! A ClientHello of one's own making (RFC 8446, section 4.1.2): the name, the protocols and the shape that a story needs.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::protocol::Done;
use crate::topology::plan::Outcome;

/// What it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hello {
    /// The name of the server (RFC 6066, section 3); none if it is not said.
    pub sni: Option<String>,
    /// Protocols (RFC 7301); no extension if there are none.
    pub alpn: Vec<String>,
    /// Whether it carries an encrypted one, or pretends to (RFC 9849, section 5).
    pub ech: bool,
}

impl Hello {
    /// It, in a record.
    pub fn record(&self) -> Vec<u8> {
        let suites = [0x1301_u16, 0x1302, 0xc02b].map(u16::to_be_bytes).concat();
        let body = [
            &[3, 3][..],
            &[0x5a; 32],
            &counted(1, &[]),
            &counted(2, &suites),
            &counted(1, &[0]),
            &counted(2, &self.extensions()),
        ]
        .concat();
        let handshake = [&[1][..], &counted(3, &body)].concat();
        [&[22, 3, 1][..], &counted(2, &handshake)].concat()
    }

    fn extensions(&self) -> Vec<u8> {
        let key_share = [&[0, 0x1d][..], &counted(2, &[9; 32])].concat();
        let mut all = vec![
            (10, counted(2, &[0, 0x1d])),
            (13, counted(2, &[4, 3])),
            (43, counted(1, &[3, 4])),
            (51, counted(2, &key_share)),
        ];
        if let Some(name) = &self.sni {
            all.push((0, counted(2, &[&[0][..], &counted(2, name.as_bytes())].concat())));
        }
        if !self.alpn.is_empty() {
            let protocols: Vec<u8> = self.alpn.iter().flat_map(|p| counted(1, p.as_bytes())).collect();
            all.push((16, counted(2, &protocols)));
        }
        if self.ech {
            // The outer one: HKDF-SHA256, AES-128-GCM, a configuration, an encapsulated key, a payload.
            let outer = [&[0, 0, 1, 0, 1, 7][..], &counted(2, &[3; 32]), &counted(2, &[4; 128])].concat();
            all.push((0xfe0d, outer));
        }
        let extension = |(kind, data): (u16, Vec<u8>)| [&kind.to_be_bytes()[..], &counted(2, &data)].concat();
        all.into_iter().flat_map(extension).collect()
    }
}

/// Bytes after their number, which is so many bytes long.
fn counted(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [&length[4 - width..], bytes].concat()
}

/// Sends it, waits for whatever the server says to it, and closes.
pub async fn send(to: SocketAddr, hello: &Hello, timeout: Duration) -> Done {
    let mut run = Done::begin();
    let deadline = Instant::now() + timeout;
    let mut stream = match timeout_at(deadline, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return run.end_io(&error),
        Err(_) => return run.end(Outcome::Timeout, "no answer to the SYN"),
    };
    run.done.local = stream.local_addr().ok();
    let mut answer = [0; 4096];
    let exchange = async {
        stream.write_all(&hello.record()).await?;
        stream.read(&mut answer).await
    };
    match timeout_at(deadline, exchange).await {
        Ok(Ok(0)) => run.end(Outcome::HandshakeFailed, "the server closed the connection without a word"),
        Ok(Ok(read)) => {
            run.done.bytes = read as u64;
            run.ok()
        }
        Ok(Err(error)) => run.end_io(&error),
        Err(_) => run.end(Outcome::Timeout, "no answer to the hello"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_what_follows() {
        let hello = Hello { sni: Some("a.example".into()), alpn: vec!["h2".into()], ech: true };
        let record = hello.record();
        assert_eq!(record[..3], [22, 3, 1]);
        assert_eq!(usize::from(u16::from_be_bytes([record[3], record[4]])), record.len() - 5);
        assert_eq!(u32::from_be_bytes([0, record[6], record[7], record[8]]) as usize, record.len() - 9);
        let find = |bytes: &[u8]| record.windows(bytes.len()).any(|window| window == bytes);
        assert!(find(b"\0\0\0\x0e\0\x0c\0\0\x09a.example") && find(b"\0\x10\0\x05\0\x03\x02h2"));
        assert!(find(&[0xfe, 0x0d, 0, 0xaa]) && !Hello::default().record().contains(&0xfe));
    }
}
