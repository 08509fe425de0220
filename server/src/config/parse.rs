//! From arguments, environment and file to what the process shall do.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::command_line::{self, CommandLine};
use super::error::ConfigError;
use super::settings::Settings;
use super::tree::Config;
use super::{assemble, config_file, environment, help};

/// What the process shall do.
#[derive(Debug, PartialEq)]
pub enum Parsed {
    /// Serve. The warnings are to be logged once the logger runs.
    Run(Box<Config>, Vec<String>),
    /// Print this to standard output and exit with 0.
    Help(String),
    /// Print [`help::version_text`] to standard output and exit with 0.
    Version(String),
}

/// Reads and validates the configuration.
///
/// `args` without the program's name; `env` may hold all variables, those of etcd are picked. `read_file` serves the
/// config file and the files that it or the flags name (certificates, keys, revocation lists). `find_host` gives the address by
/// which this machine reaches others; it is asked only where `localhost` would be advertised for a listener on all addresses.
///
/// # Errors
/// One line and an exit code: [`ConfigError`].
pub fn parse(
    args: &[String],
    env: &[(String, String)],
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    find_host: &dyn Fn() -> io::Result<IpAddr>,
) -> Result<Parsed, ConfigError> {
    let settings = match command_line::read(args)? {
        CommandLine::Help => return Ok(Parsed::Help(help::help_text())),
        CommandLine::Version => return Ok(Parsed::Version(help::version_text())),
        CommandLine::Run(settings) => settings,
    };
    let mut settings = match config_file_path(&settings, env) {
        Some(path) => from_file(&settings, &path, read_file)?,
        None => from_environment(settings, env)?,
    };
    settings.check_status()?;
    let (config, warnings) = assemble::assemble(settings, read_file, find_host)?;
    Ok(Parsed::Run(Box::new(config), warnings))
}

/// The flag counts before the variable, as in etcd, where this pair alone is no conflict.
fn config_file_path(settings: &Settings, env: &[(String, String)]) -> Option<String> {
    let variable = || env.iter().find(|(name, _)| name == environment::CONFIG_FILE).map(|(_, value)| value.clone());
    settings.text_if_any("config-file").or_else(variable).filter(|path| !path.is_empty())
}

fn from_file(
    flags: &Settings,
    path: &str,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Settings, ConfigError> {
    let content = read_file(Path::new(path)).map_err(|error| {
        ConfigError::invalid(format!("cannot read config file {path}: {error}"), "check the path and its permissions")
    })?;
    let mut settings = config_file::read(path, &content)?;
    let ignored: Vec<String> =
        flags.names().filter(|name| *name != "config-file").map(|name| format!("--{name}")).collect();
    if !ignored.is_empty() {
        settings.warnings.insert(0, format!("ignored because config file {path} is given: {}", ignored.join(" ")));
    }
    Ok(settings)
}

fn from_environment(mut settings: Settings, env: &[(String, String)]) -> Result<Settings, ConfigError> {
    environment::add(&mut settings, env)?;
    if settings.is_set("listen-client-urls") && !settings.is_set("advertise-client-urls") {
        return Err(ConfigError::invalid(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            "set it to the URLs under which clients reach this member",
        ));
    }
    Ok(settings)
}
