//! What local workloads do, by the loaded programs: in cgroups that the test made.

mod cgroup;

use cgroup::{Cgroup, with_tracepoints};
use datapath::abi::{Did, HostEvent};
use loader::host::{HostCounts, HostWatch};
use std::time::Instant;

fn drained(events: &mut loader::maps::Events) -> Vec<HostEvent> {
    let mut all = Vec::new();
    events.drain(|bytes| all.push(bytemuck::pod_read_unaligned(bytes)));
    all
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn what_is_executed_and_connected_is_told_once_and_counted_with_cgroup2() {
    with_tracepoints();
    let (own, other) = (Cgroup::new("own"), Cgroup::new("other"));
    let below = own.below();
    let mut watch = HostWatch::load().unwrap();
    let id = watch.watch(&own.0).unwrap();
    let mut events = watch.events().unwrap();
    for _ in 0..3 {
        own.run("/bin/true");
        below.run("/bin/true");
        other.run("/bin/true");
    }
    let told = drained(&mut events);
    let [exec] = &told[..] else { panic!("one event, not {told:?}") };
    assert_eq!((exec.deed.did(), exec.deed.cgroup), (Some(Did::Exec), id));
    assert_eq!(std::str::from_utf8(exec.deed.name()), Ok("/bin/true"));
    assert!(exec.pid != 0 && exec.time_ns != 0);
    assert_eq!(watch.counts().unwrap(), HostCounts { seen: 6, told: 1, lost: 0 });
    // A datagram socket is given its peer: nothing is sent.
    for _ in 0..2 {
        own.run("exec 3<>/dev/udp/127.0.0.1/9");
        own.run("exec 3<>/dev/udp/::1/9");
        other.run("exec 3<>/dev/udp/127.0.0.1/9");
    }
    let told = drained(&mut events);
    let peers: Vec<_> =
        told.iter().map(|e| (e.deed.addr.to_ip().to_string(), e.deed.port, e.deed.proto)).collect();
    assert_eq!(peers, [("127.0.0.1".to_owned(), 9, 17), ("::1".to_owned(), 9, 17)]);
    assert!(told.iter().all(|e| e.deed.did() == Some(Did::Connect) && e.deed.name() == b"bash"), "{told:?}");
    assert_eq!(watch.counts().unwrap(), HostCounts { seen: 10, told: 3, lost: 0 });
    watch.forget();
    own.run("/bin/true");
    assert_eq!(drained(&mut events).len(), 1, "somebody has to hear of it again");
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn what_there_is_no_room_for_is_told_when_it_is_done_again_with_cgroup2() {
    with_tracepoints();
    let own = Cgroup::new("full");
    let mut watch = HostWatch::load().unwrap();
    watch.watch(&own.0).unwrap();
    let mut events = watch.events().unwrap();
    // Each to another port: 256 KiB have room for fewer.
    let connect = "for port in {1..1800}; do exec 3<>/dev/udp/127.0.0.1/$port; done";
    own.run(connect);
    let counts = watch.counts().unwrap();
    assert_eq!((counts.seen, counts.told + counts.lost), (1800, 1800));
    assert!(counts.lost > 0, "{counts:?}");
    assert_eq!(drained(&mut events).len() as u64, counts.told);
    own.run(connect);
    assert_eq!(drained(&mut events).len() as u64, counts.lost);
    assert_eq!(watch.counts().unwrap(), HostCounts { seen: 3600, told: 1800, lost: counts.lost });
}

/// Says what it costs, as a ratio; fails on no time.
#[test]
#[ignore = "needs root: loads BPF programs"]
fn the_cost_of_watching_with_cgroup2() {
    with_tracepoints();
    let (own, other) = (Cgroup::new("cost"), Cgroup::new("beside"));
    let script = "for i in {1..200}; do /bin/true; done";
    let time = |cgroup: &Cgroup| {
        let began = Instant::now();
        cgroup.run(script);
        began.elapsed().as_secs_f64()
    };
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for _ in 0..9 {
        rounds[0].push(time(&own));
        let mut watch = HostWatch::load().unwrap();
        watch.watch(&own.0).unwrap();
        rounds[1].push(time(&own));
        rounds[2].push(time(&other));
    }
    let [without, watched, beside] = rounds.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    assert!(without > 0.0);
    eprintln!(
        "200 programs executed, the middle of 9 rounds: in a watched cgroup {:.3} times, in one beside {:.3} times what it takes without",
        watched / without,
        beside / without
    );
}
