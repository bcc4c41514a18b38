//! Plain TCP and UDP.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use super::mtls::{echo, request};
use super::protocol::Done;
use crate::topology::plan::Outcome;

/// Opens the port and echoes in the background.
pub async fn listen_tcp(port: u16) -> Result<AbortHandle> {
    let listener =
        TcpListener::bind(("::", port)).await.with_context(|| format!("cannot listen on tcp/{port}"))?;
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { echo(&mut stream).await });
        }
    });
    Ok(server.abort_handle())
}

/// Opens the port and echoes in the background.
pub async fn listen_udp(port: u16) -> Result<AbortHandle> {
    let socket =
        UdpSocket::bind(("::", port)).await.with_context(|| format!("cannot listen on udp/{port}"))?;
    let server = tokio::spawn(async move {
        let mut datagram = vec![0; 65_536];
        loop {
            // Errors here are ICMP answers to an earlier echo.
            if let Ok((length, client)) = socket.recv_from(&mut datagram).await {
                drop(socket.send_to(&datagram[..length], client).await);
            }
        }
    });
    Ok(server.abort_handle())
}

/// Connects, and asks for an echo if there is a payload.
pub async fn tcp(to: SocketAddr, bytes: u64, timeout: Duration) -> Done {
    let mut run = Done::begin();
    let deadline = tokio::time::Instant::now() + timeout;
    let mut stream = match timeout_at(deadline, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return run.end_io(&error),
        Err(_) => return run.end(Outcome::Timeout, "no answer to the SYN"),
    };
    run.done.connect_us = Some(run.elapsed_us());
    run.done.local = stream.local_addr().ok();
    match timeout_at(deadline, request(&mut stream, bytes)).await {
        Ok(Ok(read)) => run.done.bytes = read,
        Ok(Err(error)) => return run.end_io(&error),
        Err(_) => return run.end(Outcome::Timeout, "connected, and no answer to the request"),
    }
    drop(stream.shutdown().await);
    run.ok()
}

/// A query for the addresses of a name (RFC 1035, section 4.1). Who echoes it has answered well enough.
pub fn question(name: &str) -> Vec<u8> {
    let id = std::process::id() as u16;
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// Sends a datagram and waits for its echo.
pub async fn udp(to: SocketAddr, payload: &[u8], timeout: Duration) -> Done {
    let mut run = Done::begin();
    let deadline = tokio::time::Instant::now() + timeout;
    let exchange = async {
        let socket = match to {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?,
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?,
        };
        socket.connect(to).await?;
        let local = socket.local_addr()?;
        socket.send(payload).await?;
        let mut answer = vec![0; payload.len() + 1];
        let length = socket.recv(&mut answer).await?;
        if answer[..length] != payload[..] {
            return Err(io::Error::other(format!("{length} bytes came back that are no echo")));
        }
        Ok((local, length))
    };
    match timeout_at(deadline, exchange).await {
        Ok(Ok((local, length))) => {
            run.done.local = Some(local);
            run.done.bytes = length as u64;
            run.ok()
        }
        Ok(Err(error)) => run.end_io(&error),
        Err(_) => run.end(Outcome::Timeout, "no answer to the datagram"),
    }
}
