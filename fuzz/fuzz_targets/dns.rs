//! Queries for names, as user space reads them out of datagrams: whatever they hold, nothing panics, and what is told is a text that any
//! terminal can show, and no longer than a name of 255 octets of which each is escaped (RFC 1035, sections 2.3.4 and 5.1).
#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone: see `capture.rs`.
#[path = "../../controller/src/dns.rs"]
#[allow(dead_code)]
mod dns;

fuzz_target!(|data: &[u8]| {
    let Some(question) = dns::question(data) else { return };
    assert!(question.name.bytes().all(|c| c.is_ascii_graphic()), "{:?}", question.name);
    assert!(question.name.len() <= 4 * 255, "{} letters", question.name.len());
    assert_eq!(data[..2], question.id.to_be_bytes());
});
