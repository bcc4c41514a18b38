//! The API over mTLS: who the client is decides what it may do, for as long as it is believed.

use crate::lab::{Daemon, Lab, POLICY, json, until};
use authority::{Authority, Duration, OffsetDateTime, leaf_params};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const GATEWAY: &str = "spiffe://acme.example/gw";
pub const LISTEN: &str = "127.0.0.1:9443";

const ROLES: &str = "\
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: watchers}
spec: {role: viewer, subjects: [{spiffePath: 'spiffe://acme.example/ns/watch/*'}]}
---
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: oncall}
spec: {role: operator, subjects: [{spiffeId: spiffe://acme.example/ns/ops/oncall}]}
";

/// A gateway with an authority, and clients of it.
pub struct Mesh<'l> {
    lab: &'l Lab,
    authority: Authority,
    bundle: String,
}

impl<'l> Mesh<'l> {
    pub fn new(lab: &'l Lab) -> Self {
        let authority = Authority::new("acme").expect("an authority");
        let bundle = lab.file("bundle.pem", authority.root_pem());
        Self { lab, authority, bundle: format!("acme.example={bundle}") }
    }

    /// The options of whoever has an SVID of this authority.
    fn svid(&self, authority: &Authority, name: &str, id: &str) -> Vec<String> {
        let now = OffsetDateTime::now_utc();
        let params = leaf_params(id, now - Duration::hours(1), now + Duration::hours(1)).expect("parameters");
        let svid = authority.issue(params).expect("an SVID");
        let cert = self.lab.file(&format!("{name}.pem"), svid.chain_pem());
        let key = self.lab.file(&format!("{name}.key"), svid.key_pem());
        ["--svid-cert", &cert, "--svid-key", &key, "--trust-bundle", &self.bundle].map(str::to_owned).to_vec()
    }

    pub fn run(&self) -> Daemon {
        let (shop, roles) = (self.lab.file("shop.yaml", POLICY), self.lab.file("roles.yaml", ROLES));
        let mut options = self.svid(&self.authority, "gateway", GATEWAY);
        options.extend(["-p", &shop, "--api-roles", &roles, "--listen", LISTEN].map(str::to_owned));
        self.lab.run(&options.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The options of a client, up to its command.
    pub fn client(&self, name: &str, id: &str) -> Vec<String> {
        let server = ["--server".to_owned(), format!("https://{LISTEN}")];
        server.into_iter().chain(self.svid(&self.authority, name, id)).collect()
    }
}

/// A client's options and a command.
pub fn of<'a>(client: &'a [String], command: &[&'a str]) -> Vec<&'a str> {
    client.iter().map(String::as_str).chain(command.iter().copied()).collect()
}

#[test]
#[ignore = "needs root"]
fn a_client_may_do_what_the_role_of_its_spiffe_id_says() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let _daemon = mesh.run();
    let watcher = mesh.client("watcher", "spiffe://acme.example/ns/watch/dashboard");
    let oncall = mesh.client("oncall", "spiffe://acme.example/ns/ops/oncall");

    let status = &lab.json(&of(&watcher, &["status"]))[0];
    assert_eq!((&status["daemon"], &status["name"]), (&json(true), &json(lab.name())));
    let why = &lab.json(&of(&watcher, &["why", "orders", "payments", "8443"]))[0];
    assert_eq!((&why["verdict"], &why["rule"]), (&json("FORWARDED"), &json("shop/pay")));
    assert!(lab.ok(&of(&watcher, &["policy", "show"])).contains("shop/pay"), "tables too");
    let (exit, said) = lab.fails(&of(&watcher, &["block", "add", "10.9.0.0/16"]));
    assert!(
        exit == 5
            && said.contains(
                "needs the role operator; you, spiffe://acme.example/ns/watch/dashboard, are viewer"
            ),
        "{said}"
    );

    lab.ok(&of(&oncall, &["block", "add", "10.9.0.0/16", "--reason", "a test"]));
    assert!(lab.ok(&of(&watcher, &["block", "list"])).contains("10.9.0.0/16"));
    let history = &lab.json(&of(&watcher, &["policy", "history"]))[0];
    assert_eq!(history[0]["spiffe_id"], "spiffe://acme.example/ns/ops/oncall");
    assert_eq!((&history[0]["uid"], &history[0]["how"]), (&serde_json::Value::Null, &json("block add")));
    assert_eq!(lab.fails(&of(&oncall, &["policy", "apply", &lab.file("again.yaml", POLICY)])).0, 5);

    // Who has no role learns nothing else, whatever is asked.
    let nobody = mesh.client("nobody", "spiffe://acme.example/ns/shop/sa/orders");
    for command in [&["status"][..], &["block", "add", "10.9.0.0/16"], &["observe"]] {
        let (exit, said) = lab.fails(&of(&nobody, command));
        assert!(exit == 5 && said.contains("you have no role here"), "{said}");
    }
    let local = lab.fails(&of(&watcher, &["doctor"]));
    assert!(local.0 == 2 && local.1.contains("for this host alone"), "{local:?}");
}

#[test]
#[ignore = "needs root"]
fn neither_a_client_nor_a_server_is_believed_that_is_not_who_it_should_be() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let _daemon = mesh.run();
    let id = "spiffe://acme.example/ns/watch/dashboard";
    let stranger = Authority::new("acme").unwrap();
    let mut client = mesh.client("watcher", id);
    lab.ok(&of(&client, &["--server-id", GATEWAY, "status"]));
    lab.ok(&of(&client, &["--server-id", "acme.example", "status"]));
    for other in ["spiffe://acme.example/other", "other.example"] {
        let (exit, said) = lab.fails(&of(&client, &["--server-id", other, "status"]));
        assert!(exit == 5 && said.contains("is not believed") && said.contains(GATEWAY), "{said}");
    }
    client.truncate(2);
    client.extend(mesh.svid(&stranger, "stranger", id));
    let (exit, said) = lab.fails(&of(&client, &["status"]));
    assert!(exit == 5 && said.contains("does not believe this SVID"), "{said}");
    assert_eq!(lab.fails(&["--server", "https://127.0.0.1:9443", "status"]).0, 2, "without an SVID");
}

#[test]
#[ignore = "needs root"]
fn a_bundle_that_changes_ends_the_connections_of_who_is_not_believed_any_more() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let _daemon = mesh.run();
    let watcher = mesh.client("watcher", "spiffe://acme.example/ns/watch/dashboard");
    // Its own bundle stays: what ends is the gateway's doing.
    let own = lab.file("own.pem", mesh.authority.root_pem());
    let watcher: Vec<_> = watcher
        .into_iter()
        .map(|word| if word == mesh.bundle { format!("acme.example={own}") } else { word })
        .collect();
    lab.ok(&["block", "add", "10.9.0.0/16"]);
    let mut observer = lab
        .tidegate(&of(&watcher, &["observe", "-f"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    lab.ok(&of(&watcher, &["status"]));
    lab.file("bundle.pem", Authority::new("acme").unwrap().root_pem());
    let mut said = String::new();
    let mut stderr = BufReader::new(observer.stderr.take().unwrap());
    while stderr.read_line(&mut said).is_ok_and(|n| n > 0) {}
    assert_eq!(observer.wait().unwrap().code(), Some(3), "{said}");
    until(|| lab.tidegate(&of(&watcher, &["status"])).output().unwrap().status.code() == Some(5));
}
