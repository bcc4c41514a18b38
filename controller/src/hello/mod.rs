//! ClientHellos: the programs hand their bytes up, here they are put together and parsed.

mod assembly;
mod book;
mod client_hello;
mod ja4;
mod quic;

pub use book::{Found, Hellos};
pub use client_hello::ClientHello;
