//! The loop: a workload departs from its intent, is found, contained, and let go again.

use crate::lab::{Lab, ORDERS, POLICY, intended, json, until};
use std::io::{Read, Write};

#[test]
#[ignore = "needs root"]
fn a_departure_is_contained_live_flows_too_and_the_kernel_lets_go_with_the_daemon_dead() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", &intended("{action: contain, for: 10s}"));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    let mut stream = lab.client(8443).unwrap();
    let mut echo = || stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok();
    assert!(echo());
    assert_eq!(lab.json(&["findings", "list"])[0], json(Vec::<serde_json::Value>::new()));

    // The policy allows it, the intent does not: the first connection is what gives it away.
    let _ = lab.connects(9000);
    until(|| lab.json(&["findings", "list"])[0][0]["containments"][0].is_object());
    let finding = lab.json(&["findings", "show", "1"]).remove(0);
    assert_eq!((&finding["signal"], &finding["role"]), (&json("new_service"), &json("client")));
    assert_eq!((&finding["decision"], &finding["confidence"]), (&json("contain"), &json("high")));
    assert_eq!((&finding["severity"], &finding["owner"]), (&json("high"), &json("team-shop")));
    assert_eq!(finding["evidence"][0]["service"], "tcp/9000");
    assert_eq!(finding["evidence"][0]["verdict"], "FORWARDED");
    assert_eq!(finding["containments"][0]["identity"], ORDERS);
    let quarantines = lab.json(&["quarantine", "list"]);
    assert_eq!(quarantines[0][0]["reason"], "finding 1");
    // The event says who, whereto, by which leases and rule, and what was decided, as events of traffic do.
    let payments = "spiffe://acme.example/ns/shop/sa/payments";
    let told =
        lab.json(&["observe"]).into_iter().find(|event| event["event"] == "finding").expect("a finding");
    let end = |id: &str| serde_json::json!({"spiffe_id": id, "lease": {"not_after": null}});
    assert_eq!((&told["source"], &told["destination"]), (&end(ORDERS), &end(payments)), "{told}");
    assert_eq!((&told["IP"]["source"], &told["rule"]), (&json("10.1.0.2"), &json("shop/pay")), "{told}");
    let said = ["actor", "decision", "outcome", "verdict"].map(|field| told[field].clone());
    assert_eq!(said, [ORDERS, "contain", "open", "FORWARDED"].map(json), "{told}");
    assert_eq!(told["finding"]["evidence"][0]["peer"], payments);
    assert!(!lab.connects(8443), "what is contained reaches nobody");
    assert!(!echo(), "nor goes a live connection on");

    daemon.kill_nine();
    until(|| lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn a_flag_changes_nothing_for_traffic_and_a_person_resolves_it() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", &intended("{action: flag}"));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    assert!(lab.connects(8443));
    assert!(lab.connects(9000));
    let open = || lab.json(&["findings", "list"])[0].as_array().unwrap().len();
    until(|| open() == 1);
    assert!(lab.connects(9000));
    assert!(lab.ok(&["findings", "show", "1"]).contains("intent orders"));
    let many = |words: &str| {
        let args: Vec<&str> = ["findings", "list"].into_iter().chain(words.split(' ')).collect();
        lab.json(&args)[0].as_array().unwrap().len()
    };
    for fits in [
        "--severity medium",
        "--severity high --signal scan,new_service --intent orders",
        "--identity sa/orders --owner team-shop",
        "--identity sa/payments --since 1h",
    ] {
        assert_eq!(many(fits), 1, "{fits}");
    }
    for other in [
        "--signal scan",
        "--intent shop",
        "--identity nobody",
        "--owner team",
        "--since 2100-01-01T00:00:00Z",
    ] {
        assert_eq!(many(other), 0, "{other}");
    }
    assert!(lab.ok(&["findings", "list", "--intent", "shop"]).starts_with("no open findings of that"));
    let (code, said) = lab.fails(&["findings", "mute", "1", "--until", "2h"]);
    assert!(code == 2 && said.contains("`--for` takes 2h"), "{said}");
    lab.ok(&["findings", "resolve", "1", "--note", "a migration"]);
    assert_eq!(open(), 0);
    let record = lab.json(&["audit", "show", "--kind", "finding"]).pop().unwrap();
    assert_eq!((&record["by"]["who"], &record["by"]["how"]), (&json("root"), &json("findings resolve")));
    assert_eq!(
        (&record["about"][0], &record["what"]["state"]["note"]),
        (&json(ORDERS), &json("a migration"))
    );
    let (code, said) = lab.fails(&["findings", "mute", "1", "--for", "1h"]);
    assert_eq!(code, 1);
    assert!(said.contains("was resolved by root"), "{said}");
    assert!(lab.ok(&["findings", "list", "--all"]).contains("resolved"));
}

#[test]
#[ignore = "needs root"]
fn the_brake_holds_containment_back_also_after_a_restart_and_an_operator_lets_it_go() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", &intended("{action: contain, for: 1h}"));
    let options = ["-i", "eth1", "-i", "eth2", "-p", &file];
    let mut daemon = lab.run(&options);
    lab.ok(&["governance", "pause", "--reason", "a migration"]);
    daemon.kill_nine();
    let _daemon = lab.run(&options);
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    assert!(lab.connects(9000));
    let held = || lab.json(&["findings", "list"])[0][0]["held_back"].as_str().map(str::to_owned);
    until(|| held().is_some());
    assert_eq!(held().as_deref(), Some("containment is paused (root: a migration)"));
    assert!(lab.connects(9000));
    let status = &lab.json(&["governance", "status"])[0];
    assert_eq!((&status["intents"], &status["contained_last_hour"]), (&json(1), &json(0)));

    lab.ok(&["governance", "resume"]);
    let _ = lab.connects(9000);
    until(|| !lab.json(&["quarantine", "list"])[0].as_array().unwrap().is_empty());
    assert!(!lab.connects(9000));
    // A person undoes it, and is not overruled by the next departure.
    assert!(lab.ok(&["findings", "show", "1"]).contains("to undo: tidegate quarantine del "));
    lab.ok(&["quarantine", "del", ORDERS]);
    assert!(lab.connects(9000));
    assert!(lab.connects(9000));
    assert!(lab.ok(&["findings", "list"]).contains("contained (quarantine), undone"));
    assert!(lab.ok(&["findings", "show", "1"]).contains("\n  it was undone before its time"));
}

/// A ClientHello as rustls sends it.
pub fn hello(name: &str, alpn: &str) -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.into()];
    let name = name.to_owned().try_into().unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
#[ignore = "needs root"]
fn names_in_hellos_and_hours_are_compared_with_what_the_intent_says() {
    let lab = Lab::new();
    let connections =
        "client: [{to: [{spiffeId: spiffe://acme.example/ns/shop/sa/payments}], ports: [tcp/8443]}]";
    let more = "client: [{to: [{any: true}], ports: [tcp/8443], sni: [\"*.shop.example\"], alpn: [h2]}]\n  \
         hours: {zone: UTC, open: [{days: [DAYS], from: \"00:00\", to: \"24:00\"}]}";
    // Never today.
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).weekday();
    let other = today.next().next();
    let other = format!("{other:?}")[..3].to_lowercase();
    let text = intended("{action: flag}").replace(connections, more);
    assert!(text.contains("DAYS"));
    let [always, other_days] = ["mon-sun", &other].map(|days| text.replace("DAYS", days));
    let (file, other_days) = (lab.file("shop.yaml", &always), lab.file("later.yaml", &other_days));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let _server = lab.serve(8443);
    let say = |bytes: &[u8]| {
        let mut stream = lab.client(8443).unwrap();
        stream.write_all(bytes).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    };
    let findings = || lab.json(&["findings", "list"]).remove(0).as_array().unwrap().clone();
    say(&hello("api.shop.example", "h2"));
    say(&hello("c2.example", "h2"));
    until(|| findings().len() == 1);
    let finding = lab.json(&["findings", "show", "1"]).remove(0);
    assert_eq!((&finding["signal"], &finding["confidence"]), (&json("new_sni"), &json("high")));
    let detail = finding["evidence"][0]["detail"].as_str().unwrap();
    assert!(detail.starts_with("ClientHello for c2.example, ALPN h2, JA4 t13d"), "{detail}");
    assert_eq!(finding["count"], 1);
    say(&hello("api.shop.example", "http/1.1"));
    until(|| findings().len() == 2);
    assert_eq!(findings()[1]["signal"], "new_alpn");

    lab.ok(&["policy", "apply", &other_days]);
    say(&hello("api.shop.example", "h2"));
    until(|| findings().len() == 3);
    let late = &findings()[2];
    assert_eq!((&late["signal"], &late["peer"]), (&json("off_hours"), &json("several")));
    assert_eq!(
        (&late["decision"], &late["containments"]),
        (&json("flag"), &json(Vec::<serde_json::Value>::new()))
    );
}

#[test]
#[ignore = "needs root"]
fn what_was_learned_expects_what_was_seen_and_nothing_else() {
    let lab = Lab::new();
    let allow = POLICY.replace("ports: [tcp/8443]", "ports: [tcp/8443, tcp/9000]");
    let file = lab.file("shop.yaml", &allow);
    let options = ["-i", "eth1", "-i", "eth2", "-p", &file];
    let mut daemon = lab.run(&options);
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    for _ in 0..3 {
        assert!(lab.connects(8443));
    }
    assert!(!lab.connects(22), "no rule lets it pass");
    let learn = || lab.ok(&["intent", "learn", ORDERS, "--over", "1h"]);
    until(|| learn().contains("tcp/22"));
    // What was seen outlives the daemon.
    daemon.stop();
    let _daemon = lab.run(&options);
    let learned = learn();
    let payments = "[{spiffeId: spiffe://acme.example/ns/shop/sa/payments}]";
    assert!(learned.contains(&format!("    - {{to: {payments}, ports: [tcp/8443]}}\n")), "{learned}");
    assert!(learned.contains("    # Left out, denied each time"), "{learned}");
    assert!(learned.contains(&format!("    #- {{to: {payments}, ports: [tcp/22]}}\n")), "{learned}");
    assert!(learned.contains("  server: []\n"), "{learned}");

    let both = lab.file("learned.yaml", &format!("{allow}---\n{learned}"));
    lab.ok(&["policy", "check", &both]);
    lab.ok(&["policy", "apply", &both]);
    for _ in 0..2 {
        assert!(lab.connects(8443));
    }
    assert!(lab.connects(9000));
    let findings = || lab.json(&["findings", "list"]).remove(0).as_array().unwrap().clone();
    until(|| !findings().is_empty());
    assert_eq!(findings().len(), 1, "{:?}", findings());
    assert_eq!(findings()[0]["signal"], "new_service");
    assert_eq!(findings()[0]["services"], json(vec![json("tcp/9000")]));
    let (code, said) = lab.fails(&["intent", "learn", "spiffe://acme.example/ns/shop/sa/nobody"]);
    assert_eq!(code, 1);
    assert!(said.contains("nothing was seen of spiffe://acme.example/ns/shop/sa/nobody since"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn a_rule_of_an_intent_is_asked_of_every_event_and_a_wrong_one_is_not_applied() {
    let lab = Lab::new();
    let rules = "rules:\n    - {name: odd-protocol, when: 'event == \"client_hello\" && \"x-shell\" in alpn', severity: low, message: a tunnel}\n  response:";
    let text = intended("{action: flag}").replace("response:", rules);
    let file = lab.file("shop.yaml", &text);
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let _server = lab.serve(8443);
    let say = |alpn: &str| {
        let mut stream = lab.client(8443).unwrap();
        stream.write_all(&hello("payments.shop.example", alpn)).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    };
    say("h2");
    say("x-shell");
    let findings = || lab.json(&["findings", "list"]).remove(0).as_array().unwrap().clone();
    until(|| !findings().is_empty());
    let found = findings();
    assert_eq!((found.len(), &found[0]["count"]), (1, &json(1)));
    assert_eq!((&found[0]["signal"], &found[0]["rule"]), (&json("rule"), &json("odd-protocol")));
    assert_eq!(
        (&found[0]["severity"], &found[0]["evidence"][0]["detail"]),
        (&json("low"), &json("a tunnel"))
    );
    let wrong = lab.file("wrong.yaml", &text.replace("in alpn", "in alps"));
    let (code, said) = lab.fails(&["policy", "apply", &wrong]);
    assert_eq!(code, 2);
    assert!(said.contains("an event has no `alps`") && said.contains("did you mean `alpn`?"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn what_the_policy_denies_though_it_is_expected_and_what_goes_on_after_a_lease_is_found_and_not_contained() {
    let lab = Lab::new();
    let text = intended("{action: contain, for: 1h}")
        .replace("ports: [any]", "ports: [tcp/8443]")
        .replace("ports: [tcp/8443]}]\n", "ports: [tcp/8443, tcp/9000]}]\n");
    let leased = text.replacen("10.1.0.2/32]}", "10.1.0.2/32], lease: {for: 4s}}", 1);
    assert!(leased != text && text.contains("tcp/9000"));
    let (file, leased) = (lab.file("shop.yaml", &text), lab.file("leased.yaml", &leased));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let _server = lab.serve(8443);
    assert!(lab.connects(8443));
    assert!(!lab.connects(9000), "no rule lets it pass");
    let findings = || lab.json(&["findings", "list"]).remove(0).as_array().unwrap().clone();
    until(|| !findings().is_empty());
    lab.ok(&["policy", "apply", &leased]);
    until(|| !lab.connects(8443));
    until(|| findings().len() == 2);
    let found = findings();
    let said = |n: usize| (&found[n]["signal"], &found[n]["role"], &found[n]["decision"]);
    assert_eq!(said(0), (&json("expected_denied"), &json("client"), &json("flag")));
    assert_eq!(found[0]["services"], json(vec![json("tcp/9000")]));
    assert_eq!(said(1), (&json("expired_lease"), &json("client"), &json("flag")));
    assert_eq!(found[1]["evidence"][0]["reason"], "LEASE_EXPIRED");
    assert_eq!(found[1]["identities"], json(vec![json(ORDERS)]));
    // The address may be the next one's by now: what no intent expects is nobody's departure, and contains nobody.
    let before = found[1]["count"].as_u64();
    assert!(!lab.connects(7777));
    until(|| findings()[1]["count"].as_u64() > before);
    assert_eq!(findings()[1]["services"], serde_json::json!(["tcp/8443", "tcp/7777"]));
    assert_eq!(findings().len(), 2, "{:#?}", findings());
    assert_eq!(lab.json(&["quarantine", "list"])[0], serde_json::json!([]));
}
