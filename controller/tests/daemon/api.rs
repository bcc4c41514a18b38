//! The API on its socket: what is refused and how, and who may do what.

use crate::http::ask;
use crate::lab::{Lab, POLICY, until};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

const ROLES: &str = "\
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: watchers}
spec: {role: viewer, subjects: [{user: '4201'}]}
---
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: oncall}
spec: {role: operator, subjects: [{group: '4300'}]}
";

/// Status and code of an answer.
fn code((status, body): (u16, Value)) -> (u16, String) {
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
#[ignore = "needs root"]
fn a_wrong_request_is_refused_by_a_4xx_that_says_what_is_wrong() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-p", &lab.file("shop.yaml", POLICY)]);
    let json_type = "content-type: application/json\r\n";
    let post =
        |path: &str, headers: &str, body: &str| ask(lab.connect(), "POST", path, headers, body.as_bytes());
    let cidr = json!({"cidr": "10.9.0.0/16"});
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let grant = |port: &str, until: &str, why: &str| json!({"from": "spiffe://a/b", "to": "spiffe://a/c", "ports": [port], "not_after": until, "reason": why});

    for (answer, status, named) in [
        (lab.get("/v1/nowhere"), 404, "not_found"),
        (lab.get("/"), 404, "not_found"),
        (lab.get("/v1/block"), 405, "method_not_allowed"),
        (lab.get("/v1/observe?follow=maybe"), 400, "usage"),
        (lab.get("/v1/observe?folow=true"), 400, "usage"),
        (post("/v1/block", "", "{}"), 415, "unsupported_media_type"),
        (post("/v1/block", json_type, "{"), 400, "usage"),
        (post("/v1/block", json_type, "\u{0}"), 400, "usage"),
        (lab.post("/v1/block", &json!({})), 422, "unprocessable"),
        (lab.post("/v1/block", &json!([cidr])), 422, "unprocessable"),
        (lab.post("/v1/block", &json!({"target": ["10.9.0.0/16"]})), 422, "unprocessable"),
        (lab.post("/v1/policy", &json!({"files": [["x.yaml", ""]]})), 422, "unprocessable"),
        (lab.post("/v1/shadow/apply", &json!([null, null])), 422, "unprocessable"),
        (lab.post("/v1/block", &json!({"target": {}})), 422, "unprocessable"),
        (lab.post("/v1/block", &json!({"target": cidr, "until": "tomorrow"})), 422, "unprocessable"),
        (lab.post("/v1/block", &json!({"target": cidr, "not_after": 7})), 422, "unprocessable"),
        (
            lab.post("/v1/block", &json!({"target": cidr, "not_after": "2001-01-01T00:00:00Z"})),
            422,
            "unprocessable",
        ),
        (lab.post("/v1/block", &json!({"target": {"cidr": "10.9.0.0/99"}})), 422, "unprocessable"),
        (
            lab.post("/v1/block", &json!({"target": {"cidr": "10.9.0.0/16", "spiffeId": "spiffe://a/b"}})),
            422,
            "unprocessable",
        ),
        (lab.post("/v1/block", &json!({"target": cidr, "reason": "x".repeat(2000)})), 422, "unprocessable"),
        (lab.post("/v1/block", &json!({"target": cidr, "reason": "x".repeat(70_000)})), 413, "too_large"),
        (lab.post("/v1/unblock", &json!({"target": cidr})), 404, "not_found"),
        (lab.post("/v1/quarantine", &json!({"who": cidr})), 422, "unprocessable"),
        (lab.post("/v1/grants", &grant("tcp/1", "2001-01-01T00:00:00Z", "x")), 422, "unprocessable"),
        (lab.post("/v1/grants", &grant("tcp/1", "2099-01-01T00:00:00Z", "x")), 422, "unprocessable"),
        (lab.post("/v1/grants", &grant("telnet", &soon, "x")), 422, "unprocessable"),
        (lab.post("/v1/grants", &grant("tcp/1", &soon, " ")), 422, "unprocessable"),
        (lab.post("/v1/grants/revoke", &json!({"id": "g1"})), 404, "not_found"),
        (lab.get("/v1/grants?at=2026-11-01T00:00:00Z&all=true"), 400, "usage"),
        (lab.get("/v1/grants?at=yesterday"), 400, "usage"),
        (lab.post("/v1/unquarantine", &json!({"who": {"spiffeId": "spiffe://a/b"}})), 404, "not_found"),
        (
            lab.post("/v1/policy", &json!({"files": [{"name": "x.yaml", "text": "kind: Nothing"}]})),
            400,
            "usage",
        ),
        (lab.post("/v1/policy", &json!({"files": [], "confirm_within_s": 0})), 422, "unprocessable"),
        (lab.post("/v1/policy/confirm", &json!({})), 409, "conflict"),
        (lab.post("/v1/shadow/drop", &json!({})), 409, "conflict"),
        (lab.post("/v1/attach", &json!({"interfaces": ["none0"]})), 400, "usage"),
        (lab.post("/v1/detach", &json!({"interfaces": ["none0"]})), 409, "no_daemon"),
    ] {
        assert!(answer.1["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer:?}");
        assert_eq!(code(answer), (status, named.to_owned()));
    }
    let history = lab.json(&["policy", "history"]);
    assert_eq!(history[0].as_array().map(Vec::len), Some(1), "nothing of all that has changed anything");
    assert_eq!(code(lab.post("/v1/block", &json!({"target": cidr}))), (200, String::new()));
    let (status, document) = lab.get("/v1/openapi.json");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    assert_eq!(document["paths"]["/v1/policy"]["post"]["x-tidegate-role"], "approver");
}

#[test]
#[ignore = "needs root"]
fn users_may_do_what_their_role_says_and_nobody_else_is_answered() {
    let lab = Lab::new();
    let shop = lab.file("shop.yaml", POLICY);
    // Others must get as far as the socket.
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let roles = lab.file("roles.yaml", ROLES);
    let _daemon = lab.run(&["-p", &shop, "--api-roles", &roles]);
    let block = json!({"target": {"cidr": "10.9.0.0/16"}});

    lab.as_user(4201, 4201, || {
        assert_eq!(lab.get("/v1/ping").0, 200);
        let refused = lab.post("/v1/block", &block);
        assert_eq!(refused.0, 403);
        assert_eq!(refused.1["message"], "this needs the role operator; you, uid 4201, are viewer");
        assert_eq!(lab.get("/v1/nowhere").0, 404);
    });
    let revision = lab.as_user(4202, 4300, || {
        let (status, committed) = lab.post("/v1/block", &block);
        assert_eq!(status, 200);
        assert_eq!(lab.post("/v1/policy/rollback", &json!({})).0, 403);
        assert_eq!(lab.post("/v1/attach", &json!({"interfaces": ["eth1"]})).0, 403);
        committed["revision"].clone()
    });
    let history = &lab.json(&["policy", "history"])[0];
    assert_eq!((&history[0]["number"], &history[0]["uid"]), (&revision, &json!(4202)));
    assert_eq!(history[0]["how"], "block add");

    // Without a role nothing is answered, whatever is asked.
    lab.as_user(4203, 4203, || assert_eq!(lab.get("/v1/ping"), (0, Value::Null)));
    // A role that is taken away ends with the next request, on a connection that lives too.
    std::fs::write(&roles, ROLES.replace("4300", "4301")).unwrap();
    until(|| lab.as_user(4202, 4300, || lab.get("/v1/ping").0 == 0));
    std::fs::write(&roles, "kind: [").unwrap();
    lab.as_user(4201, 4201, || assert_eq!(lab.get("/v1/ping").0, 200, "a broken file keeps the old roles"));

    let no_users = "apiVersion: tidegate.dev/v1\nkind: RoleBinding\nmetadata: {name: mesh}\n\
                    spec: {role: viewer, subjects: [{trustDomain: acme.example}]}\n";
    std::fs::write(&roles, no_users).unwrap();
    until(|| lab.as_user(4201, 4201, || UnixStream::connect(lab.socket()).is_err()));
    assert_eq!(lab.get("/v1/ping").0, 200, "root is admin always");
}
