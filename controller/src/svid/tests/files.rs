//! PEM files that change under a live value.

use super::*;
use crate::svid::SourceState;
use crate::svid::pem::{PemError, PemFiles, TrustBundle};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// As cert-manager, spiffe-helper and most else do it.
    fn replace(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn files(&self) -> PemFiles {
        files(self.0.path())
    }
}

fn files(folder: &Path) -> PemFiles {
    PemFiles {
        cert: folder.join("svid.pem"),
        key: folder.join("key.pem"),
        bundles: vec![TrustBundle {
            domain: "acme.example".parse().unwrap(),
            file: folder.join("bundle.pem"),
        }],
    }
}

fn write(folder: &Path, svid: &Svid, authority: &Authority) {
    fs::write(folder.join("svid.pem"), svid.chain_pem()).unwrap();
    fs::write(folder.join("key.pem"), svid.key_pem()).unwrap();
    fs::write(folder.join("bundle.pem"), authority.root_pem()).unwrap();
}

async fn followed(folder: &Path, svid: &Svid, authority: &Authority) -> Live {
    write(folder, svid, authority);
    let live = Live::new("files");
    tokio::spawn(files(folder).follow(live.clone()));
    until(&live, |s| s.state == SourceState::Current).await;
    live
}

#[tokio::test]
async fn files_may_come_later() {
    let (folder, authority) = (Folder::new(), Authority::new("acme").unwrap());
    let live = Live::new("files");
    tokio::spawn(files(&folder.path("later")).follow(live.clone()));
    until(&live, |s| s.error.is_some()).await;
    assert_eq!((live.status().state, live.status().spiffe_id), (SourceState::Waiting, None));
    fs::create_dir(folder.path("later")).unwrap();
    write(&folder.path("later"), &authority.issue(leaf(GATEWAY)).unwrap(), &authority);
    until(&live, |s| s.state == SourceState::Current).await;
    assert_eq!(live.status().spiffe_id.unwrap().as_str(), GATEWAY);
}

#[tokio::test]
async fn files_are_read_again_when_they_are_renamed_over() {
    let (folder, authority) = (Folder::new(), Authority::new("acme").unwrap());
    let live = followed(folder.0.path(), &authority.issue(leaf(GATEWAY)).unwrap(), &authority).await;
    assert_eq!(live.status().spiffe_id.unwrap().as_str(), GATEWAY);
    let next = authority.issue(leaf("spiffe://acme.example/next")).unwrap();
    folder.replace("key.pem", next.key_pem());
    folder.replace("svid.pem", next.chain_pem());
    until(&live, |s| s.spiffe_id.as_ref().unwrap().as_str() == "spiffe://acme.example/next").await;
    assert_eq!((live.status().state, live.status().error), (SourceState::Current, None));
}

#[tokio::test]
async fn files_are_read_again_when_they_are_written_in_place() {
    let (folder, authority) = (Folder::new(), Authority::new("acme").unwrap());
    let live = followed(folder.0.path(), &authority.issue(leaf(GATEWAY)).unwrap(), &authority).await;
    write(folder.0.path(), &authority.issue(leaf("spiffe://acme.example/next")).unwrap(), &authority);
    until(&live, |s| s.spiffe_id.as_ref().unwrap().as_str() == "spiffe://acme.example/next").await;
}

#[tokio::test]
async fn a_link_that_is_swapped_as_kubernetes_does_is_followed() {
    let (folder, authority) = (Folder::new(), Authority::new("acme").unwrap());
    for (version, id) in [("..1", GATEWAY), ("..2", "spiffe://acme.example/next")] {
        fs::create_dir(folder.path(version)).unwrap();
        write(&folder.path(version), &authority.issue(leaf(id)).unwrap(), &authority);
    }
    symlink("..1", folder.path("..data")).unwrap();
    for file in ["svid.pem", "key.pem", "bundle.pem"] {
        symlink(Path::new("..data").join(file), folder.path(file)).unwrap();
    }
    let live = Live::new("files");
    tokio::spawn(folder.files().follow(live.clone()));
    until(&live, |s| s.state == SourceState::Current).await;
    symlink("..2", folder.path("..new")).unwrap();
    fs::rename(folder.path("..new"), folder.path("..data")).unwrap();
    until(&live, |s| s.spiffe_id.as_ref().unwrap().as_str() == "spiffe://acme.example/next").await;
    assert_eq!(live.status().updates, 2);
}

#[tokio::test]
async fn a_broken_file_leaves_the_old_in_use_and_is_told() {
    let (folder, authority) = (Folder::new(), Authority::new("acme").unwrap());
    let live = followed(folder.0.path(), &authority.issue(leaf(GATEWAY)).unwrap(), &authority).await;
    folder.replace("bundle.pem", "nothing\n");
    until(&live, |s| s.state == SourceState::Stale).await;
    let status = live.status();
    let error = format!(
        "{}: no certificate in it: `-----BEGIN CERTIFICATE-----` begins one",
        folder.path("bundle.pem").display()
    );
    assert_eq!(status.error, Some(error));
    assert_eq!(status.failures, 1);
    assert_eq!(status.spiffe_id.unwrap().as_str(), GATEWAY);
    assert_eq!(status.trust_domains, ["acme.example".parse().unwrap()]);
    fs::remove_file(folder.path("bundle.pem")).unwrap();
    until(&live, |s| s.error.as_ref().is_some_and(|e| e.contains("No such file"))).await;
    folder.replace("bundle.pem", authority.root_pem());
    until(&live, |s| s.state == SourceState::Current).await;
    assert_eq!((live.status().error, live.status().updates), (None, 1));
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let (folder, authority) = (Folder::new(), Authority::new("acme").unwrap());
    let path = |name: &str| folder.path(name).display().to_string();
    let error = || folder.files().load().unwrap_err().to_string();
    let svid = authority.issue(leaf(GATEWAY)).unwrap();
    assert_eq!(error(), format!("read {}: No such file or directory (os error 2)", path("svid.pem")));
    write(folder.0.path(), &svid, &authority);
    folder.files().load().unwrap();

    folder.replace("key.pem", authority.issue(leaf(GATEWAY)).unwrap().key_pem());
    assert_eq!(
        error(),
        "the SVID's key is not the one of its certificate, or not of a known kind: keys may not be consistent: KeyMismatch"
    );
    folder.replace("key.pem", "-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n");
    assert!(matches!(folder.files().load(), Err(PemError::NotPkcs8(file)) if file == folder.path("key.pem")));
    folder.replace("key.pem", svid.chain_pem());
    assert!(error().starts_with(&format!("{}: no private key: ", path("key.pem"))));
    folder.replace("key.pem", svid.key_pem());

    folder.replace("svid.pem", authority.root_pem());
    assert!(matches!(folder.files().load(), Err(PemError::Svid { .. })));
    folder.replace("svid.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n");
    assert!(matches!(folder.files().load(), Err(PemError::Pem { .. })));
    fs::File::create(folder.path("svid.pem")).unwrap().set_len((4 << 20) + 1).unwrap();
    assert_eq!(error(), format!("{}: longer than 4 MiB", path("svid.pem")));
}

#[test]
fn several_files_of_a_trust_domain_are_one_bundle() {
    let (folder, one, two) = (Folder::new(), Authority::new("one").unwrap(), Authority::new("two").unwrap());
    write(folder.0.path(), &one.issue(leaf(GATEWAY)).unwrap(), &one);
    fs::write(folder.path("two.pem"), two.root_pem()).unwrap();
    let mut files = folder.files();
    files.bundles.push(format!("acme.example={}", folder.path("two.pem").display()).parse().unwrap());
    let material = files.load().unwrap();
    for authority in [&one, &two] {
        let chain = [authority.issue(leaf(ORDERS)).unwrap().chain[0].clone().into()];
        let now = rustls::pki_types::UnixTime::now();
        assert_eq!(material.verify(&chain, crate::svid::Side::Client, now).unwrap().id.as_str(), ORDERS);
    }
}

#[test]
fn a_trust_bundle_is_a_trust_domain_and_a_file() {
    let bundle: TrustBundle = "acme.example=/etc/b=1.pem".parse().unwrap();
    assert_eq!((bundle.domain.as_str(), bundle.file), ("acme.example", PathBuf::from("/etc/b=1.pem")));
    for wrong in ["acme.example", "acme.example=", "ACME=/b.pem", "=/b.pem"] {
        assert!(wrong.parse::<TrustBundle>().is_err(), "{wrong}");
    }
}
