//! Rows under their names, in etcdctl's three forms.

use serde_json::{Map, Value};

use super::Format;

/// Rows to print.
pub(super) struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub(super) fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// # Panics
    /// When the row has another number of cells than there are columns.
    pub(super) fn push(&mut self, row: Vec<Value>) {
        assert_eq!(row.len(), self.columns.len(), "a cell for each column");
        self.rows.push(row);
    }

    pub(super) fn text(&self, format: Format) -> String {
        match format {
            Format::Simple => {
                self.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(", ") + "\n").collect()
            }
            Format::Json => format!("{}\n", Value::Array(self.rows.iter().map(|row| self.object(row)).collect())),
            Format::Table => self.boxed(),
        }
    }

    fn object(&self, row: &[Value]) -> Value {
        let name = |column: &&str| column.to_lowercase().replace(' ', "_");
        Value::Object(self.columns.iter().map(name).zip(row.iter().cloned()).collect::<Map<_, _>>())
    }

    fn boxed(&self) -> String {
        let head: Vec<String> = self.columns.iter().map(|column| (*column).to_owned()).collect();
        let body: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let width = |column: usize| {
            let cells = body.iter().map(|row| row[column].chars().count());
            cells.chain([head[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+\n";
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("| {cell:<width$} "));
            padded.collect::<String>() + "|\n"
        };
        let rows: String = body.iter().map(|row| line(row)).collect();
        format!("{rule}{}{rule}{rows}{rule}", line(&head))
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn three_forms() {
        let mut table = Table::new(&["ID", "DB SIZE"]);
        table.push(vec![json!("a"), json!(7)]);
        table.push(vec![json!("long"), Value::Null]);
        assert_eq!(table.text(Format::Simple), "a, 7\nlong, -\n");
        assert_eq!(table.text(Format::Json), "[{\"db_size\":7,\"id\":\"a\"},{\"db_size\":null,\"id\":\"long\"}]\n");
        let text = "+------+---------+\n| ID   | DB SIZE |\n+------+---------+\n| a    | 7       |\n| long | -       |\n+------+---------+\n";
        assert_eq!(table.text(Format::Table), text);
    }
}
