//! Workloads that prove their SVIDs to the gateway, over real TLS, and what the kernel makes of it.

use crate::lab::{Daemon, Lab, METRICS, POLICY, json, until};
use authority::agent::{Agent, Given};
use authority::{Authority, Duration, OffsetDateTime, Svid, leaf_params};
use serde_json::Value;
use std::fs;
use std::process::{Child, Stdio};

const GATEWAY: &str = "spiffe://acme.example/gateway";
pub const ORDERS: &str = "spiffe://acme.example/ns/shop/sa/orders";
pub const DOOR: &str = "10.1.0.1:8446";

/// `POLICY` without its first document: nobody has 10.1.0.2 until it enrols.
fn without_orders() -> &'static str {
    POLICY.split_once("---\n").expect("documents").1
}

pub fn svid(authority: &Authority, id: &str, lifetime: Duration) -> Svid {
    let now = OffsetDateTime::now_utc();
    authority.issue(leaf_params(id, now - Duration::minutes(5), now + lifetime).unwrap()).unwrap()
}

/// Files of an SVID, and the options that name them.
pub fn pem(lab: &Lab, name: &str, svid: &Svid, bundles: &[(&str, &Authority)]) -> Vec<String> {
    let cert = lab.file(&format!("{name}.pem"), svid.chain_pem());
    let key = lab.file(&format!("{name}.key"), svid.key_pem());
    let mut options = vec!["--svid-cert".into(), cert, "--svid-key".into(), key];
    for (domain, authority) in bundles {
        let file = lab.file(&format!("{name}-{domain}.pem"), authority.root_pem());
        options.extend(["--trust-bundle".into(), format!("{domain}={file}")]);
    }
    options
}

/// A gateway that believes its own trust domain and a partner's.
pub fn gateway(lab: &Lab, acme: &Authority, partner: &Authority, more: &[&str]) -> Daemon {
    let own = svid(acme, GATEWAY, Duration::hours(1));
    let options = pem(lab, "gateway", &own, &[("acme.example", acme), ("partner.example", partner)]);
    let policy = lab.file("shop.yaml", without_orders());
    let mut args = vec!["-i", "eth1", "-i", "eth2", "-p", &policy, "--metrics", METRICS, "--enroll", DOOR];
    args.extend(options.iter().map(String::as_str));
    args.extend(more);
    lab.run(&args)
}

/// How `tidegate enroll` ends on the left: its exit code, and what it said.
pub fn enroll(lab: &Lab, options: &[String]) -> (i32, String) {
    let mut args = vec!["enroll", "--gateway", DOOR, "--once"];
    args.extend(options.iter().map(String::as_str));
    let output = lab.tidegate_on("left", &args).output().expect("tidegate");
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.code().unwrap_or(-1), String::from_utf8(said).expect("UTF-8"))
}

fn row(lab: &Lab, id: &str) -> Option<Value> {
    let listed = lab.json(&["identity", "list"])[0].clone();
    listed.as_array().unwrap().iter().find(|row| row["spiffe_id"] == id).cloned()
}

fn enrolments(lab: &Lab) -> Vec<Value> {
    lab.json(&["observe"]).into_iter().filter(|event| event["event"] == "enrolment").collect()
}

pub fn metric(lab: &Lab, name: &str) -> u64 {
    let page = lab.metrics();
    let line = page.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim().parse().expect("a number")
}

#[test]
#[ignore = "needs root"]
fn who_enrols_is_let_through_until_the_lease_ends_also_without_the_daemon() {
    let (lab, acme, partner) = (Lab::new(), Authority::new("acme").unwrap(), Authority::new("p").unwrap());
    let mut daemon = gateway(&lab, &acme, &partner, &["--enroll-from", "10.1.0.0/24"]);
    let _server = lab.serve(8443);
    assert!(!lab.connects(8443));

    // The lease is as long as the SVID, which is shorter than an hour.
    let lifetime = Duration::seconds(25);
    let workload = svid(&acme, ORDERS, lifetime);
    let end = OffsetDateTime::now_utc() + lifetime;
    let (code, said) = enroll(&lab, &pem(&lab, "orders", &workload, &[("acme.example", &acme)]));
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with(&format!("10.1.0.2 is {ORDERS} at {DOOR} until ")), "{said}");
    assert!(lab.connects(8443));
    let listed = row(&lab, ORDERS).expect("a row");
    assert_eq!(listed["addresses"][0], "10.1.0.2/32");
    let not_after: jiff::Timestamp =
        listed["lease"]["not_after"].as_str().unwrap_or_else(|| panic!("{listed}")).parse().unwrap();
    assert!((not_after.as_second() - end.unix_timestamp()).abs() <= 1, "{listed}");
    assert_eq!(listed["evidence"]["svid_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(metric(&lab, "tidegate_enrolment_total{outcome=\"granted\"}"), 1);
    let told = enrolments(&lab).remove(0);
    assert_eq!(told["enrolment"]["outcome"], "granted");
    assert_eq!(told["source"]["lease"]["on_expiry"], "deny");
    let told: jiff::Timestamp =
        told["source"]["lease"]["not_after"].as_str().expect("an end").parse().unwrap();
    assert!((told.as_second() - not_after.as_second()).abs() <= 1, "{told} is not {not_after}");

    daemon.kill_nine();
    assert!(lab.connects(8443) || OffsetDateTime::now_utc() >= end);
    until(|| !lab.connects(8443));
    assert!(OffsetDateTime::now_utc() >= end - Duration::seconds(1), "not before its end");
}

#[test]
#[ignore = "needs root"]
fn who_may_not_enrol_is_told_so_counted_and_reported() {
    let (lab, acme, partner) = (Lab::new(), Authority::new("acme").unwrap(), Authority::new("p").unwrap());
    let stranger = Authority::new("acme").unwrap();
    let _daemon = gateway(&lab, &acme, &partner, &["--enroll-from", "10.1.0.128/25"]);
    let both = [("acme.example", &acme), ("partner.example", &partner)];
    let hour = Duration::hours(1);

    let (code, said) = enroll(&lab, &pem(&lab, "a", &svid(&acme, ORDERS, hour), &both));
    assert_eq!(code, 5);
    assert!(said.contains("10.1.0.2 is no address that enrols here (--enroll-from)"), "{said}");

    let theirs = svid(&partner, "spiffe://partner.example/a", hour);
    let mut options = pem(&lab, "b", &theirs, &both);
    options.extend(["--gateway-id".into(), GATEWAY.into()]);
    let (code, said) = enroll(&lab, &options);
    assert_eq!(code, 5);
    assert!(
        said.contains("identities of partner.example do not enrol here (--enroll-trust-domain)"),
        "{said}"
    );

    // To the first, all is well; who is not believed learns that, and nothing else.
    let made_up = svid(&stranger, ORDERS, hour);
    let (code, said) = enroll(&lab, &pem(&lab, "c", &made_up, &both));
    assert_eq!(code, 5);
    assert!(said.contains("the gateway refuses the SVID; its log says why"), "{said}");

    // And a gateway that is not the one that was wanted gets no request.
    let mut options = pem(&lab, "d", &svid(&acme, ORDERS, hour), &both);
    options.extend(["--gateway-id".into(), "spiffe://acme.example/other".into()]);
    let (code, said) = enroll(&lab, &options);
    assert_eq!(code, 5);
    assert!(
        said.contains(
            "unexpected_id: spiffe://acme.example/other was wanted, this is spiffe://acme.example/gateway"
        ),
        "{said}"
    );

    for (reason, n) in [("address", 1), ("trust_domain", 1), ("certificate", 2), ("slow", 0)] {
        assert_eq!(
            metric(&lab, &format!("tidegate_enrolment_refused_total{{reason=\"{reason}\"}}")),
            n,
            "{reason}"
        );
    }
    assert_eq!(metric(&lab, "tidegate_svid_refused_total{reason=\"untrusted_chain\"}"), 1);
    let enrolments = enrolments(&lab);
    assert_eq!(enrolments[0]["source"]["lease"], Value::Null, "who is refused has none there");
    let reasons: Vec<_> = enrolments.iter().map(|e| e["enrolment"]["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["address", "trust_domain", "certificate", "certificate"]);
    assert_eq!(
        (&enrolments[0]["source"]["spiffe_id"], &enrolments[0]["IP"]["source"]),
        (&json(ORDERS), &json("10.1.0.2"))
    );
    assert!(row(&lab, ORDERS).is_none());
}

/// A process that is ended as systemd ends it.
struct Running(Child);

impl Running {
    fn stop(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        self.0.wait().expect("wait").success()
    }
}

#[test]
#[ignore = "needs root"]
fn a_workload_renews_when_its_svid_rotates_and_gives_its_address_back_at_the_end() {
    let (lab, acme, partner) = (Lab::new(), Authority::new("acme").unwrap(), Authority::new("p").unwrap());
    let _daemon = gateway(&lab, &acme, &partner, &["--enroll-from", "10.1.0.2"]);
    let _server = lab.serve(8443);
    let socket = lab.path("agent.sock");
    let given = |lifetime| Given::default().svid(ORDERS, &svid(&acme, ORDERS, lifetime), acme.root());
    let agent = Agent::serve(&socket, Some(given(Duration::minutes(10)))).unwrap();
    let endpoint = format!("unix://{}", socket.display());
    let log = fs::File::create(lab.path("enroll.log")).unwrap();
    let mut command = lab.tidegate_on("left", &["enroll", "--gateway", DOOR, "--workload-api", &endpoint]);
    let running = Running(command.stdout(Stdio::null()).stderr(log).spawn().expect("tidegate"));
    let end = || row(&lab, ORDERS)?["lease"]["not_after"].as_str().map(str::to_owned);
    until(|| end().is_some());
    let first = end().unwrap();
    assert!(lab.connects(8443));

    agent.give(given(Duration::minutes(40)));
    until(|| end().is_some_and(|end| end > first));
    assert!(lab.connects(8443));
    // An agent that is away changes nothing for who has an SVID.
    drop(agent);
    assert!(lab.connects(8443));
    assert!(running.stop());
    assert_eq!(row(&lab, ORDERS), None);
    assert!(!lab.connects(8443));
    for outcome in ["granted", "renewed", "withdrawn"] {
        assert_eq!(
            metric(&lab, &format!("tidegate_enrolment_total{{outcome=\"{outcome}\"}}")),
            1,
            "{outcome}"
        );
    }
    let outcomes: Vec<_> = enrolments(&lab).iter().map(|e| e["enrolment"]["outcome"].clone()).collect();
    assert_eq!(outcomes, ["granted", "renewed", "withdrawn"]);
    let back = enrolments(&lab).pop().expect("an enrolment");
    assert_eq!(back["enrolment"]["outcome"], "withdrawn");
    assert!(back["source"]["lease"]["not_after"].is_string(), "the lease that was given back: {back}");
}

#[test]
#[ignore = "needs root"]
fn an_address_from_which_two_identities_enrol_is_nobodys() {
    let (lab, acme, partner) = (Lab::new(), Authority::new("acme").unwrap(), Authority::new("p").unwrap());
    let _daemon = gateway(&lab, &acme, &partner, &["--enroll-from", "10.1.0.0/24"]);
    let _server = lab.serve(8443);
    let options = |name: &str, id: &str| {
        pem(&lab, name, &svid(&acme, id, Duration::hours(1)), &[("acme.example", &acme)])
    };
    assert_eq!(enroll(&lab, &options("one", ORDERS)).0, 0);
    assert!(lab.connects(8443));
    let other = "spiffe://acme.example/ns/shop/sa/other";
    let mut short = options("two", other);
    short.extend(["--lease".into(), "20s".into()]);
    assert_eq!(enroll(&lab, &short).0, 0);
    assert!(!lab.connects(8443));
    assert!(row(&lab, ORDERS).is_some() && row(&lab, other).is_some());
    let why = &lab.json(&["why", "10.1.0.2", "10.2.0.2", "8443"])[0];
    assert_eq!((&why["verdict"], &why["drop_reason_desc"]), (&json("DROPPED"), &json("AMBIGUOUS_IDENTITY")));
    let dropped = |lab: &Lab| {
        let rows = lab.json(&["drops"])[0].clone();
        rows.as_array()
            .unwrap()
            .iter()
            .any(|row| row["reason"] == "AMBIGUOUS_IDENTITY" && row["verdict"] == "DROPPED")
    };
    assert!(dropped(&lab));
    // Until one of them is gone.
    until(|| lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn a_gateway_says_who_it_is_and_what_is_wrong_with_that() {
    let (lab, acme, partner) = (Lab::new(), Authority::new("acme").unwrap(), Authority::new("p").unwrap());
    let _daemon = gateway(&lab, &acme, &partner, &["--enroll-from", "10.1.0.0/24"]);
    let status = || lab.json(&["status"])[0]["svid"].clone();
    until(|| status()["state"] == "current");
    assert_eq!(status()["spiffe_id"], GATEWAY);
    assert_eq!(status()["trust_domains"], serde_json::json!(["acme.example", "partner.example"]));
    fs::write(lab.path("gateway-partner.example.pem"), "broken").unwrap();
    until(|| status()["state"] == "stale");
    assert!(status()["error"].as_str().unwrap().contains("no certificate in it"));
    assert!(lab.ok(&["status"]).contains(&format!("the gateway is {GATEWAY} until ")));
    assert_eq!(metric(&lab, "tidegate_svid_source_current"), 0);
    assert_eq!(metric(&lab, "tidegate_svid_updates_total"), 1);

    let (code, said) = lab.beside("n").fails(&["run", "--enroll", "127.0.0.1:1", "--enroll-from", "::/0"]);
    assert_eq!(code, 2);
    assert!(said.contains("the gateway needs an SVID for it"), "{said}");
}

/// Who is whose: a partner's workloads may open 8443, our own may not.
const FEDERATED: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: payments}
spec: {spiffeId: spiffe://acme.example/ns/shop/sa/payments, addresses: [10.2.0.2/32]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: shop}
spec:
  rules:
    - {name: partners, action: allow, from: [{trustDomain: partner.example}], to: [{any: true}], ports: [tcp/8443]}
";

const ROLES: &str = "\
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: partners}
spec: {role: viewer, subjects: [{trustDomain: partner.example}]}
";

#[test]
#[ignore = "needs root"]
fn a_federated_partner_enrols_is_let_through_by_its_trust_domain_and_asks_the_api() {
    let (lab, acme, partner) = (Lab::new(), Authority::new("acme").unwrap(), Authority::new("p").unwrap());
    // The gateway's own SVID, and the partner's bundle, come over the Workload API.
    let socket = lab.path("agent.sock");
    let given = |lifetime| {
        let own = svid(&acme, GATEWAY, lifetime);
        Given::default().svid(GATEWAY, &own, acme.root()).federated("partner.example", partner.root())
    };
    let agent = Agent::serve(&socket, Some(given(Duration::minutes(10)))).unwrap();
    let endpoint = format!("unix://{}", socket.display());
    let (policy, roles) = (lab.file("shop.yaml", FEDERATED), lab.file("roles.yaml", ROLES));
    let _daemon = lab.run(&[
        "-i",
        "eth1",
        "-i",
        "eth2",
        "-p",
        &policy,
        "--metrics",
        METRICS,
        "--workload-api",
        &endpoint,
        "--enroll",
        DOOR,
        "--enroll-from",
        "10.1.0.0/24",
        "--enroll-trust-domain",
        "partner.example",
        "--listen",
        crate::remote::LISTEN,
        "--api-roles",
        &roles,
    ]);
    let status = || lab.json(&["status"])[0]["svid"].clone();
    until(|| status()["state"] == "current");
    assert_eq!(status()["trust_domains"], serde_json::json!(["acme.example", "partner.example"]));
    let _server = lab.serve(8443);
    assert!(!lab.connects(8443));

    let theirs = "spiffe://partner.example/ns/web/sa/front";
    let both = [("acme.example", &acme), ("partner.example", &partner)];
    let options = pem(&lab, "partner", &svid(&partner, theirs, Duration::hours(1)), &both);
    let with_gateway = [&options[..], &["--gateway-id".to_owned(), GATEWAY.to_owned()]].concat();
    let (code, said) = enroll(&lab, &with_gateway);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with(&format!("10.1.0.2 is {theirs} at {DOOR} until ")), "{said}");
    assert!(lab.connects(8443));
    let flow = lab.flows().into_iter().find(|f| f["source"]["spiffe_id"] == theirs).expect("a flow");
    assert_eq!((&flow["verdict"], &flow["rule"]), (&json("FORWARDED"), &json("shop/partners")));
    // Named domains are all that enrol: the gateway's own is none of them.
    let ours = pem(&lab, "orders", &svid(&acme, ORDERS, Duration::hours(1)), &both);
    let (code, said) = enroll(&lab, &ours);
    assert!(code == 5 && said.contains("identities of acme.example do not enrol here"), "{said}");

    let mut asks = vec!["--server", "https://127.0.0.1:9443", "--server-id", GATEWAY];
    asks.extend(options.iter().map(String::as_str));
    let listed = lab.json(&[&asks[..], &["identity", "list"]].concat())[0].clone();
    assert!(listed.as_array().unwrap().iter().any(|row| row["spiffe_id"] == theirs), "{listed}");
    let (code, said) = lab.fails(&[&asks[..], &["block", "add", "192.0.2.1"]].concat());
    assert!(code == 5 && said.contains(theirs), "{said}");

    // The SVID rotates, and then the partner is none any more: nothing is started anew.
    let updates = metric(&lab, "tidegate_svid_updates_total");
    agent.give(given(Duration::minutes(40)));
    until(|| metric(&lab, "tidegate_svid_updates_total") > updates);
    lab.json(&[&asks[..], &["status"]].concat());
    agent.give(Given::default().svid(GATEWAY, &svid(&acme, GATEWAY, Duration::minutes(40)), acme.root()));
    until(|| lab.tidegate(&[&asks[..], &["status"]].concat()).output().unwrap().status.code() == Some(5));
    let (code, _) = enroll(&lab, &with_gateway);
    assert_eq!(code, 5);
}
