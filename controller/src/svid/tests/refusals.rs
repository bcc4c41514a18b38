//! Every reason for which a certificate is refused.

use super::*;
use crate::svid::{Peer, Reason, Refusal, Side};
use authority::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, signing_params, uri,
};
use rustls::pki_types::{CertificateDer, UnixTime};

fn chain(svid: &Svid) -> Vec<CertificateDer<'static>> {
    svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect()
}

fn verify(material: &Material, svid: &Svid) -> Result<Peer, Refusal> {
    material.verify(&chain(svid), Side::Client, UnixTime::now())
}

/// What a gateway that trusts the authority says of a client with such a certificate of that authority.
fn judged(params: CertificateParams) -> Result<Peer, Refusal> {
    let authority = Authority::new("acme").unwrap();
    let own = authority.issue(leaf(GATEWAY)).unwrap();
    verify(&material(&own, [bundle("acme.example", &[&authority])]), &authority.issue(params).unwrap())
}

fn refused(params: CertificateParams) -> (Reason, String) {
    let refusal = judged(params).unwrap_err();
    (refusal.reason, refusal.detail)
}

#[test]
fn an_svid_of_a_known_trust_domain_is_its_id_until_its_end() {
    let params = leaf(ORDERS);
    let end = params.not_after.unix_timestamp();
    let peer = judged(params).unwrap();
    assert_eq!((peer.id.as_str(), peer.not_after.as_second()), (ORDERS, end));
}

#[test]
fn a_trust_domain_in_capitals_is_the_one_in_small_letters() {
    assert_eq!(judged(leaf("spiffe://ACME.example/ns/a")).unwrap().id.as_str(), "spiffe://acme.example/ns/a");
}

#[test]
fn a_certificate_has_exactly_one_uri() {
    let mut none = leaf(ORDERS);
    none.subject_alt_names.clear();
    assert_eq!(refused(none), (Reason::NotOneUri, "0 URI names, an SVID has one".into()));
    let mut two = leaf(ORDERS);
    two.subject_alt_names.push(uri("https://acme.example/").unwrap());
    assert_eq!(refused(two), (Reason::NotOneUri, "2 URI names, an SVID has one".into()));
}

#[test]
fn other_names_beside_the_uri_do_not_matter() {
    let mut params = leaf(ORDERS);
    params.subject_alt_names.push(authority::SanType::IpAddress([10, 1, 0, 2].into()));
    assert_eq!(judged(params).unwrap().id.as_str(), ORDERS);
}

#[test]
fn the_uri_is_the_spiffe_id_of_a_workload() {
    for (text, detail) in [
        ("https://acme.example/ns/a", "\"https://acme.example/ns/a\": scheme is missing or invalid"),
        ("spiffe://acme.example/a//b", "\"spiffe://acme.example/a//b\": path cannot contain empty segments"),
        ("spiffe://acme.example/../b", "\"spiffe://acme.example/../b\": path cannot contain dot segments"),
        ("spiffe://acme.example", "\"spiffe://acme.example\": the ID of a trust domain, not of a workload"),
    ] {
        assert_eq!(refused(leaf(text)), (Reason::NotSpiffeId, detail.into()));
    }
    let long = format!("spiffe://acme.example/{}", "a".repeat(2048));
    assert_eq!(refused(leaf(&long)).0, Reason::NotSpiffeId);
}

#[test]
fn a_signing_certificate_is_nobody() {
    let mut ca = leaf(ORDERS);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(refused(ca), (Reason::CaAsLeaf, format!("{ORDERS}: cA is set")));
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        let mut params = leaf(ORDERS);
        params.key_usages.push(usage);
        assert_eq!(refused(params), (Reason::CaAsLeaf, format!("{ORDERS}: keyCertSign or cRLSign is set")));
    }
}

#[test]
fn a_key_is_for_signatures_and_for_clients() {
    let mut none = leaf(ORDERS);
    none.key_usages.clear();
    assert_eq!(refused(none), (Reason::KeyUsage, format!("{ORDERS}: no key usage, every SVID has one")));
    let mut encipherment = leaf(ORDERS);
    encipherment.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    assert_eq!(refused(encipherment), (Reason::KeyUsage, format!("{ORDERS}: digitalSignature is not set")));
    let mut server = leaf(ORDERS);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(refused(server), (Reason::KeyUsage, format!("{ORDERS}: id-kp-clientAuth is not set")));
    let mut unsaid = leaf(ORDERS);
    unsaid.extended_key_usages.clear();
    assert!(judged(unsaid).is_ok());
}

#[test]
fn a_certificate_has_its_time() {
    let now = OffsetDateTime::now_utc();
    let between = |from: i64, to: i64| {
        leaf_params(ORDERS, now + Duration::minutes(from), now + Duration::minutes(to)).unwrap()
    };
    assert_eq!(refused(between(10, 60)).0, Reason::NotYetValid);
    assert_eq!(refused(between(-60, -10)).0, Reason::Expired);
    assert!(judged(between(-60, 60)).is_ok());
}

#[test]
fn what_cannot_be_read_is_malformed() {
    let authority = Authority::new("acme").unwrap();
    let own = authority.issue(leaf(GATEWAY)).unwrap();
    let material = material(&own, [bundle("acme.example", &[&authority])]);
    let good = own.chain[0].clone();
    let cut = good[..good.len() - 1].to_vec();
    let more = [&good[..], &[0]].concat();
    for der in [Vec::new(), b"certificate".to_vec(), cut, more] {
        let refusal = material.verify(&[CertificateDer::from(der)], Side::Client, UnixTime::now());
        assert_eq!(refusal.unwrap_err().reason, Reason::Malformed);
    }
    assert_eq!(material.verify(&[], Side::Client, UnixTime::now()).unwrap_err().reason, Reason::Malformed);
}

#[test]
fn the_bundle_is_that_of_the_peers_own_trust_domain() {
    let (acme, partner) = (Authority::new("acme").unwrap(), Authority::new("partner").unwrap());
    let own = acme.issue(leaf(GATEWAY)).unwrap();
    let material = material(&own, [bundle("acme.example", &[&acme]), bundle("partner.example", &[&partner])]);
    let of = |authority: &Authority, id: &str| {
        let svid = authority.issue(leaf(id)).unwrap();
        verify(&material, &svid).map(|peer| peer.id.as_str().to_owned()).map_err(|refusal| refusal.reason)
    };
    assert_eq!(of(&acme, "spiffe://acme.example/a"), Ok("spiffe://acme.example/a".into()));
    assert_eq!(of(&partner, "spiffe://partner.example/a"), Ok("spiffe://partner.example/a".into()));
    // Each is trusted for its own only.
    assert_eq!(of(&partner, "spiffe://acme.example/a"), Err(Reason::UntrustedChain));
    assert_eq!(of(&acme, "spiffe://partner.example/a"), Err(Reason::UntrustedChain));
    assert_eq!(of(&acme, "spiffe://stranger.example/a"), Err(Reason::UnknownTrustDomain));
}

#[test]
fn an_empty_bundle_is_known_and_trusts_nobody() {
    let acme = Authority::new("acme").unwrap();
    let own = acme.issue(leaf(GATEWAY)).unwrap();
    let material = material(&own, [bundle("acme.example", &[])]);
    assert_eq!(verify(&material, &own).unwrap_err().reason, Reason::UntrustedChain);
}

#[test]
fn a_chain_is_as_long_as_its_shortest_part_and_all_of_it_may_sign() {
    let root = Authority::new("acme").unwrap();
    let own = root.issue(leaf(GATEWAY)).unwrap();
    let material = material(&own, [bundle("acme.example", &[&root])]);
    let below = |change: fn(&mut CertificateParams)| {
        let mut params = signing_params("acme, below");
        change(&mut params);
        verify(&material, &root.below(params).unwrap().issue(leaf(ORDERS)).unwrap())
    };
    let soon = OffsetDateTime::now_utc() + Duration::minutes(7);
    let mut params = signing_params("acme, below");
    params.not_after = soon;
    let peer = verify(&material, &root.below(params).unwrap().issue(leaf(ORDERS)).unwrap()).unwrap();
    assert_eq!(peer.not_after.as_second(), soon.unix_timestamp());

    let reason = |result: Result<Peer, Refusal>| result.unwrap_err().reason;
    assert!(below(|_| ()).is_ok());
    assert_eq!(reason(below(|p| p.is_ca = IsCa::ExplicitNoCa)), Reason::UntrustedChain);
    assert_eq!(
        reason(below(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature])),
        Reason::UntrustedChain
    );
    assert_eq!(
        reason(below(|p| p.not_after = OffsetDateTime::now_utc() - Duration::minutes(1))),
        Reason::UntrustedChain
    );
}

#[test]
fn without_what_lies_between_there_is_no_chain() {
    let root = Authority::new("acme").unwrap();
    let own = root.issue(leaf(GATEWAY)).unwrap();
    let material = material(&own, [bundle("acme.example", &[&root])]);
    let mut svid = root.below(signing_params("below")).unwrap().issue(leaf(ORDERS)).unwrap();
    assert!(verify(&material, &svid).is_ok());
    svid.chain.truncate(1);
    assert_eq!(verify(&material, &svid).unwrap_err().reason, Reason::UntrustedChain);
}

#[test]
fn an_authority_that_leaves_the_bundle_takes_its_svids_along() {
    let (old, new) = (Authority::new("old").unwrap(), Authority::new("new").unwrap());
    let own = new.issue(leaf(GATEWAY)).unwrap();
    let peer = old.issue(leaf(ORDERS)).unwrap();
    let live = Live::new("a test");
    assert_eq!(live.verify_again(&chain(&peer)).unwrap_err().reason, Reason::NoTrustBundles);
    live.publish(material(&own, [bundle("acme.example", &[&old, &new])]));
    assert_eq!(live.verify_again(&chain(&peer)).unwrap().id.as_str(), ORDERS);

    let mut changes = live.changes();
    live.publish(material(&own, [bundle("acme.example", &[&new])]));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(live.verify_again(&chain(&peer)).unwrap_err().reason, Reason::AuthorityRemoved);
    // And with the whole bundle.
    live.publish(material(&own, []));
    assert_eq!(live.verify_again(&chain(&peer)).unwrap_err().reason, Reason::AuthorityRemoved);
    assert_eq!(live.verify_again(&chain(&own)).unwrap_err().reason, Reason::AuthorityRemoved);
    // And comes back with it.
    live.publish(material(&own, [bundle("acme.example", &[&old])]));
    assert_eq!(live.verify_again(&chain(&peer)).unwrap().id.as_str(), ORDERS);
    assert_eq!(live.status().updates, 4);
}

#[test]
fn names_of_reasons_are_all_different() {
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    assert!(Reason::ALL.iter().enumerate().all(|(i, reason)| *reason as usize == i));
}
