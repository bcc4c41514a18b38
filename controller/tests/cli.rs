//! What the command line says without root.

use std::process::{Command, Output};

fn tidegate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).output().expect("tidegate")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const GOOD: &str = "\
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: shop}
spec:
  rules:
    - {name: all, action: allow, from: [{any: true}], to: [{any: true}], ports: [any]}
";

#[test]
fn a_good_file_is_summed_up_and_a_wrong_one_is_answered_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shop.yaml");
    let path = file.display().to_string();
    std::fs::write(&file, GOOD).unwrap();
    let output = tidegate(&["policy", "check", &path]);
    assert_eq!(
        text(&output.stdout),
        "ok: workloads 0, rules 1, blocked prefixes 0; classes 1, policy entries 1, warnings 0\n"
    );
    assert_eq!(output.status.code(), Some(0));

    std::fs::write(&file, GOOD.replace("action: allow", "action: allov")).unwrap();
    let output = tidegate(&["policy", "check", &path]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("shop.yaml:6:") && said.contains("allov") && said.contains("`allow`"), "{said}");

    let output = tidegate(&["policy", "check", "-o", "json", &path]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["ok"], &answer["mistakes"][0]["place"]["line"]), (&false.into(), &6.into()));
}

#[test]
fn usage_errors_exit_with_two_and_help_has_examples() {
    assert_eq!(tidegate(&["nonsense"]).status.code(), Some(2));
    assert_eq!(tidegate(&["detach"]).status.code(), Some(2));
    assert_eq!(tidegate(&["--name", "a.b", "status"]).status.code(), Some(2));
    assert_eq!(tidegate(&["block", "add", "10.0.0.1/8"]).status.code(), Some(2));
    for command in ["run", "attach", "detach", "flows", "grant", "observe", "why", "completions"] {
        let help = text(&tidegate(&[command, "--help"]).stdout);
        assert!(
            help.contains(&format!("tidegate {command}")) && help.contains("Example"),
            "{command}: {help}"
        );
    }
}

#[test]
fn without_a_daemon_writes_exit_with_three() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().display().to_string();
    let output = tidegate(&["--run-dir", &run_dir, "block", "add", "10.0.0.1"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("start `tidegate run`"));
}

#[test]
fn lists_of_an_instance_that_is_not_there_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().display().to_string();
    for list in ["block", "quarantine", "grant", "identity"] {
        let output = tidegate(&["--state-dir", &state_dir, "--name", "nowhere", list, "list"]);
        assert_eq!(output.status.code(), Some(3), "{list}");
        let said = text(&output.stderr);
        assert!(said.contains("there is no instance `nowhere`") && said.contains("--name"), "{list}: {said}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&tidegate(&["completions", shell]).stdout);
        assert!(script.contains("observe") && script.contains("xdp-mode"), "{shell}");
    }
}
