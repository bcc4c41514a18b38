//! Clients that are slow, huge, many or half open. Others are served meanwhile.

use crate::enrolment::{self, DOOR, ORDERS, enroll, pem, svid};
use crate::http::{answer, ask};
use crate::lab::{Lab, METRICS, until, until_within};
use crate::remote::{LISTEN, Mesh, of};
use authority::{Authority, Duration};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

const VIEWER: &str = "\
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: watchers}
spec: {role: viewer, subjects: [{user: '4201'}, {user: '4202'}]}
";

/// Whether the other end has closed, or reset, a connection that does not block.
fn is_closed(mut stream: impl Read) -> bool {
    match stream.read(&mut [0; 512]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
#[ignore = "needs root"]
fn slow_huge_and_many_requests_of_a_user_take_nothing_from_others() {
    let lab = Lab::new();
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let _daemon = lab.run(&["--api-roles", &lab.file("roles.yaml", VIEWER)]);
    let served = || {
        assert_eq!(lab.get("/v1/ping").0, 200, "root");
        assert_eq!(lab.get("/v1/status").0, 200, "root, from the maps");
        lab.as_user(4202, 4202, || assert_eq!(lab.get("/v1/ping").0, 200, "another user"));
    };
    // Heads that never end: as many connections as one user can have, and one more.
    let slow: Vec<UnixStream> = lab.as_user(4201, 4201, || {
        let open = |n: usize| {
            let mut stream = lab.connect();
            stream
                .write_all(format!("GET /v1/ping?{n} HTTP/1.1\r\nhost: gw\r\nx-slow: ").as_bytes())
                .unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        };
        (0..32).map(open).collect()
    });
    let busy = lab.as_user(4201, 4201, || lab.get("/v1/ping"));
    assert_eq!((busy.0, &busy.1["code"]), (503, &Value::from("busy")));
    served();
    // They are closed by time, although each goes on to send.
    until(|| {
        slow.iter().for_each(|mut stream| drop(stream.write(b"x")));
        slow.iter().all(is_closed)
    });
    drop(slow);
    until(|| lab.as_user(4201, 4201, || lab.get("/v1/ping").0 == 200));

    // Heads that are too long, or have too many fields, end with their connection.
    let long = format!("x-long: {}\r\n", "x".repeat(1 << 20));
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    for head in [&long, &many] {
        let (status, _) = lab.as_user(4201, 4201, || ask(lab.connect(), "GET", "/v1/ping", head, b""));
        assert!(status == 431 || status == 0, "{status}");
    }
    // A body is not read of who may not send it, and only so much of who may.
    let zeros = vec![b'0'; 1 << 20];
    let json = "content-type: application/json\r\n";
    let refused = lab.as_user(4201, 4201, || ask(lab.connect(), "POST", "/v1/policy", json, &zeros));
    assert!(refused.0 == 403 || refused.0 == 0, "{refused:?}");
    // A body that never comes is not waited for.
    let mut half = lab.connect();
    half.write_all(b"POST /v1/block HTTP/1.1\r\nhost: gw\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{").unwrap();
    served();
    half.set_read_timeout(None).unwrap();
    let mut text = [0; 12];
    half.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"HTTP/1.1 408");
    served();
}

/// Connections to the gateway from many addresses of its own loopback.
fn half_open(lab: &Lab, to: &str, count: usize, hello: &[u8]) -> Vec<std::net::TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    let open = |n: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from = [127, 1, (n / 100) as u8, (n % 100) as u8 + 1];
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let mut stream = std::net::TcpStream::from(socket);
        let _ = stream.write_all(hello);
        stream.set_nonblocking(true).unwrap();
        stream
    };
    lab.in_gateway_thread(|| (0..count).map(open).collect())
}

#[test]
#[ignore = "needs root"]
fn handshakes_that_are_never_finished_keep_nobody_out() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let _daemon = mesh.run();
    let watcher = mesh.client("watcher", "spiffe://acme.example/ns/watch/dashboard");
    lab.ok(&of(&watcher, &["status"]));
    // Nothing at all, or the header of a ClientHello that does not come.
    for hello in [&b""[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]] {
        let attack = half_open(&lab, LISTEN, 600, hello);
        lab.ok(&of(&watcher, &["status"]));
        // So many wait at once; the others had to give way, and the rest do in time.
        until(|| attack.iter().filter(|stream| is_closed(*stream)).count() >= 600 - 256);
        lab.ok(&of(&watcher, &["status"]));
        until(|| attack.iter().all(is_closed));
    }
    // No TLS at all is closed at once, and told nothing.
    let plain = lab.in_gateway_thread(|| {
        let mut stream = std::net::TcpStream::connect(LISTEN).unwrap();
        stream.write_all(b"GET /v1/ping HTTP/1.1\r\nhost: gw\r\n\r\n").unwrap();
        answer(stream)
    });
    assert_eq!(plain, (0, Value::Null));
}

#[test]
#[ignore = "needs root"]
fn clients_that_do_not_go_on_after_the_handshake_fill_their_own_share_and_are_ended_by_time() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let _daemon = mesh.run();
    let watch = |name: &str| format!("spiffe://acme.example/ns/watch/{name}");
    let other = mesh.dialer("other", &watch("other"));
    let served = || {
        lab.in_gateway_thread(|| {
            for path in ["/v1/ping", "/v1/status"] {
                assert_eq!(ask(other.dial(), "GET", path, "", b"").0, 200, "{path}");
            }
        });
        assert_eq!(lab.get("/v1/ping").0, 200, "root");
    };
    // Heads that never end; bodies that never come, of who may send one; answers and a stream that nobody reads.
    let head = b"GET /v1/ping HTTP/1.1\r\nhost: gw\r\nx-slow: ".to_vec();
    let body = b"POST /v1/block HTTP/1.1\r\nhost: gw\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    let document = b"GET /v1/openapi.json HTTP/1.1\r\nhost: gw\r\n\r\n".repeat(200);
    let stream = b"GET /v1/observe?follow=true HTTP/1.1\r\nhost: gw\r\n\r\n";
    let unread = [&document[..], stream].concat();
    let attackers = [
        ("slow-head", watch("slow-head"), head),
        ("slow-body", "spiffe://acme.example/ns/ops/oncall".to_owned(), body.to_vec()),
        ("unread", watch("unread"), unread),
    ];
    let attacks: Vec<_> = attackers
        .iter()
        .map(|(name, id, sent)| {
            let dialer = mesh.dialer(name, id);
            let open = |_| {
                let mut tls = dialer.dial();
                // Who reads nothing can send only so much itself.
                tls.sock.set_write_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
                let _ = tls.write_all(sent);
                tls
            };
            let open: Vec<_> = lab.in_gateway_thread(|| (0..32).map(open).collect());
            (*name, dialer, open)
        })
        .collect();
    let status = |dialer: &crate::remote::Dialer| {
        lab.in_gateway_thread(|| ask(dialer.dial(), "GET", "/v1/ping", "", b"").0)
    };
    for (name, dialer, _) in &attacks {
        assert_eq!(status(dialer), 503, "{name} has its share and no more");
    }
    served();
    // All of them stay open at this end, and are ended at the other.
    for (name, dialer, open) in &attacks {
        until_within(90, || {
            served();
            status(dialer) == 200
        });
        assert_eq!(open.len(), 32, "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn who_enrols_is_not_kept_out_by_who_does_not_go_on() {
    let (lab, acme, partner) = (Lab::new(), Authority::new("acme").unwrap(), Authority::new("p").unwrap());
    let options = ["--enroll-from", "10.1.0.0/24", "--enroll-from", "127.1.0.0/21"];
    let _daemon = enrolment::gateway(&lab, &acme, &partner, &options);
    let orders = pem(&lab, "orders", &svid(&acme, ORDERS, Duration::hours(1)), &[("acme.example", &acme)]);
    // 800 from where workloads are and 400 from elsewhere: more than there is room for. They give way to who comes later.
    let attack = half_open(&lab, DOOR, 1200, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    let (code, said) = enroll(&lab, &orders);
    assert_eq!(code, 0, "{said}");
    let (inside, elsewhere) = attack.split_at(800);
    let closed = |streams: &[std::net::TcpStream]| streams.iter().filter(|stream| is_closed(*stream)).count();
    until(|| closed(inside) >= 800 - 512 && closed(elsewhere) >= 400 - 64);
    until(|| closed(&attack) == 1200);
    let refused = "tidegate_enrolment_refused_total{reason=\"slow\"}";
    until(|| enrolment::metric(&lab, refused) == 1200);
}

#[test]
#[ignore = "needs root"]
fn who_opens_many_connections_to_the_metrics_locks_nobody_out_of_the_gateway() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own }).expect("more files for this test");
    let lab = Lab::new();
    let daemon = lab.run(&["--metrics", METRICS]);
    daemon.limit_files(1024);
    let served = || {
        lab.ok(&["block", "add", "192.0.2.1"]);
        assert_eq!(lab.get("/v1/ping").0, 200);
        assert!(lab.metrics().contains("tidegate_policy_revision"));
    };
    served();
    // Idle, or with a head that goes on for ever: from as many addresses as there are connections.
    for head in [&b""[..], b"GET /metrics HTTP/1.1\r\nhost: gw\r\nx-slow: "] {
        let attack = half_open(&lab, METRICS, 1500, head);
        served();
        until(|| attack.iter().filter(|stream| is_closed(*stream)).count() >= 1500 - 64);
        served();
        until(|| attack.iter().all(is_closed));
    }
    // From one address, which has a share and no more.
    let greedy = lab.in_gateway_thread(|| {
        let open = |_| std::net::TcpStream::connect(METRICS).unwrap();
        (0..20).map(open).inspect(|stream| stream.set_nonblocking(true).unwrap()).collect::<Vec<_>>()
    });
    until(|| greedy.iter().filter(|stream| is_closed(*stream)).count() >= 12);
    served();
}
