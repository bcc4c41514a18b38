//! Files that are cut, damaged, foreign or odd.

use super::build::{Scene, udp};
use super::run::{HOST, Run, parse};
use super::scenes;
use tidegate::replay::output::Format;

#[test]
fn a_cut_file_prints_its_whole_frames_and_then_fails_with_the_place() {
    let capture = scenes::tcp("ShA").pcap();
    let end = capture.len() - 3;
    let (text, error) = HOST.packets().text(&capture[..end]);
    assert_eq!(parse(&text).len(), 2);
    let error = error.unwrap();
    assert_eq!(error.exit_code().exit(), 1);
    // A header of 24 bytes, then records of 16 + 54 bytes.
    let expected = format!(
        "the capture is cut off at byte {end}: the packet at byte 164 is not whole; the 2 frames before that were replayed"
    );
    assert!(error.to_string().ends_with(&expected), "{error}");

    let (text, error) = HOST.text(&capture[..end]);
    assert_eq!(parse(&text)[0]["history"], "Sh");
    assert_eq!(error.unwrap().exit_code().exit(), 1);
}

#[test]
fn no_cut_and_no_flipped_byte_makes_it_panic() {
    let capture = scenes::tcp("ShADadFfA").pcap();
    for n in 0..capture.len() {
        HOST.packets().text(&capture[..n]);
        let mut flipped = capture.clone();
        flipped[n] ^= 0xff;
        HOST.text(&flipped);
    }
}

#[test]
fn what_is_no_capture_is_refused_as_bad_input() {
    let (text, error) = HOST.text(b"GET / HTTP/1.1\r\n");
    let error = error.unwrap();
    assert_eq!((text.as_str(), error.exit_code().exit()), ("", 2));
    assert!(error.to_string().contains("not a capture: it begins with 0x47455420"), "{error}");

    let (_, error) = HOST.text_of(std::path::Path::new("/nonexistent/file.pcap"));
    let error = error.unwrap();
    assert_eq!(error.exit_code().exit(), 2);
    assert!(error.to_string().starts_with("cannot open /nonexistent/file.pcap: "), "{error}");
}

#[test]
fn a_link_type_that_is_not_read_is_named() {
    let (text, error) = HOST.text(&Scene::default().frame(vec![0; 60]).pcap_of_link(127));
    let error = error.unwrap();
    assert_eq!((text.as_str(), error.exit_code().exit()), ("", 2));
    assert!(error.to_string().contains("link type 127 (IEEE 802.11 radiotap)"), "{error}");
}

#[test]
fn raw_and_cooked_links_show_the_same_flow() {
    let ethernet = udp(true, b"query");
    let ip = &ethernet[14..];
    let cooked = [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0], ip].concat();
    let cooked2 = [&[8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0], ip].concat();
    let null = [&[2, 0, 0, 0], ip].concat();
    for (link, frame, eth_type) in [
        (1, ethernet.clone(), Some(0x0800)),
        (101, ip.to_vec(), None),
        (228, ip.to_vec(), None),
        (113, cooked, Some(0x0800)),
        (276, cooked2, Some(0x0800)),
        (0, null, None),
    ] {
        let bytes = frame.len();
        let records = HOST.packets().records(&Scene::default().frame(frame).pcap_of_link(link));
        let record = &records[0];
        let found = (&record["src"], &record["dport"], &record["verdict"], record["eth_type"].as_u64());
        assert_eq!(found, (&"10.0.0.1".into(), &53.into(), &"FORWARDED".into(), eth_type), "link {link}");
        assert_eq!(
            record["captured_bytes"], bytes,
            "link {link}: the length in the capture, not the engine's"
        );
    }
}

#[test]
fn an_empty_capture_is_no_error() {
    let (text, error) = HOST.text(&Scene::default().pcap());
    assert!(error.is_none());
    assert_eq!(text, "");
    let (text, _) = Run { output: Format::Table, ..HOST }.text(&Scene::default().pcap());
    assert!(text.starts_with("TS  ORIGINATOR"), "{text}");
}

#[test]
fn tables_line_up() {
    let (text, _) = Run { output: Format::Table, ..HOST }.text(&scenes::tcp("ShADadFfA").pcap());
    assert_eq!(
        text,
        "TS                 ORIGINATOR      RESPONDER      PROTO  STATE  HISTORY   DURATION  PKTS  IP BYTES  TLS  VERDICT\n\
         1700000000.123456  10.0.0.1:40000  10.0.0.2:8080  tcp    SF     ShADadFf  0.007000  5/4   210/170   -    FORWARDED\n"
    );
    let (text, _) = Run { output: Format::Table, ..HOST }.packets().text(&scenes::tcp("Sr").pcap());
    assert_eq!(
        text,
        "     1 1700000000.123456 FORWARDED tcp 10.0.0.1:40000 -> 10.0.0.2:8080 S\n\
         \x20    2 1700000000.124456 FORWARDED tcp 10.0.0.2:8080 -> 10.0.0.1:40000 RA ESTABLISHED\n"
    );
}
