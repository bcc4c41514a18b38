//! Every route of the API, asked by everybody.

use crate::lab::{Lab, json};
use crate::remote::{Mesh, of};
use serde_json::{Value, json as object};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

/// Users and their roles, the least first; one more has none.
const USERS: [(u32, &str); 4] = [(4201, "viewer"), (4202, "operator"), (4203, "approver"), (4204, "admin")];
const NOBODY: u32 = 4205;

/// Which role a route needs. A route that is not here is none that anybody has thought about.
const ROUTES: &str = "
viewer GET /v1/openapi.json
viewer GET /v1/ping
viewer GET /v1/svid
viewer GET /v1/status
viewer GET /v1/flows
viewer GET /v1/drops
viewer GET /v1/why
viewer GET /v1/why/event
viewer GET /v1/story
viewer GET /v1/identities
viewer GET /v1/identity
viewer GET /v1/blocks
viewer GET /v1/quarantines
viewer GET /v1/grants
viewer GET /v1/policy
viewer GET /v1/policy/history
viewer GET /v1/policy/revision
viewer GET /v1/shadow
viewer GET /v1/observe
viewer GET /v1/flows/recent
viewer GET /v1/hellos
viewer GET /v1/findings
viewer GET /v1/finding
viewer GET /v1/observed
viewer GET /v1/governance
viewer GET /v1/approvals
viewer GET /v1/approval
operator POST /v1/approvals/ask
approver POST /v1/approvals/approve
approver POST /v1/approvals/reject
operator POST /v1/findings/resolve
operator POST /v1/findings/mute
operator POST /v1/governance/pause
operator POST /v1/governance/resume
operator POST /v1/block
operator POST /v1/unblock
operator POST /v1/quarantine
operator POST /v1/unquarantine
operator POST /v1/grants
operator POST /v1/grants/revoke
operator POST /v1/shadow
operator POST /v1/shadow/drop
approver POST /v1/shadow/apply
approver POST /v1/policy
operator POST /v1/policy/diff
approver POST /v1/policy/confirm
approver POST /v1/policy/rollback
approver POST /v1/bindings
approver POST /v1/bindings/withdraw
admin POST /v1/attach
admin POST /v1/detach
";

fn bindings() -> String {
    let one = |(uid, role): &(u32, &str)| {
        format!(
            "apiVersion: tidegate.dev/v1\nkind: RoleBinding\nmetadata: {{name: {role}}}\n\
             spec: {{role: {role}, subjects: [{{user: '{uid}'}}, {{spiffeId: 'spiffe://acme.example/ns/{role}'}}]}}\n"
        )
    };
    USERS.iter().map(one).collect::<Vec<_>>().join("---\n")
}

#[test]
#[ignore = "needs root"]
fn each_route_is_for_its_role_and_those_above_and_for_nobody_else() {
    let lab = Lab::new();
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let _daemon = lab.run(&["--api-roles", &lab.file("roles.yaml", &bindings())]);
    let wanted: BTreeMap<(&str, &str), &str> = ROUTES
        .trim()
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .map(|words| ((words[1], words[2]), words[0]))
        .collect();
    let (status, document) = lab.get("/v1/openapi.json");
    assert_eq!(status, 200);
    let mut found = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = if method == "get" { "GET" } else { "POST" };
            found.insert((method, path.as_str()), operation["x-tidegate-role"].as_str().unwrap());
        }
    }
    assert_eq!(found, wanted);
    // A body with which nothing can be done: who has the role is told so, and who has not is not even read.
    let ask = |method: &str, path: &str| match method {
        "GET" => lab.get(path),
        _ => lab.post(path, &object!({"unheard-of": 1})),
    };
    for ((method, path), role) in &wanted {
        let least = USERS.iter().position(|(_, name)| name == role).unwrap();
        for (n, (uid, own)) in USERS.iter().enumerate() {
            let (status, body) = lab.as_user(*uid, *uid, || ask(method, path));
            let refused = status == 403;
            assert_eq!(refused, n < least, "{own} at {method} {path}: {status} {body}");
            if refused {
                let said = body["message"].as_str().unwrap();
                assert!(said.starts_with(&format!("this needs the role {role}; you, ")), "{said}");
            }
        }
        assert_eq!(lab.as_user(NOBODY, NOBODY, || ask(method, path)), (0, Value::Null), "{method} {path}");
    }
}

#[test]
#[ignore = "needs root"]
fn over_mtls_an_approver_applies_policy_and_an_admin_attaches_and_the_others_do_not() {
    let lab = Lab::new();
    let mesh = Mesh::new(&lab);
    let _daemon = mesh.run_with(&bindings());
    let client = |role: &str| mesh.client(role, &format!("spiffe://acme.example/ns/{role}"));
    let [viewer, operator, approver, admin] = USERS.map(|(_, role)| client(role));
    let policy = lab.file("again.yaml", &crate::lab::POLICY.replace("8443", "9443"));
    let apply = ["policy", "apply", policy.as_str()];
    for who in [&viewer, &operator] {
        let (exit, said) = lab.fails(&of(who, &apply));
        assert!(exit == 5 && said.contains("this needs the role approver"), "{said}");
    }
    lab.ok(&of(&approver, &apply));
    assert_eq!(lab.json(&of(&viewer, &["status"]))[0]["revision"], 2);
    for who in [&viewer, &operator, &approver] {
        let (exit, said) = lab.fails(&of(who, &["attach", "eth1"]));
        assert!(exit == 5 && said.contains("this needs the role admin"), "{said}");
    }
    let interfaces = || lab.json(&of(&viewer, &["status"]))[0]["interfaces"].clone();
    assert_eq!(interfaces(), json(Vec::<Value>::new()));
    lab.ok(&of(&admin, &["attach", "eth1"]));
    assert_eq!(interfaces()[0]["interface"], "eth1");
    lab.ok(&of(&admin, &["detach", "eth1"]));
    lab.ok(&of(&admin, &apply));
    let who = lab.json(&["policy", "history"])[0][0]["spiffe_id"].clone();
    assert_eq!(who, "spiffe://acme.example/ns/admin");
}
