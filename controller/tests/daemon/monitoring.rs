//! The metrics page, its bounds, and what is shipped to read it: alert rules and a dashboard, as a Prometheus has them.

use crate::lab::{self, Lab, POLICY};
use datapath::abi::{HandshakeKey, HandshakeStats, MapName, Reason, ShadowKey};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(file)
}

/// What docs/metrics.md allows each metric to have.
fn bounds() -> BTreeMap<String, usize> {
    let page = include_str!("../../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `tidegate_"));
    let bound = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (
            format!("tidegate_{}", cells[0].trim_end_matches('`')),
            cells[2].replace(',', "").parse().expect(row),
        )
    };
    rows.map(bound).collect()
}

/// Series of a page by metric.
fn series(page: &str) -> BTreeMap<String, usize> {
    let mut families = BTreeMap::new();
    let kinds: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let histograms: BTreeSet<&str> =
        kinds.iter().filter_map(|line| line.strip_suffix(" histogram")).collect();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let of = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let family = of.filter(|base| histograms.contains(base)).unwrap_or(name);
        *families.entry(family.to_owned()).or_default() += 1;
    }
    families
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn packet(&mut self) -> Vec<u8> {
        let source = self.next().to_be_bytes();
        let (port, other, flags) = (self.next() as u16, self.next() as u16, self.next());
        let ip = etherparse::PacketBuilder::ipv4(source, [10, 2, 0, 2], 64);
        let mut packet = Vec::new();
        if flags & 64 != 0 {
            ip.udp(other, port).write(&mut packet, b"?").expect("a packet");
            return packet;
        }
        let mut tcp = ip.tcp(other, port, self.next(), 1024);
        if flags & 1 != 0 {
            tcp = tcp.syn();
        }
        if flags & 2 != 0 {
            tcp = tcp.fin();
        }
        if flags & 4 != 0 {
            tcp = tcp.rst();
        }
        tcp.write(&mut packet, b"").expect("a packet");
        packet
    }
}

fn ten_thousand_identities() -> String {
    let mut policy = POLICY.to_owned();
    for i in 0..10_000 {
        let (a, b) = (i / 250, i % 250 + 1);
        write!(
            policy,
            "---\napiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: w{i}}}\n\
             spec: {{spiffeId: spiffe://acme.example/ns/load/sa/w{i}, addresses: [10.9.{a}.{b}/32]}}\n"
        )
        .expect("a string");
    }
    policy
}

#[test]
#[ignore = "needs root"]
fn the_page_stays_within_its_bounds_whoever_sends_what() {
    let lab = Lab::new();
    let policy = lab.file("shop.yaml", &ten_thousand_identities());
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &policy, "--metrics", lab::METRICS]);
    let mut numbers = Numbers(7);
    lab.send_raw("left", (0..20_000).map(|_| numbers.packet()));
    let after_attack = series(&lab.metrics());
    let dropped = lab.json(&["drops"]);
    assert!(dropped[0].as_array().is_some_and(|rows| !rows.is_empty()));

    // As many handshakes of as many pairs, and as many changes, as the maps hold.
    let maps = lab.maps();
    let cpus = maps.lost.get(0).expect("a counter").len();
    let buckets = [1; HandshakeStats::BUCKETS];
    let stats = HandshakeStats { count: buckets.len() as u64, sum_ns: 1_000_000, max_ns: 900_000, buckets };
    let mut keys = BTreeSet::new();
    while keys.len() < maps.handshakes.max_entries() as usize {
        let (orig_identity, resp_identity) = (1 + numbers.next() % 10_000, 1 + numbers.next() % 10_000);
        let [kind, outcome, stage] = [3, 10, 3].map(|n| (numbers.next() % n) as u8);
        keys.insert(HandshakeKey { orig_identity, resp_identity, kind, outcome, stage, inferred: 0 });
    }
    let room = maps.handshakes.max_entries() as usize - maps.handshakes.len().expect("a table");
    for key in keys.iter().take(room) {
        // The kernel allocates memory of every CPU behind our back, and says so while there is none yet.
        lab::until(|| maps.handshakes.insert(key, vec![stats; cpus]).is_ok());
    }
    // Reasons make the rows: rules of these numbers have no names.
    let reason = |n: u32| Reason::ALL[n as usize % Reason::COUNT] as u8;
    for n in 0..4_000 {
        let (old_reason, new_reason) = (reason(n), reason(n / 60));
        let key =
            ShadowKey { old_rule: n, new_rule: n + 1, old_action: 1, old_reason, new_action: 2, new_reason };
        maps.shadow.insert(&key, vec![1; cpus]).expect("room");
    }

    let page = lab.metrics();
    let (found, bounds) = (series(&page), bounds());
    for (name, series) in &found {
        let bound = bounds.get(name).unwrap_or_else(|| panic!("docs/metrics.md does not know {name}"));
        assert!(series <= bound, "{name} has {series} series, at most {bound} are documented");
    }
    assert_eq!(found["tidegate_shadow_difference_total"], 201);
    let pairs_on_page: BTreeSet<_> = page
        .lines()
        .filter(|line| line.starts_with("tidegate_handshake_total{"))
        .map(|line| (label(line, "source"), label(line, "destination")))
        .collect();
    assert_eq!(pairs_on_page.len(), 501, "500 pairs, and the others");
    let total: usize = found.values().sum();
    assert!(page.contains(&format!("tidegate_exported_series {}\n", total - 1)), "{total}");
    // The attack alone: two directions, two interfaces, and the reasons that it found.
    assert!(after_attack["tidegate_drop_count_total"] <= 4 * 64, "{after_attack:?}");
    // Nothing is lost among the others.
    let sum: f64 = page
        .lines()
        .filter(|line| line.starts_with("tidegate_shadow_difference_total"))
        .map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number"))
        .sum();
    assert_eq!(sum, 4_000.0 * cpus as f64);
    // Who has a place keeps it.
    let names = |page: &str| -> BTreeSet<String> {
        page.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    // What the hosts say unasked, such as a neighbour that is looked for, may come in addition.
    let (before, later) = (names(&page), names(&lab.metrics()));
    assert_eq!(before.difference(&later).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(series(&lab.metrics())["tidegate_shadow_difference_total"], 201);
}

fn label<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("{name}=\"")).expect("the label");
    rest.split('"').next().expect("its value")
}

/// Every query of the dashboard, with its variables as Grafana fills them in.
fn dashboard_queries() -> Vec<String> {
    let text = std::fs::read_to_string(packaging("grafana/tidegate.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations").iter();
    let queries = targets.chain(annotations).map(|one| one["expr"].as_str().expect("a query"));
    let fill = |query: &str| {
        let query = query.replace("$instance", ".*").replace("$__rate_interval", "1m");
        query.replace("$__interval", "1m").replace("$__range", "1h")
    };
    queries.map(fill).collect()
}

/// Names of ours in a query; those of a histogram's parts are the histogram's.
fn named(query: &str) -> Vec<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("tidegate_"));
    ours.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn dashboard_and_alerts_name_metrics_that_there_are() {
    let rules = std::fs::read_to_string(packaging("prometheus/tidegate.rules.yml")).expect("the rules");
    let bounds = bounds();
    let queries = dashboard_queries();
    assert!(queries.len() > 20);
    let shown: BTreeSet<String> = queries.iter().flat_map(|query| named(query)).collect();
    for name in shown.iter().chain(&named(&rules)) {
        assert!(bounds.contains_key(name), "{name} is no metric of docs/metrics.md");
    }
    // Not on the dashboard: what is told by another, and what is for Prometheus itself.
    let left_out =
        ["drop_bytes_total", "build_info", "shadow_pending", "shadow_same_total", "exported_series"];
    let left_out = left_out.map(|name| format!("tidegate_{name}"));
    let absent: Vec<_> =
        bounds.keys().filter(|name| !shown.contains(*name) && !left_out.contains(name)).collect();
    assert!(absent.is_empty(), "the dashboard shows nothing of {absent:?}");
}

#[test]
fn alerts_fire_when_they_should_with_promtool() {
    for (what, file) in [("check", "tidegate.rules.yml"), ("test", "tidegate.rules.test.yml")] {
        let mut promtool = Command::new("promtool");
        promtool.args([what, "rules", file]).current_dir(packaging("prometheus"));
        let output = promtool.output().expect("promtool");
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A Prometheus beside the daemon, killed when dropped.
struct Prometheus<'a> {
    lab: &'a Lab,
    child: Child,
}

const PROMETHEUS: &str = "127.0.0.1:9090";

impl<'a> Prometheus<'a> {
    fn start(lab: &'a Lab) -> Self {
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             scrape_configs: [{{job_name: tidegate, static_configs: [{{targets: ['{}']}}]}}]\n\
             rule_files: ['{}']\n",
            lab::METRICS,
            packaging("prometheus/tidegate.rules.yml").canonicalize().expect("the rules").display()
        );
        let mut command = lab.in_gateway("prometheus");
        command.arg(format!("--config.file={}", lab.file("prometheus.yml", &config)));
        command.arg(format!("--storage.tsdb.path={}", lab.folder("tsdb")));
        command.arg(format!("--web.listen-address={PROMETHEUS}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("prometheus");
        let prometheus = Self { lab, child };
        lab::until(|| prometheus.lab.listens(PROMETHEUS));
        // It listens before it has read its write-ahead log, and answers 503 until then.
        lab::until(|| lab.http(PROMETHEUS, "GET /-/ready HTTP/1.0\r\nHost: gw\r\n\r\n").contains("Ready"));
        prometheus
    }

    fn get(&self, path: &str) -> Value {
        let body = self.lab.http(PROMETHEUS, &format!("GET {path} HTTP/1.0\r\nHost: gw\r\n\r\n"));
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
    }

    /// The results of a query.
    fn query(&self, query: &str) -> Vec<Value> {
        let byte =
            |b: u8| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") };
        let encoded: String = query.bytes().map(byte).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().expect("results").clone()
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs root"]
fn a_real_scrape_answers_dashboard_and_alerts_with_prometheus() {
    let lab = Lab::new();
    let policy = lab.file("shop.yaml", POLICY);
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &policy, "--metrics", lab::METRICS]);
    let _server = lab.serve(8443);
    assert!(lab.connects(8443));
    assert!(!lab.connects(9000));
    let prometheus = Prometheus::start(&lab);
    let value = |query: &str| -> Option<String> {
        Some(prometheus.query(query).first()?["value"][1].as_str().expect("a value").to_owned())
    };
    lab::until(|| value(r#"up{job="tidegate"}"#).as_deref() == Some("1"));
    assert_eq!(value("tidegate_identities").as_deref(), Some("2"));
    assert_eq!(value("sum(tidegate_interface_attached)").as_deref(), Some("2"));
    assert_ne!(value(r#"sum(tidegate_drop_count_total{reason="POLICY_DENIED"})"#).as_deref(), Some("0"));
    // Rates need two scrapes.
    lab::until(|| value("sum(rate(tidegate_forward_count_total[1m]))").is_some());
    let mut answered = 0;
    for query in dashboard_queries() {
        answered += usize::from(!prometheus.query(&query).is_empty());
    }
    assert!(answered >= 15, "{answered} queries of the dashboard found something");

    let rules = || {
        prometheus.get("/api/v1/rules")["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default()
    };
    lab::until(|| !rules().is_empty() && rules().iter().all(|rule| rule["health"] != "unknown"));
    for rule in rules() {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    daemon.stop();
    lab::until(|| value(r#"up{job="tidegate"}"#).as_deref() == Some("0"));
    let pending = || rules().iter().any(|rule| rule["name"] == "TidegateDown" && rule["state"] == "pending");
    lab::until(pending);
}

#[test]
#[ignore = "needs root"]
fn every_table_that_can_fill_says_how_full_it_is_and_has_the_size_that_was_asked_for() {
    const ENTRIES: u32 = 1_024;
    // Rings are empty but for a moment, and what finds no room in them is counted; filters do not fill.
    const OTHERS: [&str; 4] = [MapName::EVENTS, MapName::HELLOS, MapName::WHEREABOUTS, MapName::FLOW_TAGS];
    let sizes = loader::Sizes::default();
    let sized = |map: &&str| sizes.of(map).is_some() && !OTHERS.contains(map);
    let tables: Vec<_> = MapName::ALL.into_iter().filter(sized).collect();
    let lab = Lab::new();
    let options = tables.iter().flat_map(|map| ["--map-size".to_owned(), format!("{map}={ENTRIES}")]);
    let options: Vec<_> = ["-i".to_owned(), "eth1".to_owned()].into_iter().chain(options).collect();
    let mut daemon = lab.run(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let status = lab.json(&["status"]).remove(0);
    let told = status["maps"].as_array().expect("maps");
    let mut expected: Vec<_> = tables
        .iter()
        .map(|map| (*map, if *map == MapName::HALF_OPEN { ENTRIES / 8 * 7 } else { ENTRIES }))
        .collect();
    let mut found: Vec<_> = told
        .iter()
        .map(|m| (m["map"].as_str().unwrap(), m["max_entries"].as_u64().unwrap() as u32))
        .collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    daemon.stop();
}
