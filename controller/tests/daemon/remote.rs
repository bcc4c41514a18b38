//! The API over mTLS: who the client is decides what it may do, for as long as it is believed.

use crate::lab::{Daemon, Lab, POLICY, json, until};
use crate::policy::apply_beside;
use authority::{Authority, Duration, OffsetDateTime, leaf_params};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use tidegate::svid::SourceArgs;
use tidegate::svid::tls::{Expected, client_config};

const GATEWAY: &str = "spiffe://acme.example/gw";
pub const LISTEN: &str = "127.0.0.1:9443";

const ROLES: &str = "\
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: watchers}
spec: {role: viewer, subjects: [{spiffePath: 'spiffe://acme.example/ns/watch/*'}, {user: '4201'}]}
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
        self.svid_for(authority, name, id, Duration::hours(1))
    }

    fn svid_for(&self, authority: &Authority, name: &str, id: &str, lifetime: Duration) -> Vec<String> {
        let now = OffsetDateTime::now_utc();
        let params = leaf_params(id, now - Duration::hours(1), now + lifetime).expect("parameters");
        let svid = authority.issue(params).expect("an SVID");
        let cert = self.lab.file(&format!("{name}.pem"), svid.chain_pem());
        let key = self.lab.file(&format!("{name}.key"), svid.key_pem());
        ["--svid-cert", &cert, "--svid-key", &key, "--trust-bundle", &self.bundle].map(str::to_owned).to_vec()
    }

    pub fn run(&self) -> Daemon {
        self.run_with(ROLES)
    }

    pub fn run_with(&self, roles: &str) -> Daemon {
        let (shop, roles) = (self.lab.file("shop.yaml", POLICY), self.lab.file("roles.yaml", roles));
        let mut options = self.svid(&self.authority, "gateway", GATEWAY);
        options.extend(["-p", &shop, "--api-roles", &roles, "--listen", LISTEN].map(str::to_owned));
        self.lab.run(&options.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The options of a client, up to its command.
    pub fn client(&self, name: &str, id: &str) -> Vec<String> {
        self.client_for(name, id, Duration::hours(1))
    }

    /// Who has an SVID and speaks for itself.
    pub fn dialer(&self, name: &str, id: &str) -> Dialer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        self.svid(&self.authority, name, id);
        let file = |what: &str| self.lab.path(&format!("{name}.{what}"));
        let (cert, key) = (Some(file("pem")), Some(file("key")));
        let trust_bundle = vec![self.bundle.parse().expect("a bundle")];
        let source = SourceArgs { svid_cert: cert, svid_key: key, trust_bundle, ..SourceArgs::default() };
        let live = runtime.block_on(async {
            let live = source.source().expect("right").expect("a source").start();
            let mut changes = live.changes();
            while live.material().is_none() {
                changes.changed().await.expect("a source that lives");
            }
            live
        });
        let expected = Expected::TrustDomain("acme.example".parse().expect("a trust domain"));
        Dialer(Arc::new(client_config(&live, expected).expect("TLS")))
    }

    /// The same whose SVID ends after so long.
    fn client_for(&self, name: &str, id: &str, lifetime: Duration) -> Vec<String> {
        let server = ["--server".to_owned(), format!("https://{LISTEN}")];
        server.into_iter().chain(self.svid_for(&self.authority, name, id, lifetime)).collect()
    }
}

/// Who connects as a client does, to send bytes of its own.
pub struct Dialer(Arc<rustls::ClientConfig>);

impl Dialer {
    /// Connects and proves who it is. In the gateway's namespace.
    pub fn dial(&self) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
        let name = "127.0.0.1".try_into().expect("a name");
        let mut tls = rustls::ClientConnection::new(self.0.clone(), name).expect("a client");
        let mut stream = TcpStream::connect(LISTEN).expect("the gateway");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a socket");
        tls.complete_io(&mut stream).expect("a handshake");
        rustls::StreamOwned::new(tls, stream)
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
}

#[test]
#[ignore = "needs root"]
fn what_is_done_on_this_host_alone_is_not_done_here_when_it_was_meant_for_another() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let mut daemon = mesh.run();
    let watcher = mesh.client("watcher", "spiffe://acme.example/ns/watch/dashboard");
    let shop = lab.path("shop.yaml").display().to_string();
    for command in [
        &["doctor"][..],
        &["audit", "show"],
        &["audit", "verify"],
        &["audit", "head"],
        &["audit", "export"],
        &["audit", "key"],
        &["policy", "check", &shop],
        &["why", "orders", "payments", "8443", "--policy", &shop],
        &["detach", "--all"],
        &["openapi"],
    ] {
        let (exit, said) = lab.fails(&of(&watcher, command));
        assert!(exit == 2 && said.contains("for this host alone"), "{command:?}: {said}");
    }
    // Nobody answers there: what is attached here stays attached.
    lab.ok(&["attach", "eth1"]);
    daemon.stop();
    let (exit, said) = lab.fails(&of(&watcher, &["detach", "eth1"]));
    assert!(exit == 3 && said.contains(LISTEN), "{said}");
    assert!(lab.output("ip", &["link", "show", "eth1"]).contains("xdp"));
    assert!(lab.pin_dir().exists());
    lab.ok(&["detach", "eth1"]);
    assert!(!lab.output("ip", &["link", "show", "eth1"]).contains("xdp"));
}

#[test]
#[ignore = "needs root"]
fn live_traffic_is_judged_by_a_policy_from_afar_before_it_is_applied_or_not() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let boss = "---\napiVersion: tidegate.dev/v1\nkind: RoleBinding\nmetadata: {name: boss}\nspec: {role: approver, subjects: [{spiffeId: spiffe://acme.example/ns/ops/boss}]}\n";
    let _daemon = mesh.run_with(&format!("{ROLES}{boss}"));
    let boss = mesh.client("boss", "spiffe://acme.example/ns/ops/boss");
    lab.ok(&["attach", "eth1"]);
    lab.ok(&["attach", "eth2"]);
    let _server = lab.serve(8443);
    let deny = lab.file("deny.yaml", &POLICY.replace("action: allow", "action: deny"));
    let apply = |args| {
        let all = [&["policy", "apply", &deny, "--shadow", "5s"][..], args].concat();
        apply_beside(&lab, &of(&boss, &all))
    };
    let (code, said, wrong) = apply(&["--max-changes", "0"]);
    assert_eq!(code, Some(1), "{said} {wrong}");
    assert!(said.contains("FORWARDED") && said.contains("DROPPED") && said.contains("shop/pay"), "{said}");
    assert!(wrong.contains("more than --max-changes 0; nothing was applied"), "{wrong}");
    assert!(lab.connects(8443));
    let (code, said, wrong) = apply(&[]);
    assert_eq!(code, Some(0), "{said} {wrong}");
    assert!(!lab.connects(8443));
}

/// `orders` on one interface, on two VLANs there, and for some ports.
fn placed() -> String {
    let (first, rest) = POLICY.split_once("---\n").expect("documents");
    let on = |scope: &str| {
        first.replace("addresses: [10.1.0.2/32]", &format!("addresses: [10.1.0.2/32], {scope}"))
    };
    let other = on("interface: eth1, vlan: 20").replace("orders", "reports");
    format!("{}---\n{other}---\n{rest}", on("interface: eth1, ports: [tcp/30000-30999]"))
}

#[test]
#[ignore = "needs root"]
fn why_says_the_same_to_root_to_a_user_over_mtls_and_of_the_files_alone() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let _daemon = mesh.run();
    let file = lab.file("placed.yaml", &placed());
    lab.ok(&["policy", "apply", &file]);
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let watcher = mesh.client("watcher", "spiffe://acme.example/ns/watch/dashboard");
    let run_dir = lab.path("run").display().to_string();
    let as_user = |words: &[&str]| {
        let mut command = lab.in_gateway("setpriv");
        command.args(["--reuid=4201", "--regid=4201", "--clear-groups", env!("CARGO_BIN_EXE_tidegate")]);
        let output =
            command.args(["--name", lab.name(), "--run-dir", &run_dir]).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let asked = ["why", "10.1.0.2", "10.2.0.2", "8443"];
    for (more, reason) in [
        (&["--interface", "eth1", "--source-port", "30500"][..], "FORWARDED"),
        (&["--interface", "eth1", "--source-port", "8443"], "INVALID_IDENTITY"),
        (&["--interface", "eth2", "--source-port", "30500"], "INVALID_IDENTITY"),
        (&["--interface", "eth1", "--vlan", "20"], "POLICY_DENIED"),
        (&[], "POLICY_DENIED"),
    ] {
        for form in ["json", "table"] {
            let words = [&asked, more, &["-o", form]].concat();
            let root = lab.ok(&words);
            assert!(root.contains(reason), "{more:?}: {root}");
            assert_eq!(as_user(&words), root, "{more:?}");
            assert_eq!(lab.ok(&of(&watcher, &words)), root, "{more:?}");
            // It is asked as nobody: files are all that it needs.
            let alone = [&words[..], &["--policy", &file]].concat();
            assert_eq!(as_user(&alone), root, "{more:?}");
        }
    }
    let (exit, said) = lab.fails(&["why", "10.1.0.2", "10.2.0.2", "icmp", "--source-port", "1"]);
    assert!(exit == 2 && said.contains("`icmp` is opened from no port"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn who_follows_events_sees_no_more_once_the_role_is_taken_away() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let _daemon = mesh.run();
    let client = |name: &str| mesh.client(name, &format!("spiffe://acme.example/ns/watch/{name}"));
    let follow = |client: &[String]| {
        let mut command = lab.tidegate(&of(client, &["observe", "-f"]));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (stays, goes) = (client("stays"), client("goes"));
    let (mut staying, mut going) = (follow(&stays), follow(&goes));
    lab.ok(&of(&goes, &["status"]));
    lab.file("roles.yaml", &ROLES.replace("ns/watch/*", "ns/watch/stays"));
    let mut said = String::new();
    going.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(going.wait().unwrap().code(), Some(3), "{said}");
    assert!(said.contains("lets you see no more"), "{said}");
    assert_eq!(lab.fails(&of(&goes, &["status"])).0, 5);
    // It is the role that ends it, and nothing else.
    lab.ok(&of(&stays, &["status"]));
    assert_eq!(staying.try_wait().unwrap(), None);
    staying.kill().unwrap();
    staying.wait().unwrap();
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
fn a_connection_ends_with_the_svid_of_who_opened_it() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let _daemon = mesh.run();
    let id = "spiffe://acme.example/ns/watch/dashboard";
    let end = OffsetDateTime::now_utc() + Duration::seconds(12);
    let (short, long) = (mesh.client_for("short", id, Duration::seconds(12)), mesh.client("long", id));
    let follow = |client: &[String]| {
        let mut command = lab.tidegate(&of(client, &["observe", "-f"]));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (mut ends, mut stays) = (follow(&short), follow(&long));
    let mut said = String::new();
    ends.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(ends.wait().unwrap().code(), Some(3), "{said}");
    assert!(OffsetDateTime::now_utc() >= end - Duration::seconds(1), "not before its end: {said}");
    assert_eq!(stays.try_wait().unwrap(), None, "the other's SVID goes on");
    stays.kill().unwrap();
    stays.wait().unwrap();
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

#[test]
#[ignore = "needs root"]
fn a_dry_run_over_mtls_says_what_one_on_the_gateway_says_and_applies_nothing() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let _daemon = mesh.run();
    lab.ok(&["attach", "eth1", "eth2"]);
    let (_pay, _admin) = (lab.serve(8443), lab.serve(9000));
    assert!(lab.connects(8443) && !lab.connects(9000));
    let oncall = mesh.client("oncall", "spiffe://acme.example/ns/ops/oncall");
    let moved = lab.file("moved.yaml", &POLICY.replace("tcp/8443", "tcp/9000"));
    for command in [
        &["policy", "diff", &moved][..],
        &["policy", "diff", "--flows", &moved],
        &["policy", "apply", "--dry-run", &moved],
        &["policy", "apply", "--dry-run", "-o", "json", &moved],
    ] {
        // Neighbour discovery adds flows as it likes.
        let same = (0..10).any(|_| lab.ok(&of(&oncall, command)) == lab.ok(command));
        assert!(same, "{}\n{}", lab.ok(&of(&oncall, command)), lab.ok(command));
    }
    let found = &lab.json(&of(&oncall, &["policy", "apply", "--dry-run", &moved]))[0]["flows"];
    assert_eq!(found["changed"], 2, "{found}");
    let strict = ["policy", "apply", "--dry-run", "--max-changes", "1", &moved];
    let (exit, said) = lab.fails(&of(&oncall, &strict));
    assert!(exit == 1 && said.contains("2 would get another verdict, more than --max-changes 1"), "{said}");
    let wrong = lab.file("wrong.yaml", &POLICY.replace("ports:", "portz:"));
    let (exit, said) = lab.fails(&of(&oncall, &["policy", "diff", &wrong]));
    assert!(exit == 2 && said.contains("wrong.yaml:") && said.contains("`ports`"), "{said}");
    assert_eq!(lab.json(&["status"])[0]["revision"], 1, "nothing was applied");
    let watcher = mesh.client("watcher", "spiffe://acme.example/ns/watch/dashboard");
    assert_eq!(lab.fails(&of(&watcher, &["policy", "diff", &moved])).0, 5);
}
