//! How a family of any kind is made.

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

/// Names of labels.
type Labels = &'static [&'static str];

/// Buckets that double: the upper bound of the first, and how many there are.
#[derive(Clone, Copy)]
pub(super) struct Doubling(pub f64, pub usize);

/// How a kind of family is made; `Shape` is what it needs besides name and help.
pub(super) trait Family: Collector + Clone + 'static {
    type Shape;
    fn make(name: &str, help: &str, shape: Self::Shape) -> Result<Self, prometheus::Error>;
}

macro_rules! kinds {
    ($($kind:ty, $shape:ty: |$name:ident, $help:ident, $argument:pat_param| $make:expr;)*) => {
        $(impl Family for $kind {
            type Shape = $shape;
            fn make($name: &str, $help: &str, $argument: $shape) -> Result<Self, prometheus::Error> { $make }
        })*
    };
}

kinds! {
    IntCounter, (): |name, help, ()| IntCounter::new(name, help);
    IntGauge, (): |name, help, ()| IntGauge::new(name, help);
    Counter, (): |name, help, ()| Counter::new(name, help);
    Gauge, (): |name, help, ()| Gauge::new(name, help);
    Histogram, Doubling: |name, help, buckets| Histogram::with_opts(buckets.of(name, help)?);
    IntCounterVec, Labels: |name, help, labels| IntCounterVec::new(Opts::new(name, help), labels);
    GaugeVec, Labels: |name, help, labels| GaugeVec::new(Opts::new(name, help), labels);
    IntGaugeVec, Labels: |name, help, labels| IntGaugeVec::new(Opts::new(name, help), labels);
    HistogramVec, (Doubling, Labels): |name, help, (bounds, labels)| HistogramVec::new(bounds.of(name, help)?, labels);
}

impl Doubling {
    fn of(self, name: &str, help: &str) -> Result<HistogramOpts, prometheus::Error> {
        let Doubling(first, count) = self;
        Ok(HistogramOpts::new(name, help).buckets(prometheus::exponential_buckets(first, 2.0, count)?))
    }
}

/// Makes and registers one family.
pub(super) fn family<F: Family>(
    registry: &Registry,
    name: &str,
    help: &str,
    shape: F::Shape,
) -> Result<F, prometheus::Error> {
    let family = F::make(name, help, shape)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}
