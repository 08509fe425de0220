//! The settings of logging.

use std::path::Path;

use super::error::ConfigError;
use super::flag::Flag;
use super::log_rotation::LogRotation;
use super::logging_values::{LogFormat, LogLevel, LogOutput};
use super::settings::Settings;
use super::tree::LoggingConfig;

/// What is logged, and where.
///
/// # Errors
/// The first rule that is broken.
pub(super) fn logging(settings: &Settings) -> Result<LoggingConfig, ConfigError> {
    let level = settings.text("log-level");
    let format = settings.text("log-format");
    let outputs = LogOutput::parse_list(&settings.list("log-outputs")).map_err(|why| {
        let cause = format!("{}: {why}", settings.origin("log-outputs"));
        ConfigError::invalid(cause, "use stderr, stdout or paths of files, or systemd/journal alone")
    })?;
    Ok(LoggingConfig {
        level: LogLevel::parse(&level).ok_or_else(|| {
            let cause = format!("{} has the unknown level {level:?}", settings.origin("log-level"));
            ConfigError::invalid(cause, "use debug, info, warn, error, panic or fatal")
        })?,
        format: match format.as_str() {
            "json" | "" => LogFormat::Json,
            "console" => LogFormat::Console,
            _ => {
                let cause = format!("{} has the unknown format {format:?}", settings.origin("log-format"));
                return Err(ConfigError::invalid(cause, "use json or console"));
            }
        },
        rotation: if settings.bool("enable-log-rotation") { Some(rotation(settings, &outputs)?) } else { None },
        outputs,
    })
}

fn rotation(settings: &Settings, outputs: &[LogOutput]) -> Result<LogRotation, ConfigError> {
    let is_file = |output: &&LogOutput| match output {
        LogOutput::File(path) => path != Path::new("/dev/null"),
        // To etcd too it is one, which nobody puts aside.
        LogOutput::Journal => true,
        LogOutput::Stderr | LogOutput::Stdout => false,
    };
    if outputs.iter().filter(is_file).count() != 1 {
        return Err(ConfigError::invalid(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
            "give one, or remove --enable-log-rotation",
        ));
    }
    const RULES: &str = "log-rotation-config-json";
    LogRotation::parse(&settings.text(RULES)).map_err(|why| {
        let advice = format!("write --{RULES} as {}", Flag::find(RULES).map_or("{}", |flag| flag.default));
        ConfigError::invalid(why, advice)
    })
}
