//! The command lines of what is asked of a cluster.

use std::path::PathBuf;
use std::time::Duration;

use super::cluster::{ClusterOptions, Format, MemberCommand, ReseedOptions, User};
use super::command_line::{Command, Given, UsageError, switch};

/// `status`
pub(super) fn status(flags: Vec<Given>) -> Result<Command, UsageError> {
    let (options, rest) = cluster(flags)?;
    nothing_else("status", &rest)?;
    Ok(Command::ClusterStatus(options))
}

/// `member ...`
pub(super) fn member(words: &[&str], flags: Vec<Given>) -> Result<Command, UsageError> {
    let (options, rest) = cluster(flags)?;
    let (mut peer_urls, mut learner) = (Vec::new(), false);
    for Given { name, value } in rest {
        match (name.as_str(), words.first().copied()) {
            ("peer-urls", Some("add" | "replace")) => peer_urls = list(&value.unwrap_or_default()),
            ("learner", Some("add")) => learner = switch(&name, value.as_deref())?,
            (_, command) => {
                return Err(UsageError(format!("member {} has no flag --{name}", command.unwrap_or_default())));
            }
        }
    }
    let needs_urls = matches!(words.first(), Some(&("add" | "replace")));
    if needs_urls && peer_urls.is_empty() {
        return Err(UsageError(format!("member {} needs --peer-urls", words[0])));
    }
    let command = match words {
        ["list"] => MemberCommand::List,
        ["add", name] => MemberCommand::Add { name: (*name).to_owned(), peer_urls, learner },
        ["remove", id] => MemberCommand::Remove { id: member_id(id)? },
        ["promote", id] => MemberCommand::Promote { id: member_id(id)? },
        ["replace", id, name] => MemberCommand::Replace { id: member_id(id)?, name: (*name).to_owned(), peer_urls },
        [command @ ("list" | "add" | "remove" | "promote" | "replace"), ..] => {
            return Err(UsageError(format!("member {command} has other arguments: see 'basaltctl member --help'")));
        }
        other => return Err(UsageError(format!("unknown command {:?}", format!("member {}", other.join(" "))))),
    };
    Ok(Command::Member(command, options))
}

/// `reseed`
pub(super) fn reseed(flags: Vec<Given>) -> Result<Command, UsageError> {
    let (cluster, rest) = cluster(flags)?;
    let (mut data_dir, mut options) = (None, (None, None, true));
    for Given { name, value } in rest {
        let text = || value.clone().unwrap_or_default();
        match name.as_str() {
            "data-dir" => data_dir = Some(text()).filter(|path| !path.is_empty()).map(PathBuf::from),
            "wal-dir" => options.0 = Some(text()).filter(|path| !path.is_empty()).map(PathBuf::from),
            "member" => options.1 = Some(member_id(&text())?),
            "no-wait" => options.2 = !switch(&name, value.as_deref())?,
            _ => return Err(UsageError(format!("reseed has no flag --{name}"))),
        }
    }
    let data_dir = data_dir.ok_or_else(|| UsageError("reseed needs --data-dir".to_owned()))?;
    let (wal_dir, member, waits) = options;
    Ok(Command::Reseed(ReseedOptions { data_dir, wal_dir, member, waits }, cluster))
}

/// The flags that say which cluster, and all others.
fn cluster(flags: Vec<Given>) -> Result<(ClusterOptions, Vec<Given>), UsageError> {
    let (mut options, mut rest) = (ClusterOptions::default(), Vec::new());
    for given in flags {
        let text = given.value.clone().unwrap_or_default();
        let path = || Some(text.clone()).filter(|path| !path.is_empty()).map(PathBuf::from);
        match given.name.as_str() {
            "endpoints" => options.endpoints = list(&text),
            "cacert" => options.ca_file = path(),
            "cert" => options.cert_file = path(),
            "key" => options.key_file = path(),
            "user" => options.user = Some(user(&text, options.user.take())),
            "password" => {
                let mut user = options.user.take().unwrap_or_else(nobody);
                user.password = text.clone();
                options.user = Some(user);
            }
            "w" | "write-out" => options.format = format(&text)?,
            "command-timeout" => options.command_timeout = seconds(&given.name, &text)?,
            "wait-timeout" => options.wait_timeout = seconds(&given.name, &text)?,
            _ => rest.push(given),
        }
    }
    if options.endpoints.is_empty() {
        return Err(UsageError("--endpoints names nobody".to_owned()));
    }
    if options.user.as_ref().is_some_and(|user| user.name.is_empty() || user.password.is_empty()) {
        return Err(UsageError("--user needs a password: --user NAME:PASSWORD, or --password beside it".to_owned()));
    }
    if options.cert_file.is_some() != options.key_file.is_some() {
        return Err(UsageError("--cert and --key belong together".to_owned()));
    }
    Ok((options, rest))
}

fn nobody() -> User {
    User { name: String::new(), password: String::new() }
}

/// `NAME:PASSWORD` as etcdctl has it, or a name whose password another flag gave.
fn user(text: &str, before: Option<User>) -> User {
    match text.split_once(':') {
        Some((name, password)) => User { name: name.to_owned(), password: password.to_owned() },
        None => User { name: text.to_owned(), ..before.unwrap_or_else(nobody) },
    }
}

fn nothing_else(command: &str, flags: &[Given]) -> Result<(), UsageError> {
    flags.first().map_or(Ok(()), |flag| Err(UsageError(format!("{command} has no flag --{}", flag.name))))
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn format(text: &str) -> Result<Format, UsageError> {
    match text {
        "simple" => Ok(Format::Simple),
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        other => Err(UsageError(format!("invalid value {other:?} for --write-out: use simple, table or json"))),
    }
}

/// Whole seconds, with or without etcdctl's `s`.
fn seconds(name: &str, text: &str) -> Result<Duration, UsageError> {
    let number = text.strip_suffix('s').unwrap_or(text).parse().ok().filter(|seconds| *seconds > 0);
    number
        .map(Duration::from_secs)
        .ok_or_else(|| UsageError(format!("invalid value {text:?} for --{name}: use seconds")))
}

fn member_id(text: &str) -> Result<u64, UsageError> {
    u64::from_str_radix(text, 16).map_err(|_| {
        UsageError(format!("bad member ID {text:?}: use the hexadecimal digits of `basaltctl member list`"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::command_line::read;
    use super::*;

    fn words(line: &str) -> Result<Command, UsageError> {
        read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn commands() {
        let peer_urls = vec!["http://a:1".to_owned(), "http://a:2".to_owned()];
        let defaults = ClusterOptions::default;
        assert_eq!(words("status"), Ok(Command::ClusterStatus(defaults())));
        let options = ClusterOptions {
            endpoints: vec!["a:1".to_owned(), "https://b:2".to_owned()],
            format: Format::Json,
            command_timeout: Duration::from_secs(7),
            ..defaults()
        };
        let line = "member list --endpoints=a:1,https://b:2 -w json --command-timeout 7s";
        assert_eq!(words(line), Ok(Command::Member(MemberCommand::List, options)));
        let add = MemberCommand::Add { name: "m".to_owned(), peer_urls: peer_urls.clone(), learner: true };
        assert_eq!(
            words("member add m --learner --peer-urls http://a:1,http://a:2"),
            Ok(Command::Member(add, defaults()))
        );
        let replace = MemberCommand::Replace { id: 0xab, name: "m".to_owned(), peer_urls };
        let line = "member replace ab m --peer-urls=http://a:1,http://a:2";
        assert_eq!(words(line), Ok(Command::Member(replace, defaults())));
        let reseed =
            ReseedOptions { data_dir: "d".into(), wal_dir: Some("w".into()), member: Some(0xab), waits: false };
        let line = "reseed --data-dir d --wal-dir w --member ab --no-wait";
        assert_eq!(words(line), Ok(Command::Reseed(reseed, defaults())));
    }

    #[test]
    fn refusals() {
        for (line, part) in [
            ("status --learner", "status has no flag --learner"),
            ("status --endpoints ,", "--endpoints names nobody"),
            ("status --cert a", "--cert and --key belong together"),
            ("status -w xml", "use simple, table or json"),
            ("status --command-timeout 0", "use seconds"),
            ("member", "unknown command \"member \""),
            ("member drop", "unknown command \"member drop\""),
            ("member add m", "member add needs --peer-urls"),
            ("member remove", "member remove has other arguments"),
            ("member remove x7", "bad member ID \"x7\""),
            ("member list --learner", "member list has no flag --learner"),
            ("reseed", "reseed needs --data-dir"),
            ("reseed --data-dir d --learner", "reseed has no flag --learner"),
        ] {
            let error = words(line).expect_err(line).to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
