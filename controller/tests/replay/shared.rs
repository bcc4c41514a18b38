//! Shared captures with the answers of tshark and Zeek, where they are: beside the checkout, or where
//! TIDEGATE_CAPTURES says.

use super::engines::print;
use super::run::{HOST, parse};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tidegate::replay::kernel::KernelEngine;
use tidegate::replay::setup::Setup;

type Row = HashMap<String, String>;

struct Case {
    name: String,
    folder: PathBuf,
    capture: PathBuf,
    is_ethernet: bool,
}

fn cases() -> Vec<Case> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    let root = std::env::var_os("TIDEGATE_CAPTURES").map_or(beside, PathBuf::from);
    let group = |group: &str| {
        let folder = root.join(group);
        let rows = table(&folder.join("index.tsv")).expect("shared captures, or TIDEGATE_CAPTURES");
        rows.into_iter().map(move |row| Case {
            name: row["case"].clone(),
            folder: folder.join(&row["case"]),
            capture: folder.join(&row["case"]).join(&row["pcap"]),
            is_ethernet: row["link"] == "ether",
        })
    };
    group("zeek").chain(group("odd")).collect()
}

fn table(path: &Path) -> Option<Vec<Row>> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let heads: Vec<_> = lines.next()?.split('\t').map(String::from).collect();
    Some(lines.map(|line| heads.iter().cloned().zip(line.split('\t').map(String::from)).collect()).collect())
}

/// The outermost of several values.
fn first(row: &Row, column: &str) -> Option<String> {
    (row[column] != "-").then(|| row[column].split(',').next().unwrap_or_default().to_string())
}

fn number(row: &Row, column: &str) -> Value {
    json!(first(row, column).map(|text| text.parse::<u64>().unwrap()))
}

fn flags(row: &Row) -> Value {
    let bit = |letter| match letter {
        'F' => 1,
        'S' => 2,
        'R' => 4,
        'P' => 8,
        'A' => 16,
        'U' => 32,
        'E' => 64,
        'C' => 128,
        'a' => 256,
        'r' => 0xe00,
        _ => 0,
    };
    json!(first(row, "tcp_flags").map(|letters| letters.chars().map(bit).sum::<u64>()))
}

/// What tshark says of the outermost layers, in the fields of a packet record.
fn expected(row: &Row) -> Vec<(&'static str, Value)> {
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let types: Vec<u64> = row["eth_types"].split(',').filter(|text| *text != "-").map(hex).collect();
    let tags = types.iter().take_while(|kind| [0x8100, 0x88a8].contains(*kind)).count();
    let eth_type = types.get(tags).copied();
    let vlans: Vec<u64> = row["vlan_ids"].split(',').filter_map(|id| id.parse().ok()).collect();
    // tshark gives no inner type for 802.1Q behind 802.1ad; every tag has an ID.
    let tags = if types.first() == Some(&0x88a8) { vlans.len() } else { tags };
    let is_ip = matches!(eth_type, Some(0x0800 | 0x86dd));
    let proto = number(row, "proto").as_u64().filter(|_| is_ip);
    let later = first(row, "frag_off").is_some_and(|offset| offset != "0");
    let has_ports = matches!(proto, Some(6 | 17 | 132)) && !later;
    let is_icmp = matches!(proto, Some(1 | 58));
    let when = |holds: bool, value: Value| if holds { value } else { Value::Null };
    let text = |column| json!(first(row, column));
    vec![
        ("eth_type", json!(eth_type)),
        ("vlans", when(tags > 0, json!(vlans.get(..tags)))),
        ("ip_version", when(is_ip, number(row, "ip_versions"))),
        ("src", when(is_ip, text("src"))),
        ("dst", when(is_ip, text("dst"))),
        ("proto", json!(proto)),
        ("sport", when(has_ports, number(row, "sport"))),
        ("dport", when(has_ports, number(row, "dport"))),
        ("tcp_flags", when(proto == Some(6), flags(row))),
        ("icmp_type", when(is_icmp, number(row, "icmp_type"))),
        ("icmp_code", when(is_icmp, number(row, "icmp_code"))),
        ("frag_offset", when(is_ip, number(row, "frag_off"))),
        ("more_fragments", when(is_ip, json!(first(row, "frag_more").map(|more| more == "1")))),
        ("ip_bytes", when(is_ip, number(row, "ip_total_len"))),
    ]
}

/// Frames in which a field differs, by case, with what is the reason.
const KNOWN_FRAMES: [(&str, u32); 10] = [
    // Cisco FabricPath is an EtherType of its own, which is not looked into; and SCTP without a chunk is refused.
    ("cisco-fabric-path", 25),
    // The IP header says more bytes than were captured, although the file says that nothing was cut.
    ("tcp__reassembly", 5),
    ("nDPI__badpackets", 86),
    ("nDPI__tls_invalid_reads", 1),
    ("suricata-verify__output-eve-anomaly-packethdr", 2),
    // No IPv4 header behind the EtherType: tshark still shows a version.
    ("trunc__mpls-6in6-broken", 22),
    // A total length below the header's.
    ("tcpdump__ipv4_invalid_total_length_2", 1),
    // The first fragment ends in the TCP header (RFC 1858): tshark shows what is left of it.
    ("suricata-verify__defrag__bug-6887-defrag-eth-vlan-ipv4-tcp-syn", 1),
    // Longer than the kernel's test-run takes: both engines see the first 65,561 bytes.
    ("tcpdump__bigtcp-ipv4", 1),
    // A jumbogram: the length is the frame's (RFC 2675), tshark's column says 40.
    ("tcpdump__ipv6_jumbogram_1", 1),
];

#[test]
fn frames_agree_with_shared_tshark_answers_with_shared_captures() {
    let (mut frames, mut differ) = (0u32, BTreeMap::<String, u32>::new());
    for case in cases().into_iter().filter(|case| case.is_ethernet) {
        let nodefrag = table(&case.folder.join("tshark_nodefrag.tsv"));
        let Some(rows) = nodefrag.or_else(|| table(&case.folder.join("tshark.tsv"))) else { continue };
        let (text, _) = HOST.packets().text_of(&case.capture);
        let records = parse(&text);
        assert_eq!(records.len(), rows.len(), "{}", case.name);
        for (row, record) in rows.iter().zip(&records) {
            let number = |column: &str| row[column].parse::<u64>().unwrap();
            let notes = &row["tshark_notes"];
            if notes.contains("malformed")
                || notes.contains("short")
                || number("cap_len") < number("wire_len")
            {
                continue;
            }
            frames += 1;
            let wrong: Vec<_> =
                expected(row).into_iter().filter(|(field, value)| record[field] != *value).collect();
            if !wrong.is_empty() {
                *differ.entry(case.name.clone()).or_default() += 1;
                if !KNOWN_FRAMES.iter().any(|(name, _)| *name == case.name) {
                    println!("{} {wrong:?} {record}", case.name);
                }
            }
        }
    }
    let total: u32 = differ.values().sum();
    println!("{frames} whole frames of Ethernet captures, {} agree in every field", frames - total);
    let known: BTreeMap<String, u32> = KNOWN_FRAMES.iter().map(|(name, n)| (name.to_string(), *n)).collect();
    assert_eq!(differ, known);
    assert_eq!(frames, 16_580);
}

/// Frames of tunnels whose inner packet is not what tshark finds, by case: how many are judged by the tunnel, how many differ, and why.
const KNOWN_TUNNELS: [(&str, [u32; 2]); 20] = [
    // ERSPAN: a frame in GRE behind a header of its own.
    ("erspan", [16, 0]),
    ("erspanI", [0, 10]),
    ("tcpdump__erspan-type-i-1", [0, 2]),
    ("tunnels__gre-erspan3-dot1q", [0, 2]),
    // GRE that carries frames of 802.11, and Cisco's MetaData: EtherTypes that pass outside of a tunnel neither.
    ("tunnels__gre-aruba", [0, 2407]),
    ("tcpdump__various_gre", [0, 20]),
    // GTP, Teredo, VXLAN-GPE and GRE in UDP: tunnels that are not looked into.
    ("nDPI__ipv6_in_gtp", [2, 0]),
    ("nDPI__tls_invalid_reads", [2, 0]),
    ("tcpdump__nsh-over-vxlan-gpe", [1, 0]),
    ("tunnels__Teredo", [4, 0]),
    ("tunnels__gre-over-udp-4754", [14, 0]),
    ("tunnels__gtp__gtp1_gn_normal_incl_fragmentation", [72, 0]),
    ("tunnels__gtp__gtp2_different_udp_port", [78, 0]),
    ("tunnels__gtp__gtp4_udp_2152_inside", [1, 0]),
    ("tunnels__gtp__gtp7_ipv6", [2, 0]),
    ("tunnels__gtp__gtp_control_prime", [2, 0]),
    ("tunnels__gtp__gtp_ext_header", [1, 0]),
    ("tunnels__teredo_bubble_with_payload", [4, 0]),
    // Inner headers of which tshark reads no addresses: another version than the tunnel says, and a fragment.
    ("suricata-verify__bug-7964-01", [0, 1]),
    ("suricata-verify__security-8550", [1, 0]),
];

/// tshark's first inner packet in the form `4 10.0.0.1>10.0.0.2 6:40000>443 len=60`; ours in the same.
fn inner(record: &Value) -> String {
    let text = |field: &str| record[field].as_str().unwrap_or("-").to_owned();
    let ports = match (record["sport"].as_u64(), record["dport"].as_u64()) {
        (Some(source), Some(destination)) => format!(":{source}>{destination}"),
        _ => match (record["icmp_type"].as_u64(), record["icmp_code"].as_u64()) {
            (Some(kind), Some(code)) => format!(":{kind}/{code}"),
            _ => String::new(),
        },
    };
    let proto = &record["proto"];
    format!(
        "{} {}>{} {proto}{ports} len={}",
        record["ip_version"],
        text("src"),
        text("dst"),
        record["ip_bytes"]
    )
}

#[test]
fn what_tunnels_carry_agrees_with_shared_tshark_answers_with_shared_captures() {
    let (mut frames, mut agree, mut others) = (0u32, 0u32, BTreeMap::<String, [u32; 2]>::new());
    for case in cases().into_iter().filter(|case| case.is_ethernet) {
        let nodefrag = table(&case.folder.join("tshark_nodefrag.tsv"));
        let Some(rows) = nodefrag.or_else(|| table(&case.folder.join("tshark.tsv"))) else { continue };
        if rows.iter().all(|row| row["inner"] == "-") {
            continue;
        }
        let records = parse(&HOST.packets().inspecting().text_of(&case.capture).0);
        for (row, record) in rows.iter().zip(&records).filter(|(row, _)| row["inner"] != "-") {
            let notes = &row["tshark_notes"];
            if notes.contains("malformed") || notes.contains("short") {
                continue;
            }
            frames += 1;
            let theirs = row["inner"].split(" | ").next().unwrap_or_default();
            if inner(record) == theirs {
                agree += 1;
                continue;
            }
            let is_outer =
                record["src"] == json!(first(row, "src")) && record["dst"] == json!(first(row, "dst"));
            let count = &mut others.entry(case.name.clone()).or_default()[usize::from(!is_outer)];
            *count += 1;
            if *count <= 2 && !KNOWN_TUNNELS.iter().any(|(name, _)| *name == case.name) {
                println!(
                    "{} {} for {theirs}, {} {}",
                    case.name,
                    inner(record),
                    record["reason"],
                    row["protocols"]
                );
            }
        }
    }
    println!("{frames} frames with something inside, of {agree} that is what tshark says");
    let known: BTreeMap<String, [u32; 2]> =
        KNOWN_TUNNELS.iter().map(|(name, n)| (name.to_string(), *n)).collect();
    assert_eq!(others, known);
}

/// Captures of receivers with wrong checksums in them, which Zeek's tests read with checksums on.
const CHECKED: [&str; 2] = ["auth_change_session_keys", "tunnels__vxlan-encapsulated-igmp-v2"];

/// Connections of Zeek's that differ in conn_state, history, packets or bytes, by case.
const KNOWN_CONNECTIONS: [(&str, u32); 1] = [
    // Zeek ends DNS flows ten seconds after their last message, we end all UDP flows alike.
    ("tunnels__Teredo", 1),
];

/// Rows of Zeek's of which no connection of ours has addresses and ports, by case, with what is the reason.
const KNOWN_MISSING: [(&str, u32); 18] = [
    // Zeek has no ports for SCTP, we have.
    ("communityid__sctp", 1),
    // Who opened it Zeek takes from its list of server ports.
    ("dhcp__dhcp", 2),
    // In MPLS, PPPoE and PPP, VN-Tag, and on the air.
    ("mixed-vlan-mpls", 1),
    ("mpls-in-vlan", 2),
    ("ppp__quic-interop-retry", 3),
    ("pppoe-over-qinq", 1),
    ("vntag", 1),
    ("radiotap", 2),
    ("wlanmon", 2),
    // In ERSPAN, GRE in UDP, GTP and Teredo, which are not looked into; of Teredo two more are of the other direction, as above.
    ("erspanI", 1),
    ("tunnels__gre-over-udp-4754", 2),
    ("tunnels__gtp__gtp1_gn_normal_incl_fragmentation", 1),
    ("tunnels__gtp__gtp2_different_udp_port", 1),
    ("tunnels__gtp__gtp7_ipv6", 2),
    ("tunnels__Teredo", 6),
    ("tunnels__teredo_bubble_with_payload", 5),
    // In a tunnel in a tunnel: one level is looked into.
    ("tunnels__geneve-vxlan-dns-truncated", 1),
    ("tunnels__gre-within-gre", 3),
];

#[test]
fn connections_agree_with_zeek_with_shared_captures() {
    let (mut compared, mut inside, mut differ) = (0u32, 0u32, BTreeMap::<String, u32>::new());
    let mut missing = BTreeMap::<String, u32>::new();
    for case in cases() {
        let Some(rows) = table(&case.folder.join("zeek_conn.tsv")) else { continue };
        let run = || {
            let run = HOST.like_zeek();
            if CHECKED.contains(&case.name.as_str()) { run.checked() } else { run }
        };
        let outside = parse(&run().text_of(&case.capture).0);
        // Zeek has a row for the tunnel and one for what it carries; we have either.
        let mut carried = parse(&run().inspecting().text_of(&case.capture).0);
        let key = |record: &Value| {
            ["orig_h", "orig_p", "resp_h", "resp_p", "ip_proto"].map(|field| record[field].to_string())
        };
        carried.retain(|record| !outside.iter().any(|outer| key(outer) == key(record)));
        let outer = outside.len();
        let mut records: Vec<Option<Value>> = outside.into_iter().chain(carried).map(Some).collect();
        for row in rows.iter().filter(|row| is_comparable(&case, row)) {
            // Of several connections of one key the one that fits best, the outermost first.
            let fits = |n: &usize| records[*n].as_ref().is_some_and(|record| is_of(record, row));
            let best = (0..records.len()).filter(fits).min_by_key(|n| {
                (
                    *n >= outer,
                    records[*n].as_ref().map_or(usize::MAX, |record| differences(record, row).len()),
                )
            });
            let Some((best, record)) = best.and_then(|n| Some((n, records[n].take()?))) else {
                *missing.entry(case.name.clone()).or_default() += 1;
                if !KNOWN_MISSING.iter().any(|(name, _)| *name == case.name) {
                    println!("{} not found {row:?}", case.name);
                }
                continue;
            };
            compared += 1;
            inside += u32::from(best >= outer);
            let wrong = differences(&record, row);
            if !wrong.is_empty() {
                *differ.entry(case.name.clone()).or_default() += 1;
                if !KNOWN_CONNECTIONS.iter().any(|(name, _)| *name == case.name) {
                    println!("{} {wrong:?} {row:?}", case.name);
                }
            }
        }
    }
    let total: u32 = differ.values().sum();
    println!(
        "{compared} of Zeek's connections found, {inside} of them in tunnels; {} agree in every field, {} not found",
        compared - total,
        missing.values().sum::<u32>()
    );
    let known: BTreeMap<String, u32> =
        KNOWN_CONNECTIONS.iter().map(|(name, n)| (name.to_string(), *n)).collect();
    assert_eq!(differ, known);
    let known: BTreeMap<String, u32> = KNOWN_MISSING.iter().map(|(name, n)| (name.to_string(), *n)).collect();
    assert_eq!(missing, known);
    assert_eq!((compared, inside), (176, 5));
}

/// Half of FabricPath's packets lie in an EtherType that is not looked into.
fn is_comparable(case: &Case, row: &Row) -> bool {
    row["id.orig_h"] != "?" && case.name != "cisco-fabric-path"
}

fn is_of(record: &Value, row: &Row) -> bool {
    let same =
        |field: &str, column: &str| row[column] == "?" || record[field].as_u64() == row[column].parse().ok();
    record["orig_h"] == row["id.orig_h"]
        && record["resp_h"] == row["id.resp_h"]
        && same("orig_p", "id.orig_p")
        && same("resp_p", "id.resp_p")
        && same("ip_proto", "ip_proto")
}

fn differences(record: &Value, row: &Row) -> Vec<String> {
    let mut wrong = Vec::new();
    for field in ["conn_state", "history", "orig_pkts", "resp_pkts", "orig_ip_bytes", "resp_ip_bytes"] {
        let theirs = match row[field].as_str() {
            "?" => continue,
            // Zeek stops reading some streams on purpose.
            "-" => continue,
            letters if field == "history" => letters.replace(['X', 'x'], ""),
            text => text.to_string(),
        };
        let mine = match &record[field] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        if mine != theirs {
            wrong.push(format!("{field}: {mine} for {theirs}"));
        }
    }
    wrong
}

/// Names of servers in ClientHellos of QUIC: those that we read, those that tshark or Zeek read.
fn quic_names(case: &Case) -> (Vec<String>, Vec<String>) {
    let records = parse(&HOST.text_of(&case.capture).0);
    let quic = records.iter().filter(|record| !record["quic"].is_null());
    let ours = quic.filter_map(|record| record["tls_sni"].as_str().map(String::from)).collect();
    let packets = table(&case.folder.join("tshark.tsv")).unwrap_or_default();
    let packets = packets.iter().filter(|row| row["quic_vers"] != "-");
    // One datagram may show it twice, a Retry or a lost packet bring it again.
    let mut theirs: Vec<(String, String)> =
        packets.filter_map(|row| Some((row["sport"].clone(), first(row, "tls_sni")?))).collect();
    theirs.sort();
    theirs.dedup();
    (sorted(ours), sorted(theirs.into_iter().map(|(_, name)| name).collect()))
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[test]
fn hellos_of_quic_agree_with_shared_tshark_answers_with_shared_captures() {
    let (mut names, mut differ) = (0, Vec::new());
    for case in cases().into_iter().filter(|case| case.is_ethernet) {
        let (ours, theirs) = quic_names(&case);
        if ours != theirs {
            println!("{} {ours:?} for {theirs:?}", case.name);
            differ.push(case.name);
        }
        names += ours.len();
    }
    println!("{names} names of servers in ClientHellos of QUIC, {differ:?} otherwise than tshark");
    assert!(differ.is_empty(), "{differ:?}");
    assert_eq!(names, 8);
}

#[test]
#[ignore = "needs root"]
fn both_engines_read_the_same_with_shared_captures() {
    let setup = Setup::read(&[], true, 0).unwrap();
    let mut kernel = KernelEngine::new(&setup, 65_536).unwrap();
    let mut compared = 0;
    for case in cases() {
        let capture = std::fs::read(&case.capture).unwrap();
        kernel.forget().unwrap();
        let (native, loaded) = (print(&capture, &setup, None), print(&capture, &setup, Some(&mut kernel)));
        for (native, loaded) in native.lines().zip(loaded.lines()) {
            assert_eq!(native, loaded, "{}", case.name);
        }
        assert_eq!(native.len(), loaded.len(), "{}", case.name);
        compared += native.lines().count();
    }
    println!("{compared} records of frames and connections are the same");
}

/// Numbers of alerts (RFC 8446, section 6; RFC 5246, section 7.2) that occur in Zeek's answers.
fn alert_number(name: &str) -> Option<u64> {
    Some(match name {
        "unexpected_message" => 10,
        "bad_record_mac" => 20,
        "handshake_failure" => 40,
        "bad_certificate" => 42,
        "certificate_expired" => 45,
        "certificate_unknown" => 46,
        "illegal_parameter" => 47,
        "unknown_ca" => 48,
        "decode_error" => 50,
        "protocol_version" => 70,
        "internal_error" => 80,
        "unrecognized_name" => 112,
        _ => return None,
    })
}

/// Where our TLS state, alert or server name is not what Zeek's `ssl.log` says, by case, with what is the reason.
const KNOWN_TLS: [(&str, u32); 5] = [
    // STARTTLS: what a connection begins with is in the clear, and there alone TLS is looked for.
    ("ldap__ldap-starttls", 1),
    ("mysql__encrypted", 1),
    ("tls__imap-starttls", 1),
    ("tls__irc-starttls", 1),
    ("tls__smtp-starttls", 1),
];

#[test]
fn tls_handshakes_agree_with_zeek_with_shared_captures() {
    let (mut compared, mut differ) = (0u32, BTreeMap::<String, u32>::new());
    for case in cases() {
        let Some(rows) = table(&case.folder.join("zeek_ssl.tsv")) else { continue };
        let mut records = parse(&HOST.like_zeek().text_of(&case.capture).0);
        records.retain(|record| record["proto"] == "tcp");
        for row in rows.iter().filter(|row| row["version"].starts_with("TLS") && row["established"] != "?") {
            let is_of = |record: &&Value| {
                record["orig_h"] == row["id.orig_h"]
                    && record["resp_h"] == row["id.resp_h"]
                    && record["orig_p"].as_u64() == row["id.orig_p"].parse().ok()
                    && record["resp_p"].as_u64() == row["id.resp_p"].parse().ok()
            };
            let Some(record) = records.iter().find(is_of) else { continue };
            compared += 1;
            let mut wrong = Vec::new();
            if (row["established"] == "T") != (record["tls"] == "established") {
                wrong.push(format!("{} for established {}", record["tls"], row["established"]));
            }
            let name = (row["server_name"] != "-").then(|| row["server_name"].clone());
            if row["server_name"] != "?" && record["tls_sni"] != json!(name) {
                wrong.push(format!("{} for {name:?}", record["tls_sni"]));
            }
            let alert = alert_number(&row["last_alert"]);
            // One that comes when all is established says nothing of the handshake.
            if row["last_alert"] != "?" && row["established"] == "F" && record["tls_alert"].as_u64() != alert
            {
                wrong.push(format!("alert {} for {}", record["tls_alert"], row["last_alert"]));
            }
            if !wrong.is_empty() {
                *differ.entry(case.name.clone()).or_default() += 1;
                if !KNOWN_TLS.iter().any(|(name, _)| *name == case.name) {
                    println!("{} {wrong:?} {row:?}", case.name);
                }
            }
        }
    }
    println!("{compared} TLS handshakes of Zeek's, {} otherwise", differ.values().sum::<u32>());
    let known: BTreeMap<String, u32> = KNOWN_TLS.iter().map(|(name, n)| (name.to_string(), *n)).collect();
    assert_eq!(differ, known);
    assert_eq!(compared, 33);
}
