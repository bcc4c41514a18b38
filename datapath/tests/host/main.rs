//! The fixture table, run by the native path.

mod engine;
mod epochs;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod refusing;

use datapath::abi::packet::Trace;
use datapath::abi::{Action, Config, Direction, Interface, Packet, Reason, Settled};
use datapath::frame::{BufferFrame, SliceFrame};
use datapath::lane::{self, Lane};
use datapath::weight::{Gso, Weight};
use datapath::wire::{self, eth};
use engine::{HostEngine, Segmented};
use fixtures::{Engine, Setup};

#[test]
fn every_fixture_on_the_native_path() {
    let rows = fixtures::all();
    println!("{} rows", rows.len());
    assert!(rows.len() >= 400, "only {} rows", rows.len());
    let mut failed = Vec::new();
    let mut storms = 0;
    for fixture in &rows {
        let run = || fixtures::run(fixture, &mut HostEngine::new());
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(ran) => storms += u32::from(ran.not_sent != 0),
            Err(_) => failed.push(fixture.name),
        }
    }
    assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), rows.len());
    assert!(storms >= 400, "of {storms} rows alone some event was not sent");
}

#[test]
fn a_candidate_policy_changes_no_verdict_and_is_counted() {
    fixtures::shadow::counts_what_would_change(&mut HostEngine::new());
}

#[test]
fn stages_of_handshakes_last_as_long_as_they_did() {
    fixtures::tls::stages_last_as_long_as_they_did(&mut HostEngine::new());
}

#[test]
fn nobody_else_speaks_for_a_failsafe_service() {
    for direction in [Direction::Ingress, Direction::Egress] {
        let mut engine = HostEngine { direction, ..HostEngine::new() };
        fixtures::guards::nobody_else_speaks_for_a_failsafe_service(&mut engine, direction);
    }
}

/// Not even where somebody was quicker to say so.
#[test]
fn what_a_failsafe_service_says_passes_whoever_has_said_it_before() {
    let mut engine = HostEngine::new();
    let said = fixtures::frames::Talk::new().s("PA", b"ssh").steps.remove(0).frame;
    for traced in [true, false] {
        engine.prepare(&fixtures::guards::failsafe_service(), traced);
        for (direction, is_dropped) in [(Direction::Ingress, true), (Direction::Egress, false)] {
            engine.direction = direction;
            engine.judge(&said, fixtures::START);
            assert_eq!(engine.dropped(), is_dropped, "{direction:?}");
        }
    }
}

/// Who is answered once may not have asked: only who goes on is among the answered.
#[test]
fn datagrams_are_among_the_answered_when_their_originator_goes_on_after_the_answer() {
    use fixtures::{MS, S, START, frames::udp};
    let question = udp(true, (5000, 53_000), b"question");
    let answer = udp(false, (53_000, 5000), b"answer");
    let places = |packets: &[(&[u8], u64)]| {
        let mut engine = HostEngine::new();
        engine.prepare(&fixtures::open_gateway(), true);
        for (frame, after_ns) in packets {
            engine.judge(frame, START + after_ns);
        }
        (engine.plane.half_open.entries.len(), engine.plane.connections.entries.len())
    };
    assert_eq!(places(&[(&question, 0), (&answer, MS)]), (1, 0));
    assert_eq!(places(&[(&question, 0), (&answer, MS), (&answer, 2 * MS)]), (1, 0));
    assert_eq!(places(&[(&question, 0), (&answer, MS), (&question, 2 * MS)]), (0, 1));
    // One that asks twice before it is answered, and is settled until then.
    let asked_twice = [(&question[..], 0), (&question, MS), (&answer, 2 * MS)];
    assert_eq!(places(&asked_twice), (1, 0));
    assert_eq!(places(&[&asked_twice[..], &[(&question, 3 * MS)]].concat()), (0, 1));
    // A stream that nobody asks for again: it is settled, and looked at again some time later.
    assert_eq!(places(&[(&question, 0), (&answer, MS), (&answer, 20 * S)]), (0, 1));
}

#[test]
fn fragments_of_the_blocked_and_the_denied_are_not_remembered() {
    use fixtures::frames::{fragments, udp};
    let first = &fragments(&udp(true, (5000, 53), &[7; 64]), 24)[0];
    let mut engine = HostEngine::new();
    let mut remembered = |setup: &Setup| {
        engine.prepare(setup, true);
        engine.judge(first, fixtures::START);
        engine.plane.fragments.entries.len()
    };
    assert_eq!(remembered(&fixtures::open_gateway()), 1);
    assert_eq!(remembered(&fixtures::policy::identities()), 0);
    let block = datapath::abi::Block { rule: 7, guards: 0, not_after_ns: datapath::abi::NEVER };
    let source = datapath::abi::Addr::v4(fixtures::frames::CLIENT);
    let blocklist = vec![(source, 128, block)];
    assert_eq!(remembered(&Setup { blocklist, ..fixtures::open_gateway() }), 0);
}

#[test]
fn frames_of_many_segments_count_for_what_the_wire_carries() {
    fixtures::segments::count_for_what_the_wire_carries(&mut HostEngine::new());
}

#[test]
fn frames_of_many_segments_take_a_packet_each_of_a_rate() {
    fixtures::segments::take_a_packet_each_of_a_rate(&mut HostEngine::new());
}

/// Interface 1 is in monitor mode, the gateway enforces; a connection has a side on each.
#[test]
fn each_packet_has_the_verdict_of_the_interface_by_which_it_enters() {
    let denied = |action| (action, Reason::PolicyDenied);
    let setup = Setup {
        flags: Config::ENFORCE | Config::BY_INTERFACE,
        interface: Some(Interface { mask: Config::ENFORCE, ..Interface::NONE }),
        ..fixtures::policy::identities()
    };
    let talk = fixtures::frames::Talk::new().handshake().c("PA", b"1").s("PA", b"2").c("PA", b"3").steps;
    for traced in [true, false] {
        let mut engine = HostEngine::new();
        engine.prepare(&setup, traced);
        for (n, step) in talk.iter().chain(&talk[3..]).enumerate() {
            let from_client = step.frame[29] == 2 && step.frame[27] == 1;
            engine.ifindex = if from_client { 1 } else { 2 };
            let trace = engine.judge(&step.frame, fixtures::START);
            let wanted = denied(if from_client { Action::Audit } else { Action::Dropped });
            assert_eq!((trace.action(), trace.reason()), wanted, "packet {n}");
            assert_eq!(engine.dropped(), !from_client, "packet {n}");
        }
    }
}

#[test]
fn every_fixture_has_a_name_of_its_own() {
    let mut names: Vec<_> = fixtures::all().iter().map(|fixture| fixture.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
    // What the project promises of the table that is run three ways.
    assert!(all >= 200, "{all} fixtures");
}

/// The reasons that no fixture can bring about, each with why.
const OUT_OF_REACH: [Reason; 3] = [
    Reason::NoConfiguration, // refusing.rs: no engine is without one
    Reason::JudgedAtIngress, // TC says it for what came in by XDP
    Reason::Redirected, // XDP says it of the interface by which it sends: loader/tests/gateway/forward.rs
];

#[test]
fn every_reason_has_a_fixture() {
    let mut seen: Vec<Reason> =
        fixtures::all().iter().flat_map(|f| f.steps.iter().map(|s| s.reason)).chain(OUT_OF_REACH).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, Reason::ALL);
}

#[test]
fn a_settled_flow_is_answered_from_its_record() {
    use fixtures::frames::Talk;
    let talk = Talk::new().handshake().c("PA", b"GET /").s("PA", b"200").c("A", b"").s("A", b"");
    let talk = talk.c("PA", b"GET /again").s("PA", b"200 again").c("A", b"").s("A", b"");
    let mut engine = HostEngine::new();
    engine.prepare(&fixtures::open_gateway(), true);
    let settled: Vec<u8> =
        talk.steps.iter().map(|step| engine.judge(&step.frame, step.at_ns).settled).collect();
    // Handshake, first data and first bare ACK of each side have something to tell; nothing after them has.
    assert_eq!(settled, [0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1]);
}

#[test]
fn a_connection_whose_flow_record_is_gone_is_idle_by_its_own_time() {
    use fixtures::{START, frames::udp};
    const HOUR: u64 = 3600 * fixtures::S;
    let mut engine = HostEngine::new();
    engine.prepare(&fixtures::open_gateway(), true);
    let frame = udp(true, (5000, 53), b"question");
    engine.judge(&frame, START);
    engine.plane.slots.slots.fill(bytemuck::Zeroable::zeroed());
    engine.plane.spill.entries.clear();
    engine.judge(&frame, START + HOUR);
    let opened: Vec<u64> = engine.connections().iter().map(|(_, conn)| conn.opened_ns).collect();
    assert_eq!(opened, [START + HOUR]);
}

#[test]
fn the_fast_lane_reads_what_the_parser_reads() {
    let mut lanes = 0;
    for fixture in fixtures::all() {
        for step in &fixture.steps {
            lanes += u32::from(agrees(&step.frame));
            // Every byte of the headers, turned over in every bit.
            for at in 12..step.frame.len().min(80) {
                for bit in 0..8 {
                    let mut frame = step.frame.clone();
                    frame[at] ^= 1 << bit;
                    agrees(&frame);
                }
            }
            for len in 0..step.frame.len() {
                agrees(&step.frame[..len]);
            }
        }
    }
    assert!(lanes > 60, "only {lanes} frames took the lane");
}

#[test]
fn plain_packets_are_read_as_the_parser_reads_them() {
    let mut plain = 0;
    for fixture in fixtures::all() {
        for step in &fixture.steps {
            plain += u32::from(is_read_alike(&step.frame));
            for at in 12..step.frame.len().min(90) {
                for bit in 0..8 {
                    let mut frame = step.frame.clone();
                    frame[at] ^= 1 << bit;
                    is_read_alike(&frame);
                }
            }
            for len in 0..step.frame.len() {
                is_read_alike(&step.frame[..len]);
            }
        }
    }
    assert!(plain > 1000, "only {plain} frames are plain");
}

/// Nobody counted the segments.
const HALVES: Gso = Gso { segments: 0, size: 10 };

/// Whether the frame is plain; all that was read of it must then be what the parser reads.
fn is_read_alike(frame: &[u8]) -> bool {
    let view = Segmented { bytes: SliceFrame { bytes: frame, ifindex: 1 }, gso: HALVES };
    let (mut plain, mut parsed) = (Packet::default(), Packet::default());
    if !wire::plain::read(&view, &mut plain) {
        return false;
    }
    let read = (wire::tcp::announced(&view, &mut plain), plain);
    assert_eq!(read, (wire::parse(&view, &mut parsed), parsed), "{frame:02x?}");
    true
}

/// Whether the frame takes the lane; it must then say what the parser says.
fn agrees(frame: &[u8]) -> bool {
    let view = Segmented { bytes: SliceFrame { bytes: frame, ifindex: 1 }, gso: HALVES };
    let lane = match lane::link(&view) {
        Some((eth::IPV4, at)) => lane::ipv4(&view, at),
        Some((eth::IPV6, at)) => lane::ipv6(&view, at),
        _ => None,
    };
    let Some(lane) = lane else {
        return false;
    };
    let mut packet = Packet::default();
    assert_eq!(wire::parse(&view, &mut packet), Ok(()), "{frame:02x?}");
    let flag = |bits| packet.flag(bits);
    let plain_tcp =
        packet.has(Packet::HAS_TCP) && flag(Packet::ACK) && !flag(Packet::SYN | Packet::FIN | Packet::RST);
    let plain_syn = packet.has(Packet::HAS_TCP)
        && flag(Packet::SYN)
        && !flag(Packet::ACK | Packet::FIN | Packet::RST)
        && packet.payload_bytes == 0;
    let kinds = match packet.has(Packet::HAS_TCP) {
        true if plain_syn => Settled::CONTROL,
        true if packet.payload_bytes == 0 => Settled::ACK,
        _ => Settled::DATA,
    };
    assert!(plain_tcp || plain_syn || packet.key.proto == 17, "{frame:02x?}");
    assert_eq!(packet.has & Packet::IS_FRAGMENT, 0, "{frame:02x?}");
    assert_eq!(
        lane,
        Lane {
            key: packet.key,
            side: packet.side(),
            kinds,
            weight: Weight::of(&packet),
            l3_offset: packet.l3_offset
        },
        "{frame:02x?}"
    );
    true
}

#[test]
fn a_bucket_that_threads_share_gives_what_it_holds_and_no_more() {
    use datapath::abi::Rate;
    use datapath::limits::{Claim, take};
    use std::sync::atomic::{AtomicU64, Ordering};

    let (full_ns, taken) = (AtomicU64::new(0), AtomicU64::new(0));
    let rate = Rate::new(1_000_000, fixtures::S, 50_000);
    let claim = Claim { now_ns: fixtures::START, cost_ns: rate.cost_ns(1), burst_ns: rate.burst_ns };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // A claim that lost its races is made again: there is more than enough to go round.
                for _ in 0..200_000 {
                    taken.fetch_add(u64::from(take(&&full_ns, &claim)), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(taken.into_inner(), 50_000);
    assert_eq!(full_ns.into_inner(), fixtures::START + rate.burst_ns);
}

/// What the native path answers a frame with.
fn answered(engine: &mut HostEngine, frame: &[u8]) -> Option<Vec<u8>> {
    let trace = engine.judge(frame, fixtures::START);
    assert!(engine.dropped());
    let mut buffer = BufferFrame { bytes: frame.to_vec(), ifindex: 1 };
    datapath::reject::answer(&mut buffer, &mut engine.plane, &trace).then_some(buffer.bytes)
}

#[test]
fn rejected_packets_are_answered_to_the_byte() {
    let mut engine = HostEngine::new();
    for case in fixtures::reject::cases() {
        engine.prepare(&fixtures::reject::rejecting(), true);
        assert_eq!(answered(&mut engine, &case.frame), case.answer, "{}", case.name);
        let answers = engine.plane.sink.ports.get(&1).map_or([0; 2], |port| port.answers);
        assert_eq!(answers.iter().sum::<u64>(), u64::from(case.answer.is_some()), "{}", case.name);
    }
}

#[test]
fn answers_are_bounded() {
    let mut engine = HostEngine::new();
    engine.prepare(&fixtures::reject::rejecting_rule(), true);
    let syn = fixtures::reject::syn().frame;
    let answers = (0..fixtures::reject::PER_SECOND + 50).filter(|_| answered(&mut engine, &syn).is_some());
    assert_eq!(answers.count(), fixtures::reject::PER_SECOND);
    assert_eq!(engine.plane.sink.ports[&1].answers, [fixtures::reject::PER_SECOND as u64, 0]);
}

#[test]
fn what_an_identity_is_over_names_its_limit() {
    use fixtures::identity_limits::{LIMIT, attempts, syn};
    let mut engine = HostEngine::new();
    engine.prepare(&attempts(1), true);
    let dropped = (Action::Dropped, Reason::TooManyAttempts);
    let traces: Vec<Trace> = [(1, (Action::Forwarded, Reason::Forwarded)), (2, dropped)]
        .into_iter()
        .flat_map(|(port, verdict)| syn(port, 0, verdict))
        .map(|step| engine.judge(&step.frame, step.at_ns))
        .collect();
    assert_eq!(traces.iter().map(|t| t.rule).collect::<Vec<_>>(), [42, LIMIT]);
    let told: Vec<(u32, u8)> = engine.plane.sink.events.iter().map(|e| (e.rule, e.reason)).collect();
    assert_eq!(told, [(42, Reason::Forwarded as u8), (LIMIT, Reason::TooManyAttempts as u8)]);
}
