//! From events to lines in outputs.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use thiserror::Error;
use time::OffsetDateTime;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use super::journal;
use super::level::LevelControl;
use super::line;
use super::output::Output;
use super::places::Places;
use crate::config::{LogFormat, LogLevel, LogOutput, LogRotation, LoggingConfig};

/// Events of our own crates have targets that begin with this.
const OWN_TARGET: &str = "basalt";

/// Why logging cannot start.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// A file cannot be opened.
    #[error("cannot open log file {path}: {source}; check --log-outputs and the permissions of the folder")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody listens where the journal does; etcd's words.
    #[error("can't find journal ({}: {cause}); start it under systemd, or set --log-outputs=stderr", journal::SOCKET)]
    NoJournal {
        /// Why.
        cause: io::Error,
    },
    /// Something else in this process logs already.
    #[error("logging was already started; this is a bug")]
    Started,
}

/// Makes the configured subscriber that of the whole process.
///
/// # Errors
/// [`LoggingError`]
pub fn install(config: &LoggingConfig) -> Result<LevelControl, LoggingError> {
    let (subscriber, level) = subscriber(config)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Started)?;
    Ok(level)
}

/// The configured subscriber, and what changes its level.
///
/// # Errors
/// [`LoggingError::Open`], [`LoggingError::NoJournal`]
pub fn subscriber(
    config: &LoggingConfig,
) -> Result<(impl Subscriber + Send + Sync + use<>, LevelControl), LoggingError> {
    let open = |output| open(output, config.rotation.as_ref());
    let outputs = config.outputs.iter().map(open).collect::<Result<_, _>>()?;
    let level = match config.level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Fatal => LevelFilter::OFF,
    };
    let lines = Lines { level, format: config.format, outputs, places: Places::default() };
    let (lines, handle) = reload::Layer::new(lines);
    Ok((Registry::default().with(lines), LevelControl::new(handle)))
}

fn open(output: &LogOutput, rotation: Option<&LogRotation>) -> Result<Output, LoggingError> {
    Output::open(output, rotation).map_err(|error| match output {
        LogOutput::File(path) => LoggingError::Open { path: path.clone(), source: error },
        LogOutput::Journal => LoggingError::NoJournal { cause: error },
        LogOutput::Stderr | LogOutput::Stdout => LoggingError::Open { path: PathBuf::new(), source: error },
    })
}

/// Writes each event as a line.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) level: LevelFilter,
    format: LogFormat,
    outputs: Vec<Output>,
    places: Places,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= self.level && (is_own(metadata) || *metadata.level() <= Level::WARN)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let Some(left_out) = self.places.left_out_before(metadata.callsite(), is_own(metadata), Instant::now()) else {
            return;
        };
        let line = line::encode(self.format, OffsetDateTime::now_utc(), event, left_out);
        for output in &self.outputs {
            output.write(&line);
        }
    }
}

fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(OWN_TARGET)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use serde_json::Value;
    use tracing::{debug, error, info, warn};

    use super::super::journal::Journal;
    use super::*;

    fn lines_of(level: LogLevel, format: LogFormat, log: impl FnOnce()) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let config = LoggingConfig { level, format, outputs: vec![LogOutput::File(path.clone())], rotation: None };
        tracing::subscriber::with_default(subscriber(&config).expect("opened").0, log);
        fs::read_to_string(path).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn json_lines_have_zaps_keys_and_typed_fields() {
        let lines = lines_of(LogLevel::Info, LogFormat::Json, || {
            let took = Duration::from_millis(1500);
            info!(remote_addr = %"1.2.3.4:5", revision = 7_u64, ok = true, ?took, "applied \"it\"\nall");
        });
        let line: Value = serde_json::from_str(&lines[0]).expect("JSON");
        assert_eq!(line["level"], "info");
        assert_eq!(line["msg"], "applied \"it\"\nall");
        assert_eq!(line["remote-addr"], "1.2.3.4:5");
        assert_eq!(line["revision"], 7);
        assert_eq!(line["ok"], true);
        assert_eq!(line["took"], "1.5s");
        let caller = line["caller"].as_str().expect("text");
        assert!(caller.starts_with("logging/subscriber.rs:"), "{caller}");
        let time = line["ts"].as_str().expect("text");
        assert!(time.len() == "2026-08-20T15:13:15.000123Z".len() && time.ends_with('Z'), "{time}");
        assert!(lines[0].starts_with("{\"level\":\"info\",\"ts\":\""), "{}", lines[0]);
    }

    #[test]
    fn console_lines_have_columns() {
        let lines = lines_of(LogLevel::Info, LogFormat::Console, || {
            info!(shard = 3, "one\ntwo");
            info!("bare");
        });
        let columns: Vec<&str> = lines[0].split('\t').collect();
        assert_eq!((columns[1], columns[3], columns[4]), ("info", "one two", "{\"shard\":3}"));
        assert!(lines[1].ends_with("\tbare"), "{}", lines[1]);
    }

    #[test]
    fn levels_filter_and_libraries_are_quiet() {
        let log = || {
            debug!("d");
            info!("i");
            warn!("w");
            error!("e");
            debug!(target: "h2::codec", "frame");
            warn!(target: "h2::codec", "library");
        };
        let count = |level| lines_of(level, LogFormat::Json, log).len();
        assert_eq!(count(LogLevel::Debug), 5);
        assert_eq!(count(LogLevel::Info), 4);
        assert_eq!(count(LogLevel::Warn), 3);
        assert_eq!(count(LogLevel::Error), 1);
        assert_eq!(count(LogLevel::Fatal), 0);
    }

    #[test]
    fn no_place_of_the_code_fills_the_log() {
        let lines = lines_of(LogLevel::Info, LogFormat::Json, || {
            for n in 0..1_000 {
                warn!(target: "h2::proto::ping_pong", n, "recv PING ack that we never sent");
            }
            for n in 0..1_000 {
                info!(n, "ours");
            }
            warn!(target: "h2::proto::ping_pong", "another place");
        });
        let of = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        // On a slow machine it may last longer than ten seconds.
        assert!((10..=30).contains(&of("never sent")), "{} lines of a library's place", of("never sent"));
        assert_eq!(of("another place"), 1);
        let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let ours: Vec<_> = lines.filter(|line| line["msg"] == "ours").collect();
        let told: u64 = ours.iter().map(|line| 1 + line["left-out"].as_u64().unwrap_or(0)).sum();
        assert!(ours.len() < 1_000 && (901..=1_000).contains(&told), "{} lines tell of {told}", ours.len());
    }

    #[test]
    fn texts_have_an_end() {
        let text = "x".repeat(1 << 20);
        let lines = lines_of(LogLevel::Info, LogFormat::Json, || info!(text, "{text}"));
        let line: Value = serde_json::from_str(&lines[0]).expect("JSON");
        for text in [&line["text"], &line["msg"]] {
            let text = text.as_str().expect("text");
            assert!(text.len() < 70_000 && text.ends_with("… (1048576 bytes)"), "{} bytes", text.len());
        }
    }

    #[test]
    fn the_journal_gets_the_level_and_place_of_each_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("a socket");
        for format in [LogFormat::Json, LogFormat::Console] {
            let outputs = vec![Output::Journal(Journal::open(&path).expect("found"))];
            let lines = Lines { level: LevelFilter::DEBUG, format, outputs, places: Places::default() };
            tracing::subscriber::with_default(Registry::default().with(lines), || {
                error!("e");
                warn!("w");
                info!("i");
                debug!("d");
            });
            for (priority, message) in [("3", "e"), ("4", "w"), ("6", "i"), ("7", "d")] {
                let mut entry = [0; 1 << 16];
                let length = journald.recv(&mut entry).expect("an entry");
                let entry = std::str::from_utf8(&entry[..length]).expect("text");
                let fields: Vec<_> = entry.lines().filter_map(|line| line.split_once('=')).collect();
                assert!(
                    fields.contains(&("PRIORITY", priority)) && fields.contains(&("PACKAGE", "logging")),
                    "{entry}"
                );
                let line = fields.iter().find(|(name, _)| *name == "MESSAGE").expect("a message").1;
                match format {
                    LogFormat::Json => {
                        assert_eq!(serde_json::from_str::<Value>(line).expect("JSON")["msg"], message, "{entry}");
                    }
                    LogFormat::Console => assert!(line.ends_with(&format!("\t{message}")), "{entry}"),
                }
            }
        }
    }

    #[test]
    fn an_unusable_file_is_named() {
        let outputs = vec![LogOutput::File("/nonexistent/folder/log".into())];
        let config = LoggingConfig { level: LogLevel::Info, format: LogFormat::Json, outputs, rotation: None };
        let Err(error) = subscriber(&config).map(drop) else { panic!("there is no such folder") };
        assert!(error.to_string().contains("/nonexistent/folder/log"), "{error}");
    }
}
