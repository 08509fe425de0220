//! The command line in the syntax of Go's `flag` package.

use super::error::ConfigError;
use super::flag::{Flag, Kind};
use super::settings::{Origin, Settings};

const SEE_HELP: &str = "see 'basalt --help' for all flags";

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum CommandLine {
    /// To run with these settings.
    Run(Settings),
    /// `--help` or `-h`.
    Help,
    /// `--version`.
    Version,
}

/// Reads the arguments that follow the program's name: `--flag value`, `--flag=value`, one dash or two, `--flag` and
/// `--flag=false` for a bool, up to `--` or the first argument that is no flag.
///
/// # Errors
/// [`ConfigError::Usage`] for what Go's `flag` package refuses; [`ConfigError::Invalid`] for arguments that are no
/// flags, as etcd's `main` refuses them.
pub(super) fn read(args: &[String]) -> Result<CommandLine, ConfigError> {
    if let Some(command @ ("gateway" | "grpc-proxy")) = args.first().map(String::as_str) {
        return Err(ConfigError::invalid(
            format!("the subcommand {command:?} is not part of basalt"),
            "run the genuine etcd program for it; its proxies work in front of basalt too",
        ));
    }
    let mut settings = Settings::default();
    let mut version = false;
    let mut rest = args.iter();
    while let Some(argument) = rest.next() {
        let Some(body) = flag_body(argument)? else {
            rest.as_slice().first().filter(|_| argument == "--").map_or(Ok(()), |next| Err(positional(next)))?;
            if argument == "--" {
                break;
            }
            return Err(positional(argument));
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        if name == "version" {
            version = parse_version(value)?;
            continue;
        }
        let Some(flag) = Flag::find(name) else {
            if matches!(name, "h" | "help") {
                return Ok(CommandLine::Help);
            }
            return Err(ConfigError::usage(format!("flag provided but not defined: -{name}"), SEE_HELP));
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool | Kind::Unread) => "true",
            (None, _) => rest.next().ok_or_else(|| {
                ConfigError::usage(format!("flag needs an argument: -{name}"), format!("write --{name}=<value>"))
            })?,
        };
        settings
            .set(flag, value, Origin::Flag(name.to_owned()))
            .map_err(|why| ConfigError::usage(format!("invalid value {value:?} for flag -{name}: {why}"), SEE_HELP))?;
    }
    Ok(if version { CommandLine::Version } else { CommandLine::Run(settings) })
}

/// What stands behind the dashes of a flag; `None` if the argument is none.
fn flag_body(argument: &str) -> Result<Option<&str>, ConfigError> {
    let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else { return Ok(None) };
    let body = body.strip_prefix('-').unwrap_or(body);
    match body.as_bytes().first() {
        None => Ok(None),
        Some(b'-' | b'=') => Err(ConfigError::usage(format!("bad flag syntax: {argument}"), SEE_HELP)),
        Some(_) => Ok(Some(body)),
    }
}

fn parse_version(value: Option<&str>) -> Result<bool, ConfigError> {
    let value = value.unwrap_or("true");
    super::value::parse_bool(value)
        .ok_or_else(|| ConfigError::usage(format!("invalid boolean value {value:?} for -version"), SEE_HELP))
}

fn positional(argument: &str) -> ConfigError {
    ConfigError::invalid(
        format!("{argument:?} is not a valid flag"),
        "basalt takes no subcommand: start it with flags only, as etcd, and see 'basalt --help'",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(line: &str) -> Result<CommandLine, ConfigError> {
        read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn settings(line: &str) -> Settings {
        match read_words(line) {
            Ok(CommandLine::Run(settings)) => settings,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn go_flag_syntax() {
        for line in ["--name a", "--name=a", "-name a", "-name=a", "--name b --name a", "--name=a --"] {
            assert_eq!(settings(line).text("name"), "a", "{line}");
        }
        assert!(settings("--client-cert-auth").bool("client-cert-auth"));
        assert!(!settings("--pre-vote=false").bool("pre-vote"));
        assert_eq!(settings("--name=").text("name"), "");
        assert_eq!(settings("--name --pre-vote").text("name"), "--pre-vote");
        assert_eq!(settings("--initial-cluster a=http://b:1").text("initial-cluster"), "a=http://b:1");
        let unread = settings("-v --vv=3 --snapshot --test.coverprofile=a -force=no");
        assert_eq!(unread.names().count(), 5);
    }

    #[test]
    fn help_and_version() {
        for line in ["--help", "-h", "-help", "--name a --help --nope"] {
            assert!(matches!(read_words(line), Ok(CommandLine::Help)), "{line}");
        }
        for line in ["--version", "-version=true --name a"] {
            assert!(matches!(read_words(line), Ok(CommandLine::Version)), "{line}");
        }
        assert!(matches!(read_words("--version=false"), Ok(CommandLine::Run(_))));
    }

    #[test]
    fn refusals() {
        for (line, code, part) in [
            ("--nope", 2, "flag provided but not defined: -nope"),
            ("--nope --help", 2, "not defined: -nope"),
            ("--name", 2, "flag needs an argument: -name"),
            ("---name a", 2, "bad flag syntax: ---name"),
            ("--=a", 2, "bad flag syntax: --=a"),
            ("--snapshot-count=x", 2, "invalid value \"x\" for flag -snapshot-count"),
            ("--pre-vote=maybe", 2, "for flag -pre-vote"),
            ("--initial-cluster-state=maybe", 2, "it is not one of new, existing"),
            ("--feature-gates=Nope=true", 2, "unrecognized feature gate: Nope"),
            ("--listen-client-urls localhost:2379", 2, "URL scheme must be http"),
            ("server", 1, "\"server\" is not a valid flag"),
            ("-v 2", 1, "\"2\" is not a valid flag"),
            ("--pre-vote false", 1, "\"false\" is not a valid flag"),
            ("-- x", 1, "\"x\" is not a valid flag"),
            ("-", 1, "\"-\" is not a valid flag"),
            ("gateway start", 1, "genuine etcd"),
            ("grpc-proxy", 1, "genuine etcd"),
        ] {
            let error = read_words(line).expect_err(line);
            assert_eq!(error.exit_code(), code, "{line}");
            assert!(error.to_string().contains(part), "{line}: {error}");
            assert!(!error.to_string().contains('\n'), "{line}");
        }
    }
}
