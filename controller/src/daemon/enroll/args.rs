//! What `tidegate run` is asked about enrolment.

use super::rules::Rules;
use crate::cli::duration;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::Prefix;
use crate::policy::spiffe::TrustDomain;
use jiff::SignedDuration;
use std::net::SocketAddr;

/// Options of `tidegate run`.
#[derive(Clone, Debug, clap::Args)]
pub struct EnrolArgs {
    /// Let workloads enrol here (`tidegate enroll`): who proves its SVID gets a lease on the address it comes from. No
    /// policy cuts this port
    #[arg(long, value_name = "ADDR:PORT", requires = "enroll_from")]
    pub enroll: Option<SocketAddr>,
    /// Only addresses in this prefix enrol (may be repeated)
    #[arg(long, value_name = "PREFIX", requires = "enroll")]
    pub enroll_from: Vec<Prefix>,
    /// Only identities of this trust domain enrol (may be repeated) [default: the gateway's own]
    #[arg(long, value_name = "TRUST-DOMAIN", requires = "enroll")]
    pub enroll_trust_domain: Vec<TrustDomain>,
    /// The longest lease; none is longer than the workload's SVID
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    pub enroll_lease: SignedDuration,
}

impl EnrolArgs {
    /// Who may enrol, for how long; nothing without `--enroll`.
    pub fn rules(&self, has_svid: bool) -> Result<Option<(SocketAddr, Rules)>> {
        let Some(addr) = self.enroll else { return Ok(None) };
        let usage = |message: &str| Err(Failure::new(Code::Usage, message));
        if !has_svid {
            return usage(
                "--enroll: the gateway needs an SVID for it: give --workload-api, or --svid-cert, --svid-key and \
                --trust-bundle",
            );
        }
        if self.enroll_lease < SignedDuration::from_secs(1) {
            return usage("--enroll-lease: at least 1s");
        }
        let rules = Rules {
            from: self.enroll_from.clone(),
            trust_domains: self.enroll_trust_domain.clone(),
            longest: self.enroll_lease,
        };
        Ok(Some((addr, rules)))
    }
}
