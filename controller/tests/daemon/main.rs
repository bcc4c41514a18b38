//! The `tidegate` binary on the running kernel: a gateway between two hosts, each in a namespace of its own.

mod acts;
mod api;
mod approvals;
mod audit;
mod bindings;
mod closing;
mod collector;
mod doctor;
mod documentation;
mod endings;
mod enrolment;
mod exceptions;
mod feeds;
mod forwarding;
mod full_disk;
mod governance;
mod grants;
mod host;
mod hostile;
mod hours;
mod http;
mod icmp;
mod ingress;
mod itself;
mod killed;
mod kills;
mod lab;
mod leases;
mod limits;
mod marks;
mod monitoring;
mod past;
mod policy;
mod remote;
mod roles;
mod shadows;
mod standing;
mod state;
mod storm;
mod upgrade;
mod vlans;

use lab::{Lab, POLICY, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[test]
#[ignore = "needs root"]
fn what_a_rule_allows_passes_and_all_else_is_dropped_and_named() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)]);
    let _server = lab.serve(8443);
    let _other = lab.serve(9000);
    assert!(lab.connects(8443));
    assert!(!lab.connects(9000));

    let flows = lab.flows();
    let allowed = flows.iter().find(|f| f["l4"]["TCP"]["destination_port"] == 8443).unwrap();
    assert_eq!(allowed["verdict"], "FORWARDED");
    assert_eq!(allowed["source"]["spiffe_id"], "spiffe://acme.example/ns/shop/sa/orders");
    assert_eq!(allowed["destination"]["spiffe_id"], "spiffe://acme.example/ns/shop/sa/payments");
    assert_eq!(allowed["rule"], "shop/pay");
    assert_eq!(allowed["conn_state"], "SF");
    let denied = flows.iter().find(|f| f["l4"]["TCP"]["destination_port"] == 9000).unwrap();
    assert_eq!((&denied["verdict"], &denied["drop_reason_desc"]), (&json("DROPPED"), &json("POLICY_DENIED")));

    let drops = lab.json(&["drops"]);
    let rows = drops[0].as_array().unwrap();
    let counter = rows.iter().find(|row| row["interface"] == "eth1").unwrap();
    assert_eq!(
        (&counter["reason"], &counter["traffic_direction"]),
        (&json("POLICY_DENIED"), &json("INGRESS"))
    );
    assert_eq!(counter["count"]["packets"], denied["packets"]);

    let why = &lab.json(&["why", "orders", "payments", "9000"])[0];
    assert_eq!((&why["verdict"], &why["drop_reason_desc"]), (&json("DROPPED"), &json("POLICY_DENIED")));
    assert_eq!(why["near_misses"][0]["rule"], "shop/pay");
    let why = &lab.json(&["why", "10.1.0.2", "10.2.0.2", "8443/tcp"])[0];
    assert_eq!((&why["verdict"], &why["rule"]), (&json("FORWARDED"), &json("shop/pay")));
}

#[test]
#[ignore = "needs root"]
fn kill_nine_under_traffic_changes_no_verdict_and_a_restart_forgets_no_flow() {
    let lab = Lab::new();
    let options = ["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)];
    let mut daemon = lab.run(&options);
    let _server = lab.serve(8443);
    let _other = lab.serve(9000);
    let mut stream = lab.client(8443).unwrap();
    let (stop, echoes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let traffic = std::thread::spawn({
        let (stop, echoes) = (stop.clone(), echoes.clone());
        move || -> std::io::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                stream.write_all(b"x")?;
                stream.read_exact(&mut [0])?;
                echoes.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    });
    let goes_on = || {
        let before = echoes.load(Ordering::Relaxed);
        lab::until(|| echoes.load(Ordering::Relaxed) > before + 100);
    };
    goes_on();
    assert!(!lab.connects(9000));
    daemon.kill_nine();
    goes_on();
    assert!(lab.connects(8443));
    assert!(!lab.connects(9000));
    assert_eq!(lab.json(&["status"])[0]["daemon"], json(false));
    let before = lab.flows();

    let _daemon = lab.run(&options);
    goes_on();
    assert!(lab.connects(8443));
    assert!(!lab.connects(9000));
    let after = lab.flows();
    for flow in before.iter().filter(|flow| flow["l4"].get("TCP").is_some()) {
        let same = after.iter().find(|f| f["l4"] == flow["l4"] && f["IP"] == flow["IP"]);
        let same = same.unwrap_or_else(|| panic!("forgotten: {flow}"));
        assert!(same["packets"].as_u64() >= flow["packets"].as_u64());
        assert_eq!(same["source"], flow["source"], "numbers of identities stay");
    }
    stop.store(true, Ordering::Relaxed);
    traffic.join().unwrap().expect("the connection lived through it");
}

#[test]
#[ignore = "needs root"]
fn a_commit_cuts_a_live_flow_and_the_next_one_lets_it_go_on() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)]);
    let _server = lab.serve(8443);
    let mut stream = lab.client(8443).unwrap();
    let mut echo = move || -> bool {
        let mut buffer = [0];
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut buffer).is_ok()
    };
    assert!(echo());
    lab.ok(&["block", "add", "10.1.0.2/32", "--for", "10m", "--reason", "a test"]);
    assert!(!echo());
    let blocks = &lab.json(&["block", "list"])[0];
    assert_eq!((&blocks[0]["cidr"], &blocks[0]["reason"]), (&json("10.1.0.2/32"), &json("a test")));
    assert_eq!(lab.json(&["why", "orders", "payments", "8443"])[0]["drop_reason_desc"], "BLOCKLISTED");
    lab.ok(&["block", "del", "10.1.0.2/32"]);
    assert!(lab.connects(8443));

    let denies = POLICY.replace("action: allow", "action: deny");
    lab.ok(&["policy", "apply", &lab.file("deny.yaml", &denies)]);
    assert!(!lab.connects(8443));
    let status = &lab.json(&["status"])[0];
    assert_eq!(status["revision"], 4);
    // Every commit is an epoch; the maps begin with the first.
    assert_eq!(status["epoch"], 5);
}

#[test]
#[ignore = "needs root"]
fn blocks_by_port_and_identity_and_quarantines_cut_live_flows_and_end() {
    let lab = Lab::new();
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)]);
    let _server = lab.serve(8443);
    let reason = || lab.json(&["why", "orders", "payments", "8443"])[0]["drop_reason_desc"].clone();
    let cuts = |add: &[&str], del: &[&str], wanted: &str| {
        let mut stream = lab.client(8443).unwrap();
        let mut echo = move || stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok();
        assert!(echo());
        lab.ok(add);
        assert!(!echo(), "{add:?}");
        assert_eq!(reason(), wanted, "{add:?}");
        lab.ok(del);
        assert!(lab.connects(8443), "{del:?}");
    };
    let id = "spiffe://acme.example/ns/shop/sa/orders";
    for what in [
        &["10.1.0.0/16", "--port", "tcp/8443"][..],
        &["--identity", id],
        &["--identity", "payments", "--port", "tcp/8000-9000"],
        &["--port", "tcp/8443", "--port", "udp/53"],
    ] {
        let (add, del) = ([&["block", "add"], what].concat(), [&["block", "del"], what].concat());
        cuts(&add, &del, "BLOCKLISTED");
    }
    lab.ok(&["block", "add", "10.1.0.0/16", "--port", "tcp/23"]);
    assert!(lab.connects(8443));
    let row = &lab.json(&["block", "list"])[0][0];
    assert_eq!((&row["cidr"], &row["ports"][0]), (&json("10.1.0.0/16"), &json("tcp/23")));

    cuts(&["quarantine", "add", "orders"], &["quarantine", "del", id], "QUARANTINED");
    lab.ok(&["quarantine", "add", "orders", "--except", "10.2.0.2/32,tcp/8443", "--except", "udp/53"]);
    assert!(lab.connects(8443));
    lab.ok(&["quarantine", "del", "orders"]);
    // It ends with nobody there to end it.
    lab.ok(&["quarantine", "add", "orders", "--for", "4s", "--reason", "a test"]);
    daemon.kill_nine();
    assert_eq!(reason(), "QUARANTINED");
    assert!(!lab.connects(8443));
    lab::until(|| lab.connects(8443));
    assert_eq!(lab.json(&["quarantine", "list"])[0], serde_json::json!([]));
}

#[test]
#[ignore = "needs root"]
fn a_packet_has_the_mode_of_the_interface_by_which_it_enters() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)]);
    let _other = lab.serve(9000);
    let apply = |interfaces: &str| {
        let gateway =
            "---\napiVersion: tidegate.dev/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  interfaces: ";
        lab.ok(&["policy", "apply", &lab.file("edge.yaml", &format!("{POLICY}{gateway}{interfaces}\n"))]);
    };
    assert!(!lab.connects(9000));
    apply("[{name: eth1, mode: monitor}, {name: eth2, mode: monitor}]");
    assert!(lab.connects(9000));
    // Requests pass, answers do not.
    apply("[{name: eth1, mode: monitor}]");
    assert!(!lab.connects(9000));
    let rows = lab.json(&["drops"]);
    let dropped_at = |interface: &str| {
        rows[0].as_array().unwrap().iter().any(|row| {
            row["interface"] == interface && row["reason"] == "POLICY_DENIED" && row["verdict"] == "DROPPED"
        })
    };
    assert!(dropped_at("eth2"), "{rows:?}");
    // An interface that is not there yet is no mistake.
    apply("[{name: eth9, mode: monitor}]");
    assert!(!lab.connects(9000));
}

#[test]
#[ignore = "needs root"]
fn a_candidate_is_judged_beside_the_policy_and_applied_or_dropped() {
    let lab = Lab::new();
    let options = ["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)];
    let mut daemon = lab.run(&options);
    let _server = lab.serve(8443);
    let denies = lab.file("deny.yaml", &POLICY.replace("action: allow", "action: deny"));
    let status = || lab.json(&["policy", "shadow", "status"])[0].clone();
    let changes = || {
        let changes = status()["changes"].as_array().unwrap().clone();
        changes.into_iter().find(|c| c["old_rule"] == "shop/pay" && c["new_verdict"] == "DROPPED")
    };
    assert_eq!(lab.fails(&["policy", "shadow", "apply"]).0, 1);
    lab.ok(&["policy", "shadow", &denies]);
    assert!(lab.connects(8443));
    let change = changes().expect("a change was counted");
    assert_eq!((&change["old_verdict"], &change["new_rule"]), (&json("FORWARDED"), &json("shop/pay")));
    assert_eq!(change["new_reason"], "POLICY_DENY");
    // Another commit goes on with it, and so does the next daemon.
    lab.ok(&["block", "add", "192.0.2.0/24"]);
    daemon.kill_nine();
    assert!(lab.connects(8443));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2"]);
    assert_eq!(status()["pending"], true);
    let before = changes().unwrap()["count"].as_u64();
    assert!(lab.connects(8443));
    assert!(changes().unwrap()["count"].as_u64() > before);
    lab.ok(&["policy", "shadow", "drop"]);
    assert_eq!(status()["pending"], false);
    let before = changes().unwrap()["count"].as_u64();
    assert!(lab.connects(8443));
    assert_eq!(changes().unwrap()["count"].as_u64(), before);

    lab.ok(&["policy", "shadow", &denies, "--sample", "1/4"]);
    assert_eq!((&status()["sample"], &status()["changes"]), (&json(4), &serde_json::json!([])));
    lab.ok(&["policy", "shadow", "apply"]);
    assert_eq!(status()["pending"], false);
    assert!(!lab.connects(8443));
    daemon.stop();
    assert!(!lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn a_daemon_that_died_in_a_commit_leaves_nothing_that_counts() {
    let lab = Lab::new();
    let options = ["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)];
    let mut daemon = lab.run(&options);
    daemon.kill_nine();
    // As if it had written a block of the next epoch and never flipped.
    let maps = lab.maps();
    let epoch = maps.config.get().unwrap().epoch;
    let block = datapath::abi::Block { rule: 77, ..datapath::abi::Block::NONE };
    let versions = datapath::abi::BlockVersions {
        since: epoch + 1,
        _pad: 0,
        old: datapath::abi::Block::NONE,
        new: block,
    };
    let orders = datapath::abi::Addr::v4([10, 1, 0, 2]);
    maps.blocklist.insert(&orders, 128, &versions).unwrap();
    let _daemon = lab.run(&options);
    let _server = lab.serve(8443);
    assert_eq!(maps.config.get().unwrap().epoch, epoch + 1);
    assert!(lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn observe_follows_what_happens() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)]);
    let args = ["observe", "-f", "--verdict", "dropped", "--identity", "orders", "-o", "json"];
    let mut observe = lab.tidegate(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    assert!(!lab.connects(9000));
    BufReader::new(observe.stdout.take().unwrap()).read_line(&mut line).unwrap();
    observe.kill().unwrap();
    observe.wait().unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["verdict"], &event["drop_reason_desc"]), (&json("DROPPED"), &json("POLICY_DENIED")));
    assert_eq!(event["IP"]["source"], "10.1.0.2");
    assert_eq!((&event["traffic_direction"], &event["interface"]["name"]), (&json("INGRESS"), &json("eth1")));
}

#[test]
#[ignore = "needs root"]
fn an_unanswered_syn_is_counted_and_is_no_refusal() {
    let lab = Lab::new();
    let policy = POLICY.replace("tcp/8443", "tcp");
    let _daemon = lab.run(&[
        "-i",
        "eth1",
        "-i",
        "eth2",
        "-p",
        &lab.file("shop.yaml", &policy),
        "--metrics",
        lab::METRICS,
    ]);
    // Nothing listens on 9000; what comes to 9001 is not answered at all.
    assert!(!lab.connects(9000));
    lab.silence_right();
    assert!(!lab.connects(9001));
    let line = |outcome: &str| {
        let labels =
            [r#"destination="spiffe://acme.example/ns/shop/sa/payments""#, r#"inferred="false",kind="tcp""#];
        let (orders, outcome) =
            ("spiffe://acme.example/ns/shop/sa/orders", format!(r#"outcome="{outcome}""#));
        format!(r#"tidegate_handshake_total{{{},{},{outcome},source="{orders}"}} 1"#, labels[0], labels[1])
    };
    assert!(lab.metrics().contains(&line("refused")), "{}", lab.metrics());
    lab::until(|| lab.metrics().contains(&line("no_answer")));
}

#[test]
#[ignore = "needs root"]
fn metrics_are_to_the_liking_of_promtool_with_promtool() {
    let lab = Lab::new();
    let _daemon = lab.run(&[
        "-i",
        "eth1",
        "-i",
        "eth2",
        "-p",
        &lab.file("shop.yaml", POLICY),
        "--metrics",
        lab::METRICS,
    ]);
    let _server = lab.serve(8443);
    assert!(lab.connects(8443));
    assert!(!lab.connects(9000));
    let metrics = lab.metrics();
    let has = |line: &str| assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    has("tidegate_policy_revision 1\n");
    has("tidegate_identities 2\n");
    has(r#"tidegate_drop_count_total{direction="INGRESS",interface="eth1",reason="POLICY_DENIED"}"#);
    for stage in ["whole", "answer", "completion"] {
        has(&format!(
            "tidegate_handshake_duration_seconds_count{{\
             destination=\"spiffe://acme.example/ns/shop/sa/payments\",kind=\"tcp\",outcome=\"completed\",\
             source=\"spiffe://acme.example/ns/shop/sa/orders\",stage=\"{stage}\"}} 1\n"
        ));
    }
    let mut promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "needs root"]
fn programs_and_per_cpu_maps_are_there_for_everybody_with_bpftool() {
    let lab = Lab::new();
    // bpftool before Linux 6.7 shows clsact's filters and no TCX links.
    let _daemon = lab.run(&["-i", "eth1", "--tc-mode", "clsact"]);
    let net = lab.output("bpftool", &["net", "show"]);
    assert!(net.contains("eth1") && net.contains("tidegate_tc"), "{net}");
    assert!(net.contains("driver id"), "native mode: {net}");
    let ports = lab.output("bpftool", &["map", "show", "pinned", &lab.pin("TG_PORTS")]);
    assert!(ports.contains("percpu_array  name TG_PORTS"), "{ports}");
    let spill = lab.output("bpftool", &["map", "show", "pinned", &lab.pin("TG_FLOW_SPILL")]);
    assert!(spill.contains("lru_percpu_hash  name TG_FLOW_SPILL"), "{spill}");
}

#[test]
#[ignore = "needs root"]
fn interfaces_come_and_go_and_detach_all_is_the_way_out() {
    let lab = Lab::new();
    let mut daemon = lab.run(&[]);
    assert_eq!(lab.json(&["status"])[0]["interfaces"], serde_json::json!([]));
    lab.ok(&["attach", "eth1", "eth2"]);
    let names = |lab: &Lab| -> Vec<String> {
        let status = lab.json(&["status"]).remove(0);
        let names = status["interfaces"].as_array().unwrap().iter();
        names
            .map(|i| format!("{} {}", i["interface"].as_str().unwrap(), i["ingress_mode"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(names(&lab), ["eth1 native", "eth2 native"]);
    lab.ok(&["detach", "eth2"]);
    assert_eq!(names(&lab), ["eth1 native"]);
    lab.ok(&["attach", "eth2", "--xdp-mode", "generic"]);
    assert_eq!(names(&lab), ["eth1 native", "eth2 generic"]);
    let (code, said) = lab.fails(&["attach", "eth9"]);
    assert_eq!(code, 2);
    assert!(said.contains("no interface eth9") && said.contains("eth1, eth2, lo"), "{said}");
    assert_eq!(lab.fails(&["detach", "eth9"]).0, 3);
    assert_eq!(lab.fails(&["detach", "--all"]).0, 4, "not under a daemon that runs");
    daemon.stop();
    assert_eq!(names(&lab), ["eth1 native", "eth2 generic"], "they stay when the daemon ends");
    lab.ok(&["detach", "--all"]);
    assert!(!lab.pin_dir().exists());
    assert!(!lab.output("ip", &["link", "show", "eth1"]).contains("xdp"));
    assert_eq!(lab.fails(&["status"]).0, 3);
    assert_eq!(lab.fails(&["detach", "--all"]).0, 3);
}

#[test]
#[ignore = "needs root"]
fn what_cannot_start_says_why_and_leaves_nothing() {
    let lab = Lab::new();
    let (code, said) = lab.fails(&["run", "-i", "eth1", "-i", "eth9"]);
    assert_eq!(code, 2);
    assert!(said.contains("no interface eth9"), "{said}");
    let wrong = lab.file("wrong.yaml", &POLICY.replace("ports:", "portz:"));
    let (code, said) = lab.fails(&["run", "-i", "eth1", "-p", &wrong]);
    assert_eq!(code, 2);
    assert!(said.contains("wrong.yaml:") && said.contains("`ports`"), "{said}");
    let two = lab.file("shop.yaml", POLICY);
    let (code, said) = lab.fails(&["run", "-i", "eth1", "-p", &two, "--map-size", "TG_BINDINGS=1"]);
    assert_eq!(code, 1);
    assert!(said.contains("TG_BINDINGS is full (1 entries)") && said.contains("--map-size"), "{said}");
    assert_eq!(lab.fails(&["run", "--failsafe", "ssh"]).0, 2);
    assert_eq!(lab.fails(&["run", "--map-size", "TG_NONE=3"]).0, 2);
    assert!(!lab.pin_dir().exists() && !lab.has_state());
    assert!(!lab.output("ip", &["link", "show", "eth1"]).contains("xdp"));

    let daemon = lab.run(&["-i", "eth1"]);
    let other = lab.beside("b");
    let (code, said) = other.fails(&["run", "-i", "eth2", "-i", "eth1", "-p", &two]);
    assert_eq!(code, 1);
    assert!(said.contains("eth1 already has XDP program") && said.contains("bpftool prog show id"), "{said}");
    assert!(!other.pin_dir().exists() && !other.has_state());
    assert!(!lab.output("ip", &["link", "show", "eth2"]).contains("xdp"));
    drop(other);
    let (code, said) = lab.fails(&["run", "-i", "eth1"]);
    assert_eq!(code, 4);
    assert!(said.contains("runs already"), "{said}");
    assert!(lab.output("ip", &["link", "show", "eth1"]).contains("xdp"));
    drop(daemon);
}

#[test]
#[ignore = "needs root"]
fn monitor_mode_drops_nothing_and_says_what_it_would() {
    let lab = Lab::new();
    let policy = lab.file("shop.yaml", POLICY);
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &policy, "--mode", "monitor"]);
    let _server = lab.serve(9000);
    assert!(lab.connects(9000));
    let flows = lab.flows();
    let flow = flows.iter().find(|f| f["l4"]["TCP"]["destination_port"] == 9000).unwrap();
    assert_eq!((&flow["verdict"], &flow["drop_reason_desc"]), (&json("AUDIT"), &json("POLICY_DENIED")));
}

#[test]
#[ignore = "needs root"]
fn what_is_rejected_fails_at_once_and_plaintext_is_cut_where_tls_is_required() {
    let lab = Lab::new();
    let policy = POLICY.replace("ports: [tcp/8443]", "ports: [tcp/8443]\n      tls: required");
    let gateway = "---\napiVersion: tidegate.dev/v1\nkind: Gateway\nmetadata: {name: edge}\n\
                   spec: {defaultAction: reject, midstream: deny}\n";
    // In generic mode: a driver of veth sends nothing back to a peer without GRO.
    let file = lab.file("shop.yaml", &format!("{policy}{gateway}"));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "--xdp-mode", "generic", "-p", &file]);
    let _server = lab.serve(8443);

    let refused = lab.client(9000).expect_err("a reset");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let unreachable = lab.datagram(5000).expect_err("ICMP");
    assert_eq!(unreachable.kind(), std::io::ErrorKind::HostUnreachable);

    let mut plain = lab.client(8443).expect("the handshake passes");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    assert!(plain.read(&mut [0; 16]).is_err(), "the server never saw it");
    let mut tls = lab.client(8443).expect("the handshake passes");
    let hello = [&[22, 3, 1, 0, 4, 1, 0, 0, 0][..], b"rest"].concat();
    tls.write_all(&hello[..9]).expect("sent");
    tls.read_exact(&mut [0; 9]).expect("the echo of a hello");

    let drops = lab.json(&["drops"]);
    let rows = drops[0].as_array().expect("rows");
    let answered = |how: &str| {
        let row = rows.iter().find(|row| row["answered"] == how).expect("a counter");
        assert_eq!(row["interface"], "eth1");
        row["count"]["packets"].as_u64().expect("a number")
    };
    assert_eq!((answered("tcp_reset"), answered("icmp_prohibited")), (1, 1));
    let cut = rows.iter().find(|row| row["reason"] == "TLS_REQUIRED" && row["rule"] == "shop/pay");
    assert_eq!(cut.expect("the flow")["verdict"], "DROPPED");
}
