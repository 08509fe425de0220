//! Text in aligned columns.

use std::fmt;

/// Rows of cells: the first two columns stand left, the figures right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

const LEFT_COLUMNS: usize = 2;

impl Table {
    /// A table with its column names.
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|name| (*name).to_owned()).collect()] }
    }

    /// Adds a row; it may be shorter than the header.
    pub fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in &self.rows {
            row.iter().zip(&mut widths).for_each(|(cell, width)| *width = cell.chars().count().max(*width));
        }
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                line += &if column < LEFT_COLUMNS {
                    format!("{gap}{cell:<width$}")
                } else {
                    format!("{gap}{cell:>width$}")
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A figure with about three digits.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// Whole, with a comma before each three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { String::from("-") } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["load", "", "cpu"]);
        table.push(vec!["put".into(), "left".into(), "58.0".into()]);
        table.push(vec!["".into(), "ratio".into(), "0.5".into()]);
        table.push(vec!["list-pages".into()]);
        let expected = "\
load                cpu
put         left   58.0
            ratio   0.5
list-pages
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn figures_have_about_three_digits() {
        let shown: Vec<String> =
            [0.0, 0.1234, 1.234, 12.34, 123.4, 1_234_567.8, -1_234.0].into_iter().map(figure).collect();
        assert_eq!(shown, ["0", "0.123", "1.23", "12.3", "123", "1,234,568", "-1,234"]);
    }
}
