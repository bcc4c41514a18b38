//! `/metrics`: what the maps hold, in Prometheus' form. Everything is read when it is asked for.

#[cfg(test)]
mod catalogue;
mod deliveries;
mod encode;
mod governance;
mod handshakes;
mod kept;
mod sources;
mod state;
mod svid;
mod traffic;

pub(in crate::daemon) use handshakes::retire;
pub use kept::Labels;

use super::Shared;
use crate::exit_code::{Failure, Result};
use encode::gauge;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, TextEncoder};

/// The whole page.
pub fn page(shared: &Shared) -> Result<String> {
    let mut families = traffic::traffic(&shared.maps)?;
    families.extend(handshakes::handshakes(shared)?);
    families.extend(state::state(shared)?);
    families.extend(sources::sources(shared));
    families.extend(state::shadow(shared)?);
    families.extend(svid::families(shared));
    families.extend(svid::enrolments(shared));
    families.extend(governance::families(shared));
    families.extend(deliveries::families(shared));
    families.retain(|family| !family.get_metric().is_empty()); // the encoder refuses them
    let series: usize = families.iter().map(series).sum();
    families.push(gauge(
        "tidegate_exported_series",
        "Series of this page but this one.",
        [(vec![], series as f64)].into_iter(),
    ));
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).map_err(|e| Failure::failed("encode metrics", e))?;
    String::from_utf8(text).map_err(|e| Failure::failed("encode metrics", e))
}

/// Lines that a family makes: a histogram has its buckets, the last of them without end, its sum and its count.
fn series(family: &MetricFamily) -> usize {
    let one = |metric: &prometheus::proto::Metric| match metric.get_histogram().get_bucket().len() {
        0 => 1,
        buckets => buckets + 3,
    };
    family.get_metric().iter().map(one).sum()
}
