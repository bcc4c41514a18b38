//! Real certificates, real TLS, real files.

mod files;
mod handshakes;
mod refusals;
mod workload_api;

use super::{Live, Material};
use authority::{Authority, CertificateParams, Duration, OffsetDateTime, Svid, leaf_params};
use spiffe::{TrustDomain, X509Bundle, X509BundleSet, X509Svid};

pub const GATEWAY: &str = "spiffe://acme.example/gateway";
pub const ORDERS: &str = "spiffe://acme.example/ns/shop/sa/orders";

/// An SVID that is valid now.
pub fn leaf(id: &str) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    leaf_params(id, now - Duration::minutes(5), now + Duration::hours(1)).unwrap()
}

pub fn bundle(domain: &str, authorities: &[&Authority]) -> X509Bundle {
    let ders: Vec<_> = authorities.iter().map(|authority| authority.root()).collect();
    X509Bundle::from_x509_authorities(TrustDomain::new(domain).unwrap(), &ders).unwrap()
}

pub fn material(own: &Svid, bundles: impl IntoIterator<Item = X509Bundle>) -> Material {
    let svid = X509Svid::parse_from_der(&own.chain_der(), &own.key).unwrap();
    Material::new(svid, bundles.into_iter().collect::<X509BundleSet>()).unwrap()
}

/// A party that believes one authority, which also issued its SVID.
pub fn live(authority: &Authority, params: CertificateParams) -> Live {
    let live = Live::new("a test");
    live.publish(material(&authority.issue(params).unwrap(), [bundle("acme.example", &[authority])]));
    live
}

/// Waits for a state that has to come; the limit is for what never does.
pub async fn until(live: &Live, done: impl Fn(&super::Status) -> bool) {
    let wait = async {
        while !done(&live.status()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("it never came");
}
