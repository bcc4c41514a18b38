//! The reader on files that are built byte by byte here.

use super::*;

/// A file in one byte order.
struct File(Order, Vec<u8>);

impl File {
    fn u16(mut self, n: u16) -> Self {
        self.1.extend(if self.0 == Order::Little { n.to_le_bytes() } else { n.to_be_bytes() });
        self
    }
    fn u32(mut self, n: u32) -> Self {
        self.1.extend(if self.0 == Order::Little { n.to_le_bytes() } else { n.to_be_bytes() });
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.1.extend(bytes);
        self
    }
    fn pcap(order: Order, magic: u32, link: u32) -> Self {
        Self(order, Vec::new()).u32(magic).u16(2).u16(4).u32(0).u32(0).u32(65535).u32(link)
    }
    fn record(self, seconds: u32, fraction: u32, data: &[u8], wire: u32) -> Self {
        self.u32(seconds).u32(fraction).u32(data.len() as u32).u32(wire).bytes(data)
    }
    fn block(self, kind: u32, body: &[u8]) -> Self {
        let padding = body.len().next_multiple_of(4) - body.len();
        let length = (12 + body.len() + padding) as u32;
        self.u32(kind).u32(length).bytes(body).bytes(&[0; 3][..padding]).u32(length)
    }
    fn pcapng(order: Order) -> Self {
        let body = Self(order, Vec::new()).u32(0x1a2b_3c4d).u16(1).u16(0).u32(!0).u32(!0);
        Self(order, Vec::new()).block(0x0a0d_0d0a, &body.1)
    }
    fn interface(self, link: u16, snap: u32, options: &[u8]) -> Self {
        let body = Self(self.0, Vec::new()).u16(link).u16(0).u32(snap).bytes(options);
        self.block(1, &body.1)
    }
    fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
        let option = Self(order, Vec::new()).u16(code).u16(value.len() as u16).bytes(value);
        let padding = value.len().next_multiple_of(4) - value.len();
        option.bytes(&[0; 3][..padding]).1
    }
    fn enhanced(self, interface: u32, timestamp: u64, data: &[u8], wire: u32) -> Self {
        let body =
            Self(self.0, Vec::new()).u32(interface).u32((timestamp >> 32) as u32).u32(timestamp as u32);
        let body = body.u32(data.len() as u32).u32(wire).bytes(data);
        self.block(6, &body.1)
    }
}

fn read(file: &[u8]) -> (Vec<CapturedFrame>, Option<CaptureError>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::open(file) {
        Ok(capture) => capture,
        Err(error) => return (frames, Some(error)),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

fn frame(number: u64, time_ns: u64, link: u32, wire_bytes: u32, data: &[u8]) -> CapturedFrame {
    CapturedFrame { number, time_ns, link: LinkType(link), wire_bytes, data: data.to_vec() }
}

#[test]
fn pcap_is_read_in_both_orders_and_resolutions() {
    for order in [Order::Little, Order::Big] {
        for (magic, time_ns) in [(0xa1b2_c3d4, 5_000_007_000), (0xa1b2_3c4d, 5_000_000_007)] {
            let file = File::pcap(order, magic, 101).record(5, 7, &[1, 2, 3], 9).record(6, 0, &[], 0).1;
            let (frames, error) = read(&file);
            assert!(error.is_none());
            assert_eq!(frames, [frame(1, time_ns, 101, 9, &[1, 2, 3]), frame(2, 6_000_000_000, 101, 0, &[])]);
        }
        let file = File::pcap(order, 0xa1b2_cd34, 1).u32(1).u32(2).u32(2).u32(60);
        let (frames, error) = read(&file.bytes(&[0xee; 8]).bytes(&[8, 9]).1);
        assert!(error.is_none());
        assert_eq!(frames, [frame(1, 1_000_002_000, 1, 60, &[8, 9])]);
    }
}

#[test]
fn the_upper_bits_of_a_pcap_link_type_are_no_part_of_it() {
    let file = File::pcap(Order::Little, 0xa1b2_c3d4, 0x4400_0001).1;
    assert_eq!(Capture::open(&file[..]).unwrap().link(), Some(LinkType(1)));
}

#[test]
fn every_cut_of_a_pcap_yields_the_whole_packets_and_says_where_it_ends() {
    let file =
        File::pcap(Order::Little, 0xa1b2_c3d4, 1).record(1, 0, &[1; 10], 10).record(2, 0, &[2; 20], 20).1;
    for cut in 0..file.len() {
        let (frames, error) = read(&file[..cut]);
        assert_eq!(frames.len(), usize::from(cut >= 50), "cut at {cut}");
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        match cut {
            0..4 => assert!(error.starts_with("not a capture: "), "{cut}: {error}"),
            24 | 50 => assert_eq!(error, ""),
            _ => assert!(
                error.starts_with(&format!("the capture is cut off at byte {cut}: ")),
                "{cut}: {error}"
            ),
        }
    }
    let (_, error) = read(&file[..60]);
    assert_eq!(
        error.unwrap().to_string(),
        "the capture is cut off at byte 60: the packet header at byte 50 is not whole"
    );
}

#[test]
fn a_length_beyond_reason_is_damage_and_allocates_nothing() {
    let file = File::pcap(Order::Little, 0xa1b2_c3d4, 1).u32(0).u32(0).u32(0xffff_fff0).u32(1).1;
    assert_eq!(
        read(&file).1.unwrap().to_string(),
        "the capture is damaged at byte 24: a packet of 4294967280 bytes is longer than any frame"
    );
}

#[test]
fn what_is_no_capture_is_said_to_be_none() {
    for (bytes, message) in [
        (&b""[..], "the file is empty"),
        (b"ab", "the file has 2 bytes"),
        (b"\x1f\x8b\x08\x00", "the file is compressed, run gunzip on it first"),
        (b"PK\x03\x04", "it begins with 0x504b0304"),
    ] {
        let error = read(bytes).1.unwrap().to_string();
        assert!(error.starts_with(&format!("not a capture: {message};")), "{error}");
    }
}

#[test]
fn pcapng_interfaces_have_their_own_link_resolution_and_offset() {
    for order in [Order::Little, Order::Big] {
        let nanoseconds = File::option(order, 9, &[9]);
        let halves = File::option(order, 9, &[0x81]);
        let offset = match order {
            Order::Little => File::option(order, 14, &(-2i64).to_le_bytes()),
            Order::Big => File::option(order, 14, &(-2i64).to_be_bytes()),
        };
        let file = File::pcapng(order)
            .interface(1, 0, &[])
            .interface(101, 0, &[nanoseconds, File::option(order, 0, &[])].concat())
            .interface(113, 0, &[File::option(order, 2, b"eth0"), offset, halves].concat())
            .block(0x0bad, &[1, 2, 3, 4])
            .enhanced(0, 1_500_000, &[1], 1)
            .enhanced(1, 1_500_000, &[2, 2, 2, 2, 2], 70)
            .enhanced(2, 7, &[3, 3], 2)
            .enhanced(2, 1, &[], 0);
        let (frames, error) = read(&file.1);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(
            frames,
            [
                frame(1, 1_500_000_000, 1, 1, &[1]),
                frame(2, 1_500_000, 101, 70, &[2, 2, 2, 2, 2]),
                frame(3, 1_500_000_000, 113, 2, &[3, 3]),
                frame(4, 0, 113, 0, &[]),
            ]
        );
    }
}

#[test]
fn simple_and_obsolete_packets_are_read() {
    let order = Order::Little;
    let obsolete = File(order, Vec::new()).u16(0).u16(!0).u32(0).u32(3_000_000).u32(2).u32(2).bytes(&[5, 6]);
    let simple = File(order, Vec::new()).u32(5).bytes(&[1, 2, 3, 4, 5]);
    let cut = File(order, Vec::new()).u32(90).bytes(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let file = File::pcapng(order).interface(1, 6, &[]);
    let file = file.block(2, &obsolete.1).block(3, &simple.1).block(3, &cut.1);
    let (frames, error) = read(&file.1);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(
        frames,
        [
            frame(1, 3_000_000_000, 1, 2, &[5, 6]),
            frame(2, 3_000_000_000, 1, 5, &[1, 2, 3, 4, 5]),
            frame(3, 3_000_000_000, 1, 90, &[1, 2, 3, 4, 5, 6]),
        ]
    );
}

#[test]
fn a_new_section_forgets_interfaces_and_may_turn_the_byte_order() {
    let file = File::pcapng(Order::Little).interface(1, 0, &[]).enhanced(0, 1, &[1], 1);
    let second = File::pcapng(Order::Big).interface(101, 0, &[]).enhanced(0, 2, &[2], 1);
    let (frames, error) = read(&[file.1.clone(), second.1].concat());
    assert!(error.is_none());
    assert_eq!(frames, [frame(1, 1000, 1, 1, &[1]), frame(2, 2000, 101, 1, &[2])]);

    let second = File::pcapng(Order::Big).enhanced(0, 2, &[2], 1);
    let (frames, error) = read(&[file.1, second.1].concat());
    assert_eq!(frames.len(), 1);
    let error = error.unwrap().to_string();
    assert!(error.ends_with("a packet of interface 0, which is not described"), "{error}");
}

#[test]
fn every_cut_of_a_pcapng_is_told_and_none_panics() {
    let file =
        File::pcapng(Order::Big).interface(1, 0, &[]).enhanced(0, 1, &[1; 9], 9).enhanced(0, 2, &[2; 5], 5).1;
    let ends = [28, 48, 92, 132];
    assert_eq!(file.len(), 132);
    for cut in 4..file.len() {
        let (frames, error) = read(&file[..cut]);
        assert_eq!(frames.len(), usize::from(cut >= 92), "cut at {cut}");
        assert_eq!(error.is_none(), ends.contains(&cut), "cut at {cut}: {error:?}");
    }
    assert_eq!(read(&file).0.len(), 2);
}

#[test]
fn hostile_pcapng_lengths_are_damage() {
    let order = Order::Little;
    let good = || File::pcapng(order).interface(1, 0, &[]);
    let longer_inside = File(order, Vec::new()).u32(0).u32(0).u32(0).u32(100).u32(100).bytes(&[1; 4]);
    let option = File(order, Vec::new()).u16(9).u16(400).1;
    for (file, message) in [
        (good().u32(6).u32(0xffff_fffc), "a block of 4294967292 bytes"),
        (good().u32(6).u32(8).u32(8), "a block of 8 bytes"),
        (good().u32(6).u32(33).u32(33), "a block of 33 bytes"),
        (good().u32(5).u32(16).u32(0).u32(20), "a block that says 16 bytes first and 20 last"),
        (good().block(6, &longer_inside.1), "a packet of 100 bytes in a block that is shorter"),
        (good().block(6, &[0; 16]), "a packet block without its fields"),
        (good().block(3, &[]), "a packet block without its fields"),
        (good().block(1, &[0; 4]), "an interface description without its fields"),
        (good().interface(1, 0, &option), "an interface option that is longer than its block"),
        (good().enhanced(7, 0, &[], 0), "a packet of interface 7, which is not described"),
    ] {
        assert_eq!(
            read(&file.1).1.unwrap().to_string(),
            format!("the capture is damaged at byte 48: {message}")
        );
    }
}
