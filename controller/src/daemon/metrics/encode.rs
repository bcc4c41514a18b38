//! Families of metrics as the encoder wants them.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

pub(super) fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let mut labels: Vec<_> = pairs
        .iter()
        .map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        })
        .collect();
    labels.sort();
    labels
}

pub(super) fn family(name: &str, help: &str, kind: MetricType) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family
}

pub(super) fn counter(
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Vec<LabelPair>, u64)>,
) -> MetricFamily {
    let metric = |(labels, value): (Vec<LabelPair>, u64)| {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = Metric::from_label(labels);
        metric.set_counter(counter);
        metric
    };
    let mut family = family(name, help, MetricType::COUNTER);
    family.set_metric(values.map(metric).collect());
    family
}

pub(super) fn gauge(
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Vec<LabelPair>, f64)>,
) -> MetricFamily {
    let metric = |(labels, value): (Vec<LabelPair>, f64)| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(labels);
        metric.set_gauge(gauge);
        metric
    };
    let mut family = family(name, help, MetricType::GAUGE);
    family.set_metric(values.map(metric).collect());
    family
}
