//! pprof's form of a profile (google/pprof `proto/profile.proto`), gzipped.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::error::ProfileError;
use super::modules::Mapped;
use super::symbols::{Line, Symbols};

/// What a profile is of, before it is encoded.
pub(super) struct Content<'a> {
    /// Kind and unit of each value of a sample.
    pub(super) kinds: &'a [(&'static str, &'static str)],
    /// Which of them a reader shows first.
    pub(super) shown: &'static str,
    /// Kind and unit of what one sample stands for, and how much of it.
    pub(super) period: ((&'static str, &'static str), i64),
    /// When it began.
    pub(super) began: SystemTime,
    /// How long it took; zero for a state.
    pub(super) took: Duration,
    /// What else is to be said.
    pub(super) comments: Vec<String>,
    /// A pattern of functions that are left out, with what they called; empty for none.
    pub(super) below: &'static str,
}

/// Whose values they are.
pub(super) enum Stack {
    /// Addresses, innermost first.
    Addresses(Vec<u64>),
    /// A name that stands for all of a stack.
    Named(String),
}

/// A stack with its values.
pub(super) struct Sample {
    /// Whose values they are.
    pub(super) stack: Stack,
    /// As many as there are kinds.
    pub(super) values: Vec<i64>,
    /// Names and texts.
    pub(super) labels: Vec<(&'static str, String)>,
}

/// Encodes a profile whose functions are named, so that its reader needs no program beside it. Reading the names of a program
/// takes a second and much memory; between samples it is asked whether somebody waits for it still.
///
/// # Errors
/// [`ProfileError::Gone`] if nobody does; or the system's.
pub(super) fn encode(
    content: &Content<'_>,
    samples: &[Sample],
    mapped: &[Mapped],
    is_awaited: impl Fn() -> bool,
) -> Result<Vec<u8>, ProfileError> {
    if !is_awaited() {
        return Err(ProfileError::Gone);
    }
    let mut tables = Tables::default();
    tables.text("");
    let kind = |tables: &mut Tables, (kind, unit): (&str, &str)| ValueType {
        kind: tables.text(kind),
        unit: tables.text(unit),
    };
    let mut symbols = Symbols::new(mapped);
    let mut profile = Profile {
        sample_type: content.kinds.iter().map(|of| kind(&mut tables, *of)).collect(),
        mapping: mapped.iter().zip(1..).map(|(mapped, id)| tables.mapping(mapped, id)).collect(),
        time_nanos: nanoseconds(content.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
        duration_nanos: nanoseconds(content.took),
        period_type: Some(kind(&mut tables, content.period.0)),
        period: content.period.1,
        comment: content.comments.iter().map(|comment| tables.text(comment)).collect(),
        default_sample_type: tables.text(content.shown),
        drop_frames: tables.text(content.below),
        ..Profile::default()
    };
    for sample in samples {
        if !is_awaited() {
            return Err(ProfileError::Gone);
        }
        profile.sample.push(EncodedSample {
            location_id: match &sample.stack {
                Stack::Addresses(stack) => {
                    stack.iter().map(|address| tables.location(*address, &mut symbols)).collect()
                }
                Stack::Named(name) => vec![tables.named(name)],
            },
            value: sample.values.clone(),
            label: sample.labels.iter().map(|(key, text)| tables.label(key, text)).collect(),
        });
    }
    profile.location = tables.locations;
    profile.function = tables.functions;
    profile.string_table = tables.texts;
    pack(&profile.encode_to_vec()).map_err(ProfileError::system("encoding of a profile"))
}

fn pack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes)?;
    packed.finish()
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// What samples refer to by numbers.
#[derive(Default)]
struct Tables {
    texts: Vec<String>,
    text_numbers: HashMap<String, i64>,
    locations: Vec<Location>,
    location_ids: HashMap<u64, u64>,
    functions: Vec<Function>,
    function_ids: HashMap<(i64, i64), u64>,
}

impl Tables {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(number) = self.text_numbers.get(text) {
            return *number;
        }
        let number = i64::try_from(self.texts.len()).expect("fewer texts than fit into memory");
        self.texts.push(text.to_owned());
        self.text_numbers.insert(text.to_owned(), number);
        number
    }

    fn label(&mut self, key: &str, text: &str) -> Label {
        Label { key: self.text(key), text: self.text(text) }
    }

    fn mapping(&mut self, mapped: &Mapped, id: u64) -> Mapping {
        Mapping {
            id,
            memory_start: mapped.addresses.start,
            memory_limit: mapped.addresses.end,
            file_offset: mapped.file_offset,
            filename: self.text(&mapped.name),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        }
    }

    fn location(&mut self, address: u64, symbols: &mut Symbols<'_>) -> u64 {
        if let Some(id) = self.location_ids.get(&address) {
            return *id;
        }
        let id = self.locations.len() as u64 + 1;
        let mut lines: Vec<_> = symbols.lines(address).iter().map(|line| self.line(line)).collect();
        if lines.is_empty() {
            lines.push(self.line(&Line { function: format!("{address:#x}"), ..Line::default() }));
        }
        let mapping_id = symbols.mapping(address).map_or(0, |number| number as u64 + 1);
        self.locations.push(Location { id, mapping_id, address, line: lines });
        self.location_ids.insert(address, id);
        id
    }

    fn named(&mut self, name: &str) -> u64 {
        let id = self.locations.len() as u64 + 1;
        let line = self.line(&Line { function: name.to_owned(), ..Line::default() });
        self.locations.push(Location { id, line: vec![line], ..Location::default() });
        id
    }

    fn line(&mut self, line: &Line) -> EncodedLine {
        let (name, system_name, filename) = (self.text(&line.function), self.text(&line.linked), self.text(&line.file));
        let next = self.functions.len() as u64 + 1;
        let function_id = *self.function_ids.entry((name, filename)).or_insert(next);
        if function_id == next {
            self.functions.push(Function { id: next, name, system_name, filename });
        }
        EncodedLine { function_id, line: i64::from(line.line) }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<EncodedSample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "7")]
    drop_frames: i64,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct EncodedSample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(uint64, tag = "4")]
    file_offset: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<EncodedLine>,
}

#[derive(Clone, PartialEq, Message)]
struct EncodedLine {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}
