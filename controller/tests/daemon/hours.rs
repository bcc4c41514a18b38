//! Rules with hours, on real packets: they end with the daemon dead, and begin with one.

use crate::lab::{self, Lab};
use jiff::{SignedDuration, Timestamp, ToSpan, tz::TimeZone};
use std::io::{Read, Write};
use std::net::TcpStream;

const ENDS: &str =
    "from: [{spiffeId: spiffe://acme.example/orders}], to: [{spiffeId: spiffe://acme.example/payments}]";

fn policy(now: &str, later: &str) -> String {
    let workload = |name: &str, at: &str| {
        format!(
            "apiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: {name}}}\n\
             spec: {{spiffeId: spiffe://acme.example/{name}, addresses: [{at}]}}\n---\n"
        )
    };
    let hours =
        |from: &str, to: &str| format!("hours: {{zone: UTC, open: [{{from: \"{from}\", to: \"{to}\"}}]}}");
    // An hour before the first is over; the second begins then.
    let before = Timestamp::now() - SignedDuration::from_hours(1);
    let first = hours(&before.to_zoned(TimeZone::UTC).strftime("%H:%M").to_string(), now);
    let second = hours(now, later);
    workload("orders", "10.1.0.2")
        + &workload("payments", "10.2.0.2")
        + &format!(
            "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  rules:\n\
             \x20   - {{name: first, action: allow, {ENDS}, ports: [tcp/8443], {first}}}\n\
             \x20   - {{name: second, action: allow, {ENDS}, ports: [tcp/9000], {second}}}\n"
        )
}

fn echo(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok()
}

fn reason(lab: &Lab, port: &str) -> String {
    let why = &lab.json(&["why", "10.1.0.2", "10.2.0.2", port])[0];
    why["drop_reason_desc"].as_str().unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs root"]
fn hours_end_on_time_with_the_daemon_dead_and_begin_with_the_next_one() {
    let lab = Lab::new();
    let minute = |at: Timestamp| at.to_zoned(TimeZone::UTC).strftime("%H:%M").to_string();
    // Of the minute that runs, enough has to be left.
    lab::until(|| Timestamp::now().as_second() % 60 < 45);
    let end = Timestamp::from_second(Timestamp::now().as_second() / 60 * 60 + 60).unwrap();
    let later = end.checked_add(2.hours()).unwrap();
    let file = lab.file("hours.yaml", &policy(&minute(end), &minute(later)));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    let mut stream = lab.client(8443).unwrap();
    assert!(echo(&mut stream) && !lab.connects(9000));
    let near = &lab.json(&["why", "10.1.0.2", "10.2.0.2", "9000"])[0]["near_misses"][0];
    assert_eq!(near["kind"], "hours", "{near}");
    daemon.kill_nine();
    assert!(echo(&mut stream));
    assert!(Timestamp::now() < end, "the daemon was dead before the end");

    std::thread::sleep(
        end.duration_since(Timestamp::now()).unsigned_abs() + std::time::Duration::from_millis(300),
    );
    assert!(!echo(&mut stream) && !lab.connects(8443));
    assert_eq!(reason(&lab, "8443"), "OUTSIDE_HOURS");
    assert!(!lab.connects(9000), "nobody is there to begin it");

    let _daemon = lab.run(&[]);
    assert!(lab.connects(9000));
    assert_eq!(reason(&lab, "8443"), "POLICY_DENIED");
    assert!(lab.ok(&["why", "10.1.0.2", "10.2.0.2", "8443"]).contains("p/first would allow it"));
}
