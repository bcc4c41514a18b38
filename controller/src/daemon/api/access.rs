//! `tidegate run --api-roles FILE`: documents `kind: RoleBinding` that say who has which role.

use super::role::{Peer, Role};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::spiffe::{SpiffeId, SpiffePattern, TrustDomain};
use crate::state::Who;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Who has which role, as the file says now.
#[derive(Debug)]
pub struct Access {
    file: Option<PathBuf>,
    bindings: RwLock<Arc<Bindings>>,
    /// The daemon's own user.
    uid: u32,
}

#[derive(Debug, Default)]
struct Bindings {
    text: String,
    /// What was wrong with the file when it was last looked at, and is not used.
    refused: Option<String>,
    all: Arc<[Binding]>,
}

#[derive(Debug)]
struct Binding {
    role: Role,
    subjects: Vec<Subject>,
}

/// Somebody who can have a role.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    SpiffeId(SpiffeId),
    SpiffePath(SpiffePattern),
    TrustDomain(TrustDomain),
    User(u32),
    Group(u32),
}

impl Subject {
    fn is(&self, peer: &Peer) -> bool {
        match (self, &peer.who) {
            (Self::SpiffeId(id), Who::Workload(peer)) => id == peer,
            (Self::SpiffePath(pattern), Who::Workload(peer)) => pattern.matches(peer),
            (Self::TrustDomain(domain), Who::Workload(peer)) => domain.as_str() == peer.trust_domain(),
            (Self::User(uid), Who::User(peer)) => uid == peer,
            (Self::Group(gid), Who::User(_)) => peer.groups.contains(gid),
            _ => false,
        }
    }
}

impl Access {
    /// Reads the file. Without one only root and the daemon's own user have a role.
    pub fn open(file: Option<&Path>) -> Result<Self> {
        let bindings = match file {
            Some(path) => parse(path, read(path)?)?,
            None => Bindings::default(),
        };
        let uid = rustix::process::geteuid().as_raw();
        Ok(Self { file: file.map(Path::to_owned), bindings: RwLock::new(Arc::new(bindings)), uid })
    }

    /// The highest role of a peer.
    pub fn role_of(&self, peer: &Peer) -> Option<Role> {
        if matches!(peer.who, Who::User(uid) if uid == 0 || uid == self.uid) {
            return Some(Role::Admin);
        }
        let bindings = self.now();
        let fits = bindings.all.iter().filter(|binding| binding.subjects.iter().any(|s| s.is(peer)));
        fits.map(|binding| binding.role).max()
    }

    /// Whether users have roles that are not root or the daemon's own: then the socket has to be open to them.
    pub fn has_users(&self) -> bool {
        let is_user = |s: &Subject| matches!(s, Subject::User(_) | Subject::Group(_));
        self.now().all.iter().any(|binding| binding.subjects.iter().any(is_user))
    }

    /// Takes over what the file says now, if that is another and is right. Returns whether it was.
    pub fn reload(&self) -> bool {
        let Some(path) = &self.file else { return false };
        let before = self.now();
        let (text, read) = match read(path) {
            Ok(text) if text == before.text => return false,
            Ok(text) => (text.clone(), parse(path, text)),
            Err(e) => (before.text.clone(), Err(e)),
        };
        match read {
            Ok(bindings) => {
                tracing::info!("{}: {} role bindings count now", path.display(), bindings.all.len());
                self.set(bindings);
                true
            }
            // Each mistake is said once; what counted goes on.
            Err(e) => {
                let said = format!("{text}{e}");
                if before.refused.as_ref() != Some(&said) {
                    tracing::error!("{e}; the roles of before go on");
                    let (text, all) = (before.text.clone(), before.all.clone());
                    self.set(Bindings { text, refused: Some(said), all });
                }
                false
            }
        }
    }

    fn now(&self) -> Arc<Bindings> {
        self.bindings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, bindings: Bindings) {
        *self.bindings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(bindings);
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Failure::io(format!("--api-roles {}", path.display()), &e))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: ApiVersion,
    kind: Kind,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
enum ApiVersion {
    #[serde(rename = "tidegate.dev/v1")]
    V1,
}

#[derive(Deserialize)]
enum Kind {
    RoleBinding,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    role: Role,
    subjects: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Named {
    SpiffeId(SpiffeId),
    SpiffePath(SpiffePattern),
    TrustDomain(TrustDomain),
    User(String),
    Group(String),
}

fn parse(path: &Path, text: String) -> Result<Bindings> {
    let wrong = |e: String| Failure::new(Code::Usage, format!("{}: {e}", path.display()));
    let documents: Vec<Document> = serde_saphyr::from_multiple(&text).map_err(|e| wrong(e.to_string()))?;
    let mut all = Vec::new();
    for Document { api_version: ApiVersion::V1, kind: Kind::RoleBinding, metadata, spec } in documents {
        let in_binding = |e: Failure| wrong(format!("RoleBinding {}: {}", metadata.name, e.message));
        let subjects =
            spec.subjects.into_iter().map(subject).collect::<Result<Vec<_>>>().map_err(in_binding)?;
        if subjects.is_empty() {
            return Err(wrong(format!("RoleBinding {}: `subjects` is empty", metadata.name)));
        }
        all.push(Binding { role: spec.role, subjects });
    }
    Ok(Bindings { text, refused: None, all: all.into() })
}

/// Users and groups by their names or numbers: a name that this host does not know is a mistake.
fn subject(named: Named) -> Result<Subject> {
    let number = |text: &str, found: nix::Result<Option<u32>>, what| match (text.parse::<u32>(), found) {
        (Ok(number), _) | (_, Ok(Some(number))) => Ok(number),
        _ => Err(Failure::new(Code::Usage, format!("this host knows no {what} `{text}`"))),
    };
    Ok(match named {
        Named::SpiffeId(id) => Subject::SpiffeId(id),
        Named::SpiffePath(pattern) => Subject::SpiffePath(pattern),
        Named::TrustDomain(domain) => Subject::TrustDomain(domain),
        Named::User(name) => {
            let found = nix::unistd::User::from_name(&name).map(|user| user.map(|user| user.uid.as_raw()));
            Subject::User(number(&name, found, "user")?)
        }
        Named::Group(name) => {
            let found =
                nix::unistd::Group::from_name(&name).map(|group| group.map(|group| group.gid.as_raw()));
            Subject::Group(number(&name, found, "group")?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: watchers}
spec:
  role: viewer
  subjects: [{trustDomain: acme.example}, {group: '4242'}]
---
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: oncall}
spec:
  role: operator
  subjects: [{spiffePath: 'spiffe://acme.example/ns/ops/*'}, {user: '1001'}]
---
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: change-board}
spec:
  role: approver
  subjects: [{spiffeId: spiffe://acme.example/ns/ops/lead}]
";

    fn workload(id: &str) -> Peer {
        Peer { who: Who::Workload(id.parse().expect("a SPIFFE ID")), groups: [].into() }
    }

    fn user(uid: u32, groups: &[u32]) -> Peer {
        Peer { who: Who::User(uid), groups: groups.into() }
    }

    fn access(text: &str) -> (tempfile::NamedTempFile, Access) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("a file");
        let access = Access::open(Some(file.path())).expect("bindings");
        (file, access)
    }

    #[test]
    fn of_several_bindings_the_highest_role_holds() {
        let (_file, access) = access(FILE);
        for (peer, role) in [
            (workload("spiffe://acme.example/ns/shop/sa/orders"), Some(Role::Viewer)),
            (workload("spiffe://acme.example/ns/ops/oncall"), Some(Role::Operator)),
            (workload("spiffe://acme.example/ns/ops/lead"), Some(Role::Approver)),
            (workload("spiffe://acme.example.evil/ns/ops/lead"), None),
            (user(0, &[]), Some(Role::Admin)),
            (user(1001, &[4242]), Some(Role::Operator)),
            (user(1002, &[7, 4242]), Some(Role::Viewer)),
            (user(1003, &[7]), None),
            (Peer { who: Who::Daemon, groups: [].into() }, None),
        ] {
            assert_eq!(access.role_of(&peer), role, "{peer:?}");
        }
        assert!(access.has_users());
    }

    #[test]
    fn a_change_counts_and_a_broken_file_keeps_what_counted() {
        let (file, access) = access(FILE);
        let lead = workload("spiffe://acme.example/ns/ops/lead");
        assert!(!access.reload());
        for broken in [
            "kind: [",
            "kind: Policy\n",
            &FILE.replace("viewer", "owner"),
            &FILE.replace("4242", "no-such-group"),
        ] {
            std::fs::write(file.path(), broken).expect("a file");
            assert!(!access.reload());
            assert_eq!(access.role_of(&lead), Some(Role::Approver));
        }
        std::fs::remove_file(file.path()).expect("it is there");
        assert!(!access.reload());
        assert_eq!(access.role_of(&lead), Some(Role::Approver));
        std::fs::write(file.path(), FILE.replace("approver", "admin")).expect("a file");
        assert!(access.reload());
        assert_eq!(access.role_of(&lead), Some(Role::Admin));
        std::fs::write(file.path(), "").expect("a file");
        assert!(access.reload());
        assert_eq!(access.role_of(&lead), None);
        std::fs::write(file.path(), FILE).expect("the file of before");
        assert!(access.reload());
        assert_eq!(access.role_of(&lead), Some(Role::Approver));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, said) in [
            (FILE.replace("viewer", "owner"), "owner"),
            (FILE.replace("RoleBinding", "Roles"), "Roles"),
            (FILE.replace("spiffe://acme.example/ns/ops/lead", "ops/lead"), "spiffe://"),
            (FILE.replace("role: viewer", "role: viewer, roles: 1"), "line"),
            (
                FILE.replace("'4242'", "no-such-group"),
                "RoleBinding watchers: this host knows no group `no-such-group`",
            ),
            (FILE.replace("[{spiffeId: spiffe://acme.example/ns/ops/lead}]", "[]"), "`subjects` is empty"),
        ] {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), &text).expect("a file");
            let e = Access::open(Some(file.path())).expect_err(&text);
            assert!(e.code == Code::Usage && e.message.contains(said), "{}", e.message);
        }
    }
}
