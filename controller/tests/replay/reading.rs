//! Captures that do not hold all that was on the wire, and what a replay sees beyond the programs.

use super::build::{Scene, Tcp, client_hello, fragments, message, record, udp};
use super::run::{HOST, summary};
use serde_json::json;

/// Frames, each with its length in the capture.
fn cut(scene: &Scene, captured: impl Fn(usize) -> usize) -> Vec<u8> {
    let whole = scene.pcap();
    let (mut file, mut rest) = (whole[..24].to_vec(), &whole[24..]);
    while let Some((header, behind)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let kept = captured(length).min(length);
        file.extend(&header[..8]);
        file.extend((kept as u32).to_le_bytes());
        file.extend(&header[12..]);
        file.extend(&behind[..kept]);
        rest = &behind[length..];
    }
    file
}

fn summaries(capture: &[u8]) -> Vec<String> {
    HOST.records(capture).iter().map(summary).collect()
}

fn histories(frames: Vec<Vec<u8>>) -> Vec<String> {
    let records = HOST.checked().records(&Scene::default().frames(frames).pcap());
    records.iter().map(|r| r["history"].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn frames_that_were_cut_behind_their_headers_are_judged_at_their_length_on_the_wire() {
    let scene = Scene::default().frames(Tcp::to(8080).play("ShADadFfA"));
    let expected = summaries(&scene.pcap());
    assert_eq!(expected, ["tcp 10.0.0.1:40000>10.0.0.2:8080 SF ShADadFf 5/4 210/170 - FORWARDED"]);
    assert_eq!(summaries(&cut(&scene, |_| 64)), expected);
    // What is acknowledged and not in the capture is a gap, of either side.
    let missing = ["tcp 10.0.0.1:40000>10.0.0.2:8080 SF ShADaGdFgf 5/4 210/170 - FORWARDED"];
    for captured in [54, 55, 63] {
        assert_eq!(summaries(&cut(&scene, |_| captured)), missing, "{captured}");
    }
    // Without its ports a packet is nobody's.
    assert_eq!(HOST.packets().records(&cut(&scene, |_| 53))[0]["reason"], json!("IPV4_PACKET_CUT_OFF"));
}

#[test]
fn a_hello_that_was_cut_is_partial_and_zeros_are_no_part_of_it() {
    let mut tcp = Tcp::to(443);
    let mut frames = tcp.play("ShA");
    frames.push(tcp.send(true, &record(22, &message(1, &client_hello("shop.example", &[])))));
    let whole = HOST.records(&Scene::default().frames(frames.clone()).pcap()).remove(0);
    assert_eq!((&whole["tls_sni"], &whole["tls_hello_partial"]), (&json!("shop.example"), &json!(false)));
    let scene = Scene::default().frames(frames);
    let end = scene.frames[3].1.len();
    for captured in [end - 1, 100, 60] {
        let cut = HOST.records(&cut(&scene, |_| captured)).remove(0);
        assert_eq!((&cut["tls_hello_partial"], &cut["tls_ja4"]), (&json!(true), &json!(null)), "{captured}");
        assert_eq!(cut["orig_ip_bytes"], whole["orig_ip_bytes"]);
    }
}

#[test]
fn a_datagram_that_is_put_together_counts_once() {
    let parts = fragments(&udp(true, &[7; 120]), 48, 9);
    let capture = Scene::default().frames(parts.clone()).pcap();
    assert_eq!(summaries(&capture), ["udp 10.0.0.1:5000>10.0.0.2:53 S0 D 3/0 188/0 - FORWARDED"]);
    let read =
        |capture: &[u8]| -> Vec<String> { HOST.like_zeek().records(capture).iter().map(summary).collect() };
    let whole = ["udp 10.0.0.1:5000>10.0.0.2:53 S0 D 1/0 148/0 - FORWARDED"];
    assert_eq!(read(&capture), whole);
    let backwards = Scene::default().frames(parts.iter().rev().cloned()).pcap();
    assert_eq!(read(&backwards), whole);
    assert!(read(&Scene::default().frames(parts[1..].to_vec()).pcap()).is_empty());
}

#[test]
fn a_length_that_was_left_to_the_card_counts_as_the_frames_or_as_the_headers() {
    let mut tcp = Tcp::to(8080);
    let mut frames = tcp.play("ShAD");
    frames[3][16..18].copy_from_slice(&[0, 0]);
    let capture = Scene::default().frames(frames).pcap();
    assert_eq!(summaries(&capture), ["tcp 10.0.0.1:40000>10.0.0.2:8080 S1 ShAD 3/1 130/40 - FORWARDED"]);
    let records = HOST.like_zeek().records(&capture);
    assert_eq!(
        records.iter().map(summary).collect::<Vec<_>>(),
        ["tcp 10.0.0.1:40000>10.0.0.2:8080 S1 ShAD 3/1 80/40 - FORWARDED"]
    );
}

#[test]
fn data_that_comes_again_is_a_letter_at_the_first_tenth_and_hundredth_time() {
    for (times, letters) in [(0, ""), (1, "T"), (9, "T"), (10, "TT"), (99, "TT"), (100, "TTT")] {
        let mut tcp = Tcp::to(8080);
        let mut frames = tcp.play("ShADa");
        frames.extend(vec![frames[3].clone(); times]);
        frames.extend(tcp.play("d"));
        assert_eq!(histories(frames), [format!("ShADa{letters}d")], "{times}");
    }
}

#[test]
fn what_is_acknowledged_and_was_not_seen_is_a_gap() {
    let mut tcp = Tcp::to(8080);
    let mut frames = tcp.play("ShADDDDa");
    // Two holes; and what only came in another order is none.
    let seen = |order: &[usize]| order.iter().map(|n| frames[*n].clone()).collect::<Vec<_>>();
    assert_eq!(histories(seen(&[0, 1, 2, 3, 4, 5, 6, 7])), ["ShADa"]);
    assert_eq!(histories(seen(&[0, 1, 2, 6, 4, 3, 5, 7])), ["ShADTa"]);
    assert_eq!(histories(seen(&[0, 1, 2, 4, 6, 7])), ["ShADaG"]);
    assert_eq!(histories(seen(&[0, 1, 2, 3, 4, 5, 7])), ["ShADaG"]);
    frames.extend(tcp.play("dA"));
    let without = |n: usize| [&frames[..n], &frames[n + 1..]].concat();
    assert_eq!(histories(without(8)), ["ShADag"]);
    // In mid-stream nobody knows where the stream began.
    assert_eq!(histories(frames[3..].to_vec()), ["DadA"]);
}

#[test]
fn a_window_of_nothing_is_a_letter_unless_its_sender_resets() {
    let mut tcp = Tcp::to(8080);
    let mut frames = tcp.play("ShADaR");
    for n in [4, 5] {
        frames[n][48..50].copy_from_slice(&[0, 0]);
        frames[n][50..52].copy_from_slice(&[0, 0]);
        let sum = tcp_checksum(&frames[n]);
        frames[n][50..52].copy_from_slice(&sum.to_be_bytes());
    }
    assert_eq!(histories(frames), ["ShADawR"]);
}

#[test]
fn a_wrong_checksum_is_a_letter_where_checksums_are_looked_at() {
    let mut tcp = Tcp::to(8080);
    let mut frames = tcp.play("ShAD");
    frames[3][50] ^= 1;
    frames.extend(tcp.play("d"));
    // The answer acknowledges it, so it came again unseen.
    assert_eq!(histories(frames.clone()), ["ShACdG"]);
    let unchecked = HOST.records(&Scene::default().frames(frames.clone()).pcap());
    assert_eq!(unchecked[0]["history"], json!("ShADd"));
    // Nothing else of a connection: it is told, and counts nothing.
    let alone = HOST.checked().records(&Scene::default().frame(frames.remove(3)).pcap());
    assert_eq!(
        alone.iter().map(summary).collect::<Vec<_>>(),
        ["tcp 10.0.0.1:40000>10.0.0.2:8080 OTH C 0/0 0/0 - DROPPED INVALID_PACKET_DROPPED"]
    );
}

#[test]
fn a_reset_or_a_fin_at_another_place_is_written_again() {
    let mut tcp = Tcp::to(8080);
    let mut frames = tcp.play("ShADR");
    frames.push(frames[4].clone());
    tcp.seq[0] += 1;
    frames.extend(tcp.play("R"));
    assert_eq!(histories(frames), ["ShADRR"]);
    let mut tcp = Tcp::to(8080);
    let mut frames = tcp.play("ShAF");
    frames.push(frames[3].clone());
    frames.extend(tcp.play("F"));
    assert_eq!(histories(frames), ["ShAFF"]);
}

fn tcp_checksum(frame: &[u8]) -> u16 {
    let (addresses, segment) = (&frame[26..34], &frame[34..]);
    let length = (segment.len() as u16).to_be_bytes();
    let words = [addresses, &[0, 6], &length, segment].concat();
    let pairs = words.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
