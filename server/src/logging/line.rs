//! One event as one line.

use std::fmt::{self, Write};

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

use crate::config::LogFormat;

/// etcd's layout: microseconds, and `Z` for UTC.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// The last bound of a text in a line: longer than any that is meant to be there.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// One event, as outputs get it.
#[derive(Debug)]
pub(super) struct Line {
    /// The whole line, with its line break.
    pub(super) text: String,
    /// How bad it is.
    pub(super) level: Level,
    /// Last folder, file and line of its place in the code, as zap's short caller.
    pub(super) caller: String,
}

/// A time as lines tell it.
pub fn time_text(time: OffsetDateTime) -> String {
    time.format(TIME).unwrap_or_default()
}

/// The line of `event`, with its line break; it tells that so many before it were left out.
pub(super) fn encode(format: LogFormat, now: OffsetDateTime, event: &Event<'_>, left_out: u64) -> Line {
    let mut fields = Fields::default();
    event.record(&mut fields);
    if left_out > 0 {
        let _ = write!(fields.json, ",\"left-out\":{left_out}");
    }
    let metadata = event.metadata();
    let level = *metadata.level();
    let (time, level_name) = (time_text(now), level_name(level));
    let caller = caller(metadata);
    let Fields { message, json } = fields;
    let text = match format {
        LogFormat::Json => {
            let mut line = format!("{{\"level\":\"{level_name}\",\"ts\":\"{time}\",\"caller\":");
            push_text(&mut line, &caller);
            line.push_str(",\"msg\":");
            push_text(&mut line, &message);
            line.push_str(&json);
            line.push_str("}\n");
            line
        }
        LogFormat::Console => {
            let mut line = format!("{time}\t{level_name}\t{caller}\t");
            line.push_str(&message.replace(['\n', '\r'], " "));
            // The fields begin with the comma that parts them from the message in JSON.
            if let Some(json) = json.strip_prefix(',') {
                line.push_str("\t{");
                line.push_str(json);
                line.push('}');
            }
            line.push('\n');
            line
        }
    };
    Line { text, level, caller }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// The last folder, file and line, as zap's short caller.
fn caller(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or("unknown");
    let short = file.rmatch_indices('/').nth(1).map_or(file, |(slash, _)| &file[slash + 1..]);
    format!("{short}:{}", metadata.line().unwrap_or(0))
}

/// Collects the message, and all other fields as `,"name":value`.
#[derive(Default)]
struct Fields {
    message: String,
    json: String,
}

impl Fields {
    fn push_name(&mut self, field: &Field) {
        self.json.push(',');
        match field.name() {
            // etcd writes these two with the sign that its others do not have.
            name @ ("trace_id" | "step_count") => push_text(&mut self.json, name),
            name => push_text(&mut self.json, &name.replace('_', "-")),
        }
        self.json.push(':');
    }

    fn push_number(&mut self, field: &Field, number: impl fmt::Display) {
        self.push_name(field);
        let _ = write!(self.json, "{number}");
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.push_number(field, value);
        } else {
            self.record_str(field, &value.to_string());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push_number(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.push_number(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.push_number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push_number(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let head = &value[..value.floor_char_boundary(TEXT_BYTES_MAX)];
        let value = if head.len() < value.len() { &format!("{head}… ({} bytes)", value.len()) } else { value };
        if field.name() == "message" {
            self.message.push_str(value);
            return;
        }
        self.push_name(field);
        push_text(&mut self.json, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Appends `text` as a JSON string.
fn push_text(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(control));
            }
            plain => line.push(plain),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_text_survives_as_json(text in any::<String>()) {
            let mut line = String::new();
            push_text(&mut line, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), text);
        }
    }
}
