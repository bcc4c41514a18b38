//! What a leaf certificate says of itself: whether it is an X.509-SVID, whose, and from when to when. No trust yet.

use super::ids;
use super::refusal::{Reason, Refusal};
use super::verify::Side;
use crate::policy::spiffe::{SpiffeId, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// An X.509-SVID that nobody vouched for yet.
pub struct Leaf {
    pub id: SpiffeId,
    pub trust_domain: TrustDomain,
    /// Seconds since 1970, as certificates count.
    pub not_before: i64,
    pub not_after: i64,
}

impl Leaf {
    /// Reads a certificate that authenticates a peer on this side of TLS.
    pub fn parse(der: &[u8], side: Side) -> Result<Self, Refusal> {
        let certificate = parse(der)?;
        let id = spiffe_id(&certificate)?;
        check_is_leaf(&certificate, &id)?;
        check_usage(&certificate, side, &id)?;
        let validity = certificate.validity();
        Ok(Self {
            trust_domain: id.trust_domain().parse().map_err(|e| Reason::NotSpiffeId.because(e))?,
            id,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// Whether its time is now (RFC 5280, section 4.1.2.5: both ends belong to it).
    pub fn check_time(&self, now: i64) -> Result<(), Refusal> {
        if now < self.not_before {
            return Err(Reason::NotYetValid.because(format_args!(
                "{} begins in {} s: compare the clocks",
                self.id,
                self.not_before - now
            )));
        }
        if now > self.not_after {
            return Err(Reason::Expired.because(format_args!(
                "{} ended {} s ago",
                self.id,
                now - self.not_after
            )));
        }
        Ok(())
    }
}

pub fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => {
            Err(Reason::Malformed.because(format_args!("{} bytes behind the certificate", rest.len())))
        }
        Err(e) => Err(Reason::Malformed.because(e)),
    }
}

/// X509-SVID, section 2: exactly one URI name. Section 3.1: a workload's has a path.
fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Refusal> {
    let names = certificate.subject_alternative_name().map_err(|e| Reason::Malformed.because(e))?;
    let names = names.map(|extension| &extension.value.general_names[..]).unwrap_or_default();
    let uris: Vec<_> = names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    let [uri] = uris[..] else {
        return Err(Reason::NotOneUri.because(format_args!("{} URI names, an SVID has one", uris.len())));
    };
    let wrong = |e: &dyn std::fmt::Display| Reason::NotSpiffeId.because(format_args!("{uri:?}: {e}"));
    let id = ids::id(&spiffe::SpiffeId::new(uri).map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    if id.path().is_empty() {
        return Err(wrong(&"the ID of a trust domain, not of a workload"));
    }
    Ok(id)
}

/// X509-SVID, sections 4.1 and 5.2. Without basic constraints a certificate is no CA (RFC 5280, section 4.2.1.9).
fn check_is_leaf(certificate: &X509Certificate<'_>, id: &SpiffeId) -> Result<(), Refusal> {
    let constraints = certificate.basic_constraints().map_err(|e| Reason::Malformed.because(e))?;
    if constraints.is_some_and(|extension| extension.value.ca) {
        return Err(Reason::CaAsLeaf.because(format_args!("{id}: cA is set")));
    }
    let usage = certificate.key_usage().map_err(|e| Reason::Malformed.because(e))?;
    let Some(usage) = usage else {
        return Err(Reason::KeyUsage.because(format_args!("{id}: no key usage, every SVID has one")));
    };
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(Reason::CaAsLeaf.because(format_args!("{id}: keyCertSign or cRLSign is set")));
    }
    if !usage.value.digital_signature() {
        return Err(Reason::KeyUsage.because(format_args!("{id}: digitalSignature is not set")));
    }
    Ok(())
}

/// X509-SVID, section 4.4: where it is said what the key is for, this is among it.
fn check_usage(certificate: &X509Certificate<'_>, side: Side, id: &SpiffeId) -> Result<(), Refusal> {
    let usage = certificate.extended_key_usage().map_err(|e| Reason::Malformed.because(e))?;
    let Some(usage) = usage.map(|extension| extension.value) else { return Ok(()) };
    let (may, name) = match side {
        Side::Client => (usage.client_auth, "id-kp-clientAuth"),
        Side::Server => (usage.server_auth, "id-kp-serverAuth"),
    };
    if may || usage.any {
        return Ok(());
    }
    Err(Reason::KeyUsage.because(format_args!("{id}: {name} is not set")))
}

/// X509-SVID, section 4.3: whoever signs certificates may.
pub fn may_sign(der: &[u8]) -> bool {
    let Ok(certificate) = parse(der) else { return false };
    matches!(certificate.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign())
}
