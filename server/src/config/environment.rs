//! The environment: `ETCD_` and the name of a flag in capitals.

use super::error::ConfigError;
use super::flag::Flag;
use super::flag_table::FLAGS;
use super::settings::{Origin, Settings};

/// Read apart, because it decides whether the rest of the environment counts.
pub(super) const CONFIG_FILE: &str = "ETCD_CONFIG_FILE";

/// Adds what the environment sets to what the command line set (etcd: `flags.SetFlagsFromEnv`).
///
/// An empty variable counts as not set. A variable that etcd does not know is a warning; its value is not repeated,
/// for it may be a secret.
///
/// # Errors
/// A flag that is also set on the command line, or a value of the wrong kind.
pub(super) fn add(settings: &mut Settings, env: &[(String, String)]) -> Result<(), ConfigError> {
    let on_command_line: Vec<&str> = settings.names().collect();
    for (variable, value) in env.iter().filter(|(variable, _)| variable.starts_with("ETCD_")) {
        let Some(flag) = FLAGS.iter().find(|flag| flag.environment_variable() == *variable) else {
            settings.warnings.push(format!("unrecognized environment variable {variable}"));
            continue;
        };
        if on_command_line.contains(&flag.name) {
            return Err(shadowed(flag, variable));
        }
        if value.is_empty() || variable == CONFIG_FILE {
            continue;
        }
        settings.set(flag, value, Origin::Variable(variable.clone())).map_err(|why| {
            ConfigError::invalid(format!("invalid value {value:?} for {variable}: {why}"), "correct or unset it")
        })?;
    }
    Ok(())
}

fn shadowed(flag: &Flag, variable: &str) -> ConfigError {
    ConfigError::invalid(
        format!("environment variable {variable} conflicts with the flag --{}, which is also set", flag.name),
        "unset the variable or drop the flag",
    )
}

#[cfg(test)]
mod tests {
    use super::super::command_line::{self, CommandLine};
    use super::*;

    fn added(line: &str, env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let Ok(CommandLine::Run(mut settings)) = command_line::read(&args) else { panic!("{line}") };
        let env: Vec<_> = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        add(&mut settings, &env).map(|()| settings)
    }

    #[test]
    fn variables_set_flags() {
        let settings = added("", &[("ETCD_NAME", "a"), ("PATH", "/bin"), ("ETCD_WAL_DIR", "")]).expect("valid");
        assert_eq!(settings.text("name"), "a");
        assert!(!settings.is_set("wal-dir"));
        assert!(settings.warnings.is_empty());
    }

    #[test]
    fn unknown_variables_are_named_without_their_value() {
        let settings = added("", &[("ETCD_ROOT_PASSWORD", "hunter2")]).expect("valid");
        assert_eq!(settings.warnings, ["unrecognized environment variable ETCD_ROOT_PASSWORD"]);
    }

    #[test]
    fn a_flag_and_its_variable_conflict() {
        let error = added("--name a", &[("ETCD_NAME", "a")]).expect_err("both are set");
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("ETCD_NAME conflicts with the flag --name"), "{error}");
    }

    #[test]
    fn a_bad_value_names_the_variable() {
        let error = added("", &[("ETCD_SNAPSHOT_COUNT", "x")]).expect_err("not a number");
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("\"x\" for ETCD_SNAPSHOT_COUNT"), "{error}");
    }
}
