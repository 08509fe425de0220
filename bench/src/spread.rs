//! How far figures of several rounds lie apart.

use crate::table::figure;

/// Median, least and most of one figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the values are no larger.
    pub median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// `None` without values. Of an even number the median is the mean of the middle two.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        Some(Self { median, least, most })
    }

    /// Least and most, for a table.
    pub fn range(self) -> String {
        format!("{}–{}", figure(self.least), figure(self.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_ordered_by_value() {
        let spread = Spread { median: 3.0, least: 1.0, most: 20.0 };
        assert_eq!(Spread::of([20.0, 1.0, 3.0].into_iter()), Some(spread));
        assert_eq!(Spread::of([4.0, 1.0].into_iter()).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
