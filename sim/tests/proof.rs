//! The governance loop, story by story: what each file of topologies/proof/ says of findings, decisions, actions and records.

mod common;

use common::{File, Residue, held, json, output, topology};
use serde_json::Value;

/// Runs a story, of which nothing may be left.
fn proved(name: &str) -> Value {
    let _alone = common::alone();
    let before = Residue::now();
    let report = held(&format!("proof/{name}.yaml"));
    assert_eq!(Residue::now(), before);
    report
}

#[test]
fn every_story_is_proved_here_and_told_in_the_docs() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_to_string(root.join("docs/governance.md")).expect("the page");
    let stories = std::fs::read_dir(root.join("topologies/proof")).expect("the stories");
    let names: Vec<String> = stories
        .map(|file| file.expect("a file").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        assert!(include_str!("proof.rs").contains(&format!("proved(\"{name}\")")), "{name}: no test");
        assert!(docs.contains(&format!("\n| `{name}.yaml` |")), "{name}: no row in docs/governance.md");
    }
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn drift_to_a_new_peer_is_flagged_or_contained_as_the_intent_says() {
    let report = proved("drift");
    let findings = report["seen"]["governed"]["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 2, "{findings:#?}");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_quarantine_ends_on_time_with_the_daemon_dead() {
    proved("undone-by-time");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn tenants_with_the_same_names_say_nothing_of_each_other() {
    proved("tenants");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn jobs_that_come_and_go_are_no_finding() {
    proved("churn");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn nobody_is_blamed_for_what_a_shared_address_does() {
    proved("shared-address");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn handshakes_that_fail_after_a_role_change_are_found_and_nobody_is_contained() {
    proved("role-change");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_workload_that_scans_is_contained_before_it_finds_what_it_may_reach() {
    proved("lateral-movement");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_grant_ends_on_time_with_the_daemon_dead() {
    proved("grant-that-ends");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_story_that_went_otherwise_fails_and_says_what_was_there_instead() {
    let _alone = common::alone();
    let before = Residue::now();
    let text = std::fs::read_to_string(topology("proof/drift.yaml")).expect("the story");
    let text = text
        .replace("decision: flag, confidence: high", "decision: contain, confidence: low")
        .replace(
            "{identity: reports, state: never}\n    - {identity: payments",
            "{identity: reports, state: ended}\n    - {identity: payments",
        )
        .replace("says: [a new report]", "says: [an old report]")
        .replace(
            "    - {kind: commit, who: root, how: quarantine del, identity: orders, min: 1, max: 1}\n",
            "",
        )
        .replace("    - {identity: orders, state: ended}\n", "")
        .replace("expect:\n  findings:", "expect:\n  within: 1s\n  findings:");
    let output = output(&["run", &File::new(&text).path(), "-o", "json", "--keep-going"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    let expectations = report["expectations"].as_array().expect("expectations");
    let failed: Vec<_> = expectations.iter().filter(|e| e["passed"] != true).collect();
    let instead = |e: &Value| e["instead"].to_string();
    let [flagged, other, said, stands, beside, contained] = failed[..] else {
        panic!("six, not {failed:#?}")
    };
    assert!(instead(flagged).contains("finding 1: new_peer as client of intent reports"), "{flagged:#}");
    assert!(instead(other).contains("resolved, flag, confidence high, 1 departures"), "{other:#}");
    assert!(
        instead(said)
            .contains("finding by root (findings resolve), about spiffe://acme.example/ns/shop/sa/reports"),
        "{said:#}"
    );
    assert!(instead(stands).contains("ns/shop/sa/reports stands so: was never cut off"), "{stands:#}");
    assert!(instead(beside).contains("commit by root (quarantine del), about "), "{beside:#}");
    // What was said of the finding is not what was expected, so that it is a record beside those too.
    assert!(instead(beside).contains("finding by root (findings resolve)"), "{beside:#}");
    assert!(instead(contained).contains("spiffe://acme.example/ns/shop/sa/orders"), "{contained:#}");
    assert_eq!(Residue::now(), before);
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_containment_over_the_threshold_waits_and_people_decide() {
    proved("approval");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_stolen_credential_is_found_where_it_is_used_and_cut_off_everywhere() {
    proved("stolen-credential");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_live_connection_ends_with_the_svid_of_who_opened_it() {
    proved("expired-svid");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn who_tries_again_and_again_without_success_is_found_and_not_contained() {
    proved("retries");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_name_that_no_intent_has_is_found_on_its_way_to_the_name_server() {
    proved("names-asked");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn who_does_much_more_than_is_usual_is_flagged_and_goes_on() {
    proved("unusual-count");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_benign_hour_has_no_finding() {
    proved("benign-hour");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_revoked_lease_that_is_used_is_found_and_nobody_is_contained_for_it() {
    proved("revoked-lease");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn acts_follow_each_other_from_a_limit_to_a_quarantine_and_each_ends_on_time() {
    proved("graded");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn who_opens_more_than_its_rate_is_flagged_and_goes_on() {
    proved("rate-surge");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn handshakes_that_take_longer_than_before_are_found_at_both_ends() {
    proved("latency-shift");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_hello_that_does_not_fit_is_found_by_its_name_its_cover_its_protocol_and_its_shape() {
    proved("hello-misfit");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn nobody_is_blamed_for_what_is_done_behind_a_router_that_masquerades_with_nft() {
    proved("nat");
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn handshakes_that_fail_after_another_certificate_was_enrolled_say_so() {
    proved("certificate-change");
}
